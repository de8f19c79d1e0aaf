/* Whole runs with method bora: against AdamW, the pull of the prior, the mean, exact resume, thread counts, files,
 * predictions by task, refusals. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/io/checkpoint.h"
#include "runtime/posterior/method.h"
#include "runtime/posterior/posterior.h"
#include "tests/support/kernel_test.h"
#include "tests/support/method_test.h"
#include "tests/support/train_test.h"

enum { STEPS = 9, N_LINES = 24 };

/* Questions whose tasks go around; `only` leaves out the other tasks, `flipped` answers one otherwise. */
static void put_choices(const char *name, int n_tasks, int only, int flipped)
{
    struct cr_buf buf = {0};
    for (int i = 0; i < N_LINES; i++) {
        int task = i % n_tasks, answer = (i / 2 + (task == flipped)) % 2;
        if (only < 0 || task == only) {
            cr_buf_printf(&buf, "{\"question\":\"%.*s %d\",\"choices\":[\"a\",\"b\"],\"answer\":%d,\"task\":\"t%d\"}\n",
                          3 + i * 7 % 20, "some words to be looked at here", i, answer, task);
        }
    }
    cr_train_write(name, buf.data, buf.n);
    cr_buf_free(&buf);
}

static void put_texts(const char *name)
{
    struct cr_buf buf = {0};
    for (int i = 0; i < N_LINES; i++) {
        cr_buf_printf(&buf, "{\"text\":\"number %d of the %.*s\",\"task\":\"t%d\"}\n", i, i * 5 % 13, "long long list",
                      i % 3);
    }
    cr_train_write(name, buf.data, buf.n);
    cr_buf_free(&buf);
}

static void full_init(struct cr_train_run *run, const char *output, const char *data)
{
    cr_train_full_init(run, output);
    run->options.method = "bora";
    run->options.data = cr_train_kept(data);
    run->options.tau = 3;
    run->options.save_every = 1;
    run->options.keep_checkpoints = 20;
    run->options.report_every = 1;
}

static void init_data(struct cr_train_run *run, const char *output)
{
    full_init(run, output, "data");
}

static const float *section(const char *output, int step, uint32_t kind, struct cr_checkpoint *at, size_t *n)
{
    cr_method_step(output, step, at);
    return cr_method_section(at, kind, n);
}

/* One task that starts at the mean is a run of AdamW, whatever tau; so is one adapter for all. */
START_TEST(one_adapter_is_adamw)
{
    struct cr_train_run run;
    struct cr_checkpoint at[2];
    size_t n[2];
    bool global = _i == 1;
    put_choices("data", global ? 3 : 1, -1, -1);
    full_init(&run, "bora", "data");
    run.options.bora_spread = 0;
    run.options.bora_mode = global ? "global" : NULL;
    cr_train_must(&run);
    double nll = run.result.best_nll;
    full_init(&run, "adamw", "data");
    run.options.method = "adamw";
    cr_train_must(&run);
    ck_assert_double_eq_tol(run.result.best_nll, nll, 1e-12 * nll); /* sums of doubles in two orders */
    const float *a = section("bora", STEPS, CR_CKPT_WEIGHTS, &at[0], &n[0]);
    const float *b = section("adamw", STEPS, CR_CKPT_WEIGHTS, &at[1], &n[1]);
    ck_assert_uint_eq(n[0], n[1] * (global ? 1 : 2));
    ck_assert_mem_eq(a, b, n[1] * sizeof *a);
    ck_assert_mem_eq(a + n[0] - n[1], b, n[1] * sizeof *a);
    cr_checkpoint_close(&at[0]);
    cr_checkpoint_close(&at[1]);
    cr_train_same_outputs("bora", "bora"); /* the three files are there */
}
END_TEST

static void one_step(struct cr_train_run *run, const char *output, double tau, const char *prior)
{
    full_init(run, output, "data");
    run->options.tau = tau;
    run->options.bora_prior = prior;
    run->options.bora_spread = 0.05;
    run->options.max_grad_norm = 0;
    run->options.warmup = 0;
    run->options.steps = 1;
    run->options.no_valid = true;
    run->options.keep_best = false;
    cr_train_must(run);
}

/* The first moment after one step is a tenth of the gradient: with and without the prior it differs by the prior's
 * part alone, and the moments of absent tasks hold nothing else. */
START_TEST(pull_of_the_prior)
{
    struct cr_train_run run;
    struct cr_checkpoint at[3];
    size_t n_start, n[2];
    put_choices("data", 3, -1, -1);
    one_step(&run, "free", 0, NULL);
    one_step(&run, "held", 600, NULL);
    const float *start = section("held", 0, CR_CKPT_WEIGHTS, &at[0], &n_start);
    const float *free_m = section("free", 1, CR_CKPT_OPTIMISER, &at[1], &n[0]);
    const float *held_m = section("held", 1, CR_CKPT_OPTIMISER, &at[2], &n[1]);
    size_t n_set = n_start / 4, n_moved = 3 * n_set; /* the common one is not moved by AdamW */
    ck_assert_uint_eq(n[0], 16 + 2 * n_moved);
    ck_assert_uint_eq(n[1], n[0]);
    double largest = 0;
    for (size_t i = 0; i < n_moved; i++) {
        double want = 0.1 * 600.0 / N_LINES * ((double)start[n_set + i] - (double)start[i % n_set]);
        double got = (double)held_m[16 + i] - (double)free_m[16 + i];
        double ulps = 0x1p-22 * (fabs((double)held_m[16 + i]) + fabs((double)free_m[16 + i]) + fabs(want));
        ck_assert_double_eq_tol(got, want, ulps); /* gradient and moment are rounded to f32 once each */
        largest = fmax(largest, fabs(want));
    }
    ck_assert_double_gt(largest, 0.1);
    for (int i = 0; i < 3; i++) {
        cr_checkpoint_close(&at[i]);
    }
}
END_TEST

/* Beside the common set: where all start alike with B = 0, the gradient of B of the common one is the sum of those of
 * the tasks, and A of a task feels its prior alone. */
START_TEST(joined_gradients)
{
    struct cr_train_run run;
    struct cr_checkpoint at[2];
    struct cr_adapter *adapter = NULL;
    struct cr_adapter_base base;
    size_t n_start, n;
    put_choices("data", 3, -1, -1);
    one_step(&run, "out", 0, NULL); /* for its settings */
    run.options.output = cr_train_kept("joined");
    run.options.bora_mode = "joined";
    run.options.tau = 5;
    run.options.bora_spread = 0;
    cr_train_must(&run);
    const float *start = section("joined", 0, CR_CKPT_WEIGHTS, &at[0], &n_start);
    const float *m = section("joined", 1, CR_CKPT_OPTIMISER, &at[1], &n) + 16;
    ck_assert_uint_eq(n, 16 + 2 * n_start);
    ck_assert_int_eq(
        cr_adapter_read(cr_train_path("joined/checkpoints/step-00000000.cck"), NULL, false, &adapter, &base, NULL),
        CR_OK);
    size_t n_set = adapter->n_params;
    double moved = 0;
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        const struct cr_lora *slot = &adapter->slots[i];
        for (size_t j = 0; slot->rank > 0 && j < (size_t)slot->rank * slot->n_out; j++) {
            size_t at_b = (size_t)(slot->b - adapter->params) + j;
            double sum = 0, size = 0;
            for (size_t d = 1; d <= 3; d++) {
                sum += (double)m[d * n_set + at_b];
                size += fabs((double)m[d * n_set + at_b]);
            }
            ck_assert_double_eq_tol((double)m[at_b], sum, 0x1p-21 * size); /* f32 sums of three */
            moved += size;
        }
        for (size_t j = 0; slot->rank > 0 && j < (size_t)slot->rank * slot->n_in; j++) {
            size_t at_a = (size_t)(slot->a - adapter->params) + j;
            double want = 0.1 * 5.0 / N_LINES * (double)start[n_set + at_a];
            ck_assert_double_eq_tol((double)m[n_set + at_a], want, 0x1p-22 * fabs(want));
            ck_assert(m[at_a] == 0);
        }
    }
    ck_assert_double_gt(moved, 0);
    cr_adapter_destroy(adapter);
    cr_checkpoint_close(&at[0]);
    cr_checkpoint_close(&at[1]);
}
END_TEST

/* Sum over the tasks of the squared distance to the common set, which is checked to be their mean. */
static double spread_of(const char *output, int n_tasks, bool mean)
{
    struct cr_checkpoint at;
    size_t n;
    const float *w = section(output, STEPS, CR_CKPT_WEIGHTS, &at, &n);
    size_t n_set = n / (1 + (size_t)n_tasks);
    double spread = 0;
    for (size_t i = 0; i < n_set; i++) {
        double sum = 0;
        for (int d = 1; d <= n_tasks; d++) {
            double apart = (double)w[(size_t)d * n_set + i] - (double)w[i];
            sum += (double)w[(size_t)d * n_set + i];
            spread += apart * apart;
        }
        ck_assert(!mean || w[i] == (float)(sum / n_tasks));
    }
    cr_checkpoint_close(&at);
    return spread;
}

START_TEST(tau_holds_together)
{
    static const double taus[] = {0, 100, 10000};
    struct cr_train_run run;
    double spreads[3];
    put_choices("data", 3, -1, -1);
    for (int i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "tau%d", i);
        full_init(&run, name, "data");
        run.options.tau = taus[i];
        run.options.steps = STEPS;
        cr_train_must(&run);
        spreads[i] = spread_of(name, 3, true);
    }
    ck_assert_double_lt(spreads[1], spreads[0]);
    ck_assert_double_lt(spreads[2], spreads[1]);
    full_init(&run, "norm", "data");
    run.options.bora_prior = "norm";
    cr_train_must(&run);
    ck_assert_double_gt(spread_of("norm", 3, false), 0);
}
END_TEST

/* Without a prior a task does not feel what the others learn; with one it does. */
START_TEST(tasks_apart)
{
    struct cr_train_run run;
    struct cr_checkpoint at[2];
    size_t n[2];
    put_choices("data", 3, -1, -1);
    put_choices("flipped", 3, -1, 2);
    for (int i = 0; i < 2; i++) {
        full_init(&run, i == 0 ? "as" : "otherwise", i == 0 ? "data" : "flipped");
        run.options.tau = _i == 0 ? 0 : 100;
        run.options.max_grad_norm = 0;
        run.options.no_valid = true;
        run.options.keep_best = false;
        cr_train_must(&run);
    }
    const float *a = section("as", STEPS, CR_CKPT_WEIGHTS, &at[0], &n[0]);
    const float *b = section("otherwise", STEPS, CR_CKPT_WEIGHTS, &at[1], &n[1]);
    size_t n_set = n[0] / 4;
    bool same = memcmp(a + n_set, b + n_set, 2 * n_set * sizeof *a) == 0;
    ck_assert_int_eq(same, _i == 0);
    ck_assert(memcmp(a + 3 * n_set, b + 3 * n_set, n_set * sizeof *a) != 0);
    cr_checkpoint_close(&at[0]);
    cr_checkpoint_close(&at[1]);
}
END_TEST

static void same_runs(const char *a, const char *b)
{
    static const char *const names[] = {CR_POSTERIOR_FILE, "tasks/t1/adapter_model.safetensors",
                                        "checkpoints/step-00000009.cck"};
    cr_train_same_files(a, b, names, sizeof names / sizeof names[0]);
    cr_train_same_outputs(a, b);
    cr_train_same_journals(a, b);
}

START_TEST(stop_and_resume)
{
    struct cr_train_run run;
    bool texts = _i % 2 != 0;
    texts ? put_texts("data") : put_choices("data", 3, -1, -1);
    const char *mode = _i < 2 ? NULL : "joined";
    full_init(&run, "whole", "data");
    run.options.bora_mode = mode;
    cr_train_must(&run);
    full_init(&run, "cut", "data");
    run.options.bora_mode = mode;
    cr_train_stop(&run, 1 + 2 * _i);
    cr_train_must_on(&run, 3);
    same_runs("whole", "cut");
    cr_train_must(&run);
    ck_assert(run.result.nothing_to_do);
}
END_TEST

struct shot {
    const char *adapter, *data;
    bool mean, strict;
    uint32_t samples, batch_size;
};

static cr_status shoot(const struct shot *shot, struct cr_eval_result *result, struct cr_error *err)
{
    struct cr_eval_options o;
    struct cr_host host = {.n_threads = 1};
    cr_eval_options_init(&o);
    o.model = cr_train_kept("model.gguf");
    o.data = cr_train_kept(shot->data);
    o.adapter = cr_train_kept(shot->adapter);
    o.mean = shot->mean;
    o.strict_task = shot->strict;
    o.samples = shot->samples;
    o.batch_size = shot->batch_size;
    return cr_eval(&o, &host, result, err);
}

/* NLL of all, and of task `group` when it is not negative. */
static double nll_of(struct shot shot, int group, uint64_t n_global)
{
    struct cr_eval_result result = {0};
    struct cr_error err = {0};
    ck_assert_msg(shoot(&shot, &result, &err) == CR_OK, "%s", err.message);
    ck_assert_uint_eq(result.n_members, 1);
    ck_assert_uint_eq(result.n_global, n_global);
    double nll = group < 0 ? result.all.nll : result.groups[group].nll;
    cr_eval_result_deinit(&result);
    return nll;
}

static void export_task(const char *task, const char *to)
{
    struct cr_error err = {0};
    struct cr_export_options o = {
        .size = sizeof o, .adapter = cr_train_kept("out"), .output = cr_train_kept(to), .format = "peft", .task = task};
    ck_assert_msg(cr_export(&o, NULL, &err) == CR_OK, "%s", err.message);
}

/* Every task by its own adapter, as if it were alone; others by the common one. */
START_TEST(predictions)
{
    struct cr_train_run run;
    put_choices("data", 3, -1, -1);
    put_choices("only1", 3, 1, -1);
    put_choices("five", 5, -1, -1);
    full_init(&run, "out", "data");
    run.options.valid = cr_train_kept("data");
    run.options.tau = _i;
    run.options.bora_mode = _i == 0 ? NULL : "joined";
    cr_train_must(&run);
    double all = nll_of((struct shot){.adapter = "out", .data = "data"}, -1, 0);
    ck_assert_double_eq_tol(all, run.result.best_nll, 1e-12 * all); /* sums of doubles in two orders */
    ck_assert(all == nll_of((struct shot){.adapter = "out", .data = "data", .batch_size = 5}, -1, 0));
    export_task("t1", "task1");
    double task1 = nll_of((struct shot){.adapter = "task1", .data = "only1"}, -1, 0);
    ck_assert(task1 == nll_of((struct shot){.adapter = "out", .data = "data"}, 1, 0));
    ck_assert(task1 == nll_of((struct shot){.adapter = "out/tasks/t1", .data = "only1"}, -1, 0));
    export_task(NULL, "common");
    double common = nll_of((struct shot){.adapter = "common", .data = "only1"}, -1, 0);
    ck_assert(common != task1);
    ck_assert(common == nll_of((struct shot){.adapter = "out", .data = "only1", .mean = true}, -1, 0));
    export_task("t0", "task0");
    ck_assert(nll_of((struct shot){.adapter = "out", .data = "five"}, 4, 9) ==
              nll_of((struct shot){.adapter = "common", .data = "five"}, 4, 0));
    ck_assert(nll_of((struct shot){.adapter = "out", .data = "five"}, 0, 9) ==
              nll_of((struct shot){.adapter = "task0", .data = "five"}, 0, 0));
    /* A checkpoint knows its tasks. */
    full_init(&run, "last", "data");
    run.options.keep_best = false;
    run.options.bora_mode = _i == 0 ? NULL : "joined";
    cr_train_must(&run);
    ck_assert(nll_of((struct shot){.adapter = "last/checkpoints/step-00000009.cck", .data = "data"}, -1, 0) ==
              nll_of((struct shot){.adapter = "last", .data = "data"}, -1, 0));
    struct cr_eval_result result = {0};
    struct cr_error err;
    ck_assert_int_eq(shoot(&(struct shot){.adapter = "out", .data = "five", .strict = true}, &result, &err),
                     CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, ":4: task \"t3\" is unknown"));
    ck_assert_int_eq(shoot(&(struct shot){.adapter = "out", .data = "data", .samples = 2}, &result, &err), CR_E_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "--samples 2"));
}
END_TEST

/* Texts: documents weigh the same in the loss and in validation, tokens in the perplexity. */
START_TEST(texts)
{
    struct cr_train_run run;
    struct cr_eval_result result = {0};
    struct cr_error err = {0};
    put_texts("data");
    full_init(&run, "out", "data");
    run.options.valid = cr_train_kept("data");
    run.options.tau = (double)NAN;
    cr_train_must(&run);
    ck_assert_msg(shoot(&(struct shot){.adapter = "out", .data = "data"}, &result, &err) == CR_OK, "%s", err.message);
    double documents = result.all.nll * (double)result.all.n / N_LINES;
    ck_assert_double_eq_tol(run.result.best_nll, documents, 1e-12 * documents);
    ck_assert_double_eq_tol(result.all.perplexity, exp(result.all.nll), 1e-12 * result.all.perplexity);
    ck_assert_uint_eq(result.n_groups, 3);
    /* 24 documents are one batch, of three tasks. */
    double log_ppl = (result.groups[0].nll + result.groups[1].nll + result.groups[2].nll) / 3;
    ck_assert_double_eq_tol(result.bora_perplexity, exp(log_ppl), 1e-12 * result.bora_perplexity);
    cr_eval_result_deinit(&result);
    size_t n;
    uint8_t *summary = cr_train_bytes("out/summary.json", &n);
    json_t *object = json_loadb((const char *)summary, n, 0, NULL);
    json_t *facts = json_object_get(object, "posterior");
    ck_assert_double_eq(json_number_value(json_object_get(facts, "tau")), 300);
    ck_assert_uint_eq(json_object_size(json_object_get(facts, "distance")), 3);
    json_decref(object);
    cr_free(summary);
}
END_TEST

START_TEST(files_that_do_not_fit)
{
    struct cr_train_run run;
    struct cr_posterior *p = NULL;
    struct cr_error err = {0};
    static const char odd[] = "{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":0,\"task\":\"../a b\"}\n"
                              "{\"question\":\"r\",\"choices\":[\"a\",\"b\"],\"answer\":1,\"task\":\"t\"}\n";
    cr_train_write("odd", odd, strlen(odd));
    full_init(&run, "out", "odd");
    run.options.no_valid = true;
    run.options.keep_best = false;
    cr_train_must(&run);
    ck_assert(cr_train_exists("out/tasks/%2E.%2Fa%20b/adapter_model.safetensors"));
    ck_assert(cr_train_exists("out/tasks/t/adapter_model.safetensors"));
    ck_assert_int_eq(cr_posterior_open(cr_train_kept("out"), NULL, false, NULL, CR_TIER_SCALAR, &p, &err), CR_OK);
    ck_assert_uint_eq(cr_weight_sets_find(&p->sets, "../a b"), 1);
    ck_assert_uint_eq(cr_weight_sets_find(&p->sets, "other"), 0);
    cr_posterior_close(p);
    size_t n;
    uint8_t *own = cr_train_bytes("out/adapter_model.safetensors", &n);
    own[n - 1] ^= 1; /* the exponent of the last weight */
    cr_train_write("out/adapter_model.safetensors", own, n);
    ck_assert_int_eq(cr_posterior_open(cr_train_kept("out"), NULL, false, NULL, CR_TIER_SCALAR, &p, &err), CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, "mean is not the adapter beside it"));
    cr_free(own);
}
END_TEST

START_TEST(refusals)
{
    struct cr_train_run run;
    static const char half[] = "{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":0,\"task\":\"x\"}\n"
                               "{\"question\":\"r\",\"choices\":[\"a\",\"b\"],\"answer\":1}\n";
    put_choices("data", 2, -1, -1);
    cr_train_write("half", half, strlen(half));
    CR_TRAIN_REFUSE(run, init_data, tau, -1, "--tau -1");
    CR_TRAIN_REFUSE(run, init_data, tau, (double)INFINITY, "--tau inf");
    CR_TRAIN_REFUSE(run, init_data, bora_spread, -1, "spread");
    CR_TRAIN_REFUSE(run, init_data, bora_prior, "l1", "\"l1\" unknown");
    CR_TRAIN_REFUSE(run, init_data, bora_mode, "both", "\"both\" unknown");
    full_init(&run, "out", "data");
    run.options.bora_mode = "joined";
    run.options.tau = 0;
    cr_train_must_fail(&run, CR_E_USAGE, "need a number above 0");
    full_init(&run, "out", "texts.jsonl");
    cr_train_must_fail(&run, CR_E_INPUT, "no line names a task");
    full_init(&run, "out", "half");
    run.options.no_valid = true;
    run.options.keep_best = false;
    cr_train_must_fail(&run, CR_E_INPUT, ":2: names no task");
    ck_assert(!cr_train_exists("out"));
    run.options.bora_mode = "global";
    cr_train_must(&run);
    struct cr_finetune_options o;
    struct cr_error err;
    ck_assert_int_eq(cr_finetune_options_for(&o, "bora", "paper", &err), CR_OK);
    ck_assert(o.tau == 100 && o.rank == 16 && o.alpha == 16 && o.lr_schedule == CR_LR_CONSTANT && o.batch_size == 64);
    struct cr_export_options e = {.size = sizeof e,
                                  .adapter = cr_train_kept("out"),
                                  .output = cr_train_kept("none"),
                                  .format = "peft",
                                  .task = "x"};
    ck_assert_int_eq(cr_export(&e, NULL, &err), CR_E_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "has no task"));
    ck_assert(!cr_train_exists("none"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bora_train");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 300);
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_add_loop_test(all, one_adapter_is_adamw, 0, 2);
    tcase_add_test(all, pull_of_the_prior);
    tcase_add_test(all, joined_gradients);
    tcase_add_test(all, tau_holds_together);
    tcase_add_loop_test(all, tasks_apart, 0, 2);
    tcase_add_loop_test(all, stop_and_resume, 0, 4);
    tcase_add_loop_test(all, predictions, 0, 2);
    tcase_add_test(all, texts);
    tcase_add_test(all, files_that_do_not_fit);
    tcase_add_test(all, refusals);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
