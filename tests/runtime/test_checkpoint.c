/* Checkpoint files: round trip, every cut and every changed byte is noticed, choice of the newest, retention. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/train/checkpoint_dir.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

static char dir[256];

static void make_dir(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/cr-checkpoint-XXXXXX", base != NULL ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void drop_dir(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    ck_assert_int_eq(system(command), 0);
}

static void path_of(char *out, const char *name)
{
    snprintf(out, 512, "%s/%s", dir, name);
}

static const float weights[] = {1.5f, -2, 0, 1e-40f};
static const char settings[] = "{\"lr\":0.1}";

static void write_one(const char *name, uint64_t run_id, uint64_t step)
{
    char path[512];
    uint64_t journal = 77;
    const struct cr_checkpoint_section sections[] = {{CR_CKPT_SETTINGS, settings, sizeof settings - 1},
                                                     {CR_CKPT_WEIGHTS, weights, sizeof weights},
                                                     {CR_CKPT_DIGESTS, "", 0},
                                                     {CR_CKPT_JOURNAL, &journal, sizeof journal}};
    struct cr_error err = {0};
    path_of(path, name);
    cr_status status = cr_checkpoint_write(path, run_id, step, sections, 4, &err);
    ck_assert_msg(status == CR_OK, "%s", err.message);
}

static bool exists(const char *name)
{
    char path[512];
    path_of(path, name);
    return access(path, F_OK) == 0;
}

static size_t read_bytes(const char *name, unsigned char *data, size_t n)
{
    char path[512];
    path_of(path, name);
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    size_t got = fread(data, 1, n, file);
    fclose(file);
    return got;
}

static void write_bytes(const char *name, const unsigned char *data, size_t n)
{
    char path[512];
    path_of(path, name);
    cr_test_put_file(path, data, n);
}

START_TEST(round_trip)
{
    char path[512];
    struct cr_checkpoint checkpoint;
    struct cr_error err = {0};
    write_one("a.cck", 0x1234, 42);
    path_of(path, "a.cck");
    ck_assert_msg(cr_checkpoint_open(path, &checkpoint, &err) == CR_OK, "%s", err.message);
    ck_assert_uint_eq(checkpoint.run_id, 0x1234);
    ck_assert_uint_eq(checkpoint.step, 42);
    ck_assert_uint_eq(checkpoint.n_sections, 4);
    const struct cr_checkpoint_section *section = cr_checkpoint_find(&checkpoint, CR_CKPT_WEIGHTS);
    ck_assert_ptr_nonnull(section);
    ck_assert_uint_eq(section->bytes, sizeof weights);
    ck_assert_mem_eq(section->data, weights, sizeof weights);
    ck_assert_uint_eq((uintptr_t)section->data % 64, 0);
    section = cr_checkpoint_find(&checkpoint, CR_CKPT_DIGESTS);
    ck_assert(section != NULL && section->bytes == 0);
    ck_assert_ptr_null(cr_checkpoint_find(&checkpoint, CR_CKPT_BEST));
    cr_checkpoint_close(&checkpoint);
    uint64_t run_id;
    uint64_t step;
    ck_assert(cr_checkpoint_peek(path, &run_id, &step));
    ck_assert(run_id == 0x1234 && step == 42);
    /* The same contents are the same bytes. */
    static unsigned char data[2][4096];
    write_one("b.cck", 0x1234, 42);
    size_t n = read_bytes("a.cck", data[0], sizeof data[0]);
    ck_assert_uint_eq(read_bytes("b.cck", data[1], sizeof data[1]), n);
    ck_assert_mem_eq(data[0], data[1], n);
}
END_TEST

START_TEST(every_cut_and_every_change)
{
    static unsigned char data[4096];
    char path[512];
    struct cr_checkpoint checkpoint = {.step = 99};
    struct cr_error err;
    write_one("a.cck", 1, 2);
    size_t n = read_bytes("a.cck", data, sizeof data);
    ck_assert_uint_gt(n, 200);
    ck_assert_uint_lt(n, 1000);
    path_of(path, "x.cck");
    for (size_t cut = 0; cut < n; cut++) {
        write_bytes("x.cck", data, cut);
        err.message[0] = 0;
        ck_assert_int_eq(cr_checkpoint_open(path, &checkpoint, &err), CR_E_INPUT);
        ck_assert_ptr_nonnull(strstr(err.message, "x.cck"));
    }
    static const unsigned char flips[] = {0x01, 0x80, 0xff};
    for (size_t i = 0; i < n; i++) {
        for (size_t f = 0; f < sizeof flips; f++) {
            data[i] ^= flips[f];
            write_bytes("x.cck", data, n);
            data[i] ^= flips[f];
            ck_assert_msg(cr_checkpoint_open(path, &checkpoint, NULL) == CR_E_INPUT, "byte %zu", i);
        }
    }
    write_bytes("x.cck", data, n + 1);
    ck_assert_int_eq(cr_checkpoint_open(path, &checkpoint, NULL), CR_E_INPUT);
    ck_assert_uint_eq(checkpoint.step, 99);
    write_bytes("x.cck", data, n);
    ck_assert_int_eq(cr_checkpoint_open(path, &checkpoint, NULL), CR_OK);
    cr_checkpoint_close(&checkpoint);
}
END_TEST

struct warnings {
    int n;
    char last[1024];
};

static void count_warning(void *ctx, enum cr_log_level level, const char *line)
{
    struct warnings *warnings = ctx;
    warnings->n += level == CR_LOG_WARNING;
    snprintf(warnings->last, sizeof warnings->last, "%s", line);
}

static bool others; /* as the last success said */

static cr_status newest(uint64_t run_id, uint64_t *run_found, uint64_t *step, struct warnings *warnings,
                        struct cr_error *err)
{
    struct cr_host host = {.log = count_warning, .ctx = warnings};
    struct cr_checkpoint checkpoint;
    char *path = NULL;
    memset(warnings, 0, sizeof *warnings);
    cr_status status = cr_checkpoint_newest(dir, run_id, &host, &path, &checkpoint, &others, err);
    if (status == CR_OK) {
        *run_found = checkpoint.run_id;
        *step = checkpoint.step;
        ck_assert_int_eq(access(path, R_OK), 0);
        cr_checkpoint_close(&checkpoint);
        cr_free(path);
    } else {
        ck_assert_ptr_null(path);
    }
    return status;
}

START_TEST(newest_intact_of_this_run)
{
    struct warnings warnings;
    struct cr_error err = {0};
    uint64_t run_id;
    uint64_t step;
    char path[512];
    ck_assert_int_eq(newest(7, &run_id, &step, &warnings, &err), CR_E_INPUT);
    ck_assert_int_eq(warnings.n, 0);
    write_one("step-00000010.cck", 7, 10);
    write_one("step-00000020.cck", 7, 20);
    write_one("step-00000030.cck", 7, 30);
    write_one("step-00000090.cck", 8, 90);
    write_one("notes.cck", 7, 99);
    write_one("step-1.cck", 7, 99);
    path_of(path, "step-00000040.cck");
    ck_assert_int_eq(symlink("/nonexistent", path), 0);
    path_of(path, "step-00000050.cck");
    ck_assert_int_eq(mkdir(path, 0755), 0);
    ck_assert_int_eq(newest(7, &run_id, &step, &warnings, &err), CR_OK);
    ck_assert(run_id == 7 && step == 30 && others);
    ck_assert_int_eq(warnings.n, 2); /* the link and the directory */
    /* Damaged and empty ones fall back to the next. */
    write_bytes("step-00000030.cck", (const unsigned char *)"", 0);
    ck_assert_int_eq(newest(7, &run_id, &step, &warnings, &err), CR_OK);
    ck_assert(run_id == 7 && step == 20 && warnings.n == 3);
    /* The content decides when the name lies. */
    write_one("step-00000005.cck", 7, 25);
    ck_assert_int_eq(newest(7, &run_id, &step, &warnings, &err), CR_OK);
    ck_assert(step == 25 && warnings.n == 4);
    /* A run with nothing here: two others leave no choice, one other is handed out for comparison. */
    ck_assert_int_eq(newest(9, &run_id, &step, &warnings, &err), CR_E_BUSY);
    path_of(path, "step-00000090.cck");
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(newest(9, &run_id, &step, &warnings, &err), CR_OK);
    ck_assert(run_id == 7 && step == 25 && !others);
}
END_TEST

START_TEST(all_damaged)
{
    struct warnings warnings;
    struct cr_error err = {0};
    uint64_t run_id;
    uint64_t step;
    write_bytes("step-00000001.cck", (const unsigned char *)"CRCKPT", 6);
    write_bytes("step-00000002.cck", (const unsigned char *)"", 0);
    ck_assert_int_eq(newest(7, &run_id, &step, &warnings, &err), CR_E_INPUT);
    ck_assert_int_eq(warnings.n, 2);
    ck_assert_ptr_nonnull(strstr(err.message, "no intact checkpoint"));
}
END_TEST

START_TEST(retention_touches_only_this_run)
{
    write_one("step-00000010.cck", 7, 10);
    write_one("step-00000020.cck", 7, 20);
    write_one("step-00000030.cck", 7, 30);
    write_one("step-00000040.cck", 7, 40);
    write_one("step-00000005.cck", 8, 5);
    write_bytes("step-00000003.cck", (const unsigned char *)"damaged", 7);
    cr_checkpoint_retain(dir, 7, 30, 2, false);
    ck_assert(!exists("step-00000010.cck") && exists("step-00000020.cck") && exists("step-00000030.cck"));
    ck_assert(exists("step-00000040.cck") && exists("step-00000005.cck") && exists("step-00000003.cck"));
    cr_checkpoint_retain(dir, 7, 40, 1, false);
    ck_assert(!exists("step-00000020.cck") && !exists("step-00000030.cck") && exists("step-00000040.cck"));
    /* A run that starts over in the same place forgets what lies ahead of it. */
    write_one("step-00000000.cck", 7, 0);
    cr_checkpoint_retain(dir, 7, 0, 2, true);
    ck_assert(exists("step-00000000.cck") && !exists("step-00000040.cck") && exists("step-00000005.cck"));
    write_bytes("step-00000003.cck.tmp.12.ab", (const unsigned char *)"x", 1);
    write_bytes("other.tmp.12.ab", (const unsigned char *)"x", 1);
    cr_checkpoint_sweep(dir);
    ck_assert(!exists("step-00000003.cck.tmp.12.ab") && exists("other.tmp.12.ab"));
}
END_TEST

START_TEST(paths)
{
    char *path = cr_checkpoint_path("d", 7);
    ck_assert_str_eq(path, "d/step-00000007.cck");
    cr_free(path);
    path = cr_checkpoint_path("d", 1234567890123u);
    ck_assert_str_eq(path, "d/step-1234567890123.cck");
    cr_free(path);
}
END_TEST

START_TEST(failed_writes_leave_nothing)
{
    char path[512];
    struct cr_error err = {0};
    const struct cr_checkpoint_section section = {CR_CKPT_WEIGHTS, weights, sizeof weights};
    path_of(path, "missing/step-00000001.cck");
    ck_assert_int_eq(cr_checkpoint_write(path, 1, 1, &section, 1, &err), CR_E_IO);
    path_of(path, "step-00000001.cck");
    ck_assert_int_eq(cr_checkpoint_write(path, 1, 1, &section, 0, &err), CR_E_USAGE);
    for (long at = 1; at < 8; at++) {
        cr_alloc_fail_at(at, false);
        cr_status status = cr_checkpoint_write(path, 1, 1, &section, 1, &err);
        cr_alloc_fail_at(0, false);
        ck_assert(status == CR_OK || status == CR_E_MEMORY);
        if (status == CR_OK) {
            ck_assert_int_gt(at, 1);
            break;
        }
        /* Whatever failed, a file under the final name is a whole one. */
        struct cr_checkpoint checkpoint;
        if (exists("step-00000001.cck")) {
            ck_assert_int_eq(cr_checkpoint_open(path, &checkpoint, &err), CR_OK);
            cr_checkpoint_close(&checkpoint);
            ck_assert_int_eq(unlink(path), 0);
        }
    }
    ck_assert_int_eq(cr_alloc_live(), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("checkpoint");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_checked_fixture(all, make_dir, drop_dir);
    tcase_add_test(all, round_trip);
    tcase_add_test(all, every_cut_and_every_change);
    tcase_add_test(all, newest_intact_of_this_run);
    tcase_add_test(all, all_damaged);
    tcase_add_test(all, retention_touches_only_this_run);
    tcase_add_test(all, paths);
    tcase_add_test(all, failed_writes_leave_nothing);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
