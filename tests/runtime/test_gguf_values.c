/* GGUF: every accessor. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/gguf.h"
#include "runtime/io/gguf_write.h"
#include "tests/runtime/gguf_case.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

START_TEST(getters)
{
    struct cr_gguf_writer *w = make_writer();
    uint8_t *memory;
    size_t n;
    OK(cr_gguf_writer_to_memory(w, &memory, &n, &err));
    struct cr_gguf *g = parse(memory, n);
    const char *s = NULL;
    uint32_t u = 77;
    float f = 7;
    bool b = false;
    OK(cr_gguf_str(g, "general.architecture", true, &s, &n, &err));
    ck_assert(n == 5 && memcmp(s, "llama", 5) == 0);
    OK(cr_gguf_str(g, "odd", true, &s, &n, &err));
    ck_assert(n == 3 && memcmp(s, "a\0b", 3) == 0);
    OK(cr_gguf_u32(g, "llama.block_count", true, &u, &err));
    ck_assert_uint_eq(u, 30);
    OK(cr_gguf_f32(g, "llama.rope.freq_base", true, &f, &err));
    ck_assert(f == 10000.0f);
    OK(cr_gguf_bool(g, "llama.attention.causal", true, &b, &err));
    ck_assert(b);
    u = 77;
    OK(cr_gguf_u32(g, "absent", false, &u, &err));
    ck_assert_uint_eq(u, 77);
    cr_expect_error("u32", cr_gguf_u32(g, "absent", true, &u, &err), &err, CR_E_INPUT, "memory|\"absent\" is missing");
    cr_expect_error("u32", cr_gguf_u32(g, "odd", true, &u, &err), &err, CR_E_INPUT, "\"odd\"|string|integer");
    cr_expect_error("f32", cr_gguf_f32(g, "llama.block_count", true, &f, &err), &err, CR_E_INPUT, "u32|a float");
    cr_expect_error("bool", cr_gguf_bool(g, "odd", true, &b, &err), &err, CR_E_INPUT, "string|bool");
    cr_expect_error("str", cr_gguf_str(g, "tokenizer.ggml.tokens", true, &s, &n, &err), &err, CR_E_INPUT,
                    "array of string|expected string");
    struct cr_gguf_value v;
    OK(cr_gguf_array(g, "tokenizer.ggml.tokens", CR_GGUF_KIND_STRING, true, &v, &err));
    ck_assert_uint_eq(v.n, 3);
    s = cr_gguf_array_str(&v, 1, &n);
    ck_assert_uint_eq(n, 0);
    s = cr_gguf_array_str(&v, 2, &n);
    ck_assert(n == 6 && memcmp(s, "w\xc3\xb6rld", 6) == 0);
    OK(cr_gguf_array(g, "tokenizer.ggml.scores", CR_GGUF_KIND_FLOAT, true, &v, &err));
    ck_assert(v.n == 2 && cr_gguf_array_float(&v, 1) == -2.0);
    OK(cr_gguf_array(g, "tokenizer.ggml.token_type", CR_GGUF_KIND_INTEGER, true, &v, &err));
    ck_assert(v.n == 3 && cr_gguf_array_int(&v, 0) == -1 && cr_gguf_array_int(&v, 2) == 2147483647);
    OK(cr_gguf_array(g, "absent", CR_GGUF_KIND_INTEGER, false, &v, &err));
    ck_assert_uint_eq(v.n, 0);
    cr_expect_error("GG-59", cr_gguf_array(g, "tokenizer.ggml.scores", CR_GGUF_KIND_INTEGER, true, &v, &err), &err,
                    CR_E_INPUT, "tokenizer.ggml.scores|array of f32|array of integers");
    cr_expect_error("array", cr_gguf_array(g, "odd", CR_GGUF_KIND_STRING, true, &v, &err), &err, CR_E_INPUT, "string");
    ck_assert(!cr_gguf_find(g, "general", NULL));
    ck_assert(cr_gguf_find(g, "general.architecture", NULL));
    cr_gguf_close(g);
    cr_free(memory);
    cr_gguf_writer_destroy(w);
}
END_TEST

/* Integers of every width and sign, floats of both, at the edges of the range asked for. */
START_TEST(integer_widths)
{
    static const struct {
        enum cr_gguf_type type;
        uint8_t bytes[8];
        size_t n;
        int64_t value;
        bool fits; /* into u32 */
    } cases[] = {
        {CR_GGUF_U8, {255}, 1, 255, true},
        {CR_GGUF_I8, {0xff}, 1, -1, false},
        {CR_GGUF_I8, {0x7f}, 1, 127, true},
        {CR_GGUF_U16, {0xff, 0xff}, 2, 65535, true},
        {CR_GGUF_I16, {0x00, 0x80}, 2, -32768, false},
        {CR_GGUF_U32, {0xff, 0xff, 0xff, 0xff}, 4, 4294967295, true},
        {CR_GGUF_I32, {0xff, 0xff, 0xff, 0x7f}, 4, 2147483647, true},
        {CR_GGUF_I32, {0xff, 0xff, 0xff, 0xff}, 4, -1, false},
        {CR_GGUF_U64, {0xff, 0xff, 0xff, 0xff}, 8, 4294967295, true},
        {CR_GGUF_U64, {0, 0, 0, 0, 1}, 8, 4294967296, false},
        {CR_GGUF_I64, {0, 0, 0, 0, 0, 0, 0, 0x80}, 8, INT64_MIN, false},
        {CR_GGUF_I64, {9}, 8, 9, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cr_gguf_writer *w = cr_gguf_writer_create();
        uint8_t *memory;
        size_t n;
        int64_t value = 0;
        uint32_t u = 5;
        OK(cr_gguf_writer_kv_raw(w, "k", cases[i].type, cases[i].bytes, cases[i].n, &err));
        OK(cr_gguf_writer_to_memory(w, &memory, &n, &err));
        struct cr_gguf *g = parse(memory, n);
        OK(cr_gguf_i64(g, "k", true, &value, &err));
        ck_assert_int_eq(value, cases[i].value);
        cr_status status = cr_gguf_u32(g, "k", true, &u, &err);
        ck_assert_int_eq(status, cases[i].fits ? CR_OK : CR_E_INPUT);
        ck_assert_int_eq(u, cases[i].fits ? cases[i].value : 5);
        cr_gguf_close(g);
        cr_free(memory);
        cr_gguf_writer_destroy(w);
    }
}
END_TEST

START_TEST(odd_numbers)
{
    struct cr_gguf_writer *w = cr_gguf_writer_create();
    uint8_t *memory;
    size_t n;
    const double half = 0.5, huge = 1e300;
    static const uint8_t top[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    OK(cr_gguf_writer_kv_raw(w, "half", CR_GGUF_F64, &half, 8, &err));
    OK(cr_gguf_writer_kv_raw(w, "huge", CR_GGUF_F64, &huge, 8, &err));
    OK(cr_gguf_writer_kv_f32(w, "nan", NAN, &err));
    OK(cr_gguf_writer_kv_f32(w, "inf", -INFINITY, &err));
    OK(cr_gguf_writer_kv_raw(w, "top", CR_GGUF_U64, top, 8, &err));
    OK(cr_gguf_writer_to_memory(w, &memory, &n, &err));
    struct cr_gguf *g = parse(memory, n);
    float f = 0;
    int64_t i = 0;
    struct cr_gguf_value v;
    OK(cr_gguf_f32(g, "half", true, &f, &err));
    ck_assert(f == 0.5f);
    cr_expect_error("huge", cr_gguf_f32(g, "huge", true, &f, &err), &err, CR_E_INPUT, "huge|1e+300|finite");
    cr_expect_error("nan", cr_gguf_f32(g, "nan", true, &f, &err), &err, CR_E_INPUT, "nan|finite");
    cr_expect_error("inf", cr_gguf_f32(g, "inf", true, &f, &err), &err, CR_E_INPUT, "inf|finite");
    cr_expect_error("top", cr_gguf_i64(g, "top", true, &i, &err), &err, CR_E_INPUT, "top|above");
    ck_assert(f == 0.5f && i == 0);
    ck_assert(cr_gguf_find(g, "top", &v) && !cr_gguf_scalar_int(&v, &i));
    double d = 0;
    ck_assert(cr_gguf_find(g, "huge", &v) && cr_gguf_scalar_float(&v, &d) && d == 1e300);
    ck_assert(!cr_gguf_scalar_int(&v, &i));
    cr_gguf_close(g);
    cr_free(memory);
    cr_gguf_writer_destroy(w);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gguf values");
    TCase *tcase = tcase_create("gguf values");
    tcase_add_checked_fixture(tcase, NULL, cr_test_dir_remove);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, getters);
    tcase_add_test(tcase, integer_widths);
    tcase_add_test(tcase, odd_numbers);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
