/* Block encoders against the decoders: every type within the error its levels allow, edges, and hand-made blocks. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/io/quantize.h"
#include "tests/support/kernel_test.h"

/* Error bound of one value as a share of `span` (see below), from how the encoder works:
 * level distance d = span/steps, codes rounded to nearest: d/2. The scale as stored is off by at most `scale_error`
 * of itself: half precision 2^-11 (F16 itself has 11 significant bits, BF16 8), and for two-level types the rounding of
 * sub-block scales, half a scale code of `top` codes: then every level moves by up to span * scale_error. Reference
 * encoders with clamped top codes (min(15, ...)) add one more step at the positive end. */
static const struct type_case {
    int type;
    size_t group;       /* values that share a scale; span is taken over the group that sets the coarsest scale */
    size_t super_group; /* values over which scales share a super scale */
    double steps;       /* span / level distance at its coarsest */
    double scale_error;
    bool top_step;
} type_cases[] = {
    {CR_Q_F32, 1, 1, 1e30, 0, false},
    {CR_Q_F16, 1, 1, 1024, 0, false},
    {CR_Q_BF16, 1, 1, 128, 0, false},
    {CR_Q_Q8_0, 32, 32, 127, 0x1p-11, false},
    {CR_Q_Q4_0, 32, 32, 8, 0x1p-11, true},
    {CR_Q_Q5_0, 32, 32, 16, 0x1p-11, true},
    {CR_Q_Q4_1, 32, 32, 15 / 2.0, 0x1p-10, false},
    {CR_Q_Q5_1, 32, 32, 31 / 2.0, 0x1p-10, false},
    {CR_Q_IQ4_NL, 32, 32, 127 / 24.0, 0x1p-11, true},
    {CR_Q_IQ4_XS, 32, 256, 127 / 24.0, 0.5 / 31 + 0x1p-10, true},
    {CR_Q_Q6_K, 16, 256, 32, 0.5 / 127 + 0x1p-10, true},
    {CR_Q_Q5_K, 32, 256, 31 / 2.0, 2 * (0.5 / 63 + 0x1p-10), false},
    {CR_Q_Q4_K, 32, 256, 15 / 2.0, 2 * (0.5 / 63 + 0x1p-10), false},
    {CR_Q_Q3_K, 16, 256, 4, 0.5 / 31 + 0x1p-10, true},
    {CR_Q_Q2_K, 16, 256, 3 / 2.0, 2 * (0.5 / 15 + 0x1p-10), false},
};

enum { N_TYPES = sizeof type_cases / sizeof type_cases[0], N_VALUES = 1024 };

START_TEST(within_half_a_level)
{
    const struct type_case *c = &type_cases[_i];
    const struct cr_qtype_info *info = cr_qtype_info(c->type);
    struct cr_rng rng = cr_rng_make((uint64_t)c->type);
    cr_dequant_fn *decode = cr_dequant_fn_for(c->type, CR_TIER_SCALAR);
    ck_assert_ptr_nonnull(decode);
    for (int round = 0; round < 20; round++) {
        float x[N_VALUES], y[N_VALUES];
        float size = ldexpf(1.0f, round % 5 * 3); /* scales far from both ends of a half: no subnormals */
        cr_fill_f32(&rng, x, N_VALUES, round % 2 == 0 ? -size : -size / 4, size);
        size_t bytes = N_VALUES / info->block_values * info->block_bytes;
        uint8_t *blocks = cr_guard_alloc(bytes, 1, CR_AT_END);
        ck_assert(cr_quantize_row(c->type, x, N_VALUES, blocks));
        decode(blocks, 0, N_VALUES, y);
        for (size_t i = 0; i < N_VALUES; i++) {
            float span = 0;
            size_t first = i / c->super_group * c->super_group;
            for (size_t j = first; j < first + c->super_group; j++) {
                span = fabsf(x[j]) > span ? fabsf(x[j]) : span;
            }
            double bound = span * ((c->top_step ? 1.0 : 0.5) / c->steps + c->scale_error);
            ck_assert_msg(fabs((double)x[i] - (double)y[i]) <= bound * (1 + 1e-5),
                          "%s value %zu: %g became %g, bound %g", info->name, i, (double)x[i], (double)y[i], bound);
        }
        cr_guard_free(blocks);
    }
}
END_TEST

/* NU-09: a block of zeros decodes to zeros; a constant block survives. */
START_TEST(zeros_and_constants)
{
    const struct type_case *c = &type_cases[_i];
    cr_dequant_fn *decode = cr_dequant_fn_for(c->type, CR_TIER_SCALAR);
    float x[256] = {0}, y[256];
    uint8_t blocks[1024];
    ck_assert(cr_quantize_row(c->type, x, 256, blocks));
    decode(blocks, 0, 256, y);
    for (int i = 0; i < 256; i++) {
        ck_assert(y[i] == 0);
        x[i] = -3.0f;
    }
    ck_assert(cr_quantize_row(c->type, x, 256, blocks));
    decode(blocks, 0, 256, y);
    for (int i = 0; i < 256; i++) { /* the extreme of a group is a level: only the scales' roundings remain */
        ck_assert_msg(fabs((double)y[i] + 3) <= 3 * (c->scale_error + 0x1p-10), "%d: %g", c->type, (double)y[i]);
    }
}
END_TEST

START_TEST(wrong_arguments)
{
    float x[256] = {1};
    uint8_t out[512];
    memset(out, 0x5a, sizeof out);
    ck_assert(!cr_quantize_row(CR_Q_Q4_0, x, 31, out));
    ck_assert(!cr_quantize_row(CR_Q_Q4_K, x, 32, out));
    ck_assert(!cr_quantize_row(4, x, 32, out));
    ck_assert(!cr_quantize_row(-1, x, 32, out));
    ck_assert(!cr_quantize_row(9, x, 32, out));
    for (size_t i = 0; i < sizeof out; i++) {
        ck_assert_int_eq(out[i], 0x5a);
    }
    ck_assert(cr_quantize_row(CR_Q_Q4_0, x, 0, out));
    ck_assert_int_eq(out[0], 0x5a);
}
END_TEST

/* By hand from the formulas: -8...7 in steps of one quarter has d = -8/4/-8 = 0.25 and codes 0...15. */
START_TEST(known_blocks)
{
    float x[32];
    uint8_t out[64];
    for (int i = 0; i < 32; i++) {
        x[i] = (float)(i % 16 - 8) * 0.25f;
    }
    ck_assert(cr_quantize_row(CR_Q_Q4_0, x, 32, out));
    ck_assert_int_eq(out[0] | out[1] << 8, 0x3400); /* 0.25 */
    for (int i = 0; i < 16; i++) {
        ck_assert_int_eq(out[2 + i], i | i << 4);
    }
    ck_assert(cr_quantize_row(CR_Q_Q4_1, x, 32, out)); /* d = 15/4/15, m = -2 */
    ck_assert_int_eq(out[0] | out[1] << 8, 0x3400);
    ck_assert_int_eq(out[2] | out[3] << 8, 0xc000);
    ck_assert_int_eq(out[4 + 15], 0xff);
    for (int i = 0; i < 32; i++) {
        x[i] = (float)(i - 16) * 0.5f;
    }
    ck_assert(cr_quantize_row(CR_Q_Q5_0, x, 32, out)); /* d = 0.5, codes 0...31 */
    ck_assert_int_eq(out[0] | out[1] << 8, 0x3800);
    ck_assert(memcmp(out + 2, "\0\0\xff\xff", 4) == 0); /* the fifth bit of elements 16 and up */
    for (int i = 0; i < 16; i++) {
        ck_assert_int_eq(out[6 + i], i | i << 4);
    }
    ck_assert(cr_quantize_row(CR_Q_Q5_1, x, 32, out));
    ck_assert(memcmp(out, "\0\x38\0\xc8\0\0\xff\xff\0\x11", 10) == 0); /* 0.5, -8, high bits, codes 0 and 1 twice */
    x[0] = -127.0f;
    x[1] = 2.5f; /* halves away from zero */
    x[2] = -2.5f;
    ck_assert(cr_quantize_row(CR_Q_Q8_0, x, 32, out));
    ck_assert_int_eq(out[0] | out[1] << 8, 0x3c00);
    ck_assert_int_eq((int8_t)out[2], -127);
    ck_assert_int_eq((int8_t)out[3], 3);
    ck_assert_int_eq((int8_t)out[4], -3);
    static const float specials[4] = {INFINITY, -0.0f, 65504.0f, 1e-8f};
    ck_assert(cr_quantize_row(CR_Q_F16, specials, 4, out));
    ck_assert(memcmp(out, "\0\x7c\0\x80\xff\x7b\0\0", 8) == 0);
    ck_assert(cr_quantize_row(CR_Q_BF16, specials, 4, out));
    ck_assert(memcmp(out, "\x80\x7f\0\x80\x80\x47", 6) == 0); /* 65504 rounds up to 65536 */
}
END_TEST

/* NaN and infinity in: unspecified codes, but the same bytes every time and no trap. */
START_TEST(not_finite)
{
    const struct type_case *c = &type_cases[_i];
    const struct cr_qtype_info *info = cr_qtype_info(c->type);
    float x[256];
    uint8_t first[1024], second[1024];
    static const float bad[3] = {NAN, INFINITY, -INFINITY};
    for (int kind = 0; kind < 3; kind++) {
        for (int at = 0; at < 256; at += 85) {
            for (int i = 0; i < 256; i++) {
                x[i] = (float)i / 256;
            }
            x[at] = bad[kind];
            ck_assert(cr_quantize_row(c->type, x, 256, first));
            ck_assert(cr_quantize_row(c->type, x, 256, second));
            ck_assert(memcmp(first, second, 256 / info->block_values * info->block_bytes) == 0);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("quantize");
    TCase *tcase = tcase_create("quantize");
    tcase_add_loop_test(tcase, within_half_a_level, 0, N_TYPES);
    tcase_add_loop_test(tcase, zeros_and_constants, 0, N_TYPES);
    tcase_add_loop_test(tcase, not_finite, 0, N_TYPES);
    tcase_add_test(tcase, wrong_arguments);
    tcase_add_test(tcase, known_blocks);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
