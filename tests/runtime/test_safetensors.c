/* safetensors: round trips, the layout of the reference writer, values, files that are unusual and valid. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/io/safetensors.h"
#include "tests/runtime/safetensors_case.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

#define OK(expression) ck_assert_msg((expression) == CR_OK, "%s: %s", #expression, err.message)

START_TEST(round_trip)
{
    static const float a[6] = {1, -2, 3.5f, 0, -0.0f, 1e-40f};
    static const uint16_t h[3] = {0x3c00, 0xc000, 0x0001}; /* 1, -2, 2^-24 as f16 */
    static const uint16_t b[2] = {0x3f80, 0xc000};         /* 1, -2 as bf16 */
    struct cr_safetensors_writer *w = cr_safetensors_writer_create();
    OK(cr_safetensors_writer_tensor(w, "z", CR_ST_F32, 2, (const uint64_t[]){2, 3}, a, &err));
    OK(cr_safetensors_writer_tensor(w, "h", CR_ST_F16, 1, (const uint64_t[]){3}, h, &err));
    OK(cr_safetensors_writer_tensor(w, "b", CR_ST_BF16, 1, (const uint64_t[]){2}, b, &err));
    OK(cr_safetensors_writer_tensor(w, "empty", CR_ST_F32, 2, (const uint64_t[]){0, 3}, NULL, &err));
    OK(cr_safetensors_writer_tensor(w, "a\"\n\xc3\xa9", CR_ST_F32, 0, NULL, a, &err));
    OK(cr_safetensors_writer_metadata(w, "format", "pt", &err));
    OK(cr_safetensors_writer_metadata(w, "credence.note", "line\nbreak \"q\"", &err));
    const char *path = cr_test_path("a b.safetensors");
    OK(cr_safetensors_writer_write(w, path, &err));
    uint8_t *memory;
    size_t n;
    OK(cr_safetensors_writer_to_memory(w, &memory, &n, &err));
    static const char header[] = /* dtype size descending, then name */
        "{\"__metadata__\":{\"credence.note\":\"line\\nbreak \\\"q\\\"\",\"format\":\"pt\"},"
        "\"a\\\"\\n\xc3\xa9\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
        "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[4,4]},"
        "\"z\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[28,32]},"
        "\"h\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[32,38]}}";
    size_t padded = (sizeof header - 1 + 7) / 8 * 8;
    ck_assert_uint_eq(n, 8 + padded + 38);
    ck_assert_uint_eq(memory[0] | memory[1] << 8, padded);
    ck_assert(memcmp(memory + 8, header, sizeof header - 1) == 0);
    for (size_t i = sizeof header - 1; i < padded; i++) {
        ck_assert_int_eq(memory[8 + i], ' ');
    }
    struct cr_safetensors *st;
    OK(cr_safetensors_open(path, &st, &err));
    ck_assert_uint_eq(cr_safetensors_n(st), 5);
    ck_assert_str_eq(cr_safetensors_metadata(st, "format", NULL), "pt");
    ck_assert_str_eq(cr_safetensors_metadata(st, "credence.note", &n), "line\nbreak \"q\"");
    ck_assert_uint_eq(n, 14);
    ck_assert_ptr_null(cr_safetensors_metadata(st, "none", NULL));
    const struct cr_st_tensor *t = cr_safetensors_find(st, "z");
    ck_assert(t->n_dims == 2 && t->shape[0] == 2 && t->shape[1] == 3 && t->n == 6 && t->dtype == CR_ST_F32);
    float values[6];
    OK(cr_safetensors_read_f32(st, t, values, &err));
    ck_assert(memcmp(values, a, sizeof a) == 0);
    OK(cr_safetensors_read_f32(st, cr_safetensors_find(st, "h"), values, &err));
    ck_assert(values[0] == 1 && values[1] == -2 && values[2] == 0x1p-24f);
    OK(cr_safetensors_read_f32(st, cr_safetensors_find(st, "b"), values, &err));
    ck_assert(values[0] == 1 && values[1] == -2);
    OK(cr_safetensors_read_f32(st, cr_safetensors_find(st, "empty"), values, &err));
    ck_assert_uint_eq(cr_safetensors_find(st, "a\"\n\xc3\xa9")->n, 1);
    ck_assert_ptr_null(cr_safetensors_find(st, "__metadata__"));
    ck_assert(!cr_safetensors_changed(st));
    cr_safetensors_close(st);
    cr_safetensors_close(NULL);
    cr_free(memory);
    cr_safetensors_writer_destroy(w);
    cr_safetensors_writer_destroy(NULL);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

START_TEST(without_metadata)
{
    static const float x[2] = {1, 2};
    for (int n_tensors = 0; n_tensors < 3; n_tensors++) {
        struct cr_safetensors_writer *w = cr_safetensors_writer_create();
        uint8_t *memory;
        size_t n;
        for (int i = 0; i < n_tensors; i++) {
            OK(cr_safetensors_writer_tensor(w, i == 0 ? "a" : "b", CR_ST_F32, 1, (const uint64_t[]){2}, x, &err));
        }
        OK(cr_safetensors_writer_to_memory(w, &memory, &n, &err));
        ck_assert_msg(verdict(memory, n, &err) == CR_OK, "%s", err.message);
        ck_assert(memcmp(memory + 8, n_tensors == 0 ? "{}  " : "{\"a\"", 4) == 0);
        cr_free(memory);
        cr_safetensors_writer_destroy(w);
    }
}
END_TEST

START_TEST(writer_refusals)
{
    static const float x[1];
    struct cr_safetensors_writer *w = cr_safetensors_writer_create();
    uint8_t *memory;
    size_t n;
    uint64_t huge[2] = {1ull << 40, 1ull << 40};
    cr_expect_error("name", cr_safetensors_writer_tensor(w, "", CR_ST_F32, 0, NULL, x, &err), &err, CR_E_USAGE, "name");
    cr_expect_error("name", cr_safetensors_writer_tensor(w, "__metadata__", CR_ST_F32, 0, NULL, x, &err), &err,
                    CR_E_USAGE, "__metadata__");
    cr_expect_error("dims", cr_safetensors_writer_tensor(w, "a", CR_ST_F32, 9, huge, x, &err), &err, CR_E_USAGE,
                    "dimensions");
    cr_expect_error("size", cr_safetensors_writer_tensor(w, "a", CR_ST_F32, 2, huge, x, &err), &err, CR_E_USAGE,
                    "shape");
    OK(cr_safetensors_writer_tensor(w, "a", CR_ST_F32, 0, NULL, x, &err));
    OK(cr_safetensors_writer_tensor(w, "a", CR_ST_F16, 0, NULL, x, &err));
    cr_expect_error("twice", cr_safetensors_writer_to_memory(w, &memory, &n, &err), &err, CR_E_USAGE, "\"a\"|twice");
    cr_expect_error("twice", cr_safetensors_writer_write(w, cr_test_path("x"), &err), &err, CR_E_USAGE, "\"a\"|twice");
    cr_safetensors_writer_destroy(w);
    w = cr_safetensors_writer_create();
    OK(cr_safetensors_writer_metadata(w, "k", "1", &err));
    OK(cr_safetensors_writer_metadata(w, "k", "2", &err));
    cr_expect_error("key", cr_safetensors_writer_to_memory(w, &memory, &n, &err), &err, CR_E_USAGE, "\"k\"|twice");
    cr_safetensors_writer_destroy(w);
    w = cr_safetensors_writer_create();
    OK(cr_safetensors_writer_tensor(w, "a", CR_ST_F32, 0, NULL, x, &err));
    cr_test_put_file(cr_test_path("x"), "old", 3);
    for (long at = 1; at <= 2; at++) {
        cr_test_fault(CR_CALL_WRITE, at, ENOSPC, true);
        cr_status status = cr_safetensors_writer_write(w, cr_test_path("x"), &err);
        cr_test_fault_off();
        cr_expect_error("full", status, &err, CR_E_IO, "No space");
        ck_assert_int_eq(cr_test_count_files(cr_test_dir(), ""), 1);
    }
    cr_safetensors_writer_destroy(w);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

/* ST-25, ST-26: dtypes and values that are no weights are refused when they are read. */
START_TEST(values)
{
    static const struct {
        const char *dtype;
        size_t bytes;
        uint8_t last[4];
        const char *message;
    } cases[] = {
        {"I64", 8, {0}, "\"w\"|dtype I64"},
        {"BOOL", 1, {0}, "\"w\"|dtype BOOL"},
        {"F8_E4M3", 1, {0}, "\"w\"|dtype F8_E4M3"},
        {"F32", 4, {0, 0, 0xc0, 0x7f}, "\"w\"|element 2 is nan"},
        {"F32", 4, {0, 0, 0x80, 0xff}, "\"w\"|element 2 is -inf"},
        {"F16", 2, {0, 0x7c}, "\"w\"|element 2 is inf"},
        {"F16", 2, {1, 0xfc}, "\"w\"|element 2 is"},
        {"BF16", 2, {0x80, 0x7f}, "\"w\"|element 2 is inf"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char header[200];
        size_t size = cases[i].bytes;
        snprintf(header, sizeof header, "{\"w\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%zu]}}",
                 cases[i].dtype, 3 * size);
        struct cr_buf file = assemble(header, strlen(header), 3 * size);
        memcpy(file.data + file.n - size, cases[i].last, size < 4 ? size : 4);
        struct cr_safetensors *st;
        float out[3];
        OK(cr_safetensors_parse((const uint8_t *)file.data, file.n, "f", &st, &err));
        cr_expect_error(cases[i].dtype, cr_safetensors_read_f32(st, cr_safetensors_at(st, 0), out, &err), &err,
                        CR_E_INPUT, cases[i].message);
        cr_safetensors_close(st);
        cr_buf_free(&file);
    }
}
END_TEST

/* OK-04, ST-07, ST-27: metadata alone, leading blanks, odd header lengths, any order of names, unknown fields. */
START_TEST(unusual_files)
{
    static const struct {
        const char *header;
        size_t header_bytes, n_data, n_tensors;
    } cases[] = {
        {HEADER("{}"), 0, 0},
        {HEADER(" \n{ }  "), 0, 0},
        {HEADER("{\"__metadata__\":{}}"), 0, 0},
        {HEADER("{\"__metadata__\":{\"a\":\"\\u0000b\",\"\":\"\"}}"), 0, 0},
        {HEADER("{\"b\":" F32_AT("0", "8") " ,\n\"a\":" F32_AT("8", "16") ",\"__metadata__\":{\"k\":\"v\"}}"), 16, 2},
        {HEADER("{\"a\":" F32_AT("8", "16") ",\"b\":" F32_AT("0", "8") "}"), 16, 2},
        {HEADER("{\"\\ud83d\\ude00\":" F32_AT("0", "8") "}"), 8, 1},
        {HEADER("{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}"), 1, 1},
        {HEADER("{\"a\":{\"x\":{\"y\":[1]},\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}"), 8, 1},
        {HEADER("{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},\"b\":" F32_AT("0", "8") "}"), 8, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cr_buf file = assemble(cases[i].header, cases[i].header_bytes, cases[i].n_data);
        ck_assert_msg(verdict(file.data, file.n, &err) == CR_OK, "%s: %s", cases[i].header, err.message);
        struct cr_safetensors *st;
        OK(cr_safetensors_parse((const uint8_t *)file.data, file.n, "f", &st, &err));
        ck_assert_uint_eq(cr_safetensors_n(st), cases[i].n_tensors);
        cr_safetensors_close(st);
        cr_buf_free(&file);
    }
}
END_TEST

/* n tensors of no elements. */
static void make_tensors(struct cr_buf *file, size_t n)
{
    struct cr_buf header = {0};
    for (size_t i = 0; i < n; i++) {
        cr_buf_printf(&header,
                      "%s\"model.layers.%zu.weight\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[0,0]}",
                      i > 0 ? "," : "{", i);
    }
    cr_buf_putc(&header, '}');
    *file = assemble(header.data, header.n, 0);
    cr_buf_free(&header);
}

static void take_tensors(const struct cr_buf *file)
{
    struct cr_safetensors *st;
    OK(cr_safetensors_parse((const uint8_t *)file->data, file->n, "f", &st, &err));
    ck_assert_uint_ge(cr_safetensors_n(st), 3125);
    cr_safetensors_close(st);
}

/* ST-24: 100,000 tensors, in time that grows with their number. */
START_TEST(many_tensors)
{
    cr_expect_linear_time("tensors", 3125, make_tensors, take_tensors);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("safetensors");
    TCase *tcase = tcase_create("safetensors");
    tcase_add_checked_fixture(tcase, NULL, cr_test_dir_remove);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, round_trip);
    tcase_add_test(tcase, without_metadata);
    tcase_add_test(tcase, writer_refusals);
    tcase_add_test(tcase, values);
    tcase_add_test(tcase, unusual_files);
    tcase_add_test(tcase, many_tensors);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
