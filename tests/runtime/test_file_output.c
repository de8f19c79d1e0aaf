/* Output directories, locks and paths. */
#include <check.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/io/file.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

START_TEST(output_directory)
{
    struct cr_error err;
    const char *dir = cr_test_path("run");
    ck_assert_int_eq(cr_dir_prepare_output(dir, false, false, &err), CR_OK);
    ck_assert_int_eq(cr_dir_prepare_output(dir, false, false, &err), CR_OK); /* empty: taken */
    int lock = -1;
    ck_assert_int_eq(cr_dir_lock(dir, &lock, &err), CR_OK);
    cr_dir_unlock(lock);
    ck_assert_int_eq(cr_dir_prepare_output(dir, false, false, &err), CR_OK); /* a lone lock file counts as empty */
    cr_test_put_file(cr_test_path("run/x"), "x", 1);
    cr_expect_error("CL-12", cr_dir_prepare_output(dir, false, false, &err), &err, CR_E_USAGE,
                    "run|not empty|--resume|--force");
    ck_assert_int_eq(cr_dir_prepare_output(dir, true, false, &err), CR_OK);
    ck_assert_int_eq(cr_dir_prepare_output(dir, false, true, &err), CR_OK);
    cr_test_expect_file(cr_test_path("run/x"), "x");
    cr_expect_error("CL-13 parent", cr_dir_prepare_output(cr_test_path("a/b"), false, false, &err), &err, CR_E_IO,
                    "a/b|parent");
    cr_expect_error("CL-13 file", cr_dir_prepare_output(cr_test_path("run/x"), true, false, &err), &err, CR_E_IO,
                    "run/x|is a file");
    cr_expect_error("resume absent", cr_dir_prepare_output(cr_test_path("none"), false, true, &err), &err, CR_E_IO,
                    "none|No such file");
    ck_assert_int_ne(access(cr_test_path("none"), F_OK), 0);
    ck_assert_int_eq(symlink("nowhere", cr_test_path("link")), 0);
    cr_expect_error("EN-20", cr_dir_prepare_output(cr_test_path("link"), false, false, &err), &err, CR_E_IO,
                    "link|dangling");
    cr_expect_error("empty", cr_dir_prepare_output("", false, false, &err), &err, CR_E_USAGE, "empty name");
    char deep[5000];
    memset(deep, 'x', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    cr_expect_error("CL-14", cr_dir_prepare_output(deep, false, false, &err), &err, CR_E_IO, "too long");
    ck_assert_int_eq(mkdir(cr_test_path("closed"), 0500), 0);
    if (geteuid() != 0) {
        cr_expect_error("EN-04", cr_dir_prepare_output(cr_test_path("closed"), false, false, &err), &err, CR_E_IO,
                        "closed|Permission denied");
    }
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

/* EN-19: another process holds the lock until it dies. */
START_TEST(lock_excludes_other_processes)
{
    struct cr_error err;
    int ready[2], release[2];
    ck_assert_int_eq(pipe(ready), 0);
    ck_assert_int_eq(pipe(release), 0);
    const char *dir = cr_test_dir();
    cr_test_put_file(cr_test_path("x"), "x", 1);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        int fd = -1;
        char byte = cr_dir_lock(dir, &fd, NULL) == CR_OK;
        close(release[1]);
        byte = (char)(write(ready[1], &byte, 1) == 1 ? byte : 0);
        (void)!read(release[0], &byte, 1); /* end of file when the parent closes */
        _exit(0);
    }
    close(release[0]);
    char byte = 0;
    ck_assert_int_eq((int)read(ready[0], &byte, 1), 1);
    ck_assert_int_eq(byte, 1);
    int fd = -1;
    cr_expect_error("EN-19", cr_dir_lock(dir, &fd, &err), &err, CR_E_BUSY, "another process");
    ck_assert_int_eq(fd, -1);
    cr_expect_error("EN-19", cr_dir_prepare_output(dir, false, false, &err), &err, CR_E_BUSY, "another process");
    close(release[1]);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    ck_assert_int_eq(cr_dir_lock(dir, &fd, &err), CR_OK);
    cr_dir_unlock(fd);
    close(ready[0]);
    close(ready[1]);
    cr_expect_error("absent", cr_dir_lock(cr_test_path("none"), &fd, &err), &err, CR_E_IO, "none");
    cr_test_fault(CR_CALL_FLOCK, 1, ENOLCK, false);
    cr_expect_error("no locks", cr_dir_lock(dir, &fd, &err), &err, CR_E_IO, ".lock|No locks");
    cr_test_fault_off();
}
END_TEST

/* What is refused before the work, and makes nothing. */
START_TEST(early_check)
{
    struct cr_error err;
    ck_assert_int_eq(cr_dir_check_output(cr_test_path("new"), false, false, &err), CR_OK);
    ck_assert_int_ne(access(cr_test_path("new"), F_OK), 0);
    cr_expect_error("empty", cr_dir_check_output("", false, false, &err), &err, CR_E_USAGE, "empty name");
    ck_assert_int_eq(symlink("nowhere", cr_test_path("link")), 0);
    cr_expect_error("EN-20", cr_dir_check_output(cr_test_path("link"), true, false, &err), &err, CR_E_IO,
                    "link|dangling");
    cr_expect_error("CL-13", cr_dir_check_output(cr_test_path("a/b"), false, false, &err), &err, CR_E_IO, "a/b|parent");
    cr_test_put_file(cr_test_path("x"), "x", 1);
    cr_expect_error("CL-12", cr_dir_check_output(cr_test_dir(), false, false, &err), &err, CR_E_USAGE, "not empty");
    ck_assert_int_eq(cr_dir_check_output(cr_test_dir(), true, false, &err), CR_OK);
    int lock = -1; /* --force is no leave to write where another writes */
    ck_assert_int_eq(cr_dir_lock(cr_test_dir(), &lock, &err), CR_OK);
    cr_expect_error("EN-19", cr_dir_check_output(cr_test_dir(), true, false, &err), &err, CR_E_BUSY, "another process");
    cr_dir_unlock(lock);
    ck_assert_int_eq(cr_dir_check_output(cr_test_dir(), true, false, &err), CR_OK);
}
END_TEST

START_TEST(paths)
{
    static const struct {
        const char *path, *parent;
    } parents[] = {{"a", "."}, {"a/b", "a"}, {"/a", "/"},   {"/", "/"},       {"a/", "."}, {"a//b", "a"},
                   {"", "."},  {"//a", "/"}, {"a/b/", "a"}, {"/a/b//", "/a"}, {"./x", "."}};
    for (size_t i = 0; i < sizeof parents / sizeof parents[0]; i++) {
        char *parent = cr_path_parent(parents[i].path);
        ck_assert_str_eq(parent, parents[i].parent);
        cr_free(parent);
    }
    static const char *const joins[][3] = {{"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"", "b", "b"}, {"/", "b", "/b"}};
    for (size_t i = 0; i < 4; i++) {
        char *joined = cr_path_join(joins[i][0], joins[i][1]);
        ck_assert_str_eq(joined, joins[i][2]);
        cr_free(joined);
    }
    struct cr_error err;
    ck_assert_int_eq(cr_dir_create(cr_test_path("d"), &err), CR_OK);
    ck_assert_int_eq(cr_dir_create(cr_test_path("d"), &err), CR_OK);
    cr_test_put_file(cr_test_path("f"), "", 0);
    cr_expect_error("file", cr_dir_create(cr_test_path("f"), &err), &err, CR_E_IO, "f|File exists");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("file output");
    TCase *tcase = tcase_create("file output");
    tcase_add_checked_fixture(tcase, NULL, cr_test_dir_remove);
    tcase_set_timeout(tcase, 30);
    tcase_add_test(tcase, output_directory);
    tcase_add_test(tcase, lock_excludes_other_processes);
    tcase_add_test(tcase, early_check);
    tcase_add_test(tcase, paths);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
