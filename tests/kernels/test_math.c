/* math: the f32 exp of every tier against double, the scalar double functions against long double.
 *
 * exp is reached through xent's gradient: with lse 0, weight 1 and no target, dz is exp(z) to the bit.
 * CREDENCE_TEST_LONG=1 walks all 2^32 floats instead of one in 257.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/common/half.h"
#include "credence/kernels/math.h"
#include "credence/kernels/xent.h"
#include "tests/support/tl16_test.h"

enum { ROWS = 256, N = ROWS * CR_LANES };

static float z[N] __attribute__((aligned(64)));
static float want[N] __attribute__((aligned(64))), got[N] __attribute__((aligned(64)));

static void exp_of_tier(enum cr_tier tier, float *out)
{
    static const float zero[CR_LANES] __attribute__((aligned(64)));
    static float one[CR_LANES] __attribute__((aligned(64)));
    static int32_t none[CR_LANES] __attribute__((aligned(64)));
    for (size_t i = 0; i < CR_LANES; i++) {
        one[i] = 1;
        none[i] = -1;
    }
    struct cr_xent_ops ops;
    cr_xent_ops_init(&ops, tier);
    struct cr_xent_args args = {.z = z,
                                .z_stride = N,
                                .n_rows = ROWS,
                                .target = none,
                                .lse = zero,
                                .weight = one,
                                .dz = out,
                                .dz_stride = sizeof z,
                                .dz_type = CR_X_F32};
    ops.grad(&args, 0, 1);
}

/* Distance in units of the spacing of f32 numbers at the exact value (denormal spacing at least). */
static double ulps(float value, double exact)
{
    int e;
    frexp(exact, &e);
    return fabs((double)value - exact) / ldexp(1, e - 24 < -149 ? -149 : e - 24);
}

static double exp_error(float x, float y)
{
    double exact = exp((double)x);
    if (isnan(x)) {
        return isnan(y) ? 0 : INFINITY;
    }
    if (exact >= 0x1.ffffffp127) { /* half-way between the greatest f32 and 2^128: rounds to infinity */
        return isinf(y) || y == 0x1.fffffep127f ? 0 : INFINITY;
    }
    return ulps(y, exact);
}

START_TEST(exp_every_tier)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    const char *text = getenv("CREDENCE_TEST_LONG");
    uint64_t step = text != NULL && text[0] == '1' ? 1 : 257 * cr_test_every(17);
    double worst = 0;
    float worst_at = 0;
    for (uint64_t first = 0; first < (uint64_t)1 << 32; first += N * step) {
        for (size_t i = 0; i < N; i++) {
            z[i] = cr_f32_from_bits((uint32_t)(first + i * step));
        }
        exp_of_tier(CR_TIER_SCALAR, want);
        for (size_t i = 0; i < N; i++) {
            double error = exp_error(z[i], want[i]);
            if (error > worst) {
                worst = error;
                worst_at = z[i];
            }
        }
        for (size_t t = 1; t < n_tiers; t++) {
            exp_of_tier(tiers[t], got);
            cr_expect_same(cr_tier_name(tiers[t]), got, want, N);
        }
    }
    printf("exp: worst error %.3f ulp at %a\n", worst, (double)worst_at);
    ck_assert_msg(worst <= 1, "exp(%a) is %.3f ulp off, at most 1 derived and 2 promised", (double)worst_at, worst);
}
END_TEST

START_TEST(exp_special)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    static const float in[] = {
        0.0f,     -0.0f,    INFINITY,        -INFINITY,        NAN,   0x1p-149f, 88.72283f, 88.73f,
        -103.97f, -103.98f, 0x1.fffffep127f, -0x1.fffffep127f, -87.4f};
    for (size_t t = 0; t < n_tiers; t++) {
        memset(z, 0, sizeof z);
        memcpy(z, in, sizeof in);
        exp_of_tier(tiers[t], got);
        ck_assert(got[0] == 1 && got[1] == 1);
        ck_assert(isinf(got[2]) && got[2] > 0);
        ck_assert(cr_f32_bits(got[3]) == 0);
        ck_assert(isnan(got[4]));
        ck_assert(got[5] == 1);
        ck_assert(isfinite(got[6]) && isinf(got[7]));
        ck_assert(got[8] == 0x1p-149f && got[9] == 0);
        ck_assert(isinf(got[10]) && got[11] == 0);
        ck_assert(got[12] > 0 && got[12] < 0x1p-126f); /* a denormal, not flushed */
    }
}
END_TEST

START_TEST(expf_is_the_same)
{
    struct cr_rng rng = cr_rng_make(3);
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < N; i++) {
            z[i] = i % 2 ? cr_rng_uniform(&rng, -110, 95) : cr_f32_from_bits((uint32_t)cr_rng_next(&rng));
            got[i] = cr_expf(z[i]);
        }
        exp_of_tier(CR_TIER_SCALAR, want);
        cr_expect_same("cr_expf", got, want, N);
    }
}
END_TEST

/* Distance relative to `exact`, or to `floor` where that is greater. */
static double relative(double value, long double exact, double floor)
{
    double size = fabs((double)exact) > floor ? fabs((double)exact) : floor;
    return (double)(fabsl((long double)value - exact) / (long double)size);
}

static double uniform(struct cr_rng *rng, double low, double high)
{
    return low + (high - low) * ((double)(cr_rng_next(rng) >> 11) * 0x1p-53);
}

START_TEST(double_exp_log)
{
    struct cr_rng rng = cr_rng_make(4);
    double worst_exp = 0, worst_log = 0, worst_near = 0;
    for (int i = 0; i < 200000; i += (int)cr_test_every(17)) {
        double x = uniform(&rng, -745, 709.7);
        worst_exp = fmax(worst_exp, relative(cr_exp(x), expl((long double)x), 0x1p-1022));
        double y = ldexp(uniform(&rng, 1, 2), (int)cr_rng_below(&rng, 2097) - 1074);
        worst_log = fmax(worst_log, relative(cr_ln(y), logl((long double)y), 0));
        double near = 1 + uniform(&rng, -1, 1) * ldexp(1, -(int)cr_rng_below(&rng, 52));
        worst_near =
            fmax(worst_near, near == 1 ? fabs(cr_ln(near)) : relative(cr_ln(near), logl((long double)near), 0));
    }
    printf("double: exp %.3g, log %.3g, log near 1 %.3g (relative)\n", worst_exp, worst_log, worst_near);
    ck_assert_double_le(worst_exp, 0x1p-51);
    ck_assert_double_le(worst_log, 0x1p-51);
    ck_assert_double_le(worst_near, 0x1p-51);
    ck_assert(cr_exp(0) == 1 && cr_exp(INFINITY) == INFINITY && cr_exp(-INFINITY) == 0 && isnan(cr_exp(NAN)));
    ck_assert(isinf(cr_exp(709.79)) && isfinite(cr_exp(709.78)) && cr_exp(-746) == 0 && cr_exp(-745) == 0x1p-1074);
    ck_assert(cr_ln(1) == 0 && cr_ln(0) == -INFINITY && cr_ln(INFINITY) == INFINITY);
    ck_assert(isnan(cr_ln(-1)) && isnan(cr_ln(NAN)) && isnan(cr_ln(-INFINITY)));
}
END_TEST

START_TEST(double_sin_cos)
{
    struct cr_rng rng = cr_rng_make(5);
    double worst = 0;
    for (int i = 0; i < 300000; i += (int)cr_test_every(17)) {
        double x = uniform(&rng, -1, 1) * (i % 3 == 0 ? 4 : i % 3 == 1 ? 1e6 : 1e8);
        worst = fmax(worst, (double)fabsl((long double)cr_sin(x) - sinl((long double)x)));
        worst = fmax(worst, (double)fabsl((long double)cr_cos(x) - cosl((long double)x)));
    }
    /* next to the zeros, where the reduction cancels most */
    for (int n = -100000; n <= 100000; n += 7 * (int)cr_test_every(17)) {
        double x = n * 0x1.921fb54442d18p+0;
        worst = fmax(worst, (double)fabsl((long double)cr_sin(x) - sinl((long double)x)));
        worst = fmax(worst, (double)fabsl((long double)cr_cos(x) - cosl((long double)x)));
    }
    printf("double: sin, cos %.3g (absolute)\n", worst);
    ck_assert_double_le(worst, 0x1p-51);
    ck_assert(cr_sin(0) == 0 && cr_cos(0) == 1);
    ck_assert(isnan(cr_sin(1.1e8)) && isnan(cr_cos(INFINITY)) && isnan(cr_sin(NAN)));
}
END_TEST

START_TEST(double_pow)
{
    struct cr_rng rng = cr_rng_make(6);
    double worst = 0;
    for (int i = 0; i < 200000; i += (int)cr_test_every(17)) {
        double base = ldexp(uniform(&rng, 1, 2), (int)cr_rng_below(&rng, 60) - 30);
        double y = uniform(&rng, -1, 1) * (i % 2 ? 1 : 20);
        worst = fmax(worst, relative(cr_pow(base, y), powl((long double)base, (long double)y), 0x1p-1022));
    }
    for (int t = 1; t < 100000; t += 13 * (int)cr_test_every(17)) { /* the decay factors of the optimisers */
        worst = fmax(worst, relative(cr_pow(0.999, t), powl((long double)0.999, t), 0x1p-1022));
    }
    printf("double: pow %.3g (relative)\n", worst);
    ck_assert_double_le(worst, 0x1p-50);
    ck_assert(cr_pow(0, 0) == 1 && cr_pow(2, 10) == 1024 && cr_pow(10000, 0) == 1 && cr_pow(1, NAN) == 1);
    ck_assert(cr_pow(0, 2) == 0 && cr_pow(0, -1) == INFINITY && cr_pow(2, 1e9) == INFINITY && cr_pow(2, -1e9) == 0);
    ck_assert(cr_pow(INFINITY, 2) == INFINITY && cr_pow(INFINITY, -2) == 0);
    ck_assert(cr_pow(0.5, INFINITY) == 0 && cr_pow(0.5, -INFINITY) == INFINITY && cr_pow(2, INFINITY) == INFINITY);
    ck_assert(isnan(cr_pow(-1, 2)) && isnan(cr_pow(NAN, 1)) && isnan(cr_pow(2, NAN)));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("math");
    TCase *tc = tcase_create("math");
    tcase_set_timeout(tc, 3000);
    tcase_add_test(tc, exp_every_tier);
    tcase_add_test(tc, exp_special);
    tcase_add_test(tc, expf_is_the_same);
    tcase_add_test(tc, double_exp_log);
    tcase_add_test(tc, double_sin_cos);
    tcase_add_test(tc, double_pow);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
