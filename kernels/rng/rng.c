/* rng: one Philox block, uniform numbers and permutations in plain integer arithmetic; the variant of each tier. */
#include "credence/kernels/rng.h"

#include "kernels/common/tiers.h"
#include "kernels/rng/philox_lanes.h"

CR_TIER_OPS_INIT(rng)

void cr_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < CR_PHILOX_ROUNDS; round++) {
        uint64_t p0 = (uint64_t)c0 * CR_PHILOX_M0;
        uint64_t p1 = (uint64_t)c2 * CR_PHILOX_M1;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += CR_PHILOX_W0;
        k1 += CR_PHILOX_W1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void cr_uniform_f32(const uint32_t key[2], float low, float high, float *out, size_t n)
{
    double span = (double)high - (double)low;
    for (size_t i = 0; i < n; i += 4) {
        uint32_t counter[4] = {(uint32_t)(i / 4), 0, 0, 0};
        uint32_t word[4];
        cr_philox4x32(counter, key, word);
        for (size_t j = 0; j < 4 && i + j < n; j++) {
            out[i + j] = (float)((double)low + span * (((double)(word[j] >> 8) + 0.5) * 0x1p-24));
        }
    }
}

/* A stream of words for one permutation; its counters never meet those of cr_uniform_f32 (last word not 0). */
struct words {
    const uint32_t *key;
    uint32_t counter[4];
    uint32_t block[4];
    unsigned used;
};

static uint32_t next_word(struct words *w)
{
    if (w->used == 4) {
        cr_philox4x32(w->counter, w->key, w->block);
        w->counter[1] += ++w->counter[0] == 0;
        w->used = 0;
    }
    return w->block[w->used++];
}

/* Unbiased number below `bound` (Lemire 2019, algorithm 5): the high half of a product, with the few low halves
 * that would be over-represented drawn again. */
static uint32_t below(struct words *w, uint32_t bound)
{
    uint64_t product = (uint64_t)next_word(w) * bound;
    if ((uint32_t)product < bound) {
        uint32_t surplus = (0u - bound) % bound;
        while ((uint32_t)product < surplus) {
            product = (uint64_t)next_word(w) * bound;
        }
    }
    return (uint32_t)(product >> 32);
}

void cr_permutation(const uint32_t key[2], uint32_t epoch, uint32_t *out, size_t n)
{
    struct words w = {.key = key, .counter = {0, 0, epoch, 0x7065726du /* "perm" */}, .used = 4};
    for (size_t i = 0; i < n; i++) {
        out[i] = (uint32_t)i;
    }
    for (size_t i = n; i > 1; i--) {
        size_t j = below(&w, (uint32_t)i);
        uint32_t kept = out[i - 1];
        out[i - 1] = out[j];
        out[j] = kept;
    }
}
