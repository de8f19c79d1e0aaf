/* rope: the template of all tiers. The 16 tokens of a block have 16 angles for each pair of features, fetched once for
 * all heads. */
#ifndef CR_ROPE_LANES_H
#define CR_ROPE_LANES_H

#include "kernels/common/lanes.h"
#include "kernels/common/tiers.h"
#include "credence/kernels/rope.h"

/* Pairs whose cosines and sines are fetched before they are used; twice 4 KiB of stack. */
enum { PAIRS = 32 };

/* cosine and sine of the 16 tokens for each of n pairs from `first` on. The table holds them side by side, so tokens
 * are gathered as they lie and then split vector by vector. */
CR_INLINE void fetch(float (*cosine)[CR_LANES], float (*sine)[CR_LANES], const struct cr_rope_args *args,
                     const uint32_t *pos, size_t first, size_t n)
{
    float both[PAIRS][2 * CR_LANES] __attribute__((aligned(64)));
    for (size_t t = 0; t < CR_LANES; t++) {
        const float *row = args->table + (size_t)pos[t] * args->n_rot + 2 * first;
        for (size_t j = 0; j < n; j++) {
            both[j][2 * t] = row[2 * j];
            both[j][2 * t + 1] = row[2 * j + 1];
        }
    }
    uint32_t flip = args->inverse ? 0x80000000u : 0;
    for (size_t j = 0; j < n; j++) {
        for (size_t col = 0; col < CR_LANES; col += LANES_N) {
            lanes low = lanes_load(both[j] + 2 * col), high = lanes_load(both[j] + 2 * col + LANES_N);
            lanes_store(cosine[j] + col, lanes_even(low, high));
            lanes_store(sine[j] + col, lanes_from_bits(lanes_bits(lanes_odd(low, high)) ^ flip));
        }
    }
}

CR_INLINE void rotate(float *a, float *b, lanes c, lanes s)
{
    lanes x = lanes_load(a), y = lanes_load(b);
    lanes_store(a, x * c - y * s);
    lanes_store(b, x * s + y * c);
}

static void apply(const struct cr_rope_args *args, size_t begin, size_t end)
{
    size_t n_pairs = args->n_rot / 2;
    int near = args->style == CR_ROPE_NORM;
    size_t step = (near ? 2 : 1) * CR_LANES;        /* from one pair to the next */
    size_t apart = (near ? 1 : n_pairs) * CR_LANES; /* from a to b */
    size_t head_floats = args->head_dim * CR_LANES;
    float cosine[PAIRS][CR_LANES] __attribute__((aligned(64)));
    float sine[PAIRS][CR_LANES] __attribute__((aligned(64)));
    for (size_t block = begin; block < end; block++) {
        float *x = args->x + block * args->x_stride;
        for (size_t first = 0; first < n_pairs; first += PAIRS) {
            size_t n = n_pairs - first < PAIRS ? n_pairs - first : PAIRS;
            fetch(cosine, sine, args, args->pos + block * CR_LANES, first, n);
            for (size_t head = 0; head < args->n_heads; head++) {
                float *a = x + head * head_floats + first * step;
                for (size_t j = 0; j < n; j++, a += step) {
                    for (size_t col = 0; col < CR_LANES; col += LANES_N) {
                        rotate(a + col, a + apart + col, lanes_load(cosine[j] + col), lanes_load(sine[j] + col));
                    }
                }
            }
        }
    }
}

static void fill(struct cr_rope_ops *ops)
{
    static const struct cr_rope_ops table = {.apply = apply};
    *ops = table;
}

#endif
