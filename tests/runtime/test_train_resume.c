/* Stopping and going on: the same bytes as a run that was never stopped, or a refusal. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "tests/support/kernel_test.h"
#include "tests/support/tiny_model.h"
#include "tests/support/train_test.h"

static void check_resumed(struct cr_train_run *run)
{
    cr_train_same_outputs("whole", "cut");
    cr_train_same_journals("whole", "cut");
    ck_assert(cr_train_same("whole/checkpoints/step-00000009.cck", "cut/checkpoints/step-00000009.cck"));
    ck_assert_uint_eq(run->result.steps, 9);
    ck_assert_double_gt(run->result.seconds, 0);
}

START_TEST(stop_at_a_step_and_resume)
{
    struct cr_train_run run;
    cr_train_full_init(&run, "whole");
    cr_train_must(&run);
    cr_train_full_init(&run, "cut");
    run.stop_at = _i;
    if (_i == 0) { /* stopped before anything: no directory, and nothing to resume */
        cr_train_must_fail(&run, CR_E_STOPPED, "nothing written");
        ck_assert(!cr_train_exists("cut"));
        return;
    }
    cr_train_must_fail(&run, CR_E_STOPPED, "--resume");
    ck_assert(!cr_train_exists("cut/adapter.gguf"));
    run.stop_at = -1;
    run.options.resume = true;
    cr_train_must(&run);
    ck_assert_int_eq(run.n_steps_seen, 9 - _i);
    check_resumed(&run);
}
END_TEST

START_TEST(stop_at_every_step)
{
    struct cr_train_run run;
    cr_train_full_init(&run, "whole");
    cr_train_must(&run);
    cr_train_full_init(&run, "cut");
    run.stop_at = 1;
    cr_status status = cr_train_run_go(&run);
    for (int i = 0; status == CR_E_STOPPED; i++) {
        ck_assert_int_lt(i, 20);
        run.options.resume = true;
        status = cr_train_run_go(&run);
    }
    ck_assert_msg(status == CR_OK, "%s", run.err.message);
    check_resumed(&run);
}
END_TEST

/* The host is asked between layers too: a step that was cut short has changed nothing. */
START_TEST(stop_within_a_pass)
{
    struct cr_train_run run;
    cr_train_full_init(&run, "whole");
    cr_train_must(&run);
    long n_polls = run.n_polls;
    ck_assert_int_gt(n_polls, 9 * 4); /* more often than once a step: two layers, two directions */
    cr_train_full_init(&run, "cut");
    run.stop_at_poll = 1 + _i * n_polls / 16;
    cr_status status = cr_train_run_go(&run);
    ck_assert_int_eq(status, CR_E_STOPPED);
    run.options.resume = cr_train_exists("cut");
    run.stop_at_poll = 0;
    cr_train_must(&run);
    check_resumed(&run);
}
END_TEST

START_TEST(stop_in_an_evaluation)
{
    struct cr_train_run run;
    cr_train_full_init(&run, "whole");
    run.options.valid = cr_train_path("other.jsonl"); /* many batches */
    cr_train_must(&run);
    cr_train_full_init(&run, "cut");
    run.options.valid = cr_train_path("other.jsonl");
    run.stop_in_validate = true;
    cr_train_must_fail(&run, CR_E_STOPPED, "step 3");
    run.stop_in_validate = false;
    run.options.resume = true;
    cr_train_must(&run);
    check_resumed(&run);
}
END_TEST

/* Death at any moment leaves some checkpoint: put back the state of one and go on. */
START_TEST(resume_from_an_older_checkpoint)
{
    struct cr_train_run run;
    cr_train_full_init(&run, "whole");
    cr_train_must(&run);
    cr_train_full_init(&run, "cut");
    run.stop_at = 7;
    cr_train_must_fail(&run, CR_E_STOPPED, "step 7");
    /* Damage the newest: the one before is used, with a warning, and the journal is cut back. */
    size_t n;
    uint8_t *data = cr_train_bytes("cut/checkpoints/step-00000007.cck", &n);
    data[n / 2] ^= 1;
    cr_train_write("cut/checkpoints/step-00000007.cck", data, n);
    cr_free(data);
    cr_train_write("cut/checkpoints/step-00000008.cck.tmp.1.2", "x", 1);
    run.stop_at = -1;
    run.options.resume = true;
    cr_train_must(&run);
    ck_assert_int_ge(run.n_warnings, 1);
    ck_assert_int_eq(run.n_steps_seen, 3);
    ck_assert(!cr_train_exists("cut/checkpoints/step-00000008.cck.tmp.1.2"));
    check_resumed(&run);
}
END_TEST

START_TEST(finished_runs)
{
    struct cr_train_run run;
    cr_train_full_init(&run, "out");
    cr_train_must(&run);
    ck_assert(cr_train_exists("out/checkpoints/step-00000009.cck"));
    ck_assert(cr_train_exists("out/checkpoints/step-00000008.cck"));
    ck_assert(!cr_train_exists("out/checkpoints/step-00000006.cck"));
    uint64_t before = cr_train_tree_digest("out");
    run.options.resume = true;
    cr_train_must(&run);
    ck_assert(run.result.nothing_to_do);
    ck_assert_uint_eq(cr_train_tree_digest("out"), before);
    /* The adapter gone, the last step known: it is written again, the same. */
    size_t n;
    uint8_t *adapter = cr_train_bytes("out/adapter_model.safetensors", &n);
    ck_assert_int_eq(unlink(cr_train_path("out/adapter_model.safetensors")), 0);
    cr_train_must(&run);
    ck_assert(!run.result.nothing_to_do);
    ck_assert_int_eq(run.n_steps_seen, 0);
    size_t again;
    uint8_t *written = cr_train_bytes("out/adapter_model.safetensors", &again);
    ck_assert_uint_eq(n, again);
    ck_assert_mem_eq(adapter, written, n);
    cr_free(adapter);
    cr_free(written);
}
END_TEST

START_TEST(resume_with_other_settings)
{
    struct cr_train_run run;
    cr_train_full_init(&run, "out");
    run.stop_at = 4;
    cr_train_must_fail(&run, CR_E_STOPPED, "step 4");
    run.stop_at = -1;
    run.options.resume = true;
    run.options.lr = 1e-3;
    run.options.seed = 5;
    cr_train_must_fail(&run, CR_E_BUSY, "lr");
    ck_assert_ptr_nonnull(strstr(run.err.message, "seed 0, now 5"));
    run.options.lr = 5e-3;
    run.options.seed = 0;
    run.options.data = cr_train_path("other.jsonl");
    cr_train_must_fail(&run, CR_E_BUSY, "data \"");
    run.options.data = cr_train_path("choices.jsonl");
    run.options.rank = 4;
    cr_train_must_fail(&run, CR_E_BUSY, "rank 8, now 4");
    run.options.allow_inexact = true;
    cr_train_must_fail(&run, CR_E_INPUT, "section"); /* the shapes differ: nothing can allow that */
    run.options.rank = 8;
    run.options.lr = 1e-3;
    cr_train_must(&run);
    ck_assert_ptr_nonnull(strstr(run.last_warning, "lr"));
    /* How it is computed is no setting, and changes nothing. */
    cr_train_full_init(&run, "whole");
    cr_train_must(&run);
    cr_train_full_init(&run, "two");
    run.stop_at = 4;
    cr_train_must_fail(&run, CR_E_STOPPED, "step 4");
    run.stop_at = -1;
    run.options.resume = true;
    run.options.save_every = 5;
    run.options.keep_checkpoints = 3;
    run.options.grad_checkpoint = CR_YES;
    cr_train_must(&run);
    cr_train_same_outputs("whole", "two");
    cr_train_same_journals("whole", "two");
}
END_TEST

/* A finished run goes on when it is asked for more steps. */
START_TEST(resume_for_more_steps)
{
    struct cr_train_run run;
    cr_train_full_init(&run, "out");
    cr_train_must(&run);
    run.options.resume = true;
    run.options.allow_inexact = true;
    run.options.steps = 12;
    run.options.epochs = 0;
    cr_train_must(&run);
    ck_assert(!run.result.nothing_to_do);
    ck_assert_uint_eq(run.result.steps, 12);
    ck_assert_int_eq(run.n_steps_seen, 3);
}
END_TEST

/* What was best before the best was kept is gone: of the evaluations since the lowest counts, and its weights are the
 * result. The answers of the second file are those of the first turned around: -log p - log(1 - p)
 * is at least 2 log 2, so it is worse by what the first one was better than chance. */
START_TEST(resume_to_keep_the_best)
{
    struct cr_train_run run;
    size_t n;
    char *lines = (char *)cr_train_bytes("choices.jsonl", &n), *at = lines;
    cr_train_write("right.jsonl", lines, n);
    while ((at = strstr(at, "\"answer\":")) != NULL) {
        at += strlen("\"answer\":");
        *at ^= '0' ^ '1';
    }
    cr_train_write("wrong.jsonl", lines, n);
    cr_free(lines);
    cr_train_full_init(&run, "out");
    run.options.lr = 3;
    run.options.valid = cr_train_kept("right.jsonl");
    run.options.keep_best = false;
    run.options.eval_every = 1;
    run.stop_at = 4;
    cr_train_must_fail(&run, CR_E_STOPPED, "step 4");
    run.stop_at = -1;
    run.options.resume = true;
    run.options.allow_inexact = true;
    run.options.keep_best = true;
    run.options.valid = cr_train_kept("wrong.jsonl");
    cr_train_must(&run);
    json_t *summary = json_load_file(cr_train_path("out/summary.json"), 0, NULL);
    const json_t *list = json_object_get(summary, "evaluations");
    double before = INFINITY, since = INFINITY;
    size_t i;
    json_t *one;
    json_array_foreach((json_t *)(uintptr_t)list, i, one)
    {
        double nll = json_real_value(json_object_get(one, "nll"));
        double *least = json_integer_value(json_object_get(one, "step")) <= 4 ? &before : &since;
        *least = fmin(*least, nll);
    }
    ck_assert_uint_eq(i, 9);
    ck_assert_double_lt(before, since);
    ck_assert(run.result.best_nll == since && run.result.best_step > 4);
    json_decref(summary);
}
END_TEST

/* A run that stopped early goes on without patience, or with more of it. */
START_TEST(resume_after_an_early_stop)
{
    struct cr_train_run run;
    cr_train_full_init(&run, "out");
    run.options.eval_every = 1;
    run.options.patience = 1;
    run.options.lr = 3;
    run.options.warmup = 0;
    cr_train_must(&run);
    uint64_t stopped = run.result.steps;
    ck_assert_uint_lt(stopped, 8);
    run.options.resume = true;
    cr_train_must(&run);
    ck_assert(run.result.nothing_to_do);
    run.options.allow_inexact = true;
    run.options.patience = _i == 0 ? 0 : 9;
    cr_train_must(&run);
    ck_assert_uint_eq(run.result.steps, 9);
    ck_assert_uint_eq(run.n_steps_seen, 9 - stopped);
}
END_TEST

START_TEST(resume_without_checkpoints)
{
    struct cr_train_run run;
    cr_train_full_init(&run, "out");
    run.options.resume = true;
    cr_train_must_fail(&run, CR_E_IO, "out");
    ck_assert_int_eq(mkdir(cr_train_path("out"), 0755), 0);
    cr_train_must_fail(&run, CR_E_INPUT, "no intact checkpoint");
    ck_assert_int_eq(mkdir(cr_train_path("out/checkpoints"), 0755), 0);
    cr_train_write("out/checkpoints/step-00000003.cck", "junk", 4);
    cr_train_must_fail(&run, CR_E_INPUT, "no intact checkpoint");
    ck_assert(!cr_train_exists("out/train.jsonl"));
}
END_TEST

START_TEST(a_forced_run_starts_over)
{
    struct cr_train_run run;
    cr_train_full_init(&run, "a");
    cr_train_must(&run);
    cr_train_full_init(&run, "b");
    cr_train_must(&run);
    run.options.force = true;
    run.stop_at = 1;
    cr_train_must_fail(&run, CR_E_STOPPED, "step 1");
    ck_assert(!cr_train_exists("b/checkpoints/step-00000009.cck"));
    ck_assert(!cr_train_exists("b/summary.json")); /* nothing of the earlier run can be taken for this one's */
    ck_assert(!cr_train_exists("b/adapter.gguf"));
    run.options.force = false;
    run.options.resume = true;
    run.stop_at = -1;
    cr_train_must(&run);
    ck_assert_int_eq(run.n_steps_seen, 8);
    cr_train_same_outputs("a", "b");
}
END_TEST

/* A checkpoint is an adapter too: exported without the model, and as the start of another run. */
START_TEST(checkpoint_as_adapter)
{
    struct cr_train_run run;
    cr_train_full_init(&run, "out");
    run.options.keep_best = false;
    run.options.targets = "q_proj,k_proj,down_proj";
    run.options.rank = 3;
    cr_train_must(&run);
    struct cr_export_options export = {.size = sizeof export};
    export.adapter = cr_train_path("out/checkpoints/step-00000009.cck");
    export.output = cr_train_path("blind.gguf");
    export.format = "gguf";
    struct cr_error err = {0};
    ck_assert_msg(cr_export(&export, NULL, &err) == CR_OK, "%s", err.message);
    ck_assert(cr_train_same("blind.gguf", "out/adapter.gguf"));
    char model[1024];
    snprintf(model, sizeof model, "%s", cr_train_path("model.gguf"));
    export.model = model;
    export.output = cr_train_path("exported.gguf");
    export.adapter = cr_train_path("out/checkpoints/step-00000009.cck");
    ck_assert_msg(cr_export(&export, NULL, &err) == CR_OK, "%s", err.message);
    ck_assert(cr_train_same("exported.gguf", "out/adapter.gguf"));
    /* Going on from the checkpoint and from the directory is the same. */
    static const char *const starts[] = {"out", "out/checkpoints/step-00000009.cck"};
    static const char *const names[] = {"from_dir", "from_checkpoint"};
    for (int i = 0; i < 2; i++) {
        char start[1024];
        snprintf(start, sizeof start, "%s", cr_train_path(starts[i]));
        cr_train_run_init(&run, names[i]);
        run.options.steps = 1;
        run.options.adapter = start;
        cr_train_must(&run);
    }
    cr_train_same_outputs("from_dir", "from_checkpoint");
    /* Another model with other weights refuses it. */
    struct cr_tiny_spec spec = {.type = 8, .seed = 12};
    ck_assert_int_eq(cr_tiny_model_file(&spec, cr_train_path("model.gguf"), NULL), CR_OK);
    export.force = true;
    ck_assert_int_eq(cr_export(&export, NULL, &err), CR_E_BUSY);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_resume");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 300);
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_add_loop_test(all, stop_at_a_step_and_resume, 0, 10);
    tcase_add_loop_test(all, stop_within_a_pass, 0, 16);
    tcase_add_test(all, stop_at_every_step);
    tcase_add_test(all, stop_in_an_evaluation);
    tcase_add_test(all, resume_from_an_older_checkpoint);
    tcase_add_test(all, finished_runs);
    tcase_add_test(all, resume_with_other_settings);
    tcase_add_test(all, resume_for_more_steps);
    tcase_add_test(all, resume_to_keep_the_best);
    tcase_add_loop_test(all, resume_after_an_early_stop, 0, 2);
    tcase_add_test(all, resume_without_checkpoints);
    tcase_add_test(all, a_forced_run_starts_over);
    tcase_add_test(all, checkpoint_as_adapter);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
