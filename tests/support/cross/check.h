/* check: as much of the Check framework as the kernel tests use, for builds where its library is not at hand (cross
 * builds). Written from Check's manual. Every test runs in a process of its own unless CK_FORK=no; time limits are
 * left to CTest.
 *
 * A failing assertion prints its place and message and ends the test. Reports go to stdout, one line a failure.
 */
#ifndef CR_TESTS_CROSS_CHECK_H
#define CR_TESTS_CROSS_CHECK_H

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Suite Suite;
typedef struct TCase TCase;
typedef struct SRunner SRunner;
typedef void TFun(int _i);

enum print_output { CK_SILENT, CK_MINIMAL, CK_NORMAL, CK_VERBOSE, CK_ENV };

#define START_TEST(name) static void name(int _i __attribute__((unused)))
#define END_TEST

Suite *suite_create(const char *name);
void suite_add_tcase(Suite *suite, TCase *tcase);
TCase *tcase_create(const char *name);
void tcase_set_timeout(TCase *tcase, double seconds);

/* Tests _i = begin ... end - 1; `signal` 0 = ends normally. */
void cr_cross_add(TCase *tcase, TFun *fn, const char *name, int signal, int begin, int end, int is_loop);
#define tcase_add_test(tcase, fn) cr_cross_add((tcase), (fn), #fn, 0, 0, 1, 0)
#define tcase_add_loop_test(tcase, fn, begin, end) cr_cross_add((tcase), (fn), #fn, 0, (begin), (end), 1)
#define tcase_add_test_raise_signal(tcase, fn, signal) cr_cross_add((tcase), (fn), #fn, (signal), 0, 1, 0)
#define tcase_add_loop_test_raise_signal(tcase, fn, signal, begin, end)                                                \
    cr_cross_add((tcase), (fn), #fn, (signal), (begin), (end), 1)

SRunner *srunner_create(Suite *suite);
void srunner_run_all(SRunner *runner, enum print_output mode);
int srunner_ntests_failed(const SRunner *runner);
void srunner_free(SRunner *runner); /* and its suite */

_Noreturn void cr_cross_fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));

#define ck_abort_msg(...) cr_cross_fail(__FILE__, __LINE__, __VA_ARGS__)
#define ck_assert_msg(condition, ...) ((condition) ? (void)0 : cr_cross_fail(__FILE__, __LINE__, __VA_ARGS__))
#define ck_assert(condition) ck_assert_msg(condition, "assertion '%s' failed", #condition)

#define CR_CROSS_COMPARE(type, format, a, op, b)                                                                       \
    do {                                                                                                               \
        type left_ = (a), right_ = (b);                                                                                \
        ck_assert_msg(left_ op right_, "assertion '%s' failed: " format " and " format, #a " " #op " " #b, left_,      \
                      right_);                                                                                         \
    } while (0)
#define ck_assert_int_eq(a, b) CR_CROSS_COMPARE(intmax_t, "%" PRIdMAX, a, ==, b)
#define ck_assert_int_ne(a, b) CR_CROSS_COMPARE(intmax_t, "%" PRIdMAX, a, !=, b)
#define ck_assert_int_lt(a, b) CR_CROSS_COMPARE(intmax_t, "%" PRIdMAX, a, <, b)
#define ck_assert_int_le(a, b) CR_CROSS_COMPARE(intmax_t, "%" PRIdMAX, a, <=, b)
#define ck_assert_int_gt(a, b) CR_CROSS_COMPARE(intmax_t, "%" PRIdMAX, a, >, b)
#define ck_assert_int_ge(a, b) CR_CROSS_COMPARE(intmax_t, "%" PRIdMAX, a, >=, b)
#define ck_assert_uint_eq(a, b) CR_CROSS_COMPARE(uintmax_t, "%" PRIuMAX, a, ==, b)
#define ck_assert_uint_ne(a, b) CR_CROSS_COMPARE(uintmax_t, "%" PRIuMAX, a, !=, b)
#define ck_assert_uint_lt(a, b) CR_CROSS_COMPARE(uintmax_t, "%" PRIuMAX, a, <, b)
#define ck_assert_uint_le(a, b) CR_CROSS_COMPARE(uintmax_t, "%" PRIuMAX, a, <=, b)
#define ck_assert_uint_gt(a, b) CR_CROSS_COMPARE(uintmax_t, "%" PRIuMAX, a, >, b)
#define ck_assert_uint_ge(a, b) CR_CROSS_COMPARE(uintmax_t, "%" PRIuMAX, a, >=, b)
#define ck_assert_double_eq(a, b) CR_CROSS_COMPARE(double, "%.17g", a, ==, b)
#define ck_assert_double_lt(a, b) CR_CROSS_COMPARE(double, "%.17g", a, <, b)
#define ck_assert_double_le(a, b) CR_CROSS_COMPARE(double, "%.17g", a, <=, b)
#define ck_assert_double_gt(a, b) CR_CROSS_COMPARE(double, "%.17g", a, >, b)
#define ck_assert_double_ge(a, b) CR_CROSS_COMPARE(double, "%.17g", a, >=, b)
#define ck_assert_double_eq_tol(a, b, tolerance) ck_assert_double_le(fabs((a) - (b)), tolerance)
#define ck_assert_ptr_null(p) ck_assert_msg((p) == NULL, "'%s' is not NULL", #p)
#define ck_assert_ptr_nonnull(p) ck_assert_msg((p) != NULL, "'%s' is NULL", #p)
#define ck_assert_ptr_eq(a, b) ck_assert((a) == (b))
#define ck_assert_ptr_ne(a, b) ck_assert((a) != (b))
#define ck_assert_mem_eq(a, b, n) ck_assert_msg(memcmp((a), (b), (n)) == 0, "'%s' and '%s' differ", #a, #b)
#define ck_assert_str_eq(a, b)                                                                                         \
    do {                                                                                                               \
        const char *left_ = (a), *right_ = (b);                                                                        \
        ck_assert_msg(left_ != NULL && right_ != NULL && strcmp(left_, right_) == 0,                                   \
                      "'%s' is \"%s\", expected \"%s\"", #a, left_, right_);                                           \
    } while (0)

#endif
