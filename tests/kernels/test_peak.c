/* peak: work and time grow with the rounds, the passes over memory are what they say, a tier without a unit says so. */
#include <string.h>
#include <time.h>

#include "credence/kernels/peak.h"
#include "tests/support/kernel_test.h"

/* Processor time of n rounds: the least of five, since what disturbs only adds. */
static double seconds(cr_peak_fn *loop, size_t n)
{
    double least = 1e9;
    for (int i = 0; i < 5; i++) {
        struct timespec before, after;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
        loop(n);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
        double took = (double)(after.tv_sec - before.tv_sec) + 1e-9 * (double)(after.tv_nsec - before.tv_nsec);
        least = took < least ? took : least;
    }
    return least;
}

/* The number returned is n times that of one round, whatever ran; that the rounds run is seen by the clock. From where
 * a call is long beside reading the clock, 64 times the rounds are to take more than 8 times as long. */
static void check_work(const char *name, enum cr_tier tier, cr_peak_fn *loop)
{
    double one = loop(1);
    ck_assert(one > 0);
    ck_assert(loop(0) == 0);
    ck_assert(loop(7) == 7 * one);
    size_t n = 1;
    while (n < (size_t)1 << 20 && seconds(loop, n) < 50e-6) {
        n *= 2;
    }
    double few = seconds(loop, n), many = seconds(loop, 64 * n);
    ck_assert_msg(many > 8 * few && many > 50e-6, "%s %s: %zu rounds in %g s, 64 times as many in %g s", name,
                  cr_tier_name(tier), n, few, many);
}

START_TEST(work)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_peak_ops ops;
        ck_assert_int_eq(cr_peak_ops_init(&ops, tiers[t]), CR_OK);
        check_work("fma", tiers[t], ops.fma);
        check_work("exp", tiers[t], ops.exp);
        check_work("mul", tiers[t], ops.mul);
        bool dot = tiers[t] == CR_TIER_AVX512_BF16 || tiers[t] == CR_TIER_AMX;
        ck_assert_int_eq(ops.dot != NULL, dot);
        ck_assert(ops.tile == NULL || tiers[t] == CR_TIER_AMX);
        if (dot) {
            check_work("dot", tiers[t], ops.dot);
        }
        if (ops.tile != NULL) {
            check_work("tile", tiers[t], ops.tile);
        }
    }
    struct cr_peak_ops ops;
    ck_assert_int_eq(cr_peak_ops_init(NULL, CR_TIER_SCALAR), CR_E_USAGE);
    ck_assert_int_eq(cr_peak_ops_init(&ops, (enum cr_tier)77), CR_E_USAGE);
}
END_TEST

/* Multiples of 1/2 below 8: no rounding, so that the result is one number on every tier. */
START_TEST(passes)
{
    enum { N = 128, APART = 192, ALL = 3 * APART + N };
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_peak_ops ops;
        cr_peak_ops_init(&ops, tiers[t]);
        float *x = cr_guard_alloc(ALL * 4, 64, CR_AT_END), *y = cr_guard_alloc(ALL * 4, 64, CR_AT_END);
        float want[ALL];
        for (int four = 0; four < 2; four++) {
            for (size_t i = 0; i < ALL; i++) {
                x[i] = (float)(i % 7);
                y[i] = (float)(i % 5);
                bool written = four ? i % APART < N : i < N;
                want[i] = written ? 0.5f * y[i] + x[i] : y[i];
            }
            if (four) {
                ops.triad4(y, x, N, APART);
            } else {
                ops.triad(y, x, N);
            }
            cr_expect_bytes(cr_tier_name(tiers[t]), y, want, sizeof want);
        }
        cr_guard_free_all();
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("peak");
    TCase *tc = tcase_create("peak");
    tcase_add_test(tc, work);
    tcase_add_test(tc, passes);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
