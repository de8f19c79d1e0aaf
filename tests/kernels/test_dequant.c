/* dequant: every served type against the golden blocks, every tier against the reference bit for bit. */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "kernels/common/half.h"
#include "kernels/common/halves.h"
#include "tests/support/golden.h"
#include "tests/support/halves_test.h"
#include "tests/support/kernel_test.h"

static const int served[] = {CR_Q_F32,  CR_Q_F16,  CR_Q_BF16, CR_Q_Q4_0, CR_Q_Q4_1, CR_Q_Q5_0,   CR_Q_Q5_1,  CR_Q_Q8_0,
                             CR_Q_Q2_K, CR_Q_Q3_K, CR_Q_Q4_K, CR_Q_Q5_K, CR_Q_Q6_K, CR_Q_IQ4_NL, CR_Q_IQ4_XS};
enum { N_SERVED = sizeof served / sizeof served[0] };

static unsigned hex_digit(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a') + 10;
}

START_TEST(golden)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), n_compared = 0;
    json_t *root = cr_golden_load("gguf_blocks.json");
    size_t index;
    json_t *entry;
    json_array_foreach(root, index, entry)
    {
        int type = (int)json_integer_value(json_object_get(entry, "ggml_type"));
        const char *hex = json_string_value(json_object_get(entry, "hex"));
        json_t *values = json_object_get(entry, "values");
        const struct cr_qtype_info *info = cr_qtype_info(type);
        ck_assert_str_eq(info->name, json_string_value(json_object_get(entry, "type")));
        ck_assert_uint_eq(info->block_values, json_integer_value(json_object_get(entry, "block_values")));
        ck_assert_uint_eq(info->block_bytes, json_integer_value(json_object_get(entry, "block_bytes")));
        if (!info->computes) {
            continue;
        }
        ck_assert_uint_eq(strlen(hex), 2 * info->block_bytes);
        unsigned char *block = cr_guard_alloc(info->block_bytes, 2, CR_AT_END);
        for (size_t i = 0; i < info->block_bytes; i++) {
            block[i] = (unsigned char)(hex_digit(hex[2 * i]) << 4 | hex_digit(hex[2 * i + 1]));
        }
        for (size_t t = 0; t < n_tiers; t++) {
            float out[256];
            cr_dequant_fn_for(type, tiers[t])(block, 0, info->block_values, out);
            double want[256], bound[256];
            for (size_t i = 0; i < info->block_values; i++) {
                want[i] = json_real_value(json_array_get(values, i));
                bound[i] = fabs(want[i]) * (0x1p-24 + 5e-9); /* one rounding here, nine digits in the file */
            }
            cr_expect_within(info->name, out, want, bound, info->block_values);
        }
        cr_guard_free(block);
        n_compared++;
    }
    json_decref(root);
    ck_assert_uint_eq(n_compared, 24); /* two blocks each of twelve quantised types */
}
END_TEST

/* Scales as seen in files, and every special half among them. */
static uint16_t scale_bits(struct cr_rng *rng)
{
    static const uint16_t special[] = {0, 0x8000, 1, 0x8001, 0x3ff, 0x400, 0x7bff, 0xfbff, 0x7c00, 0x7e01};
    if (cr_rng_below(rng, 4) == 0) {
        return special[cr_rng_below(rng, sizeof special / sizeof special[0])];
    }
    return cr_f32_to_f16(cr_rng_uniform(rng, -1, 1));
}

START_TEST(tiers_equal_reference)
{
    int type = served[_i];
    const struct cr_qtype_info *info = cr_qtype_info(type);
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_rng rng = cr_rng_make(100 + (uint64_t)type);
    enum { N = 2048 };
    size_t n_blocks = N / info->block_values, bytes = n_blocks * info->block_bytes;
    unsigned char *rows[2] = {cr_guard_alloc(bytes, 2, CR_AT_START), cr_guard_alloc(bytes, 2, CR_AT_END)};
    float *outs[2] = {cr_guard_alloc(N * 4, 64, CR_AT_START), cr_guard_alloc(N * 4, 64, CR_AT_END)};
    float want[N];
    for (int round = 0; round < 64; round++) {
        unsigned char *row = rows[round & 1];
        cr_fill_bytes(&rng, row, bytes);
        for (size_t b = 0; b < n_blocks && info->block_values > 1; b++) {
            uint16_t halves[2] = {scale_bits(&rng), scale_bits(&rng)};
            cr_put_halves(type, row + b * info->block_bytes, halves);
        }
        cr_dequant_fn_for(type, CR_TIER_SCALAR)(row, 0, N, want);
        for (size_t t = 0; t < n_tiers; t++) {
            cr_dequant_fn *fn = cr_dequant_fn_for(type, tiers[t]);
            float *out = outs[round & 1];
            cr_poison(out, N * 4);
            fn(row, 0, N, out);
            cr_expect_same(cr_tier_name(tiers[t]), out, want, N);
            size_t first = 32 * cr_rng_below(&rng, N / 32);
            size_t n = 32 * (1 + cr_rng_below(&rng, (uint32_t)((N - first) / 32)));
            float *part = outs[1] + N - n;
            cr_poison(outs[1], N * 4);
            fn(row, first, n, part);
            cr_expect_same("part of a row", part, want + first, n);
            ck_assert_msg(part == outs[1] || cr_f32_bits(part[-1]) == 0xffffffffu, "wrote in front of the output");
        }
    }
    cr_guard_free_all();
}
END_TEST

static bool all_finite(int type, const unsigned char *block, size_t n)
{
    float out[256];
    cr_dequant_fn_for(type, CR_TIER_SCALAR)(block, 0, n, out);
    size_t n_finite = 0;
    for (size_t i = 0; i < n; i++) {
        n_finite += isfinite(out[i]) != 0;
    }
    return n_finite == n;
}

/* cr_qtype_halves knows all halves of a block and nothing else: when they are finite so is every value, whatever the
 * other bytes (one that it missed would be random, one in 32 of those is not finite), and a NaN in any of them shows.
 */
START_TEST(places_of_halves)
{
    const struct cr_qtype_info *info = cr_qtype_info(served[_i]);
    const struct cr_qtype_halves halves = cr_qtype_halves(served[_i]);
    const uint16_t nan = 0x7e01;
    struct cr_rng rng = cr_rng_make(900 + (uint64_t)_i);
    ck_assert_int_eq(halves.n > 0, info->block_values > 1);
    for (int round = 0; round < 2000 && halves.n > 0; round++) {
        unsigned char block[256];
        cr_fill_bytes(&rng, block, info->block_bytes);
        for (unsigned h = 0; h < halves.n; h++) {
            uint16_t half = cr_f32_to_f16(cr_rng_uniform(&rng, -1, 1));
            memcpy(block + halves.at + 2 * h, &half, 2);
        }
        ck_assert(all_finite(served[_i], block, info->block_values));
        unsigned h = (unsigned)round % halves.n;
        memcpy(block + halves.at + 2 * h, &nan, 2);
        ck_assert(!all_finite(served[_i], block, info->block_values));
    }
}
END_TEST

/* All 65536 halves through the one-value types. */
START_TEST(all_halves)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    static uint16_t row[65536];
    static float out[65536];
    for (size_t i = 0; i < 65536; i++) {
        row[i] = (uint16_t)i;
    }
    for (size_t t = 0; t < n_tiers; t++) {
        for (int k = 0; k < 2; k++) {
            cr_dequant_fn_for(k ? CR_Q_BF16 : CR_Q_F16, tiers[t])(row, 0, 65536, out);
            for (size_t i = 0; i < 65536; i++) {
                float want = k ? cr_bf16_to_f32(row[i]) : cr_f16_to_f32(row[i]);
                ck_assert_msg(cr_f32_bits(out[i]) == cr_f32_bits(want) || (isnan(out[i]) && isnan(want)),
                              "%s half %04zx: %g", cr_tier_name(tiers[t]), i, (double)out[i]);
            }
        }
    }
}
END_TEST

START_TEST(table)
{
    ck_assert_ptr_null(cr_qtype_info(-1));
    ck_assert_ptr_null(cr_qtype_info(43));
    ck_assert_ptr_null(cr_qtype_info(1 << 30));
    size_t n_computes = 0;
    for (int type = 0; type <= 42; type++) {
        const struct cr_qtype_info *info = cr_qtype_info(type);
        ck_assert_ptr_nonnull(info);
        ck_assert_int_eq(info->type, type);
        ck_assert_int_eq(info->removed, info->block_bytes == 0);
        ck_assert_int_eq(info->computes, cr_dequant_fn_for(type, CR_TIER_SCALAR) != NULL);
        n_computes += info->computes;
    }
    ck_assert_uint_eq(n_computes, N_SERVED);
    ck_assert(cr_qtype_info(4)->removed && cr_qtype_info(36)->removed);
    ck_assert_ptr_null(cr_dequant_fn_for(1000, CR_TIER_SCALAR));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dequant");
    TCase *tc = tcase_create("dequant");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, table);
    tcase_add_test(tc, golden);
    tcase_add_loop_test(tc, tiers_equal_reference, 0, N_SERVED);
    tcase_add_loop_test(tc, places_of_halves, 0, N_SERVED);
    tcase_add_test(tc, all_halves);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
