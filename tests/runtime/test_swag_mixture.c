/* MultiSWAG: several runs of swag as one mixture, whose probabilities are the mean over the draws of all, each run
 * counting as much as the other. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/adapter/adapter.h"
#include "runtime/core/alloc.h"
#include "runtime/io/file.h"
#include "tests/runtime/posterior_case.h"
#include "tests/runtime/swag_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/method_test.h"
#include "tests/support/output_test.h"

enum { RUNS = 2, DRAWS = 3 };

/* The second half of the runs with label rows, where asked for. */
static void train_runs(bool rows)
{
    static const char *const names[RUNS] = {"first", "second"};
    for (int r = 0; r < RUNS; r++) {
        struct cr_train_run run;
        (rows && r == 1 ? head_init : full_init)(&run, names[r]);
        run.options.seed = 3 + (uint64_t)r;
        run.options.swag_scale = 1;
        cr_train_must(&run);
    }
}

static void both(struct call *call, uint32_t samples)
{
    call_init(call, "first");
    add_adapter(call, "second");
    call->options.samples = samples;
    call->options.seed = 5;
}

static double prob(const struct call *call, size_t i, size_t choice)
{
    return json_real_value(json_array_get(json_object_get(line_of(call, i), "probs"), choice));
}

/* Draw `sample` of a run, as the mixture's stream `stream` has it, in files that are one adapter. */
static void save_draw(const char *from, uint32_t stream, uint32_t sample, const char *to)
{
    struct cr_model *base = NULL;
    struct cr_error err = {0};
    struct cr_posterior *p = cr_method_open(from);
    float *params = cr_alloc(p->adapter->n_params, sizeof *params);
    struct cr_posterior_draw draw = {.seed = 5, .stream = stream, .sample = sample, .temperature = 1};
    ck_assert_int_eq(cr_posterior_draw(p, &draw, params, &err), CR_OK);
    memcpy(p->adapter->params, params, p->adapter->n_params * sizeof *params);
    ck_assert_int_eq(cr_model_open(model, &base, &err), CR_OK);
    ck_assert_int_eq(cr_dir_create(cr_train_path(to), &err), CR_OK);
    ck_assert_int_eq(cr_adapter_save_peft(p->adapter, base, cr_train_path(to), "adamw", &err), CR_OK);
    cr_model_close(base);
    cr_free(params);
    cr_posterior_close(p);
}

START_TEST(mean_over_the_draws_of_both)
{
    struct call mixed, again;
    double sum[N] = {0}, entropy[N] = {0};
    train_runs(false);
    both(&mixed, DRAWS);
    predict(&mixed);
    for (uint32_t r = 0; r < RUNS; r++) {
        for (uint32_t s = 0; s < DRAWS; s++) {
            struct call one;
            char name[32];
            snprintf(name, sizeof name, "draw-%u-%u", r, s);
            save_draw(r == 0 ? "first" : "second", r, s, name);
            call_init(&one, name);
            predict(&one);
            for (size_t i = 0; i < N; i++) {
                sum[i] += prob(&one, i, 0);
                entropy[i] += cr_output_number(line_of(&one, i), "entropy");
            }
            call_free(&one);
        }
    }
    double spread = 0;
    for (size_t i = 0; i < N; i++) {
        double p = sum[i] / (RUNS * DRAWS), information = cr_output_number(line_of(&mixed, i), "mutual_information");
        double whole = -p * log(p) - (1 - p) * log(1 - p);
        /* a handful of terms below 1 in double, written with 17 digits */
        ck_assert_double_eq_tol(prob(&mixed, i, 0), p, 1e-12);
        ck_assert_double_eq_tol(information, whole - entropy[i] / (RUNS * DRAWS), 1e-12);
        spread += information;
    }
    ck_assert_double_gt(spread, 1e-6); /* the draws are not all one */
    both(&again, DRAWS);
    struct cr_parallel pool;
    cr_parallel_openmp(&pool, 3);
    again.host.parallel = &pool;
    predict(&again);
    ck_assert(json_equal(mixed.lines, again.lines));
    eval(&again);
    ck_assert_uint_eq(again.result.n_members, RUNS * DRAWS);
    ck_assert_uint_eq(again.result.samples, DRAWS);
    ck_assert_str_eq(again.result.method, "swag");
    call_free(&mixed);
    call_free(&again);
}
END_TEST

/* A run with label rows of its own beside one with the model's: each answers with its own, in one pass for both. */
START_TEST(means_of_both)
{
    struct call mixed, first, second;
    train_runs(true);
    both(&mixed, 0);
    mixed.options.mean = true;
    mixed.options.batch_size = 1;
    predict(&mixed);
    call_init(&first, "first");
    first.options.mean = true;
    predict(&first);
    call_init(&second, "second");
    second.options.mean = true;
    predict(&second);
    double apart = 0;
    for (size_t i = 0; i < N; i++) {
        ck_assert_double_eq_tol(prob(&mixed, i, 0), (prob(&first, i, 0) + prob(&second, i, 0)) / 2, 1e-12);
        apart = fmax(apart, fabs(prob(&first, i, 0) - prob(&second, i, 0)));
    }
    ck_assert_double_gt(apart, 1e-3);
    call_free(&mixed);
    call_free(&first);
    call_free(&second);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swag_mixture");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 300);
    tcase_add_checked_fixture(all, setup, cr_train_dir_drop);
    tcase_add_test(all, mean_over_the_draws_of_both);
    tcase_add_test(all, means_of_both);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
