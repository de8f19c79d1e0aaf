/* Buffers, error text, the allocation hook, digests, half floats. */
#include <check.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/options.h"
#include "runtime/io/hash.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

START_TEST(buffer_appends)
{
    struct cr_buf buf = {0};
    cr_buf_puts(&buf, "ab");
    cr_buf_putc(&buf, '\0');
    cr_buf_fill(&buf, 'x', 300);
    cr_buf_printf(&buf, "%d-%s", 42, "z");
    cr_buf_u32(&buf, 0x01020304u);
    cr_buf_u64(&buf, 0x0102030405060708u);
    cr_buf_f32(&buf, 1.0f);
    ck_assert_uint_eq(buf.n, 3 + 300 + 4 + 4 + 8 + 4);
    ck_assert(memcmp(buf.data, "ab\0xxx", 6) == 0);
    ck_assert(memcmp(buf.data + 303, "42-z\4\3\2\1\x08\7\6\5\4\3\2\1\0\0\x80\x3f", 21) == 0); /* and the final 0 */
    size_t n = 0;
    char *data = cr_buf_take(&buf, &n);
    ck_assert_uint_eq(n, 323);
    ck_assert_ptr_null(buf.data);
    cr_free(data);
    data = cr_buf_take(&buf, &n);
    ck_assert_str_eq(data, "");
    ck_assert_uint_eq(n, 0);
    cr_free(data);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

START_TEST(buffer_failure_is_sticky)
{
    struct cr_buf buf = {0};
    cr_buf_puts(&buf, "kept");
    cr_alloc_fail_at(1, false);
    cr_buf_fill(&buf, 'x', 1000);
    ck_assert(buf.failed);
    cr_buf_puts(&buf, "ignored");
    ck_assert_str_eq(buf.data, "kept");
    ck_assert_ptr_null(cr_buf_take(&buf, NULL));
    ck_assert_int_eq((int)cr_alloc_live(), 0);
    ck_assert(!cr_buf_reserve(&buf, SIZE_MAX)); /* n + 1 wraps */
    cr_buf_free(&buf);
}
END_TEST

START_TEST(buffer_json_string)
{
    struct cr_buf buf = {0};
    static const char text[] = "a\"\\\n\t\r\b\f\x01\0\x7f\xc3\xa9";
    cr_buf_json_string(&buf, text, sizeof text - 1);
    ck_assert_str_eq(buf.data, "\"a\\\"\\\\\\n\\t\\r\\b\\f\\u0001\\u0000\x7f\xc3\xa9\"");
    cr_buf_free(&buf);
}
END_TEST

START_TEST(escape_is_printable)
{
    char out[CR_ESCAPE_BYTES];
    ck_assert_str_eq(cr_escape(out, sizeof out, "a\x1b[31m\n\"\\", 9), "a\\x1b[31m\\n\\\"\\\\");
    ck_assert_str_eq(cr_escape(out, sizeof out, "\xc3\xa9\xff\xed\xa0\x80", 6), "\xc3\xa9\\xff\\xed\\xa0\\x80");
    ck_assert_str_eq(cr_escape(out, sizeof out, "\xe2\x80\xae", 3), "\\xe2\\x80\\xae"); /* right-to-left override */
    char longer[300];
    memset(longer, '\x01', sizeof longer);
    cr_escape(out, sizeof out, longer, sizeof longer);
    ck_assert_uint_eq(strlen(out), 200 * 4 + 3);
    ck_assert_str_eq(out + 800, "...");
    for (size_t room = 1; room < 40; room++) {
        memset(out, 'Q', sizeof out);
        cr_escape(out, room, longer, sizeof longer);
        ck_assert_uint_lt(strlen(out), room);
        ck_assert_int_eq(out[room], 'Q');
    }
}
END_TEST

START_TEST(error_prefix_chains)
{
    struct cr_error err;
    ck_assert_int_eq(cr_fail(&err, CR_E_INPUT, "inner %d", 7), CR_E_INPUT);
    ck_assert_int_eq(cr_fail_prefix(&err, CR_E_IO, "outer"), CR_E_IO);
    ck_assert_str_eq(err.message, "outer: inner 7");
    ck_assert_int_eq(err.status, CR_E_IO);
    char longer[2000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    cr_fail(&err, CR_E_INPUT, "%s", longer);
    ck_assert_uint_eq(strlen(err.message), sizeof err.message - 1);
    cr_fail_prefix(&err, CR_E_INPUT, "%s", "p");
    ck_assert_uint_eq(strlen(err.message), sizeof err.message - 1);
    ck_assert_int_eq(cr_fail(NULL, CR_E_INPUT, "nothing"), CR_E_INPUT);
}
END_TEST

START_TEST(sized_options)
{
    struct sized {
        size_t size;
        int old, added;
    } given = {.size = offsetof(struct sized, added), .old = 7, .added = 9}, out = {.old = 1, .added = 2};
    struct cr_error err;
    ck_assert_int_eq(cr_options_copy(&out, sizeof out, &given, &err), CR_OK);
    ck_assert(out.size == sizeof out && out.old == 7 && out.added == 2);
    given.size = sizeof given;
    ck_assert_int_eq(cr_options_copy(&out, sizeof out, &given, &err), CR_OK);
    ck_assert(out.size == sizeof out && out.added == 9);
    static const size_t wrong[] = {0, sizeof(size_t) - 1, sizeof given + 1};
    given.old = 8;
    for (int i = 0; i < 3; i++) {
        given.size = wrong[i];
        cr_expect_error("size", cr_options_copy(&out, sizeof out, &given, &err), &err, CR_E_USAGE, "options: size");
    }
    cr_expect_error("none", cr_options_copy(&out, sizeof out, NULL, &err), &err, CR_E_USAGE, "options: size 0");
    ck_assert(out.size == sizeof out && out.old == 7);
}
END_TEST

START_TEST(allocation_sizes)
{
    ck_assert_ptr_null(cr_alloc(SIZE_MAX / 2, 3));
    ck_assert_ptr_null(cr_alloc(SIZE_MAX, 1));
    void *a = cr_alloc(0, 8);
    void *b = cr_zalloc(5, 13);
    ck_assert_ptr_nonnull(a);
    ck_assert_uint_eq((uintptr_t)a % 64, 0);
    ck_assert_uint_eq((uintptr_t)b % 64, 0);
    ck_assert_ptr_ne(a, b);
    cr_free(a);
    unsigned char *grown = cr_realloc(b, 5, 500, 13);
    for (int i = 0; i < 65; i++) {
        ck_assert_uint_eq(grown[i], 0);
    }
    cr_free(grown);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

/* An array of seven-byte items: nothing moves while there is room, appending 10000 items moves it a few times only, and
 * without memory or sizes that exist the old block stays. */
START_TEST(growing_arrays)
{
    enum { BYTES = 7, N = 10000 };
    size_t capacity = 0;
    unsigned char *items = cr_grow(NULL, 0, 0, &capacity, BYTES);
    ck_assert_ptr_nonnull(items); /* NULL is failure alone */
    long before = cr_alloc_count();
    for (size_t n = 0; n < N; n++) {
        size_t room = capacity;
        unsigned char *grown = cr_grow(items, n, 1, &capacity, BYTES);
        ck_assert_ptr_nonnull(grown);
        ck_assert(n < room ? grown == items && capacity == room : capacity > n);
        items = grown;
        memset(items + n * BYTES, (int)(n % 251), BYTES);
    }
    ck_assert_int_le(cr_alloc_count() - before, 14); /* log2 of N */
    items = cr_grow(items, N, 100000, &capacity, BYTES);
    ck_assert_ptr_nonnull(items);
    ck_assert_uint_ge(capacity, N + 100000);
    for (size_t i = 0; i < (size_t)N * BYTES; i++) {
        ck_assert_uint_eq(items[i], i / BYTES % 251);
    }
    const size_t held = capacity;
    cr_alloc_fail_at(1, false);
    ck_assert_ptr_null(cr_grow(items, held, 1, &capacity, BYTES));
    ck_assert_ptr_null(cr_grow(items, held, SIZE_MAX - held + 2, &capacity, BYTES)); /* the number wraps to 1 */
    ck_assert_ptr_null(cr_grow(items, held, SIZE_MAX / BYTES, &capacity, BYTES));    /* the bytes wrap */
    ck_assert_uint_eq(capacity, held);
    ck_assert_uint_eq(items[N * BYTES - 1], (N - 1) % 251);
    cr_free(items);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

/* Empty input: values of the XXH3 specification. Streams of any cut equal the digest in one go. */
START_TEST(digests)
{
    char hex[33];
    ck_assert_str_eq(cr_hex_64(hex, cr_xxh3_64("", 0)), "2d06800538d394c2");
    ck_assert_str_eq(cr_hex_128(hex, cr_xxh3_128("", 0)), "99aa06d3014798d86001c324468d497f");
    uint8_t data[5000];
    struct cr_rng rng = cr_rng_make(1);
    cr_fill_bytes(&rng, data, sizeof data);
    for (size_t step = 1; step < sizeof data; step = step * 3 + 1) {
        struct cr_hash *h = cr_hash_create();
        for (size_t at = 0; at < sizeof data; at += step) {
            cr_hash_update(h, data + at, step < sizeof data - at ? step : sizeof data - at);
        }
        struct cr_hash128 want = cr_xxh3_128(data, sizeof data), got = cr_hash_128(h);
        ck_assert_uint_eq(cr_hash_64(h), cr_xxh3_64(data, sizeof data));
        ck_assert_uint_eq(got.low, want.low);
        ck_assert_uint_eq(got.high, want.high);
        cr_hash_destroy(h);
    }
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

START_TEST(clock_moves_forward)
{
    uint64_t start = cr_clock_ns();
    uint64_t last = start;
    for (int i = 0; i < 1000; i++) {
        uint64_t now = cr_clock_ns();
        ck_assert_uint_ge(now, last);
        last = now;
    }
    ck_assert(cr_clock_since(start) >= (double)(last - start) * 1e-9);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("core");
    TCase *tcase = tcase_create("core");
    tcase_add_test(tcase, buffer_appends);
    tcase_add_test(tcase, buffer_failure_is_sticky);
    tcase_add_test(tcase, buffer_json_string);
    tcase_add_test(tcase, escape_is_printable);
    tcase_add_test(tcase, error_prefix_chains);
    tcase_add_test(tcase, sized_options);
    tcase_add_test(tcase, allocation_sizes);
    tcase_add_test(tcase, growing_arrays);
    tcase_add_test(tcase, digests);
    tcase_add_test(tcase, clock_moves_forward);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
