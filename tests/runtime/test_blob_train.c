/* Whole runs with method blob: what a step does to mu, B and rho, exact resume, thread counts, files, draws, refusals.
 */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/checkpoint.h"
#include "runtime/posterior/blob.h"
#include "runtime/posterior/method.h"
#include "runtime/posterior/posterior.h"
#include "runtime/thread/parallel.h"
#include "tests/support/kernel_test.h"
#include "tests/support/method_test.h"
#include "tests/support/train_test.h"

static void full_init(struct cr_train_run *run, const char *output)
{
    cr_train_full_init(run, output);
    run->options.method = "blob";
    run->options.dropout = 0;
    run->options.targets = "q_proj,v_proj,down_proj";
    run->options.save_every = 1;
    run->options.keep_checkpoints = 20;
    run->options.report_every = 1;
}

/* Rates so small that the NLL moves nothing: what is left of a step is the descent on pi KL, in a cycle of one step
 * with pi 2/3. B has no prior. */
START_TEST(descent_on_the_kl)
{
    struct cr_train_run run;
    struct cr_checkpoint at[2];
    struct cr_posterior *p = NULL;
    full_init(&run, "out");
    run.options.steps = 1;
    run.options.warmup = 0;
    run.options.weight_decay = 0;
    run.options.lr_schedule = CR_LR_CONSTANT;
    run.options.lr = 1e-30;
    run.options.kl_lr = 0.02;
    run.options.prior_std = 0.3;
    run.options.keep_best = false;
    cr_train_must(&run);
    p = cr_method_open("out");
    cr_method_step("out", 0, &at[0]);
    cr_method_step("out", 1, &at[1]);
    const float *mu0 = cr_method_section(&at[0], CR_CKPT_WEIGHTS, NULL),
                *mu1 = cr_method_section(&at[1], CR_CKPT_WEIGHTS, NULL);
    const float *rho0 = cr_method_section(&at[0], CR_CKPT_SPREAD, NULL),
                *rho1 = cr_method_section(&at[1], CR_CKPT_SPREAD, NULL);
    double rate = 0.02 * 2 / 3, spread = 2 * 0.09 + 1e-6;
    size_t n_a = 0;
    for (size_t i = 0; i < p->n_parts; i++) {
        const struct cr_ivon_part *part = &p->parts[i];
        for (size_t j = part->begin; j < part->begin + part->n; j++) {
            double m = (double)mu0[j], r = (double)rho0[j], sigma = r * r;
            if (part->group == CR_IVON_GROUP_B) {
                ck_assert(fabs((double)mu1[j]) < 1e-29 && rho0[j] == 0 && rho1[j] == 0);
                continue;
            }
            n_a++;
            ck_assert(r >= 0.05 * sqrt(0.5) * 0.999999 && r <= 0.05 * 1.000001);
            double drho = 2 * r * (2 * sigma / spread - 1 / (sigma + 1e-6));
            ck_assert_double_eq_tol((double)mu1[j], m - rate * 2 * m / spread, 0x1p-23 * fabs(m)); /* one rounding */
            ck_assert_double_eq_tol((double)rho1[j], r - rate * drho, 0x1p-22 * fabs(rate * drho));
        }
    }
    ck_assert_uint_gt(n_a, 1000);
    cr_checkpoint_close(&at[0]);
    cr_checkpoint_close(&at[1]);
    cr_posterior_close(p);
}
END_TEST

/* The method alone: noise E rho^2 beside A, and a gradient of the noise that reaches rho as 2 rho E times it: the first
 * step of Adam moves by the rate against its sign. */
START_TEST(from_noise_to_rho)
{
    struct cr_model *model = NULL;
    struct cr_adapter *adapter = NULL;
    struct cr_finetune_options o;
    struct cr_parallel parallel;
    struct cr_checkpoint_section sections[CR_METHOD_MAX_SECTIONS];
    const struct cr_method *method = cr_method_find("blob");
    void *state = NULL;
    cr_parallel_serial(&parallel);
    cr_finetune_options_init(&o);
    o.kl_lr = 0;
    ck_assert_int_eq(cr_model_open(cr_train_path("model.gguf"), &model, NULL), CR_OK);
    ck_assert_int_eq(cr_adapter_create(model, 4, 8, 0, 1u << CR_PROJ_Q, 0, true, &adapter, NULL), CR_OK);
    struct cr_method_setup setup = {.options = &o,
                                    .adapter = adapter,
                                    .parallel = &parallel,
                                    .tier = CR_TIER_SCALAR,
                                    .n_targets = 8,
                                    .n_examples = 8,
                                    .n_steps = 5,
                                    .steps_per_epoch = 1};
    ck_assert_int_eq(method->create(&setup, &state, NULL), CR_OK);
    ck_assert_uint_eq(method->sections(state, sections), 3);
    const float *rho = sections[1].data;
    const struct cr_lora *slot = &adapter->slots[CR_PROJ_Q];
    size_t n = (size_t)slot->rank * slot->n_in, at = (size_t)(slot->a - adapter->params);
    float *before = calloc(n, sizeof *before), *noise = calloc(n, sizeof *noise);
    memcpy(before, rho + at, n * sizeof *before);
    method->begin_pass(state, 3, 0);
    memcpy(noise, slot->noise, n * sizeof *noise);
    double sum = 0, sum2 = 0;
    for (size_t i = 0; i < n; i++) {
        double e = (double)noise[i] / ((double)before[i] * (double)before[i]);
        sum += e;
        sum2 += e * e;
        slot->grad_noise[i] = i % 3 == 0 ? -100.0f : 100.0f;
    }
    /* five standard deviations of mean and mean square of n standard normals */
    ck_assert_double_le(fabs(sum / (double)n), 5 / sqrt((double)n));
    ck_assert_double_le(fabs(sum2 / (double)n - 1), 5 * sqrt(2 / (double)n));
    method->end_pass(state, 3, 0);
    struct cr_method_step step = {.step = 3, .lr = 1e-3, .norm = 0};
    o.max_grad_norm = 0;
    method->update(state, &step);
    for (size_t i = 0; i < n; i++) {
        double e = (double)noise[i] / ((double)before[i] * (double)before[i]);
        double sign = (e < 0 ? -1 : 1) * (i % 3 == 0 ? -1 : 1);
        if (fabs(e) > 0.05) { /* clipped to norm 1 in all, an entry's gradient is far above Adam's 1e-6 */
            ck_assert_double_eq_tol((double)rho[at + i] - (double)before[i], -1e-3 * sign, 1e-5);
        }
    }
    method->begin_pass(state, 4, 0); /* another step: other noise, gradient from 0 */
    ck_assert(memcmp(noise, slot->noise, n * sizeof *noise) != 0);
    for (size_t i = 0; i < n; i++) {
        ck_assert(slot->grad_noise[i] == 0);
    }
    free(before);
    free(noise);
    method->destroy(state);
    cr_adapter_destroy(adapter);
    cr_model_close(model);
}
END_TEST

START_TEST(stop_and_resume)
{
    struct cr_train_run run;
    full_init(&run, "whole");
    cr_train_must(&run);
    full_init(&run, "cut");
    cr_train_stop(&run, 1 + 2 * _i);
    cr_train_must(&run);
    cr_method_same("whole", "cut");
}
END_TEST

/* The noise is in the passes: what the texts say moves rho where the KL does not, and the loss is not AdamW's. */
START_TEST(texts_move_the_spread)
{
    struct cr_train_run run;
    struct cr_checkpoint at[2];
    full_init(&run, "out");
    run.options.kl_lr = 0;
    cr_train_must(&run);
    double loss = run.result.final_loss;
    struct cr_posterior *p = cr_method_open("out");
    cr_method_step("out", 0, &at[0]);
    cr_method_step("out", 9, &at[1]);
    const float *rho0 = cr_method_section(&at[0], CR_CKPT_SPREAD, NULL),
                *rho9 = cr_method_section(&at[1], CR_CKPT_SPREAD, NULL);
    size_t n_a = 0, n_moved = 0;
    for (size_t i = 0; i < p->n_parts; i++) {
        const struct cr_ivon_part *part = &p->parts[i];
        for (size_t j = part->begin; j < part->begin + part->n && part->group != CR_IVON_GROUP_B; j++) {
            n_a++;
            n_moved += rho0[j] != rho9[j];
        }
    }
    ck_assert_uint_gt(n_a, 0);
    ck_assert_uint_eq(n_moved, n_a); /* Adam moves whatever has had a gradient other than 0 */
    cr_checkpoint_close(&at[0]);
    cr_checkpoint_close(&at[1]);
    cr_posterior_close(p);
    full_init(&run, "point");
    run.options.method = "adamw";
    cr_train_must(&run);
    ck_assert(run.result.final_loss != loss);
}
END_TEST

START_TEST(same_bits_for_threads)
{
    struct cr_train_run run;
    full_init(&run, "one");
    cr_train_must(&run);
    full_init(&run, "many");
    run.options.grad_checkpoint = CR_YES;
    cr_train_must_on(&run, 3);
    char x[300], y[300];
    snprintf(x, sizeof x, "one/%s", CR_POSTERIOR_FILE);
    snprintf(y, sizeof y, "many/%s", CR_POSTERIOR_FILE);
    ck_assert(cr_train_same(x, y));
}
END_TEST

/* The file holds mu and rho^2; draws have these moments and leave B alone. */
START_TEST(draws)
{
    enum { DRAWS = 64 };
    struct cr_train_run run;
    struct cr_checkpoint last;
    struct cr_posterior *p = NULL;
    full_init(&run, "out");
    run.options.keep_best = false;
    cr_train_must(&run);
    p = cr_method_open("out");
    cr_method_step("out", 9, &last);
    const float *mu = cr_method_section(&last, CR_CKPT_WEIGHTS, NULL),
                *rho = cr_method_section(&last, CR_CKPT_SPREAD, NULL);
    size_t n = p->adapter->n_params, n_a = 0;
    float *draw = calloc(n, sizeof *draw), *again = calloc(n, sizeof *again);
    double sum = 0, sum2 = 0;
    for (uint32_t s = 0; s < DRAWS; s++) {
        struct cr_posterior_draw d = {.seed = 5, .sample = s, .temperature = s % 2 == 0 ? 1 : 4};
        ck_assert_int_eq(cr_posterior_draw(p, &d, draw, NULL), CR_OK);
        ck_assert_int_eq(cr_posterior_draw(p, &d, again, NULL), CR_OK);
        ck_assert_mem_eq(draw, again, n * sizeof *draw);
        for (size_t i = 0; i < p->n_parts; i++) {
            const struct cr_ivon_part *part = &p->parts[i];
            for (size_t j = part->begin; j < part->begin + part->n; j++) {
                double sigma = (double)rho[j] * (double)rho[j];
                if (part->group == CR_IVON_GROUP_B) {
                    ck_assert(draw[j] == mu[j]);
                    continue;
                }
                double z = ((double)draw[j] - (double)mu[j]) / (sigma * (s % 2 == 0 ? 1 : 2));
                sum += z;
                sum2 += z * z;
                n_a++;
            }
        }
    }
    ck_assert_double_le(fabs(sum / (double)n_a), 5 / sqrt((double)n_a));
    ck_assert_double_le(fabs(sum2 / (double)n_a - 1), 5 * sqrt(2 / (double)n_a) + 1e-3); /* sigma in f32, mu added */
    free(draw);
    free(again);
    cr_checkpoint_close(&last);
    cr_posterior_close(p);
}
END_TEST

START_TEST(prediction)
{
    struct cr_train_run run;
    size_t n;
    char from[1024], to[1024];
    full_init(&run, "out");
    run.options.steps = 30;
    run.options.lr = 2e-2;
    cr_train_must(&run);
    char *journal = cr_train_journal("out");
    json_t *first = json_loads(strtok(journal, "\n"), 0, NULL);
    ck_assert_double_lt(run.result.final_loss, json_number_value(json_object_get(first, "loss")) - 0.1);
    json_decref(first);
    cr_free(journal);
    double mean = cr_method_nll("out", 0, -1, &n);
    ck_assert_uint_eq(n, 1);
    double drawn = cr_method_nll("out", 0, 0, &n);
    ck_assert_uint_eq(n, 10);
    ck_assert(drawn != mean);
    ck_assert_double_eq_tol(cr_method_nll("out", 4, 1e-14, &n), mean, 1e-4);
    snprintf(from, sizeof from, "%s", cr_train_path("out"));
    snprintf(to, sizeof to, "%s", cr_train_path("draw"));
    struct cr_export_options o = {
        .size = sizeof o, .adapter = from, .output = to, .format = "peft", .sample_set = true};
    ck_assert_int_eq(cr_export(&o, NULL, NULL), CR_OK);
    ck_assert(cr_method_nll("draw", 0, 0, &n) == cr_method_nll("out", 1, 0, &n));
}
END_TEST

START_TEST(refusals)
{
    struct cr_train_run run;
    CR_TRAIN_REFUSE(run, full_init, dropout, 0.1, "--dropout 0.1");
    CR_TRAIN_REFUSE(run, full_init, prior_std, 0, "--prior-std");
    CR_TRAIN_REFUSE(run, full_init, prior_std, (double)NAN, "--prior-std");
    CR_TRAIN_REFUSE(run, full_init, kl_lr, -1, "--kl-lr");
    CR_TRAIN_REFUSE(run, full_init, rho_init, 0, "rho_init");
    CR_TRAIN_REFUSE(run, full_init, rho_init, 2, "rho_init");
    ck_assert(!cr_train_exists("out"));
    struct cr_finetune_options o;
    struct cr_error err;
    ck_assert_int_eq(cr_finetune_options_for(&o, "blob", "paper", &err), CR_OK);
    ck_assert(o.lr == 1e-4 && o.batch_size == 4 && o.steps == 5000 && o.prior_std == 0.2 && o.kl_lr == 0.01);
    /* A spread that is none: the last tensor in the file is one of B or of A, and both must not be negative. */
    full_init(&run, "bad");
    run.options.steps = 1;
    cr_train_must(&run);
    size_t n;
    uint8_t *bytes = cr_train_bytes("bad/" CR_POSTERIOR_FILE, &n);
    static const uint8_t minus_one[4] = {0, 0, 0x80, 0xbf};
    memcpy(bytes + n - 4, minus_one, 4);
    cr_train_write("bad/" CR_POSTERIOR_FILE, bytes, n);
    cr_free(bytes);
    struct cr_posterior *p = NULL;
    char path[1024];
    snprintf(path, sizeof path, "%s", cr_train_path("bad"));
    ck_assert_int_eq(cr_posterior_open(path, NULL, false, NULL, CR_TIER_SCALAR, &p, &err), CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, CR_POSTERIOR_FILE));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("blob_train");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 300);
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_add_test(all, descent_on_the_kl);
    tcase_add_test(all, from_noise_to_rho);
    tcase_add_loop_test(all, stop_and_resume, 0, 4);
    tcase_add_test(all, texts_move_the_spread);
    tcase_add_test(all, same_bits_for_threads);
    tcase_add_test(all, draws);
    tcase_add_test(all, prediction);
    tcase_add_test(all, refusals);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
