/* contracts_case: calls that break a contract. Every violation of a caller is a status and a message that names the
 * argument, and the kernel does not run; sound arguments run it once. The kernels are spies that count, so no memory
 * stands behind the pointers.
 */
#ifndef CR_TESTS_CONTRACTS_CASE_H
#define CR_TESTS_CONTRACTS_CASE_H

#include <check.h>
#include <stdalign.h>
#include <string.h>

#include "credence/kernels.h"

enum { BLOCKS = 3 };

static alignas(64) char memory[4096]; /* what sound pointers point to: never touched but by embed's ids */
static int n_runs;

#define SPY(op)                                                                                                        \
    static void spy_##op(const struct cr_##op##_args *args, size_t begin, size_t end)                                  \
    {                                                                                                                  \
        (void)args, (void)begin, (void)end;                                                                            \
        n_runs++;                                                                                                      \
    }
#define SPY_SCRATCH(op)                                                                                                \
    static void spy_##op(const struct cr_##op##_args *args, size_t begin, size_t end, void *scratch)                   \
    {                                                                                                                  \
        (void)args, (void)begin, (void)end, (void)scratch;                                                             \
        n_runs++;                                                                                                      \
    }

/* One call on a copy of `good` after `change`. REFUSED wants the argument named, ACCEPTED one run. */
#define REFUSED(call, change, argument, ...)                                                                           \
    do {                                                                                                               \
        const struct cr_error untouched = {.status = 1, .message = "before"};                                          \
        struct cr_error err = untouched;                                                                               \
        __typeof__(good) a = good;                                                                                     \
        change;                                                                                                        \
        n_runs = 0;                                                                                                    \
        ck_assert_int_eq(call(&ops, &a, __VA_ARGS__, &err), CR_E_USAGE);                                               \
        ck_assert_int_eq(err.status, CR_E_USAGE);                                                                      \
        ck_assert_msg(strstr(err.message, ": " argument " ") != NULL, "'%s' does not name " argument, err.message);    \
        ck_assert_int_eq(call(&ops, &a, __VA_ARGS__, NULL), CR_E_USAGE);                                               \
        ck_assert_int_eq(n_runs, 0);                                                                                   \
    } while (0)
#define ACCEPTED(call, change, runs, ...)                                                                              \
    do {                                                                                                               \
        struct cr_error err = {.message = "before"};                                                                   \
        __typeof__(good) a = good;                                                                                     \
        change;                                                                                                        \
        n_runs = 0;                                                                                                    \
        cr_status status = call(&ops, &a, __VA_ARGS__, &err);                                                          \
        ck_assert_msg(status == CR_OK, "%s", err.message);                                                             \
        ck_assert_str_eq(err.message, "before");                                                                       \
        ck_assert_int_eq(n_runs, runs);                                                                                \
    } while (0)
/* What every entry refuses; the last arguments are the scratch, if any. */
#define REFUSED_ALWAYS(call, fn, ...)                                                                                  \
    do {                                                                                                               \
        struct cr_error said;                                                                                          \
        ck_assert_int_eq(call(NULL, &good, __VA_ARGS__, &said), CR_E_USAGE);                                           \
        ck_assert_ptr_nonnull(strstr(said.message, ": ops is NULL"));                                                  \
        ck_assert_int_eq(call(&ops, NULL, __VA_ARGS__, &said), CR_E_USAGE);                                            \
        ck_assert_ptr_nonnull(strstr(said.message, ": args is NULL"));                                                 \
        __typeof__(ops) kept = ops;                                                                                    \
        ops.fn = NULL;                                                                                                 \
        REFUSED(call, , "ops." #fn, __VA_ARGS__);                                                                      \
        ops = kept;                                                                                                    \
    } while (0)
/* A TL16 operand: there, on a line, strides whole lines, apart and addressable. stride counts `line` a line. */
#define REFUSED_BLOCKS(call, pointer, stride, line, ...)                                                               \
    do {                                                                                                               \
        REFUSED(call, a.pointer = NULL, #pointer, __VA_ARGS__);                                                        \
        REFUSED(call, a.pointer = (void *)(memory + 16), #pointer, __VA_ARGS__);                                       \
        REFUSED(call, a.stride += (line) / 2, #pointer, __VA_ARGS__);                                                  \
        REFUSED(call, a.stride = (line), #pointer, __VA_ARGS__);                                                       \
        REFUSED(call, a.stride = SIZE_MAX / 64 * (line) / 2, #pointer, __VA_ARGS__);                                   \
        REFUSED(call, a.stride = SIZE_MAX & ~(size_t)63, #pointer, __VA_ARGS__);                                       \
    } while (0)

/* A sound 70 x 64 matrix of Q4_0. */
static const struct cr_qmat q4_0 = {.data = memory, .row_bytes = 36, .n_rows = 70, .n_cols = 64, .type = CR_Q_Q4_0};

#define REFUSED_MATRIX(call, w, ...)                                                                                   \
    do {                                                                                                               \
        REFUSED(call, a.w.data = NULL, "w.data", __VA_ARGS__);                                                         \
        REFUSED(call, a.w.type = -1, "w.type", __VA_ARGS__);                                                           \
        REFUSED(call, a.w.type = 1000, "w.type", __VA_ARGS__);                                                         \
        REFUSED(call, a.w.type = 4, "w.type", __VA_ARGS__);  /* withdrawn */                                           \
        REFUSED(call, a.w.type = 28, "w.type", __VA_ARGS__); /* known, not multiplied with */                          \
        REFUSED(call, a.w.n_cols = 48, "w.n_cols", __VA_ARGS__);                                                       \
        REFUSED(call, a.w.type = CR_Q_Q4_K, "w.n_cols", __VA_ARGS__);                                                  \
        REFUSED(call, a.w.n_cols = 0, "w.n_cols", __VA_ARGS__);                                                        \
        REFUSED(call, a.w.n_rows = 0, "w.n_rows", __VA_ARGS__);                                                        \
        REFUSED(call, a.w.n_rows = SIZE_MAX, "w.n_rows", __VA_ARGS__);                                                 \
        REFUSED(call, a.w.row_bytes = 35, "w.row_bytes", __VA_ARGS__);                                                 \
        REFUSED(call, a.w.row_bytes = SIZE_MAX / 8, "w.row_bytes", __VA_ARGS__);                                       \
    } while (0)
#define REFUSED_SCRATCH(call, begin, end, bytes)                                                                       \
    do {                                                                                                               \
        REFUSED(call, , "scratch", begin, end, NULL, bytes);                                                           \
        REFUSED(call, , "scratch", begin, end, memory + 8, bytes);                                                     \
        REFUSED(call, , "scratch_bytes", begin, end, memory, (bytes)-1);                                               \
        REFUSED(call, , "scratch_bytes", begin, end, memory, 0);                                                       \
    } while (0)

#endif
