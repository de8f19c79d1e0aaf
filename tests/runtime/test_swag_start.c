/* Where the snapshots of swag start and how the rate gets there: the best validation before them, the shape of the
 * annealing, the defaults. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/io/checkpoint.h"
#include "tests/runtime/swag_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/method_test.h"

enum { START = 4, STATE_HEAD = 16 };

/* The training file with every answer wrong: the better it is learned, the worse this validation. */
static void write_wrong(void)
{
    struct cr_buf buf = {0};
    size_t n;
    char *text = (char *)cr_train_bytes("choices.jsonl", &n);
    for (size_t i = 0; i < n; i++) {
        bool digit = i >= 9 && memcmp(text + i - 9, "\"answer\":", 9) == 0;
        cr_buf_printf(&buf, "%c", digit ? '0' + '1' - text[i] : text[i]);
    }
    ck_assert(!buf.failed);
    cr_train_write("wrong.jsonl", buf.data, buf.n);
    cr_buf_free(&buf);
    cr_free(text);
}

/* Validation after every step, which grows; a constant rate, so that the snapshots' is the only other one. */
static void best_init(struct cr_train_run *run, const char *output)
{
    full_init(run, output);
    write_wrong();
    run->options.valid = cr_train_kept("wrong.jsonl");
    run->options.eval_every = 1;
    run->options.warmup = 0;
    run->options.weight_decay = 0;
    run->options.lr_schedule = CR_LR_CONSTANT;
    run->options.swag_from_best = CR_YES;
}

/* The step of the lowest of the first `START` validations. */
static uint64_t lowest(const char *output)
{
    char path[300];
    snprintf(path, sizeof path, "%s/summary.json", output);
    json_t *summary = json_load_file(cr_train_path(path), 0, NULL);
    const json_t *evals = json_object_get(summary, "evaluations");
    uint64_t best = 0;
    double least = HUGE_VAL;
    for (size_t i = 0; i < START; i++) {
        double nll = json_real_value(json_object_get(json_array_get(evals, i), "nll"));
        if (nll < least) {
            least = nll;
            best = (uint64_t)json_integer_value(json_object_get(json_array_get(evals, i), "step"));
        }
    }
    json_decref(summary);
    return best;
}

/* What one step of AdamW with the moments that it left takes from w, t steps in. */
static double stepped(double w, double m, double v, double lr, int t)
{
    return w - lr * (m / (1 - pow(0.9, t))) / (sqrt(v / (1 - pow(0.999, t))) + 1e-8);
}

/* Step 4 starts from the weights of the best validation, with the moments and the rate of where it was. */
START_TEST(back_to_the_best)
{
    struct cr_train_run run;
    struct cr_checkpoint at[4];
    size_t n = 0;
    best_init(&run, "out");
    cr_train_must(&run);
    uint64_t from = lowest("out");
    ck_assert_uint_lt(from, START);
    json_t *facts = facts_of("out");
    ck_assert_int_eq(json_integer_value(json_object_get(facts, "from_step")), (json_int_t)from);
    json_decref(facts);
    const int steps[] = {(int)from, START, START + 1, START + 2};
    for (int i = 0; i < 4; i++) {
        cr_method_step("out", steps[i], &at[i]);
    }
    const float *best = cr_method_section(&at[0], CR_CKPT_TRAINED, &n);
    const float *last = cr_method_section(&at[1], CR_CKPT_TRAINED, NULL);
    const float *after = cr_method_section(&at[2], CR_CKPT_TRAINED, NULL);
    const float *m = cr_method_section(&at[2], CR_CKPT_OPTIMISER, NULL) + STATE_HEAD, *v = m + n;
    const float *m_before = cr_method_section(&at[1], CR_CKPT_OPTIMISER, NULL) + STATE_HEAD;
    double apart = 0, kept = 0;
    for (size_t i = 0; i < n; i++) {
        double w = (double)best[i], want = stepped(w, (double)m[i], (double)v[i], run.options.lr, START + 1);
        /* w rounded once; the step itself is at most some ten times the rate, with a dozen roundings in f32 */
        ck_assert_double_eq_tol((double)after[i], want, 0x1p-24 * fabs(w) + 12 * 0x1p-24 * 10 * run.options.lr);
        apart = fmax(apart, fabs((double)last[i] - w));
        kept = fmax(kept, fabs((double)m_before[i]));
    }
    ck_assert_double_gt(apart, run.options.lr / 2);
    ck_assert_double_gt(kept, 0);
    uint64_t t;
    memcpy(&t, cr_method_section(&at[2], CR_CKPT_OPTIMISER, NULL), sizeof t);
    ck_assert_uint_eq(t, START + 1);
    /* It is kept for a resume until the first snapshot, and no longer. */
    ck_assert_mem_eq(cr_method_section(&at[1], CR_CKPT_START, NULL), best, n * sizeof(float));
    ck_assert_ptr_null(cr_checkpoint_find(&at[3], CR_CKPT_START));
    for (int i = 0; i < 4; i++) {
        cr_checkpoint_close(&at[i]);
    }
}
END_TEST

/* Stopped anywhere, also within the step that goes back. */
START_TEST(stop_within_steps)
{
    struct cr_train_run run;
    best_init(&run, "whole");
    cr_train_must(&run);
    ck_assert_uint_lt(lowest("whole"), START);
    long n_polls = run.n_polls;
    best_init(&run, "cut");
    run.stop_at_poll = 1 + _i * n_polls / 24;
    cr_status status = cr_train_run_go(&run);
    ck_assert_int_eq(status, CR_E_STOPPED);
    run.stop_at_poll = 0;
    run.options.resume = cr_train_exists("cut/checkpoints/step-00000000.cck");
    cr_train_must(&run);
    cr_method_same("whole", "cut");
    cr_train_same_journals("whole", "cut");
}
END_TEST

static void no_early_eval(struct cr_train_run *run, const char *output)
{
    best_init(run, output);
    run->options.eval_every = START + 1;
}

static void no_valid(struct cr_train_run *run, const char *output)
{
    full_init(run, output);
    run->options.no_valid = true;
    run->options.keep_best = false;
}

START_TEST(nothing_to_go_back_to)
{
    struct cr_train_run run;
    CR_TRAIN_REFUSE(run, no_early_eval, swag_from_best, CR_YES, "--swag-from best: no validation in the first 4 steps");
    CR_TRAIN_REFUSE(run, no_valid, swag_from_best, CR_YES, "--no-valid leaves nothing for --swag-from best");
    CR_TRAIN_REFUSE(run, full_init, swag_from_best, (enum cr_tristate)3, "--swag-from");
    no_valid(&run, "auto");
    run.options.swag_from_best = CR_AUTO;
    cr_train_must(&run);
    ck_assert_ptr_nonnull(strstr(run.last_warning, "no validation in the first 4 steps"));
    no_valid(&run, "last");
    cr_train_must(&run);
    cr_method_same("auto", "last");
    json_t *facts = facts_of("auto");
    ck_assert_ptr_null(json_object_get(facts, "from_step"));
    json_decref(facts);
}
END_TEST

/* From the rate at step 4 to that of the snapshots in four steps: a quarter of the way is (1 - cos(pi / 4)) / 2. */
START_TEST(cosine_rates)
{
    struct cr_train_run run;
    full_init(&run, "out");
    run.options.warmup = 0;
    run.options.lr_schedule = CR_LR_CONSTANT;
    run.options.lr = 5e-2;
    run.options.swag_anneal = 4;
    run.options.swag_cosine = true;
    cr_train_must(&run);
    char *journal = cr_train_journal("out");
    char *line = strtok(journal, "\n");
    for (int i = 0; i < 10; i++, line = strtok(NULL, "\n")) {
        json_t *object = json_loads(line, 0, NULL);
        double share[] = {0, (1 - sqrt(0.5)) / 2, 0.5, (1 + sqrt(0.5)) / 2, 1, 1}, t = i < START ? 0 : share[i - START];
        ck_assert_double_eq_tol(json_number_value(json_object_get(object, "lr")), 5e-2 * (1 - t) + 1e-2 * t, 1e-12);
        json_decref(object);
    }
    cr_free(journal);
}
END_TEST

/* The best of the search in bench/RESULTS.md, and the paper's. */
START_TEST(defaults)
{
    struct cr_finetune_options o;
    struct cr_error err;
    ck_assert_int_eq(cr_finetune_options_for(&o, "swag", NULL, &err), CR_OK);
    ck_assert(o.lr == 3e-3 && o.max_grad_norm == 0 && o.swag_lr == 5e-4 && o.swag_every == 0 && o.swag_rank == 10 &&
              o.swag_start == 0.6 && o.swag_anneal == 50 && !o.swag_cosine && o.swag_head == CR_NO &&
              o.swag_from_best == CR_NO);
    ck_assert_int_eq(cr_finetune_options_for(&o, "swag", "paper", &err), CR_OK);
    ck_assert(o.lr == 3e-4 && o.swag_lr == 3e-5 && o.swag_rank == 5 && o.swag_scale == 1 && o.epochs == 18 &&
              o.swag_every == CR_SWAG_EPOCH && o.swag_anneal == 0 && o.swag_head == CR_AUTO &&
              o.swag_from_best == CR_AUTO);
}
END_TEST

/* Where the steps between snapshots are not said: by what is left of the run, or an epoch. Thirty examples, three held
 * out, six a step: an epoch is five steps. */
START_TEST(steps_between)
{
    static const struct {
        uint32_t every;
        uint64_t steps;
        int between, snapshots;
    } cases[] = {{0, 10, 2, 3}, {0, 250, 25, 6}, {CR_SWAG_EPOCH, 20, 5, 2}};
    struct cr_train_run run;
    full_init(&run, "out");
    run.options.swag_every = cases[_i].every;
    run.options.steps = cases[_i].steps;
    run.options.save_every = 1000;
    run.options.eval_every = 100;
    cr_train_must(&run);
    json_t *facts = facts_of("out");
    ck_assert_int_eq(json_integer_value(json_object_get(facts, "every")), cases[_i].between);
    ck_assert_int_eq(json_integer_value(json_object_get(facts, "snapshots")), cases[_i].snapshots);
    json_decref(facts);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swag_start");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 300);
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_add_test(all, back_to_the_best);
    tcase_add_loop_test(all, stop_within_steps, 0, 24);
    tcase_add_test(all, nothing_to_go_back_to);
    tcase_add_test(all, cosine_rates);
    tcase_add_test(all, defaults);
    tcase_add_loop_test(all, steps_between, 0, 3);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
