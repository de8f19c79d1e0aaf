/* embed: rows of every type in their lanes, exactly, on every tier. */
#include <string.h>

#include "kernels/common/half.h"
#include "credence/kernels/dequant.h"
#include "credence/kernels/embed.h"
#include "tests/support/kernel_test.h"

static const int served[] = {CR_Q_F32,  CR_Q_F16,  CR_Q_BF16, CR_Q_Q4_0, CR_Q_Q4_1, CR_Q_Q5_0,   CR_Q_Q5_1,  CR_Q_Q8_0,
                             CR_Q_Q2_K, CR_Q_Q3_K, CR_Q_Q4_K, CR_Q_Q5_K, CR_Q_Q6_K, CR_Q_IQ4_NL, CR_Q_IQ4_XS};

START_TEST(rows)
{
    enum { N = 37, K = 512, BLOCKS = 3 };
    int type = served[_i];
    const struct cr_qtype_info *info = cr_qtype_info(type);
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_rng rng = cr_rng_make(800 + (uint64_t)_i);
    size_t row_bytes = K / info->block_values * info->block_bytes;
    unsigned char *table = cr_guard_alloc(N * row_bytes, 2, CR_AT_END);
    cr_fill_bytes(&rng, table, N * row_bytes);
    cr_guard_protect(table, true);
    int32_t *ids = cr_guard_alloc(BLOCKS * 16 * sizeof *ids, 4, CR_AT_END);
    for (size_t i = 0; i < BLOCKS * 16; i++) {
        ids[i] = i == 0 ? 0 : i == 1 ? N - 1 : (int32_t)cr_rng_below(&rng, N);
    }
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_embed_ops ops;
        cr_embed_ops_init(&ops, tiers[t]);
        size_t stride = K * 16 + 16;
        float *x = cr_guard_alloc((BLOCKS * stride - 16) * 4, 64, CR_AT_END);
        float *scratch = cr_guard_alloc(K * 4, 64, CR_AT_END);
        struct cr_embed_args args = {{table, row_bytes, N, K, type}, ids, x, stride};
        ops.rows(&args, 1, BLOCKS, scratch);
        ck_assert_uint_eq(cr_f32_bits(x[0]), 0xffffffffu); /* outside the range: untouched */
        ops.rows(&args, 0, 1, scratch);
        for (size_t i = 0; i < BLOCKS * 16; i++) {
            float want[K], got[K];
            cr_dequant_fn_for(type, CR_TIER_SCALAR)(table + (size_t)ids[i] * row_bytes, 0, K, want);
            for (size_t k = 0; k < K; k++) {
                got[k] = x[i / 16 * stride + cr_tl16_f32(k, i % 16)];
            }
            cr_expect_same(info->name, got, want, K);
        }
        cr_guard_free(x);
        cr_guard_free(scratch);
    }
    cr_guard_free_all();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("embed");
    TCase *tc = tcase_create("embed");
    tcase_add_loop_test(tc, rows, 0, sizeof served / sizeof served[0]);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
