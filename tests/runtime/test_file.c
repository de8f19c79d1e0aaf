/* Maps, reads, atomic writes, with every system call failing in turn. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/io/file.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

static cr_status map_and_close(const char *path, struct cr_error *err)
{
    struct cr_file_map map;
    cr_status status = cr_file_map_open(path, &map, err);
    cr_file_map_close(&map);
    cr_file_map_close(&map);
    return status;
}

START_TEST(refusals_of_reading)
{
    struct cr_error err;
    uint8_t *data;
    const char *fifo = cr_test_path("fifo");
    const char *loop = cr_test_path("loop");
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    ck_assert_int_eq(symlink(loop, loop), 0);
    char deep[5000];
    memset(deep, 'x', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    const struct {
        const char *path, *message;
    } cases[] = {
        {cr_test_path("missing"), "missing|No such file"},
        {cr_test_dir(), "directory|regular file"},
        {fifo, "fifo|FIFO|regular file"},
        {loop, "loop|symbolic links"},
        {cr_test_path("no\nsuch"), "no\\nsuch"},
        {deep, "File name too long"},
        {"/dev/null", "device"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_expect_error("map", map_and_close(cases[i].path, &err), &err, CR_E_IO, cases[i].message);
        cr_expect_error("read", cr_file_read(cases[i].path, 100, &data, NULL, &err), &err, CR_E_IO, cases[i].message);
    }
    const char *secret = cr_test_path("secret");
    cr_test_put_file(secret, "x", 1);
    chmod(secret, 0);
    if (geteuid() != 0) { /* root reads everything */
        cr_expect_error("permission", map_and_close(secret, &err), &err, CR_E_IO, "secret|Permission denied");
    }
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

START_TEST(map_and_read)
{
    struct cr_error err;
    struct cr_file_map map;
    const char *path = cr_test_path("a b \xc3\xa9\xff");
    cr_test_put_file(path, "hello", 5);
    ck_assert_int_eq(cr_file_map_open(path, &map, &err), CR_OK);
    ck_assert_uint_eq(map.bytes, 5);
    ck_assert(memcmp(map.data, "hello", 5) == 0);
    ck_assert(!cr_file_map_changed(&map));
    cr_file_map_close(&map);
    cr_test_expect_file(path, "hello");
    uint8_t *data = NULL;
    cr_expect_error("limit", cr_file_read(path, 4, &data, NULL, &err), &err, CR_E_INPUT, "5 bytes|at most 4");
    ck_assert_ptr_null(data);
    cr_test_put_file(path, "", 0);
    ck_assert_int_eq(cr_file_map_open(path, &map, &err), CR_OK);
    ck_assert_uint_eq(map.bytes, 0);
    ck_assert_ptr_nonnull(map.data);
    cr_file_map_close(&map);
    cr_test_expect_file(path, "");
}
END_TEST

START_TEST(map_notices_changes)
{
    struct cr_error err;
    struct cr_file_map map;
    const char *path = cr_test_path("model");
    cr_test_put_file(path, "hello", 5);
    ck_assert_int_eq(cr_file_map_open(path, &map, &err), CR_OK);
    ck_assert_int_eq(cr_file_write(path, "other", 5, &err), CR_OK); /* replaced by rename: the old one is untouched */
    ck_assert(!cr_file_map_changed(&map));
    ck_assert(memcmp(map.data, "hello", 5) == 0);
    cr_file_map_close(&map);
    ck_assert_int_eq(cr_file_map_open(path, &map, &err), CR_OK);
    ck_assert_int_eq(truncate(path, 3), 0);
    ck_assert(cr_file_map_changed(&map));
    cr_file_map_close(&map);
    ck_assert_int_eq(cr_file_map_open(path, &map, &err), CR_OK);
    struct timeval times[2] = {{1, 0}, {1, 0}};
    ck_assert_int_eq(utimes(path, times), 0);
    ck_assert(cr_file_map_changed(&map));
    cr_file_map_close(&map);
}
END_TEST

START_TEST(write_replaces)
{
    struct cr_error err;
    const char *path = cr_test_path("out");
    ck_assert_int_eq(cr_file_write(path, "one", 3, &err), CR_OK);
    cr_test_expect_file(path, "one");
    struct cr_file_writer w;
    ck_assert_int_eq(cr_file_writer_open(&w, path, &err), CR_OK);
    char prefix[64];
    snprintf(prefix, sizeof prefix, "out.tmp.%ld.", (long)getpid());
    ck_assert_int_eq(cr_test_count_files(cr_test_dir(), prefix), 1);
    ck_assert_int_eq(cr_file_writer_write(&w, "tw", 2, &err), CR_OK);
    cr_test_expect_file(path, "one"); /* nothing visible before the commit */
    ck_assert_int_eq(cr_file_writer_write(&w, "o", 1, &err), CR_OK);
    ck_assert_uint_eq(w.bytes, 3);
    ck_assert_int_eq(cr_file_writer_commit(&w, &err), CR_OK);
    cr_file_writer_abort(&w);
    cr_test_expect_file(path, "two");
    ck_assert_int_eq(cr_file_writer_open(&w, path, &err), CR_OK);
    ck_assert_int_eq(cr_file_writer_write(&w, "three", 5, &err), CR_OK);
    cr_file_writer_abort(&w);
    cr_file_writer_abort(&w);
    cr_test_expect_file(path, "two");
    ck_assert_int_eq(cr_test_count_files(cr_test_dir(), ".tmp."), 0);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
    cr_expect_error("closed", cr_file_writer_write(&w, "x", 1, &err), &err, CR_E_IO, "");
    struct cr_file_writer zero = {0};
    cr_file_writer_abort(&zero);
    ck_assert_int_ge(fcntl(0, F_GETFD), 0); /* descriptor 0 is not the zeroed writer's */
}
END_TEST

START_TEST(write_refusals)
{
    struct cr_error err;
    cr_expect_error("no parent", cr_file_write(cr_test_path("no/out"), "x", 1, &err), &err, CR_E_IO,
                    "no/out|No such file");
    mkdir(cr_test_path("dir"), 0755);
    cr_expect_error("directory", cr_file_write(cr_test_path("dir"), "x", 1, &err), &err, CR_E_IO, "dir|directory");
    char name[300];
    memset(name, 'n', 256);
    name[256] = '\0';
    cr_expect_error("long name", cr_file_write(cr_test_path(name), "x", 1, &err), &err, CR_E_IO, "too long");
    ck_assert_int_eq(cr_test_count_files(cr_test_dir(), ".tmp."), 0);
    const char *target = cr_test_path("target"), *link = cr_test_path("link");
    ck_assert_int_eq(symlink(target, link), 0); /* dangling: replaced, not written through */
    ck_assert_int_eq(cr_file_write(link, "x", 1, &err), CR_OK);
    ck_assert_int_ne(access(target, F_OK), 0);
    cr_test_expect_file(link, "x");
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

/* Each call in turn fails with each reason, once or from then on: the old contents stay, or the new ones are complete
 * (a failure behind the rename); no temporary unless unlink itself was to blame; the class is E4. */
START_TEST(every_call_of_a_write_fails)
{
    static const int errors[] = {EIO, ENOSPC, EDQUOT, EACCES, EROFS};
    const char *path = cr_test_path("out");
    int reached = 0;
    for (size_t e = 0; e < sizeof errors / sizeof errors[0]; e++) {
        for (int sticky = 0; sticky < 2; sticky++) {
            for (long at = 1;; at++) {
                struct cr_error err;
                cr_test_put_file(path, "old", 3);
                cr_test_fault(CR_CALL_ANY, at, errors[e], sticky != 0);
                cr_status status = cr_file_write(path, "new contents", 12, &err);
                bool fired = cr_test_fault_off();
                if (!fired) {
                    ck_assert_int_eq(status, CR_OK);
                    break;
                }
                reached++;
                uint8_t *data;
                size_t n;
                struct cr_error ignored;
                ck_assert_int_eq(cr_file_read(path, 100, &data, &n, &ignored), CR_OK);
                bool old = n == 3 && memcmp(data, "old", 3) == 0;
                bool new = n == 12 && memcmp(data, "new contents", 12) == 0;
                ck_assert_msg(old || new, "torn contents after call %ld", at);
                if (status == CR_OK) {
                    ck_assert(new); /* only the close of the synced directory may be ignored */
                } else {
                    cr_expect_error("write", status, &err, CR_E_IO, strerror(errors[e]));
                }
                cr_free(data);
                ck_assert_int_eq(cr_test_count_files(cr_test_dir(), ".tmp."), 0);
            }
        }
    }
    ck_assert_int_eq(reached, 5 * 2 * 8); /* open write fsync close rename, open fsync close of the directory */
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

START_TEST(every_call_of_a_read_fails)
{
    const char *path = cr_test_path("in");
    cr_test_put_file(path, "0123456789", 10);
    for (long at = 1; at <= 3; at++) {
        struct cr_error err;
        uint8_t *data = NULL;
        cr_test_fault(CR_CALL_ANY, at, EIO, false);
        cr_status status = cr_file_read(path, 100, &data, NULL, &err);
        ck_assert(cr_test_fault_off());
        cr_expect_error("read", status, &err, CR_E_IO, "in|Input/output error");
        ck_assert_ptr_null(data);
        cr_test_fault(CR_CALL_ANY, at, EIO, false);
        status = map_and_close(path, &err);
        ck_assert(cr_test_fault_off());
        cr_expect_error("map", status, &err, CR_E_IO, "in|Input/output error");
    }
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

START_TEST(interrupted_and_short_transfers)
{
    struct cr_error err;
    char text[1001];
    for (int i = 0; i < 1000; i++) {
        text[i] = (char)('a' + i % 26);
    }
    text[1000] = '\0';
    for (size_t most = 1; most < 1200; most = most * 7 + 1) {
        cr_test_short_transfers(most, true);
        ck_assert_msg(cr_file_write(cr_test_path("out"), text, 1000, &err) == CR_OK, "%s", err.message);
        cr_test_expect_file(cr_test_path("out"), text);
        int lock = -1;
        ck_assert_int_eq(cr_dir_lock(cr_test_dir(), &lock, &err), CR_OK);
        cr_dir_unlock(lock);
        cr_test_fault_off();
    }
}
END_TEST

START_TEST(write_to_a_full_disk)
{
    struct cr_error err;
    cr_test_fault(CR_CALL_WRITE, 2, ENOSPC, true);
    struct cr_file_writer w;
    ck_assert_int_eq(cr_file_writer_open(&w, cr_test_path("out"), &err), CR_OK);
    ck_assert_int_eq(cr_file_writer_write(&w, "x", 1, &err), CR_OK);
    cr_expect_error("full", cr_file_writer_write(&w, "x", 1, &err), &err, CR_E_IO, "out|No space left");
    ck_assert_int_eq(cr_test_count_files(cr_test_dir(), ""), 0);
    cr_expect_error("after", cr_file_writer_write(&w, "x", 1, &err), &err, CR_E_IO, "earlier failure");
    cr_expect_error("after", cr_file_writer_commit(&w, &err), &err, CR_E_IO, "earlier failure");
    cr_file_writer_abort(&w);
    cr_test_fault_off();
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

static cr_status write_op(void *arg, struct cr_error *err)
{
    return cr_file_write(arg, "x", 1, err);
}

static cr_status read_op(void *arg, struct cr_error *err)
{
    uint8_t *data = NULL;
    cr_status status = cr_file_read(arg, 100, &data, NULL, err);
    cr_free(data);
    return status;
}

static cr_status lock_op(void *arg, struct cr_error *err)
{
    int fd = -1;
    cr_status status = cr_dir_lock(arg, &fd, err);
    cr_dir_unlock(fd);
    return status;
}

START_TEST(allocations_fail)
{
    char path[1024];
    snprintf(path, sizeof path, "%s", cr_test_path("out"));
    ck_assert_int_eq((int)cr_test_alloc_sweep("write", write_op, path), 3);
    ck_assert_int_eq((int)cr_test_alloc_sweep("read", read_op, path), 1);
    snprintf(path, sizeof path, "%s", cr_test_dir());
    ck_assert_int_eq((int)cr_test_alloc_sweep("lock", lock_op, path), 1);
    ck_assert_int_eq(cr_test_count_files(cr_test_dir(), ".tmp."), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("file");
    TCase *tcase = tcase_create("file");
    tcase_add_checked_fixture(tcase, NULL, cr_test_dir_remove);
    tcase_set_timeout(tcase, 30);
    tcase_add_test(tcase, refusals_of_reading);
    tcase_add_test(tcase, map_and_read);
    tcase_add_test(tcase, map_notices_changes);
    tcase_add_test(tcase, write_replaces);
    tcase_add_test(tcase, write_refusals);
    tcase_add_test(tcase, every_call_of_a_write_fails);
    tcase_add_test(tcase, every_call_of_a_read_fails);
    tcase_add_test(tcase, interrupted_and_short_transfers);
    tcase_add_test(tcase, write_to_a_full_disk);
    tcase_add_test(tcase, allocations_fail);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
