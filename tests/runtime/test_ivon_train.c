/* Whole runs with method ivon: learning, exact resume, thread counts, accumulation, kept best, warnings, refusals. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/checkpoint.h"
#include "runtime/posterior/method.h"
#include "runtime/posterior/posterior.h"
#include "runtime/thread/parallel.h"
#include "tests/support/kernel_test.h"
#include "tests/support/method_test.h"
#include "tests/support/train_test.h"

static struct cr_parallel serial;

static void setup(void)
{
    cr_train_dir_make();
    cr_parallel_serial(&serial);
}

static void use_ivon(struct cr_train_run *run)
{
    run->options.method = "ivon";
    run->options.lr = 0.5;
    run->options.clip_radius = 0.02;
    run->options.max_grad_norm = 0;
}

static void init(struct cr_train_run *run, const char *output)
{
    cr_train_run_init(run, output);
    use_ivon(run);
}

/* Ten steps with everything that a resume has to bring back. */
static void full_init(struct cr_train_run *run, const char *output, uint32_t mc_samples)
{
    cr_train_full_init(run, output);
    use_ivon(run);
    run->options.steps = 10;
    run->options.mc_samples = mc_samples;
    run->options.max_grad_norm = 1;
    run->options.lr_b = 0.25;
    run->options.hess_init_b = 2e-3;
    run->options.beta2 = 0.99;
}

static json_t *summary_of(const char *output)
{
    char name[300];
    snprintf(name, sizeof name, "%s/summary.json", output);
    json_t *summary = json_load_file(cr_train_path(name), 0, NULL);
    ck_assert(json_is_object(summary));
    return summary;
}

static double fact(const json_t *summary, const char *key)
{
    const json_t *value = json_object_get(json_object_get(summary, "posterior"), key);
    ck_assert_msg(json_is_number(value), "%s", key);
    return json_number_value(value);
}

START_TEST(learns_the_rule)
{
    struct cr_train_run run;
    init(&run, "out");
    run.options.targets = "all";
    run.options.steps = 80;
    run.options.report_every = 20;
    run.options.warmup = 0.06;
    run.options.lr = 0.2;
    run.options.clip_radius = 0.01;
    run.options.ess = 1e7;
    cr_train_must(&run);
    /* Guessing costs ln 2; a third of that needs the rule, and here under noise. */
    ck_assert_double_lt(run.result.final_loss, 0.23);
}
END_TEST

START_TEST(facts)
{
    struct cr_train_run run;
    init(&run, "out");
    run.options.steps = 3;
    run.options.targets = "all";
    cr_train_must(&run);
    json_t *summary = summary_of("out");
    double ess = json_number_value(json_object_get(json_object_get(summary, "settings"), "ess"));
    ck_assert_double_eq(ess, 3e5);
    ck_assert_double_eq_tol(fact(summary, "sigma0"), 1 / sqrt(ess * 1e-3), 1e-9);
    ck_assert_double_eq_tol(fact(summary, "ess_per_target"), 3e5 / (double)run.result.n_train, 1e-9);
    /* A is uniform in +-1/sqrt(in): in is 64, for one of seven projections 128 */
    double ratio = fact(summary, "sigma0") * 8 * sqrt(3) / fact(summary, "sigma0_over_std_a");
    ck_assert_double_eq_tol(ratio, 1, 0.12);
    ck_assert(fact(summary, "clipped_share") > 0 && fact(summary, "clipped_share") <= 1);
    ck_assert_double_gt(fact(summary, "hess_min"), 0);
    json_decref(summary);
}
END_TEST

START_TEST(stop_and_resume)
{
    struct cr_train_run run;
    uint32_t mc_samples = _i % 2 == 0 ? 1 : 2;
    full_init(&run, "whole", mc_samples);
    cr_train_must(&run);
    full_init(&run, "cut", mc_samples);
    cr_train_stop(&run, 5 + _i / 2);
    ck_assert(!cr_train_exists("cut/" CR_POSTERIOR_FILE));
    cr_train_must(&run);
    ck_assert_int_eq(run.n_steps_seen, 5 - _i / 2);
    cr_method_same("whole", "cut");
    cr_train_same_journals("whole", "cut");
    ck_assert(cr_train_same("whole/checkpoints/step-00000010.cck", "cut/checkpoints/step-00000010.cck"));
    json_t *summaries[2] = {summary_of("whole"), summary_of("cut")};
    ck_assert(json_equal(json_object_get(summaries[0], "posterior"), json_object_get(summaries[1], "posterior")));
    json_decref(summaries[0]);
    json_decref(summaries[1]);
    cr_train_must(&run);
    ck_assert(run.result.nothing_to_do);
}
END_TEST

/* A step that was cut short between its passes or layers has changed nothing. */
START_TEST(stop_within_a_step)
{
    struct cr_train_run run;
    full_init(&run, "whole", 2);
    cr_train_must(&run);
    long n_polls = run.n_polls;
    full_init(&run, "cut", 2);
    run.stop_at_poll = (2 + _i) * n_polls / 12;
    ck_assert_int_eq(cr_train_run_go(&run), CR_E_STOPPED);
    run.options.resume = cr_train_exists("cut");
    run.stop_at_poll = 0;
    cr_train_must(&run);
    cr_method_same("whole", "cut");
}
END_TEST

START_TEST(any_thread_count)
{
    struct cr_train_run run;
    full_init(&run, "one", 1);
    cr_train_must(&run);
    full_init(&run, "many", 1);
    cr_train_must_on(&run, 2 + _i);
    cr_method_same("one", "many");
    ck_assert(cr_train_same("one/checkpoints/step-00000010.cck", "many/checkpoints/step-00000010.cck"));
}
END_TEST

/* One noise for all micro-batches of a step: the same as one larger batch. */
START_TEST(accumulation_is_a_larger_batch)
{
    struct cr_train_run run;
    init(&run, "a");
    run.options.batch_size = 6;
    cr_train_must(&run);
    init(&run, "b");
    run.options.batch_size = 2;
    run.options.grad_accumulation_steps = 3;
    cr_train_must(&run);
    cr_method_same("a", "b");
}
END_TEST

/* The mean is what stands in the adapter and in a checkpoint's weights; the posterior file agrees with both. */
START_TEST(files_hold_the_mean)
{
    struct cr_train_run run;
    struct cr_posterior *posterior[2] = {NULL, NULL};
    struct cr_checkpoint checkpoint;
    struct cr_error err = {0};
    full_init(&run, "out", 1);
    run.options.keep_best = false;
    run.options.targets = "q_proj,k_proj,down_proj";
    cr_train_must(&run);
    static const char *const paths[] = {"out", "out/checkpoints/step-00000010.cck"};
    for (int i = 0; i < 2; i++) {
        cr_status status =
            cr_posterior_open(cr_train_path(paths[i]), NULL, false, NULL, CR_TIER_SCALAR, &posterior[i], &err);
        ck_assert_msg(status == CR_OK, "%s", err.message);
        ck_assert(!cr_posterior_is_point(posterior[i]));
    }
    size_t bytes = posterior[0]->adapter->n_params * sizeof(float);
    ck_assert_uint_eq(bytes, posterior[1]->adapter->n_params * sizeof(float));
    ck_assert_mem_eq(posterior[0]->adapter->params, posterior[1]->adapter->params, bytes);
    ck_assert_mem_eq(posterior[0]->hess, posterior[1]->hess, bytes);
    for (int g = 0; g < CR_IVON_GROUPS; g++) {
        ck_assert(posterior[0]->groups[g].ess == posterior[1]->groups[g].ess);
        ck_assert(posterior[0]->groups[g].weight_decay == 0.1 && posterior[1]->groups[g].weight_decay == 0.1);
    }
    ck_assert_int_eq(cr_checkpoint_open(cr_train_path(paths[1]), &checkpoint, &err), CR_OK);
    ck_assert_mem_eq(cr_checkpoint_find(&checkpoint, CR_CKPT_WEIGHTS)->data, posterior[0]->adapter->params, bytes);
    cr_checkpoint_close(&checkpoint);
    cr_posterior_close(posterior[0]);
    cr_posterior_close(posterior[1]);
}
END_TEST

/* The best evaluation's posterior, mean and curvature, is that of a run that ends there. */
START_TEST(keeps_the_best)
{
    struct cr_train_run run;
    for (int i = 0; i < 2; i++) {
        uint64_t best = run.result.best_step;
        init(&run, i == 0 ? "best" : "short");
        run.options.valid = cr_train_path("other.jsonl");
        run.options.lr_schedule = CR_LR_CONSTANT;
        run.options.ess = 26000;
        run.options.clip_radius = 0.5; /* wild enough that the last evaluation is not the best */
        run.options.beta2 = 0.99;
        run.options.eval_every = 1;
        run.options.steps = i == 0 ? 8 : best;
        run.options.keep_best_set = i == 1; /* last */
        cr_train_must(&run);
        ck_assert_uint_ge(run.result.best_step, 1);
        ck_assert(i == 1 || run.result.best_step < 8);
    }
    struct cr_posterior *posterior[2];
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(cr_posterior_open(cr_train_path(i == 0 ? "best" : "short"), NULL, false, NULL, CR_TIER_SCALAR,
                                           &posterior[i], NULL),
                         CR_OK);
    }
    size_t bytes = posterior[0]->adapter->n_params * sizeof(float);
    ck_assert_mem_eq(posterior[0]->adapter->params, posterior[1]->adapter->params, bytes);
    ck_assert_mem_eq(posterior[0]->hess, posterior[1]->hess, bytes);
    cr_posterior_close(posterior[0]);
    cr_posterior_close(posterior[1]);
}
END_TEST

START_TEST(warnings)
{
    struct cr_train_run run;
    init(&run, "cut");
    run.options.steps = 40;
    run.options.clip_radius = 1e-9;
    cr_train_must(&run);
    ck_assert_int_eq(run.n_warnings, 2); /* once, and one of the data */
    ck_assert_ptr_nonnull(strstr(run.last_warning, "clip radius"));
    init(&run, "narrow");
    run.options.steps = 40;
    run.options.gradsq = true; /* on a scale of its own, for which this hess_init is far too small */
    run.options.ess = 1e9;
    run.options.hess_init = 1e-3;
    run.options.clip_radius = 1;
    cr_train_must(&run);
    ck_assert_ptr_nonnull(strstr(run.last_warning, "variance collapses"));
    init(&run, "fine");
    run.options.ess = 1e7;
    run.options.clip_radius = 0.5;
    run.options.lr = 1e-3;
    run.options.steps = 40;
    cr_train_must(&run);
    ck_assert_int_eq(run.n_warnings, 1);
}
END_TEST

START_TEST(defaults_and_presets)
{
    struct cr_finetune_options o;
    struct cr_error err = {0};
    ck_assert_int_eq(cr_finetune_options_for(&o, NULL, NULL, &err), CR_OK);
    ck_assert(strcmp(o.method, "adamw") == 0 && o.lr == 2e-4 && o.max_grad_norm == 1 && o.batch_size == 8);
    ck_assert_int_eq(cr_finetune_options_for(&o, "ivon", NULL, &err), CR_OK);
    ck_assert(o.lr == 0.5 && o.hess_init == 1e-3 && o.clip_radius == 1e-3 && o.warmup == 0.06 && o.ess == 0 &&
              o.max_grad_norm == 0 && o.beta2 == 0.99999 && !o.rescale_lr && o.weight_decay == 0);
    ck_assert_int_eq(cr_finetune_options_for(&o, "ivon", "paper", &err), CR_OK);
    ck_assert(o.lr == 0.03 && o.ess == 1e6 && o.steps == 10000 && o.batch_size == 4 && o.dropout == 0.1 &&
              o.warmup == 0 && strcmp(o.preset, "paper") == 0);
    ck_assert_int_eq(cr_finetune_options_for(&o, "ivon", "best", &err), CR_E_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "paper"));
    ck_assert_int_eq(cr_finetune_options_for(&o, "sgd", NULL, &err), CR_E_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "ivon"));
}
END_TEST

START_TEST(refused_options)
{
    struct cr_train_run run;
    CR_TRAIN_REFUSE(run, init, ess, -1, "--ess");
    CR_TRAIN_REFUSE(run, init, ess, (double)NAN, "--ess");
    CR_TRAIN_REFUSE(run, init, ess, 1e39, "--ess");
    CR_TRAIN_REFUSE(run, init, ess_b, 1e-39, "ess of B");
    CR_TRAIN_REFUSE(run, init, hess_init, 0, "--hess-init");
    CR_TRAIN_REFUSE(run, init, hess_init, (double)INFINITY, "--hess-init");
    CR_TRAIN_REFUSE(run, init, clip_radius, 0, "--clip-radius");
    CR_TRAIN_REFUSE(run, init, mc_samples, 0, "--mc-samples");
    CR_TRAIN_REFUSE(run, init, beta1, 1, "beta1");
    CR_TRAIN_REFUSE(run, init, beta2, 1.5, "beta2");
    CR_TRAIN_REFUSE(run, init, ess_b, -1, "ess of B");
    CR_TRAIN_REFUSE(run, init, clip_radius_b, -1, "clip radius of B");
    ck_assert(!cr_train_exists("out"));
}
END_TEST

START_TEST(resume_with_other_settings)
{
    struct cr_train_run run;
    full_init(&run, "out", 1);
    run.stop_at = 4;
    cr_train_must_fail(&run, CR_E_STOPPED, "step 4");
    run.stop_at = -1;
    run.options.resume = true;
    run.options.ess = 1e5;
    cr_train_must_fail(&run, CR_E_BUSY, "ess");
    run.options.ess = 0;
    run.options.mc_samples = 2;
    cr_train_must_fail(&run, CR_E_BUSY, "mc-samples 1, now 2");
    run.options.mc_samples = 1;
    run.options.method = "adamw";
    cr_train_must_fail(&run, CR_E_BUSY, "method \"ivon\", now \"adamw\"");
    run.options.allow_inexact = true;
    cr_train_must_fail(&run, CR_E_INPUT, "optimiser state"); /* of another layout: nothing can allow that */
}
END_TEST

/* Counts that cannot be: which of them is said. As they lie: layout, t, n_updates, n_clipped. */
START_TEST(impossible_counts)
{
    struct cr_train_run run;
    struct cr_checkpoint at;
    struct cr_error err = {0};
    uint64_t counts[8];
    full_init(&run, "out", 1);
    run.stop_at = 4;
    cr_train_must_fail(&run, CR_E_STOPPED, "step 4");
    cr_method_step("out", 4, &at);
    for (size_t i = 0; i < at.n_sections; i++) {
        if (at.sections[i].kind == CR_CKPT_METHOD) {
            ck_assert_uint_eq(at.sections[i].bytes, sizeof counts);
            memcpy(counts, at.sections[i].data, sizeof counts);
            at.sections[i].data = counts;
        }
    }
    ck_assert_uint_ge(counts[2], counts[3]);
    counts[_i == 0 ? 3 : 0] = counts[2] + 1;
    const char *path = cr_train_path("out/checkpoints/step-00000004.cck");
    ck_assert_msg(cr_checkpoint_write(path, at.run_id, at.step, at.sections, at.n_sections, &err) == CR_OK, "%s",
                  err.message);
    cr_checkpoint_close(&at);
    run.stop_at = -1;
    run.options.resume = true;
    cr_train_must_fail(&run, CR_E_INPUT, _i == 0 ? "updates clipped, of" : "expected 64");
}
END_TEST

/* A longer run asks for memory no more often: steps allocate nothing. */
START_TEST(steps_allocate_nothing)
{
    static const char *const methods[] = {"adamw", "ivon", "swag"};
    long n[2];
    for (int i = 0; i < 2; i++) {
        struct cr_train_run run;
        cr_train_run_init(&run, i == 0 ? "short" : "long");
        run.options.method = methods[_i];
        run.options.no_valid = true;
        run.options.save_every = 100;
        run.options.steps = i == 0 ? 5 : 15;
        run.options.swag_start = 0;
        run.options.swag_every = 2;
        run.options.mc_samples = 2;
        long before = cr_alloc_count();
        cr_train_must(&run);
        n[i] = cr_alloc_count() - before;
    }
    ck_assert_int_gt(n[0], 10);
    ck_assert_int_eq(n[0], n[1]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ivon_train");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 300);
    tcase_add_checked_fixture(all, setup, cr_train_dir_drop);
    tcase_add_test(all, learns_the_rule);
    tcase_add_test(all, facts);
    tcase_add_loop_test(all, stop_and_resume, 0, 4);
    tcase_add_loop_test(all, stop_within_a_step, 0, 3);
    tcase_add_loop_test(all, any_thread_count, 0, 3);
    tcase_add_test(all, accumulation_is_a_larger_batch);
    tcase_add_test(all, files_hold_the_mean);
    tcase_add_test(all, keeps_the_best);
    tcase_add_test(all, warnings);
    tcase_add_test(all, defaults_and_presets);
    tcase_add_test(all, refused_options);
    tcase_add_test(all, resume_with_other_settings);
    tcase_add_loop_test(all, impossible_counts, 0, 2);
    tcase_add_loop_test(all, steps_allocate_nothing, 0, 3);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
