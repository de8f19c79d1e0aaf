/* Whole runs with method bora: against AdamW, the pull of the prior, the mean, exact resume, thread counts. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/data/batch.h"
#include "runtime/io/checkpoint.h"
#include "runtime/posterior/method.h"
#include "tests/runtime/bora_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/method_test.h"
#include "tests/support/train_test.h"

static const float *section(const char *output, int step, uint32_t kind, struct cr_checkpoint *at, size_t *n)
{
    cr_method_step(output, step, at);
    return cr_method_section(at, kind, n);
}

/* The adapters of two runs, whose headers name their methods, have the same tensors; the other files are there. */
static void same_tensors(const char *a, const char *b)
{
    const char *outputs[] = {a, b};
    uint8_t *bytes[2];
    uint64_t header[2];
    size_t n[2];
    char name[64];
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%s/adapter_model.safetensors", outputs[i]);
        bytes[i] = cr_train_bytes(name, &n[i]);
        memcpy(&header[i], bytes[i], sizeof header[i]);
        n[i] -= sizeof header[i] + header[i];
        snprintf(name, sizeof name, "%s/adapter.gguf", outputs[i]);
        ck_assert(cr_train_exists(name));
    }
    ck_assert_uint_gt(n[0], 0);
    ck_assert_uint_eq(n[0], n[1]);
    ck_assert_mem_eq(bytes[0] + sizeof header[0] + header[0], bytes[1] + sizeof header[1] + header[1], n[0]);
    cr_free(bytes[0]);
    cr_free(bytes[1]);
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
    same_tensors("bora", "adamw");
}
END_TEST

static void init_step(struct cr_train_run *run, const char *output)
{
    full_init(run, output, "data");
    run->options.bora_spread = 0.05;
    run->options.warmup = 0;
    run->options.steps = 1;
    run->options.no_valid = true;
    run->options.keep_best = false;
}

static void one_step(struct cr_train_run *run, const char *output, double tau, const char *prior)
{
    init_step(run, output);
    run->options.tau = tau;
    run->options.bora_prior = prior;
    cr_train_must(run);
}

/* One adapter for all: the mean over documents, where adamw has that over tokens. The weights of the terms are rounded
 * to f32, their products with the losses summed in f32 or better: 64 terms of one sign, 2^-24 each. */
START_TEST(global_is_the_mean_over_documents)
{
    struct cr_train_run run;
    double loss[2], n_documents = 6, n_targets = 0;
    put_texts("data");
    for (int i = 0; i < 2; i++) {
        init_step(&run, i == 0 ? "global" : "adamw");
        run.options.method = i == 0 ? "bora" : "adamw";
        run.options.bora_mode = i == 0 ? "global" : NULL;
        cr_train_must(&run);
        loss[i] = run.result.final_loss;
        n_targets = (double)run.result.tokens - n_documents; /* all but the first of each */
    }
    ck_assert_double_gt(n_targets, 2 * n_documents);
    ck_assert_double_eq_tol(loss[0] * n_documents, loss[1] * n_targets, loss[1] * n_targets * n_targets * 0x1p-24);
}
END_TEST

/* How many of the first n in the order of the first epoch are of each task; all of them powers of two? */
static bool powers_of_two(uint64_t seed, size_t n, unsigned *counts)
{
    uint32_t pool[N_LINES], order[N_LINES];
    for (uint32_t i = 0; i < N_LINES; i++) {
        pool[i] = i;
    }
    cr_epoch_order(pool, N_LINES, seed, 0, order);
    memset(counts, 0, 3 * sizeof *counts);
    for (size_t i = 0; i < n; i++) {
        counts[order[i] % 3]++;
    }
    bool all = true;
    for (int t = 0; t < 3; t++) {
        all = all && counts[t] > 0 && (counts[t] & (counts[t] - 1)) == 0;
    }
    return all;
}

/* With the plain distance a task weighs by its documents and its tokens alike, N_d / N / tokens_d, where the squared
 * one has 1 / documents of the step. All that differs are powers of two, so every number of the pass does by just them.
 */
START_TEST(tokens_by_task)
{
    struct cr_train_run run;
    struct cr_checkpoint at[2];
    size_t n[2];
    unsigned counts[3];
    uint64_t seed = 0;
    while (!powers_of_two(seed, N_LINES / 2, counts)) {
        seed++;
    }
    put_powers("data");
    for (int i = 0; i < 2; i++) {
        init_step(&run, i == 0 ? "sq" : "norm");
        run.options.tau = 0;
        run.options.bora_prior = i == 0 ? "sq" : "norm";
        run.options.seed = seed;
        run.options.batch_size = N_LINES / 2;
        run.options.grad_accumulation_steps = 1;
        cr_train_must(&run);
    }
    const float *sq = section("sq", 1, CR_CKPT_OPTIMISER, &at[0], &n[0]) + 16;
    const float *norm = section("norm", 1, CR_CKPT_OPTIMISER, &at[1], &n[1]) + 16;
    size_t n_set = (n[1] - 16) / 6; /* without a prior the common one is not moved */
    ck_assert_uint_eq(n[0], n[1]);
    for (int t = 0; t < 3; t++) {
        float factor = (float)(N_LINES / 2 / 3) / (float)(counts[t] * (8u << t));
        size_t moved = 0;
        for (size_t i = 0; i < n_set; i++) {
            ck_assert(norm[(size_t)t * n_set + i] == factor * sq[(size_t)t * n_set + i]);
            moved += sq[(size_t)t * n_set + i] != 0;
        }
        ck_assert_uint_gt(moved, n_set / 4);
    }
    cr_checkpoint_close(&at[0]);
    cr_checkpoint_close(&at[1]);
}
END_TEST

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
    full_init(&run, "apart", "data"); /* nothing holds on to the common set: it is the mean all the same */
    run.options.bora_prior = "norm";
    run.options.tau = 0;
    cr_train_must(&run);
    ck_assert_double_gt(spread_of("apart", 3, true), 0);
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

int main(void)
{
    Suite *suite = suite_create("bora_train");
    TCase *all = tcase_create("bora_train");
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_set_timeout(all, 300);
    tcase_add_loop_test(all, one_adapter_is_adamw, 0, 2);
    tcase_add_test(all, global_is_the_mean_over_documents);
    tcase_add_test(all, tokens_by_task);
    tcase_add_test(all, pull_of_the_prior);
    tcase_add_test(all, joined_gradients);
    tcase_add_test(all, tau_holds_together);
    tcase_add_loop_test(all, tasks_apart, 0, 2);
    tcase_add_loop_test(all, stop_and_resume, 0, 4);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
