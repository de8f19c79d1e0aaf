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
#include "runtime/thread/parallel.h"
#include "tests/support/kernel_test.h"
#include "tests/support/train_test.h"

/* Ten steps: from step 4 on a snapshot after each second one, so after steps 6, 8 and 10. */
static void full_init(struct cr_train_run *run, const char *output)
{
    cr_train_full_init(run, output);
    run->options.method = "swag";
    run->options.steps = 10;
    run->options.swag_start = 0.4;
    run->options.swag_every = 2;
    run->options.swag_rank = 2;
    run->options.swag_lr = 1e-2;
    run->options.swag_anneal = 2;
    run->options.targets = "q_proj,k_proj,down_proj";
    run->options.save_every = 1;
    run->options.keep_checkpoints = 20;
    run->options.report_every = 1;
}

static void open_posterior(const char *name, struct cr_posterior **out)
{
    struct cr_error err = {0};
    char path[1024];
    snprintf(path, sizeof path, "%s", cr_train_path(name));
    ck_assert_msg(cr_posterior_open(path, NULL, false, NULL, CR_TIER_SCALAR, out, &err) == CR_OK, "%s", err.message);
}

static void open_checkpoint(const char *output, int step, struct cr_checkpoint *out)
{
    char name[300];
    snprintf(name, sizeof name, "%s/checkpoints/step-%08d.cck", output, step);
    ck_assert_int_eq(cr_checkpoint_open(cr_train_path(name), out, NULL), CR_OK);
}

static const void *section(const struct cr_checkpoint *checkpoint, uint32_t kind)
{
    const struct cr_checkpoint_section *found = cr_checkpoint_find(checkpoint, kind);
    ck_assert_ptr_nonnull(found);
    return found->data;
}

/* The posterior's moments are those of the training weights that the checkpoints hold; files bring them back exactly.
 */
START_TEST(moments_of_the_snapshots)
{
    struct cr_train_run run;
    struct cr_posterior *p = NULL;
    struct cr_checkpoint at[3];
    full_init(&run, "out");
    run.options.keep_best = false;
    cr_train_must(&run);
    open_posterior("out", &p);
    ck_assert_uint_eq(p->swag.n, 3);
    ck_assert_uint_eq(p->swag.n_rows, 2);
    ck_assert(p->swag_scale == 0.5 || p->swag_scale == 1);
    size_t n = p->adapter->n_params;
    for (int i = 0; i < 3; i++) {
        open_checkpoint("out", 6 + 2 * i, &at[i]);
    }
    const float *w[3];
    for (int i = 0; i < 3; i++) {
        w[i] = section(&at[i], CR_CKPT_TRAINED);
    }
    double moved = 0;
    for (size_t i = 0; i < n; i++) {
        double mean = ((double)w[0][i] + (double)w[1][i] + (double)w[2][i]) / 3, m2 = 0;
        for (int s = 0; s < 3; s++) {
            m2 += ((double)w[s][i] - mean) * ((double)w[s][i] - mean);
        }
        moved += m2;
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
    ck_assert_double_gt(moved, 0);
    const float *moments = section(&at[2], CR_CKPT_MOMENTS);
    ck_assert_mem_eq(p->swag.mean, moments, n * sizeof(float));
    ck_assert_mem_eq(p->swag.m2, moments + 2 * n, n * sizeof(float));
    ck_assert_mem_eq(p->swag.rows, section(&at[2], CR_CKPT_DEVIATIONS), 2 * n * sizeof(uint16_t));
    ck_assert_mem_eq(p->adapter->params, section(&at[2], CR_CKPT_WEIGHTS), n * sizeof(float));
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

static void same_posteriors(const char *a, const char *b)
{
    char x[300], y[300];
    snprintf(x, sizeof x, "%s/%s", a, CR_POSTERIOR_FILE);
    snprintf(y, sizeof y, "%s/%s", b, CR_POSTERIOR_FILE);
    ck_assert(cr_train_same(x, y));
    cr_train_same_outputs(a, b);
}

START_TEST(stop_and_resume)
{
    struct cr_train_run run;
    full_init(&run, "whole");
    cr_train_must(&run);
    ck_assert_uint_ge(run.result.best_step, 8); /* two snapshots before there is a result */
    full_init(&run, "cut");
    run.stop_at = 1 + _i;
    cr_train_must_fail(&run, CR_E_STOPPED, "--resume");
    run.stop_at = -1;
    run.options.resume = true;
    cr_train_must(&run);
    same_posteriors("whole", "cut");
    ck_assert(cr_train_same("whole/checkpoints/step-00000010.cck", "cut/checkpoints/step-00000010.cck"));
    char *journals[2] = {cr_train_journal("whole"), cr_train_journal("cut")};
    ck_assert_str_eq(journals[0], journals[1]);
    cr_free(journals[0]);
    cr_free(journals[1]);
}
END_TEST

START_TEST(any_thread_count)
{
    struct cr_train_run run;
    struct cr_parallel pool;
    full_init(&run, "one");
    cr_train_must(&run);
    cr_parallel_openmp(&pool, 2 + _i);
    full_init(&run, "many");
    run.host.parallel = &pool;
    cr_train_must(&run);
    same_posteriors("one", "many");
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
        open_checkpoint(i == 0 ? "swag" : "adamw", 10, &at[i]);
    }
    size_t bytes = cr_checkpoint_find(&at[1], CR_CKPT_WEIGHTS)->bytes;
    ck_assert_mem_eq(section(&at[0], CR_CKPT_TRAINED), section(&at[1], CR_CKPT_WEIGHTS), bytes);
    ck_assert(memcmp(section(&at[0], CR_CKPT_WEIGHTS), section(&at[1], CR_CKPT_WEIGHTS), bytes) != 0);
    cr_checkpoint_close(&at[0]);
    cr_checkpoint_close(&at[1]);
}
END_TEST

static double nll_of(const char *adapter, uint32_t samples, double temperature, size_t *n_members)
{
    char model[1024], data[1024], path[1024];
    struct cr_eval_options o;
    struct cr_eval_result result = {0};
    struct cr_error err = {0};
    cr_eval_options_init(&o);
    snprintf(model, sizeof model, "%s", cr_train_path("model.gguf"));
    snprintf(data, sizeof data, "%s", cr_train_path("other.jsonl"));
    snprintf(path, sizeof path, "%s", cr_train_path(adapter));
    o.model = model;
    o.data = data;
    o.adapter = path;
    o.samples = samples;
    o.mean = samples == 0;
    o.posterior_temperature = temperature;
    struct cr_host host = {.n_threads = 1};
    ck_assert_msg(cr_eval(&o, &host, &result, &err) == CR_OK, "%s", err.message);
    *n_members = result.n_members;
    double nll = result.all.nll;
    cr_eval_result_deinit(&result);
    return nll;
}

START_TEST(draws)
{
    struct cr_train_run run;
    size_t n;
    full_init(&run, "out");
    cr_train_must(&run);
    double mean = nll_of("out", 0, 0, &n);
    ck_assert_uint_eq(n, 1);
    double drawn = nll_of("out", 4, 0, &n);
    ck_assert_uint_eq(n, 4);
    ck_assert(drawn != mean);
    ck_assert(nll_of("out", 4, 0, &n) == drawn);
    ck_assert(nll_of("out", 4, 1, &n) == drawn);
    ck_assert_double_eq_tol(nll_of("out", 4, 1e-14, &n), mean, 2e-2);
    /* One draw exported is the first of an evaluation. */
    char from[1024], to[1024];
    snprintf(from, sizeof from, "%s", cr_train_path("out"));
    snprintf(to, sizeof to, "%s", cr_train_path("draw"));
    struct cr_export_options o = {
        .size = sizeof o, .adapter = from, .output = to, .format = "peft", .sample_set = true};
    ck_assert_int_eq(cr_export(&o, NULL, NULL), CR_OK);
    ck_assert(nll_of("draw", 0, 0, &n) == nll_of("out", 1, 0, &n));
    /* A checkpoint gives the mean. */
    ck_assert(isfinite(nll_of("out/checkpoints/step-00000010.cck", 0, 0, &n)));
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
    run.options.seed = 0; /* that of nll_of */
    run.options.valid = valid;
    cr_train_must(&run);
    json_t *summary = json_load_file(cr_train_path("out/summary.json"), 0, NULL);
    json_t *facts = json_object_get(summary, "posterior"), *tried = json_object_get(facts, "scales_tried");
    double scale = json_real_value(json_object_get(facts, "scale")), nll[2];
    for (size_t i = 0; i < 2; i++) {
        const json_t *one = json_array_get(tried, i);
        double own = json_real_value(json_object_get(one, "scale"));
        ck_assert(own == (i == 0 ? 0.5 : 1.0));
        nll[i] = json_real_value(json_object_get(one, "nll"));
        /* the same draws of f32 weights: sums of 30 terms in double */
        ck_assert_double_eq_tol(nll[i], nll_of("out", 5, own / scale, &n), 1e-12);
    }
    ck_assert(nll[0] != nll[1]);
    ck_assert(scale == (nll[1] < nll[0] ? 1.0 : 0.5));
    json_decref(summary);
    open_posterior("out", &p);
    ck_assert(p->swag_scale == scale);
    cr_posterior_close(p);
    full_init(&run, "given");
    run.options.swag_scale = 0.25;
    cr_train_must(&run);
    open_posterior("given", &p);
    ck_assert(p->swag_scale == 0.25);
    cr_posterior_close(p);
    full_init(&run, "none");
    run.options.no_valid = true;
    run.options.keep_best = false;
    run.options.patience = 0;
    cr_train_must(&run);
    open_posterior("none", &p);
    ck_assert(p->swag_scale == 0.5);
    cr_posterior_close(p);
}
END_TEST

START_TEST(refusals_and_warnings)
{
    struct cr_train_run run;
#define REFUSE(field, value, part)                                                                                     \
    do {                                                                                                               \
        full_init(&run, "out");                                                                                        \
        run.options.field = (value);                                                                                   \
        cr_train_must_fail(&run, CR_E_USAGE, part);                                                                    \
    } while (0)
    REFUSE(swag_start, 1, "--swag-start");
    REFUSE(swag_start, -0.1, "--swag-start");
    REFUSE(swag_rank, 1, "--swag-rank");
    REFUSE(swag_rank, 257, "--swag-rank");
    REFUSE(swag_lr, 0, "--swag-lr");
    REFUSE(swag_lr, (double)NAN, "--swag-lr");
    REFUSE(swag_scale, -1, "scale");
    REFUSE(swag_scale, (double)NAN, "scale");
    REFUSE(swag_every, 7, "no snapshot");
    REFUSE(swag_every, 4, "no spread");
#undef REFUSE
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
    struct cr_finetune_options o;
    ck_assert_int_eq(cr_finetune_options_for(&o, "swag", "paper", &err), CR_OK);
    ck_assert(o.swag_rank == 5 && o.swag_scale == 1 && o.epochs == 18 && o.swag_every == 0 && o.swag_anneal == 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swag_train");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 300);
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_add_test(all, moments_of_the_snapshots);
    tcase_add_test(all, rates);
    tcase_add_test(all, scale_by_validation);
    tcase_add_loop_test(all, stop_and_resume, 0, 9);
    tcase_add_loop_test(all, any_thread_count, 0, 2);
    tcase_add_test(all, trains_as_adamw);
    tcase_add_test(all, draws);
    tcase_add_test(all, refusals_and_warnings);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
