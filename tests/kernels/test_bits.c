/* Bits that are the same on every processor: digests of weights, random words and normals, the same constants for x86
 * and Arm, every tier. The constants are those of the reference on x86-64 (gcc 12); a new one is in the message. */
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "credence/kernels/rng.h"
#include "kernels/common/half.h"
#include "tests/support/kernel_test.h"

/* FNV-1a over words (Fowler, Noll, Vo). */
static uint64_t digest(uint64_t hash, const void *words, size_t n)
{
    const unsigned char *p = words;
    for (size_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, p + 4 * i, 4);
        hash = (hash ^ word) * 0x100000001b3u;
    }
    return hash;
}

static const uint64_t START = 0xcbf29ce484222325u;

static void expect(const char *what, enum cr_tier tier, uint64_t got, uint64_t want)
{
    ck_assert_msg(got == want, "%s on %s: digest 0x%016llx, expected 0x%016llx", what, cr_tier_name(tier),
                  (unsigned long long)got, (unsigned long long)want);
}

/* ---- weights ---- */

/* Where the halves of a block lie; `second` only where there are two. */
static const struct {
    int type;
    size_t first, second;
    uint64_t want;
} kinds[] = {
    {CR_Q_F16, 0, 0, 0x2efbf803f5c22325},    {CR_Q_Q4_0, 0, 0, 0xe7ba04cbd7d53f25},
    {CR_Q_Q4_1, 0, 2, 0x1c653b3856dfc3fb},   {CR_Q_Q5_0, 0, 0, 0x60ab2ff9a609f725},
    {CR_Q_Q5_1, 0, 2, 0x9b2ec8c258dcc21e},   {CR_Q_Q8_0, 0, 0, 0x1f7332cb2ed72365},
    {CR_Q_IQ4_NL, 0, 0, 0x2aa5c02f52be1125}, {CR_Q_Q2_K, 80, 82, 0x356f0f3c3d2f92c6},
    {CR_Q_Q3_K, 108, 0, 0xc496cc5e27178f25}, {CR_Q_Q4_K, 0, 2, 0x31a68afd2bd8afd6},
    {CR_Q_Q5_K, 0, 2, 0xe18559c6382c38fe},   {CR_Q_Q6_K, 208, 0, 0x4e779ffbf139f8e7},
    {CR_Q_IQ4_XS, 0, 0, 0x87610c54edae6d65},
};
enum { N_KINDS = sizeof kinds / sizeof kinds[0], N_FINITE = 63488, FINITE = 0x7c00 };

/* The i-th of all finite halves. */
static uint16_t half_at(size_t i)
{
    return (uint16_t)(i % FINITE | (i / FINITE % 2) << 15);
}

/* Every finite half as the scale of a block of random codes; one in eight for the large blocks. */
START_TEST(weights)
{
    const struct cr_qtype_info *info = cr_qtype_info(kinds[_i].type);
    size_t every = info->block_values == 256 ? 8 : 1, n = N_FINITE / every;
    size_t n_blocks = info->block_values == 1 ? 32 : 1, group = info->block_bytes * n_blocks;
    unsigned char *data = malloc(n * group);
    struct cr_rng rng = cr_rng_make(1000);
    rng.state = 0x9e3779b97f4a7c15u * (uint64_t)(_i + 1); /* whatever CREDENCE_TEST_SEED says */
    cr_fill_bytes(&rng, data, n * group);
    for (size_t i = 0; i < n; i++) {
        for (size_t b = 0; b < n_blocks; b++) {
            unsigned char *block = data + i * group + b * info->block_bytes;
            uint16_t first = half_at(i * every + (size_t)_i % every + b), second = half_at((i * 40503 + 77) % N_FINITE);
            memcpy(block + kinds[_i].first, &first, 2);
            if (kinds[_i].second != 0) {
                memcpy(block + kinds[_i].second, &second, 2);
            }
        }
    }
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), n_values = info->block_values * n_blocks;
    for (size_t t = 0; t < n_tiers; t++) {
        cr_dequant_fn *fn = cr_dequant_fn_for(kinds[_i].type, tiers[t]);
        uint64_t hash = START;
        for (size_t i = 0; i < n; i++) {
            float out[256];
            fn(data + i * group, 0, n_values, out);
            hash = digest(hash, out, n_values);
        }
        expect(info->name, tiers[t], hash, kinds[_i].want);
    }
    free(data);
}
END_TEST

/* ---- random numbers ---- */

enum { N_DRAWS = 200000, FIRST = 12345 };

START_TEST(draws)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_noise noise = {{0x243f6a88, 0x85a308d3}, 5, 6, 7};
    uint32_t *words = calloc(FIRST + N_DRAWS, sizeof *words);
    float *normals = calloc(FIRST + N_DRAWS, sizeof *normals);
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_rng_ops ops;
        ck_assert_int_eq(cr_rng_ops_init(&ops, tiers[t]), CR_OK);
        ops.words(&noise, words, FIRST, FIRST + N_DRAWS);
        expect("words", tiers[t], digest(START, words + FIRST, N_DRAWS), 0xb70a6d7f923a2145);
        ops.normals(&noise, normals, FIRST, FIRST + N_DRAWS);
        expect("normals", tiers[t], digest(START, normals + FIRST, N_DRAWS), 0x2dafa5b83f9948d5);
    }
    free(words);
    free(normals);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bits");
    TCase *tc = tcase_create("bits");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, weights, 0, N_KINDS);
    tcase_add_test(tc, draws);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
