/* Whole runs with method swag: what the snapshots give, rates, exact resume, thread counts, files, draws, refusals. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/checkpoint.h"
#include "runtime/posterior/method.h"
#include "runtime/posterior/posterior.h"
#include "tests/runtime/swag_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/method_test.h"
#include "tests/support/train_test.h"

/* The posterior's moments are those of the training weights that the checkpoints hold; files bring them back exactly:
 * of the matrices, and of label rows behind them. */
START_TEST(moments_of_the_snapshots)
{
    struct cr_train_run run;
    struct cr_posterior *p = NULL;
    struct cr_checkpoint at[3];
    (_i == 0 ? full_init : head_init)(&run, "out");
    run.options.keep_best = false;
    cr_train_must(&run);
    p = cr_method_open("out");
    ck_assert_uint_eq(p->swag.n, 3);
    ck_assert_uint_eq(p->swag.n_rows, 2);
    ck_assert(p->swag_scale == 0.5 || p->swag_scale == 1);
    size_t n = p->adapter->n_params, rows = cr_adapter_rows_begin(p->adapter);
    ck_assert_uint_eq(p->adapter->n_labels, _i == 0 ? 0 : 2);
    for (int i = 0; i < 3; i++) {
        cr_method_step("out", 6 + 2 * i, &at[i]);
    }
    const float *w[3];
    for (int i = 0; i < 3; i++) {
        w[i] = cr_method_section(&at[i], CR_CKPT_TRAINED, NULL);
    }
    double moved[2] = {0};
    for (size_t i = 0; i < n; i++) {
        double mean = ((double)w[0][i] + (double)w[1][i] + (double)w[2][i]) / 3, m2 = 0;
        for (int s = 0; s < 3; s++) {
            m2 += ((double)w[s][i] - mean) * ((double)w[s][i] - mean);
        }
        moved[i >= rows] += m2;
        /* a mean kept as a pair of f32; three sums of squares in f32 of differences exact to an ulp of w */
        double ulp = 0x1p-23 * (fabs((double)w[0][i]) + fabs((double)w[1][i]) + fabs((double)w[2][i]));
        ck_assert_double_eq_tol((double)p->swag.mean[i], mean, ulp);
        ck_assert_double_eq_tol((double)p->swag.m2[i], m2, 0x1p-20 * m2 + 4 * ulp * sqrt(m2) + ulp * ulp);
        double dev = (double)w[2][i] - mean;
        float row;
        uint32_t bits = (uint32_t)cr_swag_row(&p->swag, 1)[i] << 16;
        memcpy(&row, &bits, sizeof row);
        ck_assert_double_eq_tol((double)row, dev, 0x1p-8 * fabs(dev) + ulp);
    }
    ck_assert(moved[0] > 0 && (moved[1] > 0) == (_i == 1));
    const float *moments = cr_method_section(&at[2], CR_CKPT_MOMENTS, NULL);
    ck_assert_mem_eq(p->swag.mean, moments, n * sizeof(float));
    ck_assert_mem_eq(p->swag.m2, moments + 2 * n, n * sizeof(float));
    ck_assert_mem_eq(p->swag.rows, cr_method_section(&at[2], CR_CKPT_DEVIATIONS, NULL), 2 * n * sizeof(uint16_t));
    ck_assert_mem_eq(p->adapter->params, cr_method_section(&at[2], CR_CKPT_WEIGHTS, NULL), n * sizeof(float));
    for (int i = 0; i < 3; i++) {
        cr_checkpoint_close(&at[i]);
    }
    cr_posterior_close(p);
}
END_TEST

START_TEST(rates)
{
    struct cr_train_run run;
    full_init(&run, "out");
    run.options.warmup = 0;
    run.options.lr_schedule = CR_LR_LINEAR;
    run.options.lr = 5e-2;
    cr_train_must(&run);
    char *journal = cr_train_journal("out");
    double own = 5e-2 * 6 / 10; /* at step 4 */
    double want[10] = {5e-2, 4.5e-2, 4e-2, 3.5e-2, own, own / 2 + 5e-3, 1e-2, 1e-2, 1e-2, 1e-2};
    char *line = strtok(journal, "\n");
    for (int i = 0; i < 10; i++, line = strtok(NULL, "\n")) {
        json_t *object = json_loads(line, 0, NULL);
        ck_assert_double_eq_tol(json_number_value(json_object_get(object, "lr")), want[i], 1e-12);
        json_decref(object);
    }
    cr_free(journal);
}
END_TEST

/* all: with label rows, and from the best validation before the snapshots on. */
static void resumed_init(struct cr_train_run *run, const char *output, bool all)
{
    (all ? head_init : full_init)(run, output);
    if (all) {
        run->options.eval_every = 1;
        run->options.swag_from_best = CR_YES;
    }
}

/* With label rows there is no adapter.gguf. */
static void same_outputs(const char *a, const char *b, bool all)
{
    static const char *const names[] = {CR_POSTERIOR_FILE, "adapter_config.json", "adapter_model.safetensors"};
    if (all) {
        cr_train_same_files(a, b, names, 3);
    } else {
        cr_method_same(a, b);
    }
}

START_TEST(stop_and_resume)
{
    struct cr_train_run run;
    resumed_init(&run, "whole", _i >= 9);
    cr_train_must(&run);
    ck_assert_uint_ge(run.result.best_step, 8); /* two snapshots before there is a result */
    resumed_init(&run, "cut", _i >= 9);
    cr_train_stop(&run, 1 + _i % 9);
    cr_train_must(&run);
    same_outputs("whole", "cut", _i >= 9);
    ck_assert(cr_train_same("whole/checkpoints/step-00000010.cck", "cut/checkpoints/step-00000010.cck"));
    cr_train_same_journals("whole", "cut");
}
END_TEST

START_TEST(any_thread_count)
{
    struct cr_train_run run;
    resumed_init(&run, "one", true);
    cr_train_must(&run);
    resumed_init(&run, "many", true);
    cr_train_must_on(&run, 2 + _i);
    same_outputs("one", "many", true);
}
END_TEST

/* Until the first snapshot a run is one of AdamW, and the training weights go on as if nobody had looked at the mean.
 */
START_TEST(trains_as_adamw)
{
    struct cr_train_run run;
    struct cr_checkpoint at[2];
    for (int i = 0; i < 2; i++) {
        full_init(&run, i == 0 ? "swag" : "adamw");
        run.options.method = i == 0 ? "swag" : "adamw";
        run.options.lr_schedule = CR_LR_CONSTANT;
        run.options.swag_lr = run.options.lr;
        run.options.eval_every = 1;
        cr_train_must(&run);
        cr_method_step(i == 0 ? "swag" : "adamw", 10, &at[i]);
    }
    size_t bytes = cr_checkpoint_find(&at[1], CR_CKPT_WEIGHTS)->bytes;
    ck_assert_mem_eq(cr_method_section(&at[0], CR_CKPT_TRAINED, NULL), cr_method_section(&at[1], CR_CKPT_WEIGHTS, NULL),
                     bytes);
    ck_assert(memcmp(cr_method_section(&at[0], CR_CKPT_WEIGHTS, NULL), cr_method_section(&at[1], CR_CKPT_WEIGHTS, NULL),
                     bytes) != 0);
    cr_checkpoint_close(&at[0]);
    cr_checkpoint_close(&at[1]);
}
END_TEST

START_TEST(draws)
{
    struct cr_train_run run;
    size_t n;
    full_init(&run, "out");
    cr_train_must(&run);
    double mean = cr_method_nll("out", 0, -1, &n);
    ck_assert_uint_eq(n, 1);
    double drawn = cr_method_nll("out", 4, 0, &n);
    ck_assert_uint_eq(n, 4);
    ck_assert(drawn != mean);
    ck_assert(cr_method_nll("out", 4, 0, &n) == drawn);
    ck_assert(cr_method_nll("out", 4, 1, &n) == drawn);
    /* A spread of 1e-7 of its own is none, but where a rounding to bf16 falls to the other side: 2^-9 of a few weights,
     * and of the loss less. The whole spread changes it by far more. */
    ck_assert_double_eq_tol(cr_method_nll("out", 4, 1e-14, &n), mean, 0x1p-9 * mean);
    ck_assert_double_gt(fabs(drawn - mean), 8 * 0x1p-9 * mean);
    /* One draw exported is the first of an evaluation. */
    char from[1024], to[1024];
    snprintf(from, sizeof from, "%s", cr_train_path("out"));
    snprintf(to, sizeof to, "%s", cr_train_path("draw"));
    struct cr_export_options o = {
        .size = sizeof o, .adapter = from, .output = to, .format = "peft", .sample_set = true};
    ck_assert_int_eq(cr_export(&o, NULL, NULL), CR_OK);
    ck_assert(cr_method_nll("draw", 0, -1, &n) == cr_method_nll("out", 1, 0, &n));
    /* A checkpoint gives the mean. */
    ck_assert(isfinite(cr_method_nll("out/checkpoints/step-00000010.cck", 0, -1, &n)));
    ck_assert_uint_eq(n, 1);
}
END_TEST

/* Both scales as an evaluation of the finished posterior sees them, and the better one in the file; a scale that was
 * given stays; without held-out examples the paper's. */
START_TEST(scale_by_validation)
{
    struct cr_train_run run;
    struct cr_posterior *p = NULL;
    char valid[1024];
    size_t n;
    snprintf(valid, sizeof valid, "%s", cr_train_path("other.jsonl"));
    full_init(&run, "out");
    run.options.seed = 0; /* that of cr_method_nll */
    run.options.valid = valid;
    cr_train_must(&run);
    json_t *facts = facts_of("out"), *tried = json_object_get(facts, "scales_tried");
    double scale = json_real_value(json_object_get(facts, "scale")), nll[2];
    for (size_t i = 0; i < 2; i++) {
        const json_t *one = json_array_get(tried, i);
        double own = json_real_value(json_object_get(one, "scale"));
        ck_assert(own == (i == 0 ? 0.5 : 1.0));
        nll[i] = json_real_value(json_object_get(one, "nll"));
        /* the same draws of f32 weights: sums of 30 terms in double */
        ck_assert_double_eq_tol(nll[i], cr_method_nll("out", 5, own / scale, &n), 1e-12);
    }
    ck_assert(nll[0] != nll[1]);
    ck_assert(scale == (nll[1] < nll[0] ? 1.0 : 0.5));
    json_decref(facts);
    p = cr_method_open("out");
    ck_assert(p->swag_scale == scale);
    cr_posterior_close(p);
    full_init(&run, "given");
    run.options.swag_scale = 0.25;
    cr_train_must(&run);
    p = cr_method_open("given");
    ck_assert(p->swag_scale == 0.25);
    cr_posterior_close(p);
    full_init(&run, "none");
    run.options.no_valid = true;
    run.options.keep_best = false;
    run.options.patience = 0;
    cr_train_must(&run);
    p = cr_method_open("none");
    ck_assert(p->swag_scale == 0.5);
    cr_posterior_close(p);
}
END_TEST

START_TEST(refusals_and_warnings)
{
    struct cr_train_run run;
    CR_TRAIN_REFUSE(run, full_init, swag_start, 1, "--swag-start");
    CR_TRAIN_REFUSE(run, full_init, swag_start, -0.1, "--swag-start");
    CR_TRAIN_REFUSE(run, full_init, swag_rank, 1, "--swag-rank");
    CR_TRAIN_REFUSE(run, full_init, swag_rank, 257, "--swag-rank");
    CR_TRAIN_REFUSE(run, full_init, swag_lr, 0, "--swag-lr");
    CR_TRAIN_REFUSE(run, full_init, swag_lr, (double)NAN, "--swag-lr");
    CR_TRAIN_REFUSE(run, full_init, swag_scale, -1, "scale");
    CR_TRAIN_REFUSE(run, full_init, swag_scale, (double)NAN, "scale");
    CR_TRAIN_REFUSE(run, full_init, swag_every, 7, "no snapshot");
    CR_TRAIN_REFUSE(run, full_init, swag_every, 4, "no spread");
    ck_assert(!cr_train_exists("out"));
    full_init(&run, "few");
    run.options.swag_rank = 3;
    cr_train_must(&run);
    ck_assert_ptr_nonnull(strstr(run.last_warning, "3 snapshots"));
    ck_assert_ptr_nonnull(strstr(run.last_warning, "rank 2 of 3"));
    /* A deviation that is none. */
    size_t n;
    uint8_t *bytes = cr_train_bytes("few/" CR_POSTERIOR_FILE, &n);
    bytes[n - 1] = 0x7f;
    bytes[n - 2] = 0xc0;
    cr_train_write("few/" CR_POSTERIOR_FILE, bytes, n);
    cr_free(bytes);
    struct cr_posterior *p = NULL;
    struct cr_error err;
    char path[1024];
    snprintf(path, sizeof path, "%s", cr_train_path("few"));
    ck_assert_int_eq(cr_posterior_open(path, NULL, false, NULL, CR_TIER_SCALAR, &p, &err), CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, "not finite"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swag_train");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 300);
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_add_loop_test(all, moments_of_the_snapshots, 0, 2);
    tcase_add_test(all, rates);
    tcase_add_test(all, scale_by_validation);
    tcase_add_loop_test(all, stop_and_resume, 0, 18);
    tcase_add_loop_test(all, any_thread_count, 0, 2);
    tcase_add_test(all, trains_as_adamw);
    tcase_add_test(all, draws);
    tcase_add_test(all, refusals_and_warnings);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
