/* Comparisons of evaluations that were made up: figures against their definition, intervals against the paired
 * bootstrap of single differences, margins, groups. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/buf.h"
#include "runtime/metrics/metrics.h"
#include "runtime/review/compare.h"
#include "tests/runtime/compare_case.h"
#include "tests/runtime/paired_case.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

START_TEST(round_trip)
{
    struct made m;
    struct cr_result_file f = {0};
    struct cr_error err = {0};
    make(&m, "swag", 5, 0.7);
    ck_assert_msg(cr_result_load(put(0, &m, false), false, &f, &err) == CR_OK, "%s", err.message);
    ck_assert_str_eq(f.result.method, "swag");
    ck_assert_str_eq(f.evaluation.data_hash, m.e.data_hash);
    ck_assert_uint_eq(f.evaluation.outcomes.n, N);
    for (size_t i = 0; i < N; i++) {
        const struct cr_outcome *a = &m.items[i], *b = &f.items[i];
        ck_assert(a->line == b->line && a->task == b->task && a->prediction == b->prediction);
        ck_assert(a->correct == b->correct && a->n_targets == b->n_targets && a->index == b->index);
        ck_assert(a->nll == b->nll && a->confidence == b->confidence); /* the same bits */
        ck_assert(a->brier == b->brier && a->entropy == b->entropy);
    }
    const json_t *groups = json_object_get(f.json, "groups");
    ck_assert_uint_eq(json_array_size(groups), 3);
    for (size_t k = 0; k < 3 * MEMBERS; k++) {
        const json_t *list = json_object_get(json_array_get(groups, k / MEMBERS), "running");
        const json_t *at_k = json_array_get(list, k % MEMBERS);
        ck_assert(json_number_value(json_object_get(at_k, "nll")) == m.running[MEMBERS + k].nll);
        ck_assert(json_number_value(json_object_get(at_k, "entropy")) == m.running[MEMBERS + k].entropy);
    }
    for (size_t k = 0; k < MEMBERS; k++) {
        ck_assert(f.result.running[k].nll == m.running[k].nll);
        ck_assert(f.result.running[k].accuracy == m.running[k].accuracy);
        ck_assert(f.result.running[k].entropy == m.running[k].entropy);
        ck_assert(f.result.running[k].mutual_information == m.running[k].mutual_information);
    }
    ck_assert_uint_eq(f.ood.n_in, 2);
    ck_assert_uint_eq(f.ood.n_out, 3);
    ck_assert_mem_eq(f.ood.out, m.entropies + 2, 3 * sizeof(double));
    ck_assert_int_eq((int)json_integer_value(json_object_get(json_object_get(f.json, "settings"), "seed")), 3);
    cr_result_close(&f);
    cr_expect_error("raw", cr_result_load(paths[0], true, &f, &err), &err, CR_E_INPUT, "no calibrated|--calibrate");
    cr_result_close(&f);
    struct made cooler;
    make(&cooler, "swag", 6, 0.7);
    m.e.calibrated = cooler.e.outcomes;
    ck_assert_msg(cr_result_load(put(0, &m, false), true, &f, &err) == CR_OK, "%s", err.message);
    ck_assert(f.items[3].nll == cooler.items[3].nll && f.items[3].nll != m.items[3].nll);
    ck_assert_ptr_null(f.result.running);
    cr_result_close(&f);
}
END_TEST

/* Mean and interval of one figure, seed by seed and example by example. */
static void check_figure(const json_t *json, size_t group, int32_t task, const char *figure,
                         double (*get)(const struct cr_outcome *))
{
    static double difference[SEEDS * N];
    size_t n = 0;
    for (int s = 0; s < SEEDS; s++) {
        struct made a, b;
        make(&a, "", (unsigned)s, 0.5);
        make(&b, "", (unsigned)s + 3, 0.6);
        for (size_t i = 0; i < N; i++) {
            if (task < -1 || a.items[i].task == task) {
                difference[n++] = get(&b.items[i]) - get(&a.items[i]);
            }
        }
    }
    const struct paired pairs = {difference, SEEDS, n / SEEDS};
    struct cr_estimate wide = paired_bootstrap(&pairs, 0.95, 9, CR_COMPARE_DRAWS);
    struct cr_estimate narrow = paired_bootstrap(&pairs, 0.90, 9, CR_COMPARE_DRAWS);
    /* Sums of at most SEEDS N terms below 4 in another order. */
    double tolerance = 4.0 * SEEDS * N * 0x1p-52;
    ck_assert_double_eq_tol(at(json, group, 1, "difference", figure, "value"), wide.mean, tolerance);
    ck_assert_double_eq_tol(at(json, group, 1, "difference", figure, "low"), wide.low, tolerance);
    ck_assert_double_eq_tol(at(json, group, 1, "difference", figure, "high"), wide.high, tolerance);
    ck_assert_double_eq_tol(at(json, group, 1, "difference", figure, "low90"), narrow.low, tolerance);
    ck_assert_double_eq_tol(at(json, group, 1, "difference", figure, "high90"), narrow.high, tolerance);
    ck_assert_double_gt(wide.high - wide.low, narrow.high - narrow.low);
}

static double correct_of(const struct cr_outcome *o)
{
    return o->correct;
}

static double nll_of(const struct cr_outcome *o)
{
    return o->nll;
}

static double brier_of(const struct cr_outcome *o)
{
    return o->brier;
}

static double ece_of_run(const struct made *m)
{
    struct cr_bin bins[CR_BINS_DEFAULT + 1];
    double confidence[N];
    bool correct[N];
    for (size_t i = 0; i < N; i++) {
        confidence[i] = m->items[i].confidence;
        correct[i] = m->items[i].correct;
    }
    cr_bins_fill(confidence, correct, N, CR_BINS_DEFAULT, CR_BIN_RIGHT_CLOSED, bins);
    return cr_bins_ece(bins, CR_BINS_DEFAULT);
}

START_TEST(figures)
{
    struct cr_buf tables = {0};
    make_six();
    struct cr_compare_options o = options_for(SEEDS);
    o.seed = 9;
    o.in_domain = "home";
    json_t *json = compare(&o, &tables);
    ck_assert_uint_eq(json_array_size(json_object_get(json, "groups")), 5); /* home away far shifted all */
    for (int32_t task = 0; task < 3; task++) {
        check_figure(json, (size_t)task, task, "accuracy", correct_of);
        check_figure(json, (size_t)task, task, "nll", nll_of);
        check_figure(json, (size_t)task, task, "brier", brier_of);
    }
    check_figure(json, 4, -2, "nll", nll_of);
    double ece[2] = {0}, shifted = 0;
    for (int method = 0; method < 2; method++) {
        for (int s = 0; s < SEEDS; s++) {
            struct made m;
            make(&m, "", (unsigned)(s + 3 * method), method == 0 ? 0.5 : 0.6);
            ece[method] += ece_of_run(&m) / SEEDS;
            for (size_t i = 0; i < N && method == 1; i++) {
                shifted += m.items[i].task == 1 || m.items[i].task == 2 ? m.items[i].nll / (SEEDS * N / 2) : 0;
            }
        }
        ck_assert_double_eq_tol(at(json, 4, (size_t)method, NULL, "ece", "value"), ece[method], 1e-13);
    }
    ck_assert_double_eq_tol(at(json, 4, 1, "difference", "ece", "value"), ece[1] - ece[0], 1e-13);
    ck_assert_double_lt(at(json, 4, 1, "difference", "ece", "low"), ece[1] - ece[0]);
    ck_assert_double_gt(at(json, 4, 1, "difference", "ece", "high"), ece[1] - ece[0]);
    ck_assert_double_eq_tol(at(json, 3, 1, NULL, "nll", "value"), shifted, 1e-13);
    ck_assert(strstr(tables.data, "**shifted**, 30 examples\n") != NULL);
    ck_assert(strstr(tables.data, "test.jsonl: 60 examples, 3 seeds.") != NULL);
    ck_assert(strstr(tables.data, "| against adamw |") != NULL);
    ck_assert(strstr(tables.data, "**far|off**") != NULL);
    json_decref(json);
    cr_buf_free(&tables);
}
END_TEST

/* A difference that is the same everywhere has no width: margins decide alone. */
static const struct {
    double shift, margin;
    bool equivalent, not_worse;
    const char *word;
} margins[] = {
    {0.01, 0, true, true, "worse, equivalent"}, {0.01, 0.005, false, false, "worse"},
    {-0.01, 0.005, false, true, "better"},      {-0.25, 0, false, true, "better"},
    {0, 0.001, true, true, "equivalent"},
};

START_TEST(equivalence)
{
    struct made a, b;
    struct cr_buf tables = {0};
    make(&a, "adamw", 1, 0.5);
    make(&b, "ivon", 1, 0.5);
    for (size_t i = 0; i < N; i++) {
        a.items[i].nll = b.items[i].nll = 1;
        b.items[i].nll += margins[_i].shift;
    }
    files_of[0][0] = put(0, &a, false);
    files_of[1][0] = put(1, &b, false);
    entries[0] = (struct cr_compare_entry){.files = files_of[0]};
    entries[1] = (struct cr_compare_entry){.files = files_of[1], .name = "with | bar"};
    struct cr_compare_options o = options_for(1);
    o.margin_nll = margins[_i].margin;
    json_t *json = compare(&o, &tables);
    ck_assert_double_eq_tol(at(json, 3, 1, "difference", "nll", "low"), margins[_i].shift, 1e-12);
    ck_assert_double_eq_tol(at(json, 3, 1, "difference", "nll", "high"), margins[_i].shift, 1e-12);
    const json_t *m = json_array_get(json_object_get(json_array_get(json_object_get(json, "groups"), 3), "methods"), 1);
    const json_t *nll = json_object_get(json_object_get(m, "difference"), "nll");
    const json_t *accuracy = json_object_get(json_object_get(m, "difference"), "accuracy");
    ck_assert_int_eq(json_is_true(json_object_get(nll, "equivalent")), margins[_i].equivalent);
    ck_assert_int_eq(json_is_true(json_object_get(nll, "not_worse")), margins[_i].not_worse);
    ck_assert(json_is_true(json_object_get(accuracy, "equivalent")));
    char end[64];
    snprintf(end, sizeof end, " %s |\n", margins[_i].word);
    ck_assert_msg(strstr(tables.data, end) != NULL, "%s in %s", end, tables.data);
    ck_assert(strstr(tables.data, "| with / bar ") != NULL);
    json_decref(json);
    cr_buf_free(&tables);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("compare");
    TCase *tcase = tcase_create("compare");
    tcase_add_checked_fixture(tcase, NULL, cr_test_dir_remove);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, round_trip);
    tcase_add_test(tcase, figures);
    tcase_add_loop_test(tcase, equivalence, 0, sizeof margins / sizeof margins[0]);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
