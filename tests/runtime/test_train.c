/* Whole runs on a tiny model: learning, thread counts, the best parameters, guards, outputs, refused options. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "tests/support/kernel_test.h"
#include "tests/support/threads_test.h"
#include "tests/support/train_test.h"

START_TEST(learns_the_rule)
{
    struct cr_train_run run;
    cr_train_run_init(&run, "out");
    run.options.targets = "all";
    run.options.steps = 60;
    run.options.lr = 1e-2;
    run.options.report_every = 20;
    cr_train_must(&run);
    ck_assert_uint_eq(run.result.steps, 60);
    ck_assert_uint_eq(run.result.n_train + run.result.n_valid, CR_TRAIN_CHOICES);
    ck_assert_uint_eq(run.result.n_valid, CR_TRAIN_CHOICES / 10);
    ck_assert_int_eq(run.n_steps_seen, 60);
    ck_assert_int_eq(run.n_reports, 3);
    /* Guessing costs ln 2; a third of that needs the rule. */
    ck_assert_double_lt(run.result.final_loss, 0.23);
    ck_assert_double_gt(run.result.tok_s, 0);
}
END_TEST

START_TEST(an_epoch_sees_every_example_once)
{
    struct cr_train_run run;
    cr_train_run_init(&run, "out");
    run.options.no_valid = true;
    run.options.epochs = 1;
    cr_train_must(&run);
    uint64_t tokens = run.result.tokens;
    ck_assert_uint_eq(run.result.steps, (CR_TRAIN_CHOICES + 3) / 4);
    ck_assert_uint_eq(run.result.n_train, CR_TRAIN_CHOICES);
    run.options.force = true;
    run.options.epochs = 2;
    cr_train_must(&run);
    ck_assert_uint_eq(run.result.tokens, 2 * tokens);
    run.options.epochs = 1.05;
    cr_train_must(&run);
    ck_assert_uint_eq(run.result.steps, 9); /* 1.05 * 8 rounded up */
}
END_TEST

START_TEST(accumulation_is_a_larger_batch)
{
    struct cr_train_run run;
    cr_train_run_init(&run, "a");
    run.options.batch_size = 6;
    cr_train_must(&run);
    cr_train_run_init(&run, "b");
    run.options.batch_size = 2;
    run.options.grad_accumulation_steps = 3;
    cr_train_must(&run);
    cr_train_same_outputs("a", "b");
}
END_TEST

static const struct {
    enum cr_test_backend backend;
    int n_workers;
} kinds[] = {{CR_TEST_OPENMP, 2}, {CR_TEST_OPENMP, 16}, {CR_TEST_POOL, 3}, {CR_TEST_POOL, 16}, {CR_TEST_SHUFFLED, 5}};

START_TEST(any_thread_count)
{
    struct cr_train_run run;
    struct cr_test_threads threads;
    cr_train_full_init(&run, "one");
    cr_train_must(&run);
    cr_train_full_init(&run, "many");
    cr_test_threads_start(&threads, kinds[_i].backend, kinds[_i].n_workers);
    run.host.parallel = &threads.parallel;
    cr_train_must(&run);
    cr_test_threads_end(&threads);
    cr_train_same_outputs("one", "many");
    cr_train_same_journals("one", "many");
    ck_assert(cr_train_same("one/checkpoints/step-00000009.cck", "many/checkpoints/step-00000009.cck"));
}
END_TEST

/* Threads that the library starts itself end with the call, and so does their memory. */
START_TEST(threads_of_its_own)
{
    struct cr_train_run run;
    cr_train_run_init(&run, "lent");
    cr_train_must(&run);
    long before = cr_alloc_live();
    static const enum cr_threads_by by[] = {CR_THREADS_AUTO, CR_THREADS_POOL};
    for (int i = 0; i < 2; i++) {
        cr_train_run_init(&run, "own");
        run.options.force = true;
        run.host.parallel = NULL;
        run.host.n_threads = 2;
        run.host.threads_by = by[i];
        cr_train_must(&run);
        ck_assert_int_eq(cr_alloc_live(), before);
        cr_train_same_outputs("lent", "own");
    }
}
END_TEST

START_TEST(recomputing_changes_nothing)
{
    struct cr_train_run run;
    cr_train_full_init(&run, "stored");
    run.options.grad_checkpoint = CR_NO;
    cr_train_must(&run);
    cr_train_full_init(&run, "recomputed");
    run.options.grad_checkpoint = CR_YES;
    cr_train_must(&run);
    cr_train_same_outputs("stored", "recomputed");
}
END_TEST

static bool same_adapter(const char *a, const char *b)
{
    char x[300];
    char y[300];
    snprintf(x, sizeof x, "%s/adapter_model.safetensors", a);
    snprintf(y, sizeof y, "%s/adapter_model.safetensors", b);
    return cr_train_same(x, y);
}

/* With a constant rate the parameters after k steps do not depend on the length of the run. */
START_TEST(keeps_the_best)
{
    struct cr_train_run run;
    cr_train_run_init(&run, "best");
    run.options.valid = cr_train_path("other.jsonl");
    run.options.lr_schedule = CR_LR_CONSTANT;
    run.options.lr = 1.0; /* wild enough that the last evaluation is not the best */
    run.options.eval_every = 1;
    run.options.steps = 8;
    cr_train_must(&run);
    ck_assert_uint_eq(run.result.n_valid, CR_TRAIN_CHOICES);
    ck_assert_uint_ge(run.result.best_step, 1);
    uint64_t best = run.result.best_step;
    struct cr_train_run short_run;
    cr_train_run_init(&short_run, "short");
    short_run.options.valid = cr_train_path("other.jsonl");
    short_run.options.keep_best_set = true; /* last */
    short_run.options.lr_schedule = CR_LR_CONSTANT;
    short_run.options.lr = 1.0;
    short_run.options.eval_every = 1;
    short_run.options.steps = best;
    cr_train_must(&short_run);
    ck_assert(same_adapter("best", "short"));
    cr_train_run_init(&short_run, "last");
    short_run.options.valid = cr_train_path("other.jsonl");
    short_run.options.keep_best_set = true;
    short_run.options.lr_schedule = CR_LR_CONSTANT;
    short_run.options.lr = 1.0;
    short_run.options.steps = 8;
    cr_train_must(&short_run);
    ck_assert_int_eq(same_adapter("best", "last"), best == 8);
    ck_assert_uint_lt(best, 8);
    /* Early stopping: two evaluations without a better one end the run, and a resume knows it. */
    cr_train_run_init(&short_run, "early");
    short_run.options.valid = cr_train_path("other.jsonl");
    short_run.options.lr_schedule = CR_LR_CONSTANT;
    short_run.options.lr = 1.0;
    short_run.options.eval_every = 1;
    short_run.options.steps = 200;
    short_run.options.patience = 2;
    cr_train_must(&short_run);
    ck_assert_uint_lt(short_run.result.steps, 200);
    ck_assert_uint_eq(short_run.result.steps, short_run.result.best_step + 2);
    short_run.options.resume = true;
    cr_train_must(&short_run);
    ck_assert(short_run.result.nothing_to_do);
}
END_TEST

/* A validation file may have more choices than the training file: their letters are tokens of their own. */
START_TEST(more_choices_to_validate)
{
    static const char four[] = "{\"question\":\"xy\",\"choices\":[\"a\",\"b\",\"c\",\"d\"],\"answer\":3}\n"
                               "{\"question\":\"zw\",\"choices\":[\"a\",\"b\",\"c\"],\"answer\":2}\n";
    struct cr_train_run run;
    struct cr_eval_options o;
    struct cr_eval_result result = {0};
    struct cr_host host = {.n_threads = 1, .cpu_cap = cr_test_cap()};
    struct cr_error err = {0};
    cr_train_write("four.jsonl", four, strlen(four));
    cr_train_run_init(&run, "out");
    run.options.valid = cr_train_kept("four.jsonl");
    run.options.keep_best_set = true; /* the last */
    cr_train_must(&run);
    cr_eval_options_init(&o);
    o.model = cr_train_kept("model.gguf");
    o.data = run.options.valid;
    o.adapter = cr_train_kept("out");
    ck_assert_msg(cr_eval(&o, &host, &result, &err) == CR_OK, "%s", err.message);
    ck_assert_double_eq_tol(run.result.best_nll, result.all.nll, 1e-12 * result.all.nll); /* two orders of a sum */
    cr_eval_result_deinit(&result);
}
END_TEST

START_TEST(memory_budget)
{
    struct cr_train_run run;
    cr_train_run_init(&run, "out");
    run.options.steps = 1;
    run.host.memory_bytes = 1 << 20;
    cr_train_must_fail(&run, CR_E_MEMORY, "1 MiB allowed");
    ck_assert(!cr_train_exists("out"));
    run.host.memory_bytes = (uint64_t)1 << 40;
    cr_train_must(&run);
    ck_assert_double_gt(run.result.predicted_mb, 0);
}
END_TEST

START_TEST(dry_run_writes_nothing)
{
    struct cr_train_run run;
    cr_train_run_init(&run, "out");
    run.options.dry_run = true;
    uint64_t before = cr_train_tree_digest(".");
    cr_train_must(&run);
    ck_assert_uint_eq(cr_train_tree_digest("."), before);
    ck_assert_double_gt(run.result.predicted_seconds, 0);
    ck_assert_double_gt(run.result.predicted_mb, 1);
}
END_TEST

START_TEST(texts_and_continuation)
{
    struct cr_train_run run;
    cr_train_run_init(&run, "first");
    run.options.data = cr_train_path("texts.jsonl");
    run.options.rank = 3;
    run.options.targets = "down_proj,attn_k";
    run.options.epochs = 8;
    run.options.report_every = 1;
    run.options.lr = 1e-2;
    cr_train_must(&run);
    double loss = run.result.final_loss;
    ck_assert(isfinite(loss) && isfinite(run.result.best_nll));
    uint64_t n_params = run.result.n_params;
    char adapter[512];
    snprintf(adapter, sizeof adapter, "%s", cr_train_path("first"));
    cr_train_run_init(&run, "second");
    run.options.data = cr_train_path("texts.jsonl");
    run.options.adapter = adapter;
    run.options.steps = 1;
    run.options.report_every = 1;
    cr_train_must(&run);
    ck_assert_uint_eq(run.result.n_params, n_params);
    /* It goes on where the first ended: far below a fresh start, which guesses among 288 tokens. */
    ck_assert_double_lt(run.result.final_loss, 0.8 * log(288));
    run.options.output = adapter;
    run.options.force = true;
    cr_train_must_fail(&run, CR_E_USAGE, "--adapter");
}
END_TEST

static json_t *member(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    ck_assert_msg(value != NULL, "%s", key);
    return value;
}

START_TEST(summary_and_trace)
{
    struct cr_train_run run;
    cr_train_run_init(&run, "out");
    run.options.steps = 2;
    run.options.settings_json = "{\"lr\":\"5e-3\"}";
    char trace[512];
    snprintf(trace, sizeof trace, "%s", cr_train_path("trace.json"));
    run.options.trace = trace;
    cr_train_must(&run);
    json_t *summary = json_load_file(cr_train_path("out/summary.json"), 0, NULL);
    ck_assert(json_is_object(summary));
    ck_assert_str_eq(json_string_value(member(member(member(summary, "settings"), "flags"), "lr")), "5e-3");
    ck_assert_double_eq(json_number_value(member(member(summary, "settings"), "lr")), 5e-3);
    ck_assert_int_eq(json_integer_value(member(member(summary, "settings"), "steps")), 2);
    ck_assert_uint_eq((uint64_t)json_integer_value(member(summary, "tokens")), run.result.tokens);
    ck_assert_str_eq(json_string_value(member(summary, "version")), CREDENCE_VERSION);
    static const char *const numbers[] = {"seconds", "tok_s", "peak_rss_mb", "final_loss"};
    for (int i = 0; i < 4; i++) {
        ck_assert_double_gt(json_number_value(member(summary, numbers[i])), 0);
    }
    ck_assert_int_eq(json_integer_value(member(member(summary, "best"), "step")), 2);
    ck_assert_uint_eq(strlen(json_string_value(member(member(summary, "digests"), "data"))), 32);
    json_decref(summary);
    json_t *events = json_load_file(trace, 0, NULL);
    ck_assert_uint_gt(json_array_size(member(events, "traceEvents")), 10);
    json_t *event = json_array_get(member(events, "traceEvents"), 3);
    ck_assert_str_eq(json_string_value(member(event, "ph")), "X");
    ck_assert_double_ge(json_number_value(member(event, "dur")), 0);
    json_decref(events);
}
END_TEST

START_TEST(refused_options)
{
    struct cr_train_run run;
#define REFUSE(field, value, part)                                                                                     \
    do {                                                                                                               \
        cr_train_run_init(&run, "out");                                                                                \
        run.options.field = (value);                                                                                   \
        cr_train_must_fail(&run, CR_E_USAGE, part);                                                                    \
    } while (0)
    REFUSE(rank, 0, "--rank");
    REFUSE(rank, 257, "--rank");
    REFUSE(rank, 100, "rank"); /* above the dimensions of the model */
    REFUSE(lr, 0, "--lr");
    REFUSE(lr, -1, "--lr");
    REFUSE(lr, (double)NAN, "--lr");
    REFUSE(lr, (double)INFINITY, "--lr");
    REFUSE(alpha, -1, "--alpha");
    REFUSE(dropout, 1, "--dropout");
    REFUSE(epochs, 0, "--epochs");
    REFUSE(epochs, (double)NAN, "--epochs");
    REFUSE(steps, UINT64_MAX, "--steps");
    REFUSE(batch_size, 0, "--batch-size");
    REFUSE(grad_accumulation_steps, 0, "--grad-accumulation-steps");
    REFUSE(warmup, -0.1, "--warmup");
    REFUSE(warmup, 1.5, "--warmup");
    REFUSE(weight_decay, -1, "--weight-decay");
    REFUSE(max_grad_norm, -1, "--max-grad-norm");
    REFUSE(max_seq_length, 1, "--max-seq-length");
    REFUSE(max_seq_length, 100000, "--max-seq-length");
    REFUSE(keep_checkpoints, 0, "--keep-checkpoints");
    REFUSE(save_every, 0, "--save-every");
    REFUSE(report_every, 0, "--report-every");
    REFUSE(seed, (uint64_t)1 << 32, "--seed");
    REFUSE(method, "sgd", "--method");
    REFUSE(targets, "q_proj,qq", "qq");
    REFUSE(output, NULL, "--output");
    REFUSE(output, run.options.data, "--output");
    REFUSE(size, 0, "size");
    REFUSE(size, sizeof run.options + 8, "size");
    REFUSE(settings_json, "{", "settings_json");
    REFUSE(settings_json, "[1]", "settings_json: an array, one JSON object expected");
    ck_assert(!cr_train_exists("out"));
#undef REFUSE
    cr_train_run_init(&run, "out");
    run.options.no_valid = true;
    run.options.patience = 1;
    cr_train_must_fail(&run, CR_E_USAGE, "--patience");
    cr_train_run_init(&run, "out");
    run.host.n_threads = 1025;
    cr_train_must_fail(&run, CR_E_USAGE, "--threads");
    run.host.n_threads = 1;
    run.host.parallel = NULL;
    run.host.threads_by = (enum cr_threads_by)3;
    cr_train_must_fail(&run, CR_E_USAGE, "--threads-by");
    cr_train_run_init(&run, "out");
    run.host.cpu_cap = "z80";
    cr_train_must_fail(&run, CR_E_USAGE, "z80");
    ck_assert(!cr_train_exists("out"));
}
END_TEST

/* Questions with three choices, all answered A but one. */
static void put_answers(const char *other)
{
    struct cr_buf buf = {0};
    for (int i = 0; i < 12; i++) {
        cr_buf_printf(&buf, "{\"question\":\"q%d\",\"choices\":[\"a\",\"b\",\"c\"],\"answer\":\"%s\"}\n", i,
                      i == 5 ? other : "A");
    }
    cr_train_write("answers", buf.data, buf.n);
    cr_buf_free(&buf);
}

/* Answers that none to train on has are named, and the only one of an answer is never held out. */
START_TEST(missing_answers)
{
    static const char *const others[] = {"A", "B", "C"}, *const says[] = {"answer B, C:", "answer C:", "answer B:"};
    struct cr_train_run run;
    for (uint32_t i = 0; i < 30; i++) {
        put_answers(others[i % 3]);
        cr_train_run_init(&run, "out");
        run.options.data = cr_train_kept("answers");
        run.options.seed = i;
        run.options.steps = 1;
        run.options.dry_run = true;
        cr_train_must(&run);
        ck_assert_uint_eq(run.result.n_valid, 1);
        ck_assert_msg(strstr(run.last_warning, says[i % 3]) != NULL, "%s", run.last_warning);
    }
    cr_train_run_init(&run, "out");
    run.options.dry_run = true;
    cr_train_must(&run);
    ck_assert_ptr_null(strstr(run.last_warning, "answer"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 300);
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_add_test(all, learns_the_rule);
    tcase_add_test(all, missing_answers);
    tcase_add_test(all, an_epoch_sees_every_example_once);
    tcase_add_test(all, accumulation_is_a_larger_batch);
    tcase_add_loop_test(all, any_thread_count, 0, sizeof kinds / sizeof kinds[0]);
    tcase_add_test(all, threads_of_its_own);
    tcase_add_test(all, recomputing_changes_nothing);
    tcase_add_test(all, keeps_the_best);
    tcase_add_test(all, more_choices_to_validate);
    tcase_add_test(all, memory_budget);
    tcase_add_test(all, dry_run_writes_nothing);
    tcase_add_test(all, texts_and_continuation);
    tcase_add_test(all, summary_and_trace);
    tcase_add_test(all, refused_options);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
