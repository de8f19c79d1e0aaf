/* What a run is predicted to take: memory of the past does not count, what is resumed or read does, evaluations do. */
#include <check.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "runtime/train/train.h"
#include "tests/runtime/bora_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/train_test.h"

#define PAST ((size_t)256 << 20)
#define ALLOWED ((uint64_t)192 << 20)

/* A peak of PAST bytes that are given back. */
static void be_large(void)
{
    char *block = mmap(NULL, PAST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(block, MAP_FAILED);
    memset(block, 1, PAST);
    ck_assert_int_eq(munmap(block, PAST), 0);
}

START_TEST(memory_given_back_is_free)
{
    struct cr_train_run run;
    struct cr_eval_options o;
    struct cr_eval_result result;
    struct cr_error err = {0};
    struct cr_host host = {.n_threads = 1, .memory_bytes = ALLOWED};
    be_large();
    cr_train_run_init(&run, "out");
    run.options.steps = 1;
    run.host.memory_bytes = ALLOWED;
    cr_train_must(&run);
    ck_assert_double_ge(run.result.predicted_mb, (double)PAST / CR_MIB); /* of the process, which is what is measured */
    cr_eval_options_init(&o);
    o.model = cr_train_kept("model.gguf");
    o.adapter = cr_train_kept("out");
    o.data = cr_train_kept("other.jsonl");
    ck_assert_msg(cr_eval(&o, &host, &result, &err) == CR_OK, "%s", err.message);
    cr_eval_result_deinit(&result);
}
END_TEST

/* A resumed run maps a checkpoint, which counts: all of its file, and nothing near as much again. */
START_TEST(checkpoint_is_predicted)
{
    struct cr_train_run run;
    struct stat file;
    double mb[2], file_mb;
    cr_train_run_init(&run, "out");
    run.options.targets = "all";
    run.options.rank = 64;
    run.options.steps = 2;
    cr_train_must(&run);
    ck_assert_int_eq(stat(cr_train_path("out/checkpoints/step-00000002.cck"), &file), 0);
    file_mb = (double)file.st_size / 1048576;
    ck_assert_double_gt(file_mb, 1.4); /* 131072 weights and their two moments */
    run.options.dry_run = true;
    for (int i = 0; i < 2; i++) {
        run.options.resume = i == 1;
        mb[i] = cr_train_predicted_mb(&run);
    }
    ck_assert_double_ge(mb[1] - mb[0], 0.95 * file_mb); /* what is held changes by a few pages */
    ck_assert_double_le(mb[1] - mb[0], 1.2 * file_mb);
}
END_TEST

/* Going on from an adapter, several sets of weights are counted once: what is more than without it is the one that was
 * read, its weights and room for their gradients, and some pages. */
START_TEST(sets_of_one_that_was_read)
{
    struct cr_train_run run;
    double mb[2], one_mb = 2 * 131072 * 4 / CR_MIB;
    put_choices("tasks.jsonl", 7, -1, -1);
    cr_train_run_init(&run, "start");
    run.options.targets = "all";
    run.options.rank = 64;
    run.options.steps = 1;
    cr_train_must(&run);
    for (int i = 0; i < 2; i++) {
        cr_train_run_init(&run, "out");
        run.options.method = "bora";
        run.options.data = cr_train_kept("tasks.jsonl");
        run.options.targets = "all";
        run.options.rank = 64;
        run.options.adapter = i == 1 ? cr_train_kept("start") : NULL;
        run.options.steps = 1;
        run.options.dry_run = true;
        mb[i] = cr_train_predicted_mb(&run);
    }
    ck_assert_double_ge(mb[1] - mb[0], 0.9 * one_mb);
    ck_assert_double_le(mb[1] - mb[0], one_mb + 1);
}
END_TEST

/* As many evaluations are planned as fall due, the one at the end once. */
START_TEST(evaluations)
{
    for (uint32_t n_steps = 1; n_steps <= 12; n_steps++) {
        for (uint32_t every = 0; every <= 13; every++) { /* 0: an epoch, of three steps */
            struct cr_train_history history = {0};
            struct cr_train train = {.n_train = 12, .n_valid = 2, .history = &history};
            struct cr_error err;
            size_t n = 0;
            train.options.batch_size = 4;
            train.options.grad_accumulation_steps = 1;
            train.options.steps = n_steps;
            train.options.eval_every = every;
            ck_assert_int_eq(cr_train_plan_steps(&train, &err), CR_OK);
            for (train.step = 1; train.step <= n_steps; train.step++) {
                n += cr_train_eval_due(&train);
            }
            ck_assert_uint_eq(train.max_evals, n);
        }
    }
}
END_TEST

/* Another number of steps between evaluations, and more steps: every evaluation is remembered. */
START_TEST(evaluations_of_other_settings)
{
    struct cr_train_run run;
    cr_train_run_init(&run, "out");
    run.options.steps = 4;
    run.options.eval_every = 1;
    cr_train_must(&run);
    run.options.steps = 7;
    run.options.eval_every = 2;
    run.options.resume = true;
    run.options.allow_inexact = true;
    cr_train_must(&run);
    json_t *summary = json_load_file(cr_train_path("out/summary.json"), 0, NULL);
    const json_t *list = json_object_get(summary, "evaluations");
    static const int steps[] = {1, 2, 3, 4, 6, 7};
    ck_assert_uint_eq(json_array_size(list), 6);
    for (size_t i = 0; i < 6; i++) {
        ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(list, i), "step")), steps[i]);
    }
    json_decref(summary);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("plan");
    TCase *tc = tcase_create("plan");
    tcase_add_checked_fixture(tc, cr_train_dir_make, cr_train_dir_drop);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, memory_given_back_is_free);
    tcase_add_test(tc, checkpoint_is_predicted);
    tcase_add_test(tc, sets_of_one_that_was_read);
    tcase_add_test(tc, evaluations);
    tcase_add_test(tc, evaluations_of_other_settings);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
