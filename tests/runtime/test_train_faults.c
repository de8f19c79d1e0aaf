/* Output directories, and runs in which memory or the disk fails at every place in turn. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/io/file.h"
#include "runtime/io/sys.h"
#include "tests/support/kernel_test.h"
#include "tests/support/train_test.h"

START_TEST(output_directory)
{
    struct cr_train_run run;
    cr_train_run_init(&run, "none/out");
    run.options.steps = 1;
    cr_train_must_fail(&run, CR_E_IO, "parent");
    cr_train_run_init(&run, "out");
    run.options.steps = 1;
    cr_train_must(&run);
    uint64_t before = cr_train_tree_digest("out");
    cr_train_must_fail(&run, CR_E_USAGE, "out");
    ck_assert_uint_eq(cr_train_tree_digest("out"), before);
    run.options.force = true;
    cr_train_must(&run);
    int lock = -1;
    ck_assert_int_eq(cr_dir_lock(cr_train_path("out"), &lock, NULL), CR_OK);
    before = cr_train_tree_digest("out");
    cr_train_must_fail(&run, CR_E_BUSY, "out");
    ck_assert_uint_eq(cr_train_tree_digest("out"), before);
    cr_dir_unlock(lock);
    /* Bad inputs leave no directory behind. */
    cr_train_run_init(&run, "fresh");
    run.options.model = cr_train_path("choices.jsonl");
    cr_train_must_fail(&run, CR_E_INPUT, "choices.jsonl");
    run.options.model = cr_train_path("absent.gguf");
    cr_train_must_fail(&run, CR_E_IO, "absent.gguf");
    ck_assert(!cr_train_exists("fresh"));
}
END_TEST

START_TEST(every_allocation_may_fail)
{
    struct cr_train_run run;
    static const char *const methods[] = {"adamw", "ensemble", "bora"};
    cr_train_run_init(&run, "out");
    run.options.method = methods[_i / 2];
    run.options.members = 2;
    run.options.member_heads = true;
    run.options.bora_mode = "joined";
    run.options.steps = 1;
    run.options.force = true;
    long n = cr_alloc_count();
    cr_train_must(&run);
    n = cr_alloc_count() - n;
    ck_assert_int_gt(n, 100);
    ck_assert_int_eq(cr_alloc_live(), 0);
    for (long at = 1; at <= n + 1; at++) {
        cr_alloc_fail_at(at, _i % 2 == 1);
        cr_status status = cr_train_run_go(&run);
        long live = cr_alloc_live();
        cr_alloc_fail_at(0, false);
        /* A failure beside the way (a check that only warns) may be survived, one behind the last is not met. */
        ck_assert_msg(status == CR_E_MEMORY || (status == CR_OK && (at > n || _i % 2 == 0)),
                      "allocation %ld of %ld: status %d: %s", at, n, status, run.err.message);
        ck_assert_msg(live == 0, "allocation %ld of %ld: %ld blocks leaked", at, n, live);
        ck_assert_msg(status != CR_OK || cr_train_exists("out/valid.jsonl"), "allocation %ld of %ld", at, n);
    }
}
END_TEST

struct away {
    char path[1024], warning[256];
    bool change; /* rather than remove */
};

/* The data file goes, or changes, once it was read. */
static void take_data_away(void *ctx, enum cr_log_level level, const char *line)
{
    struct away *away = ctx;
    if (level == CR_LOG_WARNING) {
        snprintf(away->warning, sizeof away->warning, "%s", line);
    } else if (strncmp(line, "memory: ", 8) == 0 && away->change) {
        cr_train_write("again.jsonl", "{}\n", 3);
    } else if (strncmp(line, "memory: ", 8) == 0) {
        ck_assert_int_eq(unlink(away->path), 0);
    }
}

START_TEST(held_out_lines_that_cannot_be_copied)
{
    struct cr_train_run run;
    struct away away = {.change = _i == 1};
    size_t n;
    uint8_t *lines = cr_train_bytes("choices.jsonl", &n);
    cr_train_write("again.jsonl", lines, n);
    cr_free(lines);
    snprintf(away.path, sizeof away.path, "%s", cr_train_path("again.jsonl"));
    cr_train_run_init(&run, "out");
    run.options.data = away.path;
    run.options.steps = 1;
    run.host.log = take_data_away;
    run.host.ctx = &away;
    ck_assert_msg(cr_finetune(&run.options, &run.host, &run.result, &run.err) == CR_OK, "%s", run.err.message);
    const char *says = _i == 1 ? "again.jsonl has changed since" : "again.jsonl: cannot open";
    ck_assert_msg(strstr(away.warning, says) != NULL, "%s", away.warning);
    ck_assert(!cr_train_exists("out/valid.jsonl"));
}
END_TEST

/* The file layer with its n-th changing call failing, once or from then on; syncing is counted but not done. */
static struct {
    long n_calls, fail_at;
    bool sticky;
    int code;
} fault;

static bool fails(void)
{
    fault.n_calls++;
    bool now = fault.fail_at > 0 && (fault.n_calls == fault.fail_at || (fault.sticky && fault.n_calls > fault.fail_at));
    errno = now ? fault.code : errno;
    return now;
}

static ssize_t faulty_write(int fd, const void *data, size_t n)
{
    return fails() ? -1 : cr_sys_real.write(fd, data, n);
}

static int faulty_fsync(int fd)
{
    (void)fd;
    return fails() ? -1 : 0;
}

static int faulty_rename(const char *from, const char *to)
{
    return fails() ? -1 : cr_sys_real.rename(from, to);
}

static int faulty_mkdir(const char *path, mode_t mode)
{
    return fails() ? -1 : cr_sys_real.mkdir(path, mode);
}

START_TEST(every_write_may_fail)
{
    struct cr_sys table = *cr_sys();
    const struct cr_sys *quick = cr_sys();
    table.write = faulty_write;
    table.fsync = faulty_fsync;
    table.rename = faulty_rename;
    table.mkdir = faulty_mkdir;
    struct cr_train_run run;
    cr_train_run_init(&run, "good");
    run.options.steps = 5;
    cr_sys_set(&table);
    cr_train_must(&run);
    cr_sys_set(quick);
    long n = fault.n_calls;
    long n_warnings = run.n_warnings;
    ck_assert_int_gt(n, 40);
    fault.code = _i & 1 ? EIO : ENOSPC;
    fault.sticky = (_i & 2) != 0;
    for (long at = 1; at <= n; at++) {
        cr_train_run_init(&run, "out");
        run.options.steps = 5;
        fault.n_calls = 0;
        fault.fail_at = at;
        cr_sys_set(&table);
        cr_status status = cr_train_run_go(&run);
        cr_sys_set(quick);
        ck_assert_msg(status == CR_OK || status == CR_E_IO, "call %ld: status %d: %s", at, status, run.err.message);
        ck_assert_int_eq(cr_alloc_live(), 0);
        /* A failure that is survived is said. */
        ck_assert_msg(status == CR_E_IO || run.n_warnings > n_warnings, "call %ld", at);
        if (status == CR_E_IO) { /* what was committed is intact: the run goes on, or never began */
            run.options.resume = true;
            status = cr_train_run_go(&run);
            if (status != CR_OK) {
                bool none = status == CR_E_INPUT && strstr(run.err.message, "no intact checkpoint") != NULL;
                bool absent = status == CR_E_IO && !cr_train_exists("out");
                ck_assert_msg(none || absent, "call %ld: status %d: %s", at, status, run.err.message);
            }
        }
        if (status == CR_OK) {
            cr_train_same_outputs("good", "out");
        }
        char command[1100];
        snprintf(command, sizeof command, "! find '%s' -name '*.tmp.*' | grep -q .", cr_train_path("."));
        ck_assert_msg(system(command) == 0, "call %ld left a temporary file", at);
        snprintf(command, sizeof command, "rm -rf '%s'", cr_train_path("out"));
        ck_assert_int_eq(system(command), 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_faults");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 300);
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_add_test(all, output_directory);
    tcase_add_loop_test(all, every_allocation_may_fail, 0, 6);
    tcase_add_loop_test(all, held_out_lines_that_cannot_be_copied, 0, 2);
    tcase_add_loop_test(all, every_write_may_fail, 0, 4);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
