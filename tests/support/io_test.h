/* io_test: what tests of file code need. A scratch directory, failing system calls, failing allocations, expectations
 * about errors. Every function ends the running Check test with a message when something is wrong. */
#ifndef CR_TESTS_IO_TEST_H
#define CR_TESTS_IO_TEST_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>

#include "runtime/core/buf.h"
#include "runtime/core/error.h"

/* 1 where a sanitizer holds memory of its own: what a run takes then says nothing about the program. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) /* gcc */
enum { CR_TEST_SANITIZED = 1 };
#elif defined(__has_feature) /* clang */
enum { CR_TEST_SANITIZED = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) };
#else
enum { CR_TEST_SANITIZED = 0 };
#endif

/* A fresh directory of this test; the same one until cr_test_dir_remove, which deletes it with its contents. */
const char *cr_test_dir(void);
void cr_test_dir_remove(void);

/* "directory/name" in a ring of static buffers (valid for the next 7 calls). */
const char *cr_test_path(const char *name);

/* Number of entries of a directory whose name contains `part` ("" = all but . and ..). */
int cr_test_count_files(const char *dir, const char *part);

/* Writes n bytes plainly. */
void cr_test_put_file(const char *path, const void *data, size_t n);

/* The file holds exactly this text. */
void cr_test_expect_file(const char *path, const char *text);

/* The file layer's system calls with a fault: the at-th counted call (1 = the first) of `call` fails with `error`,
 * and every later one too when sticky. CR_CALL_ANY counts calls of all kinds. */
enum cr_test_call {
    CR_CALL_OPEN,
    CR_CALL_CLOSE,
    CR_CALL_READ,
    CR_CALL_WRITE,
    CR_CALL_FSYNC,
    CR_CALL_FSTAT,
    CR_CALL_RENAME,
    CR_CALL_MKDIR,
    CR_CALL_FLOCK,
    CR_CALL_MMAP,
    CR_CALL_ANY
};
void cr_test_fault(enum cr_test_call call, long at, int error, bool sticky);

/* Every transfer moves at most n bytes (0 = no limit); with eintr every second call of any kind is interrupted first.
 */
void cr_test_short_transfers(size_t n, bool eintr);

/* Back to the real calls. True when a fault fired since it was set. */
bool cr_test_fault_off(void);

/* err holds `status` and a proper message: one line, printable, containing each of the '|'-separated parts. */
void cr_expect_error(const char *what, cr_status got, const struct cr_error *err, cr_status status, const char *parts);

/* Runs op(arg) with its first, second, ... allocation failing, once alone and once with all later ones, until it
 * passes without meeting a failure. op returns the status of the operation and frees what it got. Expects CR_E_MEMORY
 * each time and no block left behind. Returns the number of allocations reached. */
long cr_test_alloc_sweep(const char *what, cr_status (*op)(void *arg, struct cr_error *err), void *arg);

/* The same for a long operation that can do without some allocation (an expression is then not compiled to machine
 * code): one failing alone may be survived, and after the 40th only every so manyth fails. */
long cr_test_alloc_sweep_long(const char *what, cr_status (*op)(void *arg, struct cr_error *err), void *arg,
                              long stride);

/* take() needs processor time in proportion to the pieces of its input, of which make() puts n into `input`. Measured
 * for n and 32 n, the least of several runs each: linear is 32, quadratic 1,024 times; halfway, 181, still passes, so
 * that a busy machine does not fail it and a quadratic step does. */
void cr_expect_linear_time(const char *what, size_t n, void (*make)(struct cr_buf *input, size_t n),
                           void (*take)(const struct cr_buf *input));

/* The same for an input of n equal characters. */
void cr_expect_linear_run(const char *what, char character, size_t n, void (*take)(const struct cr_buf *input));

#endif
