/* Two runs in one directory: --force over a finished one, and --resume of either after it. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/posterior/posterior_file.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"
#include "tests/support/train_test.h"

static void copy(const char *from, const char *to)
{
    char command[2200];
    snprintf(command, sizeof command, "rm -rf '%s' && cp -R '%s' '%s'", cr_train_kept(to), cr_train_kept(from),
             cr_train_kept(to));
    ck_assert_int_eq(system(command), 0);
}

/* Six steps, three reports, three examples held out. */
static void first_init(struct cr_train_run *run, const char *output)
{
    cr_train_run_init(run, output);
    run->options.steps = 6;
}

/* Other examples held out, and another end. */
static void second_init(struct cr_train_run *run, const char *output)
{
    cr_train_run_init(run, output);
    run->options.steps = 4;
    run->options.seed = 3;
}

/* The same for longer, with no checkpoint on its way that has the name of one of the first. */
static void long_second_init(struct cr_train_run *run, const char *output)
{
    second_init(run, output);
    run->options.force = true;
    run->options.steps = 20;
    run->options.save_every = 1000;
}

/* Resumes a run and expects of the directory what is in `whole`, where that run was alone; of the journal it may have
 * nothing left. */
static void must_become(struct cr_train_run *run, const char *whole, const char *output)
{
    char name[64];
    size_t n;
    run->options.resume = true;
    run->options.force = false;
    cr_train_must(run);
    cr_train_same_outputs(whole, output);
    static const char *const held_out[] = {"valid.jsonl"};
    cr_train_same_files(whole, output, held_out, 1);
    snprintf(name, sizeof name, "%s/train.jsonl", output);
    cr_free(cr_train_bytes(name, &n));
    if (n > 0) {
        cr_train_same_journals(whole, output);
    }
    snprintf(name, sizeof name, "%s/" CR_POSTERIOR_FILE, output);
    ck_assert(!cr_train_exists(name));
    run->n_steps_seen = 0;
    uint64_t before = cr_train_tree_digest(output);
    cr_train_must(run);
    ck_assert(run->result.nothing_to_do && run->n_steps_seen == 0);
    ck_assert_uint_eq(cr_train_tree_digest(output), before);
}

/* What is there is another run's: the first one's result is written again, and nothing of the second one stays in it.
 */
START_TEST(another_finished_run)
{
    struct cr_train_run run;
    first_init(&run, "first");
    cr_train_must(&run);
    copy("first", "out");
    if (_i == 2) {
        long_second_init(&run, "out"); /* more reports than the first one knows */
    } else {
        second_init(&run, "out");
    }
    run.options.force = true;
    run.options.method = _i == 0 ? "adamw" : "ivon"; /* which writes a file more */
    cr_train_must(&run);
    first_init(&run, "out");
    run.options.resume = true;
    cr_train_must(&run);
    ck_assert(!run.result.nothing_to_do);
    ck_assert_int_eq(run.n_steps_seen, 0);
    must_become(&run, "first", "out");
}
END_TEST

/* As good as killed at each system call of a kind: before the new run can be resumed the old one is there as it was,
 * and then either of the two, whole. */
START_TEST(killed_while_forced)
{
    static const enum cr_test_call calls[] = {CR_CALL_RENAME, CR_CALL_WRITE, CR_CALL_FSYNC, CR_CALL_OPEN};
    struct cr_train_run run;
    long n_before = 0, n_behind = 0;
    cr_status status = CR_E_IO;
    first_init(&run, "first");
    cr_train_must(&run);
    second_init(&run, "second");
    cr_train_must(&run);
    for (long at = 1; status != CR_OK; at++) {
        copy("first", "out");
        uint64_t before = cr_train_tree_digest("out");
        second_init(&run, "out");
        run.options.force = true;
        cr_test_fault(calls[_i], at, EIO, true);
        status = cr_train_run_go(&run);
        bool fired = cr_test_fault_off();
        ck_assert_msg(status == CR_E_IO || (status == CR_OK && (!fired || run.n_warnings > 0)), "%ld: %d %s", at,
                      status, run.err.message);
        bool committed = cr_train_exists("out/checkpoints/step-00000000.cck") ||
                         cr_train_exists("out/checkpoints/step-00000002.cck"); /* the old one has 4 and 6 */
        if (!committed) {
            ck_assert_msg(cr_train_tree_digest("out") == before, "call %ld", at);
            n_before++;
        } else if (status != CR_OK) {
            copy("out", "forth");
            second_init(&run, "forth");
            must_become(&run, "second", "forth");
            n_behind++;
        }
        if (status != CR_OK && cr_train_exists("out/checkpoints/step-00000006.cck")) {
            first_init(&run, "out");
            must_become(&run, "first", "out");
        }
        ck_assert_int_lt(at, 1000);
    }
    ck_assert_int_gt(n_before, 0);
    ck_assert_int_gt(n_behind, 0);
}
END_TEST

/* Reports of another run are no reports of this one, whether they are more or fewer than its checkpoint knows. */
START_TEST(journal_of_another_run)
{
    struct cr_train_run run;
    size_t n;
    first_init(&run, "first");
    cr_train_must(&run);
    copy("first", "out");
    long_second_init(&run, "out");
    run.stop_at = _i == 0 ? 3 : 9;
    cr_train_must_fail(&run, CR_E_STOPPED, "--resume");
    cr_free(cr_train_bytes("out/train.jsonl", &n));
    ck_assert_uint_gt(n, 0);
    first_init(&run, "out");
    run.options.resume = true;
    cr_train_must(&run);
    cr_free(cr_train_bytes("out/train.jsonl", &n));
    ck_assert_uint_eq(n, 0);
    ck_assert_ptr_nonnull(strstr(run.last_warning, "has 0 of the 3 lines"));
    must_become(&run, "first", "out");
}
END_TEST

/* Missing, or with other lines, it is written again, and nothing else is; a run that held nothing out leaves alone what
 * somebody has put there. */
START_TEST(held_out_lines_come_back)
{
    struct cr_train_run run;
    first_init(&run, "first");
    cr_train_must(&run);
    copy("first", "out");
    static const char *const files[] = {"valid.jsonl", "summary.json", "train.jsonl"};
    uint64_t before = cr_train_tree_digest("out/checkpoints");
    for (int i = 0; i < 2; i++) {
        if (i == 0) {
            ck_assert_int_eq(unlink(cr_train_path("out/valid.jsonl")), 0);
        } else {
            cr_train_write("out/valid.jsonl", "{}\n", 3);
        }
        first_init(&run, "out");
        run.options.resume = true;
        cr_train_must(&run);
        ck_assert(run.result.nothing_to_do);
        cr_train_same_files("first", "out", files, 3);
        ck_assert_uint_eq(cr_train_tree_digest("out/checkpoints"), before);
    }
    first_init(&run, "all");
    run.options.no_valid = true;
    run.stop_at = 3;
    cr_train_must_fail(&run, CR_E_STOPPED, "--resume");
    cr_train_write("all/valid.jsonl", "{}\n", 3);
    run.options.resume = true;
    run.stop_at = -1;
    cr_train_must(&run);
    cr_test_expect_file(cr_train_path("all/valid.jsonl"), "{}\n");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_force");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 300);
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_add_loop_test(all, another_finished_run, 0, 3);
    tcase_add_loop_test(all, killed_while_forced, 0, 4);
    tcase_add_loop_test(all, journal_of_another_run, 0, 2);
    tcase_add_test(all, held_out_lines_come_back);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
