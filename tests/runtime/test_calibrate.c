/* Calibration: the stored temperature, risk and coverage by hand, the ECE of honest predictors, bootstrap coverage. */
#include <math.h>
#include <string.h>

#include "runtime/metrics/calibrate.h"
#include "tests/runtime/paired_case.h"
#include "tests/support/golden.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

enum { N = 14, C = 4 };

START_TEST(stored_temperature)
{
    json_t *file = cr_golden_load("metrics.json");
    const json_t *want = cr_golden_get(file, "temperature_scaling");
    double logits[N * C], labels[N];
    uint32_t label[N], n_classes[N];
    cr_golden_fill(cr_golden_get(file, "mean_of_probs"), "probs", logits, N * C);
    cr_golden_fill(file, "labels", labels, N);
    cr_log_probs(logits, N * C, logits);
    for (size_t i = 0; i < N; i++) {
        label[i] = (uint32_t)labels[i], n_classes[i] = C;
    }
    struct cr_logits set = {logits, N, C, NULL, label};
    double t = cr_temperature_fit(&set), nll = cr_temperature_nll(&set, 1);
    cr_golden_expect(want, "nll_T1", &nll, 1, 1e-10);
    nll = cr_temperature_nll(&set, 2);
    cr_golden_expect(want, "nll_T2", &nll, 1, 1e-10);
    nll = cr_temperature_nll(&set, t);
    cr_golden_expect(want, "nll_Topt", &nll, 1, 1e-10);
    /* Where a search by values finds a minimum f + c (T - T0)^2: to about the root of double rounding. */
    cr_golden_expect(want, "T_opt", &t, 1, 1e-7);
    set.n_classes = n_classes;
    ck_assert_double_eq(cr_temperature_fit(&set), t);
    json_decref(file);
}
END_TEST

/* Labels from softmax(z / 2): the fit finds 2 within five standard errors; fewer classes in some rows; the ends. */
START_TEST(temperature)
{
    enum { MANY = 4000, WIDE = 5 };
    static double logits[MANY * WIDE];
    static uint32_t labels[MANY], n_classes[MANY];
    struct cr_rng rng = cr_rng_make(100);
    double information = 0;
    for (size_t i = 0; i < MANY; i++) {
        double *z = logits + i * WIDE, p[WIDE], scaled[WIDE], mean = 0, square = 0;
        double u = (double)cr_rng_uniform(&rng, 0, 1);
        n_classes[i] = 2 + cr_rng_below(&rng, WIDE - 1);
        for (size_t c = 0; c < WIDE; c++) {
            z[c] = c < n_classes[i] ? (double)cr_rng_uniform(&rng, -6, 6) : 1e3;
            scaled[c] = z[c] / 2;
        }
        cr_softmax(scaled, n_classes[i], p);
        for (size_t c = 0; c < n_classes[i]; c++) {
            labels[i] = u >= 0 ? (uint32_t)c : labels[i];
            u -= u >= 0 ? p[c] : 0;
            mean += p[c] * z[c], square += p[c] * z[c] * z[c];
        }
        information += square - mean * mean; /* about 1/T */
    }
    struct cr_logits set = {logits, MANY, WIDE, n_classes, labels};
    double t = cr_temperature_fit(&set);
    ck_assert_double_eq_tol(1 / t, 0.5, 5 / sqrt(information));
    ck_assert(cr_temperature_nll(&set, t) <= cr_temperature_nll(&set, t * 1.01));
    ck_assert(cr_temperature_nll(&set, t) <= cr_temperature_nll(&set, t / 1.01));
    const double certain[2] = {0, 1};
    double finite[2];
    cr_log_probs(certain, 2, finite);
    ck_assert_double_eq_tol(finite[0], log(1e-12), 1e-13);
    ck_assert_double_eq_tol(finite[1], 1e-12, 1e-15);
    const double right[2] = {1, -1};
    const uint32_t first = 0, second = 1;
    set = (struct cr_logits){right, 1, 2, NULL, &first};
    ck_assert_double_eq_tol(cr_temperature_fit(&set), 0.01, 1e-10);
    set.labels = &second;
    ck_assert_double_eq_tol(cr_temperature_fit(&set), 100, 1e-8);
    set.n = 0;
    ck_assert_double_eq(cr_temperature_fit(&set), 1);
    ck_assert(isnan(cr_temperature_nll(&set, 1)));
}
END_TEST

START_TEST(risk_and_coverage)
{
    struct cr_scored items[5] = {{0.6, false}, {0.9, true}, {0.7, true}, {0.8, false}, {0.5, true}};
    double risk[5];
    const double want[5] = {0, 1.0 / 2, 1.0 / 3, 2.0 / 4, 2.0 / 5};
    ck_assert_double_eq_tol(cr_risk_coverage(items, 5, risk), (0.5 + 1.0 / 3 + 0.5 + 0.4) / 5, 1e-15);
    for (size_t i = 0; i < 5; i++) {
        ck_assert_double_eq_tol(risk[i], want[i], 1e-15);
    }
    /* The order among equals must not matter: every rotation has the same curve. */
    const struct cr_scored tied[4] = {{0.9, true}, {0.9, false}, {0.4, false}, {0.9, true}};
    for (size_t shift = 0; shift < 4; shift++) {
        for (size_t i = 0; i < 4; i++) {
            items[i] = tied[(i + shift) % 4];
        }
        double area = cr_risk_coverage(items, 4, risk);
        ck_assert_double_eq_tol(area, (1.0 / 3 + 1.0 / 3 + 1.0 / 3 + 2.0 / 4) / 4, 1e-15);
        ck_assert_double_eq_tol(risk[1], 1.0 / 3, 1e-15);
    }
    ck_assert(isnan(cr_risk_coverage(NULL, 0, NULL)));
    for (size_t errors = 0; errors <= 5; errors++) { /* errors last: the smallest area */
        double smallest = 0;
        for (size_t i = 0; i < 5; i++) {
            items[i] = (struct cr_scored){(double)i, i >= errors};
            smallest += i + errors >= 5 ? (double)(i + errors - 4) / (double)(i + 1) / 5 : 0;
        }
        ck_assert_double_eq_tol(cr_risk_coverage(items, 5, NULL), smallest, 1e-15);
    }
}
END_TEST

/* All confidences p in one bin: ECE = |right / n - p|, about sqrt(2 p (1 - p) / (pi n)); certain answers have none; it
 * is the mean of honest predictors. */
START_TEST(ece_floor)
{
    enum { MANY = 900, DRAWS = 4000, RUNS = 2000 };
    static double confidence[MANY];
    static bool right[MANY];
    double floor, again;
    struct cr_error err = {0};
    for (size_t i = 0; i < MANY; i++) {
        confidence[i] = 0.7;
    }
    ck_assert_int_eq(cr_ece_floor(confidence, MANY, 15, 3, DRAWS, &floor, &err), CR_OK);
    double deviation = sqrt(0.7 * 0.3 / MANY), want = deviation * sqrt(2 / acos(-1));
    /* Five standard errors of a folded normal's mean (deviation 0.603) and 1 % for the lattice of counts. */
    ck_assert_double_eq_tol(floor, want, 5 * 0.603 * deviation / sqrt(DRAWS) + 0.01 * want);
    ck_assert_int_eq(cr_ece_floor(confidence, MANY, 15, 3, DRAWS, &again, &err), CR_OK);
    ck_assert(again == floor);
    struct cr_rng rng = cr_rng_make(101);
    for (size_t i = 0; i < MANY; i++) {
        confidence[i] = (double)cr_rng_uniform(&rng, 0.25f, 1);
    }
    ck_assert_int_eq(cr_ece_floor(confidence, MANY, 15, 3, DRAWS, &floor, &err), CR_OK);
    double sum = 0, squares = 0;
    for (int run = 0; run < RUNS; run++) {
        struct cr_bin bins[16];
        for (size_t i = 0; i < MANY; i++) {
            right[i] = (double)cr_rng_uniform(&rng, 0, 1) < confidence[i];
        }
        cr_bins_fill(confidence, right, MANY, 15, CR_BIN_RIGHT_CLOSED, bins);
        double ece = cr_bins_ece(bins, 15);
        sum += ece / RUNS, squares += ece * ece / RUNS;
    }
    double variance = squares - sum * sum;
    ck_assert_double_eq_tol(floor, sum, 5 * sqrt(variance / RUNS + variance / DRAWS));
    for (size_t i = 0; i < MANY; i++) {
        confidence[i] = 1;
    }
    ck_assert_int_eq(cr_ece_floor(confidence, MANY, 15, 3, 10, &floor, &err), CR_OK);
    ck_assert(floor == 0);
}
END_TEST

/* One seed: the interval is the normal one of a mean, 1.96 standard errors, within 10 %. Effects that belong to seeds
 * make it wider by what they are worth; the level shrinks it. */
START_TEST(paired_intervals)
{
    enum { SEEDS = 8, MANY = 500, DRAWS = 4000 };
    static double difference[SEEDS * MANY];
    struct cr_rng rng = cr_rng_make(102);
    struct cr_estimate all, ninety, again;
    double sum = 0, square = 0;
    for (size_t i = 0; i < MANY; i++) {
        difference[i] = 0.3 + (double)cr_rng_uniform(&rng, -1, 1);
        sum += difference[i] / MANY, square += difference[i] * difference[i] / MANY;
    }
    double error = sqrt((square - sum * sum) / MANY);
    struct paired pairs = {difference, 1, MANY};
    all = paired_bootstrap(&pairs, 0.95, 5, DRAWS);
    ninety = paired_bootstrap(&pairs, 0.90, 5, DRAWS);
    ck_assert_double_eq_tol(all.mean, sum, 1e-14);
    ck_assert_double_eq_tol(all.low, sum - 1.96 * error, 0.2 * error);
    ck_assert_double_eq_tol(all.high, sum + 1.96 * error, 0.2 * error);
    ck_assert_double_eq_tol(ninety.high - ninety.low, 2 * 1.645 * error, 0.3 * error);
    ck_assert(cr_equivalent(&ninety, 0.5) && !cr_equivalent(&ninety, 0.3) && cr_not_worse(&ninety, 0));
    for (size_t s = 0; s < SEEDS; s++) { /* the same examples each time, shifted by the seed's own effect, +-1/2 */
        for (size_t i = 0; i < MANY; i++) {
            difference[s * MANY + i] = difference[i] + (double)(s % 2);
        }
    }
    pairs.n_seeds = SEEDS;
    all = paired_bootstrap(&pairs, 0.95, 5, DRAWS);
    double both = sqrt(error * error + 0.25 / SEEDS);
    ck_assert_double_eq_tol(all.high - all.low, 2 * 1.96 * both, 0.15 * 2 * 1.96 * both);
    again = paired_bootstrap(&pairs, 0.95, 5, DRAWS);
    ck_assert_mem_eq(&again, &all, sizeof all);
    const struct cr_estimate nothing = {(double)NAN, (double)NAN, (double)NAN};
    ck_assert(!cr_equivalent(&nothing, 1) && !cr_not_worse(&nothing, 1));
}
END_TEST

static cr_status floor_of_three(void *arg, struct cr_error *err)
{
    const double confidence[3] = {0.5, 0.6, 0.9};
    (void)arg;
    double out;
    return cr_ece_floor(confidence, 3, 5, 1, 3, &out, err);
}

START_TEST(memory)
{
    ck_assert_int_eq(cr_test_alloc_sweep("calibrate", floor_of_three, NULL), 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("calibrate");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, stored_temperature);
    tcase_add_test(all, temperature);
    tcase_add_test(all, risk_and_coverage);
    tcase_add_test(all, ece_floor);
    tcase_add_test(all, paired_intervals);
    tcase_add_test(all, memory);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
