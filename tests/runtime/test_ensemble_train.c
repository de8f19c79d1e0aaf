/* Whole runs with method ensemble: against AdamW, groups of members, the joint clip, exact resume, thread counts, label
 * rows. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "runtime/core/alloc.h"
#include "runtime/io/checkpoint.h"
#include "runtime/posterior/members.h"
#include "runtime/posterior/method.h"
#include "tests/runtime/ensemble_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/method_test.h"
#include "tests/support/train_test.h"

/* One member is a run of AdamW from where that member starts: same weights, moments, losses, validation, to the bit. */
START_TEST(one_member_is_adamw)
{
    struct cr_train_run run;
    struct cr_checkpoint at[2];
    size_t n[2];
    full_init(&run, "one");
    run.options.members = 1;
    run.options.keep_best = false;
    cr_train_must(&run);
    double nll = run.result.best_nll;
    export_member("one/checkpoints/step-00000000.cck", 0, "start");
    full_init(&run, "adamw");
    run.options.method = "adamw";
    run.options.adapter = cr_train_kept("start");
    run.options.keep_best = false;
    cr_train_must(&run);
    ck_assert(run.result.best_nll == nll);
    cr_method_step("one", 9, &at[0]);
    cr_method_step("adamw", 9, &at[1]);
    for (uint32_t kind = 0; kind < 2; kind++) {
        uint32_t which = kind == 0 ? CR_CKPT_WEIGHTS : CR_CKPT_OPTIMISER;
        const float *a = cr_method_section(&at[0], which, &n[0]), *b = cr_method_section(&at[1], which, &n[1]);
        ck_assert_uint_eq(n[0], n[1]);
        ck_assert_mem_eq(a, b, n[0] * sizeof *a);
    }
    char *journals[2] = {cr_train_journal("one"), cr_train_journal("adamw")};
    ck_assert_str_eq(journals[0], journals[1]);
    for (int i = 0; i < 2; i++) {
        cr_free(journals[i]);
        cr_checkpoint_close(&at[i]);
    }
}
END_TEST

static void same_ensembles(const char *a, const char *b)
{
    static const char *const names[] = {CR_POSTERIOR_FILE, "members/00/adapter_model.safetensors",
                                        "members/02/adapter_model.safetensors", "members/01/adapter_config.json",
                                        "checkpoints/step-00000009.cck"};
    cr_train_same_files(a, b, names, sizeof names / sizeof names[0]);
    cr_train_same_journals(a, b);
}

/* Which members share a pass changes no bit of any of them, nor of the validation. */
START_TEST(any_group)
{
    struct cr_train_run run;
    full_init(&run, "together");
    with_heads(&run, _i == 2);
    if (_i == 0) {
        run.options.data = cr_train_kept("texts.jsonl");
    }
    cr_train_must(&run);
    for (uint32_t at_once = 1; at_once < N_MEMBERS; at_once++) {
        const char *data = run.options.data;
        char name[16];
        snprintf(name, sizeof name, "by%u", at_once);
        full_init(&run, name);
        with_heads(&run, _i == 2);
        run.options.data = data;
        run.options.members_at_once = at_once;
        cr_train_must(&run);
        same_ensembles("together", name);
    }
    ck_assert(!cr_train_same("together/members/00/adapter_model.safetensors",
                             "together/members/01/adapter_model.safetensors"));
    ck_assert(!cr_train_exists("together/adapter_config.json"));
}
END_TEST

START_TEST(stop_and_resume)
{
    struct cr_train_run run;
    full_init(&run, "whole");
    with_heads(&run, _i > 0);
    cr_train_must(&run);
    full_init(&run, "cut");
    with_heads(&run, _i > 0);
    cr_train_stop(&run, 1 + 3 * _i);
    run.options.members_at_once = 2;
    cr_train_must(&run);
    same_ensembles("whole", "cut");
    run.options.resume = true;
    cr_train_must(&run);
    ck_assert(run.result.nothing_to_do);
}
END_TEST

START_TEST(any_thread_count)
{
    struct cr_train_run run;
    full_init(&run, "one");
    cr_train_must(&run);
    full_init(&run, "many");
    cr_train_must_on(&run, 3);
    same_ensembles("one", "many");
}
END_TEST

/* One step on all of the data, so that no order matters. Returns the gradient's norm and the loss. */
static double first_step(const char *name, uint32_t members, uint64_t seed, double max_norm, double *loss)
{
    struct cr_train_run run;
    full_init(&run, name);
    run.options.members = members;
    run.options.seed = seed;
    run.options.max_grad_norm = max_norm;
    run.options.dropout = 0;
    run.options.warmup = 0;
    run.options.steps = 1;
    run.options.batch_size = CR_TRAIN_CHOICES;
    run.options.grad_accumulation_steps = 1;
    run.options.no_valid = true;
    run.options.keep_best = false;
    cr_train_must(&run);
    char *journal = cr_train_journal(name);
    json_t *line = json_loads(journal, JSON_DISABLE_EOF_CHECK, NULL);
    double norm = json_number_value(json_object_get(line, "grad_norm"));
    *loss = json_number_value(json_object_get(line, "loss"));
    json_decref(line);
    cr_free(journal);
    return norm;
}

/* The loss is the mean over members, so each gradient has 1 / M; the clip looks at all of them together. A gradient's
 * operands may be rounded to bf16, and a factor of 1 / 3 rounds them elsewhere: by 2^-9 of each number at most, twice
 * in a product. */
START_TEST(joint_loss_and_clip)
{
    double loss, norm2 = 0, losses = 0;
    for (uint32_t m = 0; m < N_MEMBERS; m++) {
        char name[16];
        snprintf(name, sizeof name, "single%u", m);
        double norm = first_step(name, 1, cr_members_seed(5, m), 0, &loss);
        norm2 += norm * norm;
        losses += loss;
    }
    double joint = first_step("joint", N_MEMBERS, 5, 0, &loss);
    ck_assert_double_eq_tol(loss, losses / N_MEMBERS, 0x1p-8 * loss);
    ck_assert_double_eq_tol(joint, sqrt(norm2) / N_MEMBERS, 0x1p-8 * joint);
    double clip = joint / 2;
    ck_assert_double_eq_tol(first_step("clipped", N_MEMBERS, 5, clip, &loss), joint, 1e-9 * joint);
    struct cr_checkpoint at;
    size_t n, n_weights;
    cr_method_step("clipped", 1, &at);
    cr_method_section(&at, CR_CKPT_WEIGHTS, &n_weights);
    const float *state = cr_method_section(&at, CR_CKPT_OPTIMISER, &n);
    ck_assert_uint_eq(n, 16 + 2 * n_weights);
    double m2 = 0;
    for (size_t i = 0; i < n_weights; i++) {
        m2 += (double)state[16 + i] * (double)state[16 + i];
    }
    ck_assert_double_eq_tol(sqrt(m2), 0.1 * clip, 0x1p-20 * clip); /* m = (1 - beta1) g after one step */
    cr_checkpoint_close(&at);
}
END_TEST

/* Where label rows start, and how far the first step of AdamW takes them: its rate, where the gradient is far above
 * eps. */
START_TEST(heads_start_and_move)
{
    struct cr_train_run run;
    struct cr_checkpoint at[2];
    struct cr_adapter *adapter = NULL;
    struct cr_adapter_base base;
    size_t n;
    full_init(&run, "out");
    with_heads(&run, true);
    run.options.steps = 1;
    run.options.warmup = 0;
    run.options.weight_decay = 0;
    run.options.lr_schedule = CR_LR_CONSTANT;
    run.options.max_grad_norm = 0;
    run.options.no_valid = true;
    run.options.keep_best = false;
    cr_train_must(&run);
    cr_method_step("out", 0, &at[0]);
    cr_method_step("out", 1, &at[1]);
    const float *w[2] = {cr_method_section(&at[0], CR_CKPT_WEIGHTS, &n),
                         cr_method_section(&at[1], CR_CKPT_WEIGHTS, &n)};
    ck_assert_int_eq(
        cr_adapter_read(cr_train_path("out/checkpoints/step-00000000.cck"), NULL, false, &adapter, &base, NULL), CR_OK);
    size_t n_set = adapter->n_params, begin = cr_adapter_rows_begin(adapter), n_rows = n_set - begin;
    ck_assert_uint_eq(n, N_MEMBERS * n_set);
    ck_assert_uint_eq(adapter->n_labels, 2);
    ck_assert_uint_eq(n_rows, cr_label_floats(2, adapter->n_embd));
    ck_assert_mem_eq(adapter->params, w[0], n_set * sizeof(float));
    double between = 0, size = 0, farthest[2] = {0};
    for (size_t i = 0; i < n_set; i++) {
        bool row = i >= begin;
        double apart = (double)w[0][i] - (double)w[0][n_set + i];
        between += row ? apart * apart : 0;
        size += row ? (double)w[0][i] * (double)w[0][i] : 0;
        farthest[row] = fmax(farthest[row], fabs((double)w[1][i] - (double)w[0][i]));
    }
    /* Two independent draws of .05 each around the same rows: the ratio has a relative error of about sqrt(2 / n). */
    ck_assert_double_eq_tol(sqrt(between / size), 0.05 * sqrt(2), 0.05 * sqrt(2) * 4 * sqrt(2 / (double)n_rows));
    ck_assert_double_eq_tol(farthest[0], run.options.lr, 1e-3 * run.options.lr);
    ck_assert_double_eq_tol(farthest[1], 1e-3, 1e-6);
    cr_adapter_destroy(adapter);
    cr_checkpoint_close(&at[0]);
    cr_checkpoint_close(&at[1]);
}
END_TEST

START_TEST(defaults_and_presets)
{
    struct cr_finetune_options o;
    struct cr_error err = {0};
    ck_assert_int_eq(cr_finetune_options_for(&o, "ensemble", NULL, &err), CR_OK);
    ck_assert(o.lr == 3e-3 && o.members == 4 && o.init_gain == 0 && !o.member_heads && o.max_grad_norm == 1);
    ck_assert_int_eq(cr_finetune_options_for(&o, "ensemble", "paper", &err), CR_OK);
    ck_assert(o.lr == 1e-4 && o.members == 16 && o.init_gain == 10 && o.member_heads && o.batch_size == 32);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ensemble_train");
    TCase *all = tcase_create("ensemble_train");
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_set_timeout(all, 300);
    tcase_add_test(all, one_member_is_adamw);
    tcase_add_loop_test(all, any_group, 0, 3);
    tcase_add_loop_test(all, stop_and_resume, 0, 3);
    tcase_add_test(all, any_thread_count);
    tcase_add_test(all, joint_loss_and_clip);
    tcase_add_test(all, heads_start_and_move);
    tcase_add_test(all, defaults_and_presets);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
