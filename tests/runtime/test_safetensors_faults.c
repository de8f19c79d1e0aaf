/* safetensors: the table of bad inputs (ids as labels), cuts, changes and failing allocations. Inputs end before an
 * unreadable page. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/io/safetensors.h"
#include "tests/runtime/safetensors_case.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

static const struct bad_case {
    const char *id, *header;
    size_t header_bytes, n_data;
    const char *message;
} bad_cases[] = {
    {"ST-05", HEADER("{\"a\xff\":" F32_AT("0", "8") "}"), 8, "header|invalid UTF-8|byte 3"},
    {"ST-06 unterminated", HEADER("{\"a\":" F32_AT("0", "8")), 8, "expected , or }"},
    {"ST-06 comma", HEADER("{\"a\":" F32_AT("0", "8") ",}"), 8, "expected a key"},
    {"ST-06 quotes", HEADER("{'a':" F32_AT("0", "8") "}"), 8, "expected a key in double quotes"},
    {"ST-06 inner comma", HEADER("{\"a\":{\"dtype\":\"F32\",\"shape\":[2,],\"data_offsets\":[0,8]}}"), 8,
     "tensor \"a\""},
    {"ST-06 colon", HEADER("{\"a\" " F32_AT("0", "8") "}"), 8, "expected :"},
    {"ST-06 tail", HEADER("{\"a\":" F32_AT("0", "8") "} x"), 8, "expected the end"},
    {"ST-06 two", HEADER("{}{}"), 0, "expected the end"},
    {"ST-07", HEADER("[1,2,3]"), 0, "expected {"},
    {"ST-07 text", HEADER("\"text\""), 0, "expected {"},
    {"ST-08", HEADER("\xef\xbb\xbf{}"), 0, "byte-order mark"},
    {"ST-10 dtype", HEADER("{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}"), 8, "\"a\"|\"dtype\" is missing"},
    {"ST-10 shape", HEADER("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}"), 8, "\"a\"|shape is missing"},
    {"ST-10 offsets", HEADER("{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}"), 8, "\"a\"|data_offsets is missing"},
    {"ST-10 null", HEADER("{\"a\":null}"), 8, "\"a\"|null, expected an object"},
    {"ST-10 number", HEADER("{\"a\":1}"), 8, "\"a\"|integer, expected an object"},
    {"ST-10 empty", HEADER("{\"a\":{}}"), 8, "\"a\"|\"dtype\" is missing"},
    {"ST-11", HEADER("{\"a\":{\"dtype\":\"Q32\",\"shape\":[2],\"data_offsets\":[0,8]}}"), 8, "\"a\"|dtype \"Q32\""},
    {"ST-11 case", HEADER("{\"a\":{\"dtype\":\"f32\",\"shape\":[2],\"data_offsets\":[0,8]}}"), 8,
     "\"a\"|dtype \"f32\""},
    {"ST-11 number", HEADER("{\"a\":{\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]}}"), 8,
     "\"a\"|\"dtype\"|integer"},
    {"ST-12 negative", HEADER("{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}"), 8, "\"a\"|shape"},
    {"ST-12 fraction", HEADER("{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}"), 8, "\"a\"|shape"},
    {"ST-12 string", HEADER("{\"a\":{\"dtype\":\"F32\",\"shape\":[\"2\"],\"data_offsets\":[0,8]}}"), 8, "\"a\"|shape"},
    {"ST-12 number", HEADER("{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]   }}"), 8,
     "\"a\"|shape is no"},
    {"ST-12 nine", HEADER("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}"), 1,
     "\"a\"|at most 8"},
    {"ST-13", HEADER("{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}"), 0,
     "\"a\"|shape product"},
    {"ST-13 size", HEADER("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}"), 0,
     "\"a\"|shape product"},
    {"ST-13 2^64", HEADER("{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551616],\"data_offsets\":[0,0]}}"), 0,
     "\"a\"|too big"},
    {"ST-14 one", HEADER("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8]}}"), 8, "\"a\"|data_offsets"},
    {"ST-14 three", HEADER("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}"), 8,
     "\"a\"|data_offsets"},
    {"ST-14 order", HEADER("{\"a\":" F32_AT("8", "0") "}"), 8, "\"a\"|data_offsets 8 to 0"},
    {"ST-14 negative", HEADER("{\"a\":" F32_AT("-8", "0") "}"), 8, "\"a\"|data_offsets begin"},
    {"ST-14 string", HEADER("{\"a\":" F32_AT("0", "\"8\"") "}"), 8, "\"a\"|data_offsets end"},
    {"ST-15", HEADER("{\"a\":" F32_AT("8", "16") "}"), 8, "\"a\"|data_offsets 8 to 16|beyond the data"},
    {"ST-15 wraps", HEADER("{\"a\":" F32_AT("9223372036854775799", "9223372036854775807") "}"), 8, "\"a\"|beyond"},
    {"ST-16", HEADER("{\"a\":" F32_AT("0", "9") "}"), 9, "\"a\"|data_offsets 0 to 9, expected 8 bytes"},
    {"ST-17", HEADER("{\"a\":" F32_AT("0", "8") ",\"b\":" F32_AT("4", "12") "}"), 12, "\"b\"|overlap"},
    {"ST-17 same", HEADER("{\"a\":" F32_AT("0", "8") ",\"b\":" F32_AT("0", "8") "}"), 8, "\"b\"|overlap"},
    {"ST-18", HEADER("{\"a\":" F32_AT("0", "8") ",\"b\":" F32_AT("12", "20") "}"), 20, "\"b\"|hole"},
    {"ST-18 first", HEADER("{\"a\":" F32_AT("4", "12") "}"), 12, "\"a\"|hole"},
    {"ST-19", HEADER("{\"a\":" F32_AT("0", "8") "}"), 9, "1 bytes after the last tensor"},
    {"ST-19 none", HEADER("{}"), 1, "1 bytes after the last tensor"},
    {"ST-20", HEADER("{\"a\":" F32_AT("0", "8") "}"), 7, "\"a\"|truncated"},
    {"ST-21", HEADER("{\"a\":" F32_AT("0", "8") ",\"a\":" F32_AT("8", "16") "}"), 16, "\"a\" appears twice"},
    {"ST-21 escaped", HEADER("{\"a\":" F32_AT("0", "8") ",\"\\u0061\":" F32_AT("8", "16") "}"), 16,
     "\"a\" appears twice"},
    {"ST-21 field", HEADER("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}"), 8,
     "\"a\"|duplicate"},
    {"ST-21 metadata", HEADER("{\"__metadata__\":{},\"__metadata__\":{}}"), 0, "__metadata__|twice"},
    {"ST-22 number", HEADER("{\"__metadata__\":{\"k\":1}}"), 0, "__metadata__|k|1, expected a string"},
    {"ST-22 object", HEADER("{\"__metadata__\":{\"k\":{}}}"), 0, "__metadata__|k|expected a string"},
    {"ST-22 list", HEADER("{\"__metadata__\":[\"k\"]}"), 0, "expected"},
    {"ST-22 key twice", HEADER("{\"__metadata__\":{\"k\":\"1\",\"\\u006b\":\"2\"}}"), 0, "__metadata__|\"k\"|twice"},
    {"ST-22 bad escape", HEADER("{\"__metadata__\":{\"k\":\"\\x\"}}"), 0, "w.safetensors"},
    {"ST-23", HEADER("{\"\":" F32_AT("0", "8") "}"), 8, "name of 0 bytes"},
    {"NUL in name", HEADER("{\"a\\u0000b\":" F32_AT("0", "8") "}"), 8, "NUL"},
    {"lone surrogate", HEADER("{\"\\ud800\":" F32_AT("0", "8") "}"), 8, "w.safetensors: byte"},
    {"ends in a value", HEADER("{\"a\":[1"), 0, "expected a closing bracket"},
    {"ends in a string", HEADER("{\"a\":\"x"), 0, "expected the closing quote"},
    {"ends in a key", HEADER("{\"a"), 0, "expected the closing quote"},
    {"ends behind a backslash", HEADER("{\"a\\"), 0, "expected the closing quote"},
    {"ends behind a key", HEADER("{\"a\" "), 0, "expected :"},
    {"ends behind a colon", HEADER("{\"a\": "), 0, "expected a value"},
    {"ends behind a brace", HEADER("{ "), 0, "expected a key"},
    {"ends behind blanks", HEADER("   "), 0, "expected {"},
    {"control", HEADER("{\"a\n\":" F32_AT("0", "8") "}"), 8, "header|0x0a"},
};

START_TEST(bad_headers)
{
    const struct bad_case *c = &bad_cases[_i];
    struct cr_buf file = assemble(c->header, c->header_bytes, c->n_data);
    char parts[256];
    snprintf(parts, sizeof parts, "w.safetensors|%s", c->message);
    cr_expect_error(c->id, verdict(file.data, file.n, &err), &err, CR_E_INPUT, parts);
    cr_buf_free(&file);
}
END_TEST

static void refuse_length(const char *id, uint64_t n, const char *parts)
{
    struct cr_buf file = {0};
    cr_buf_u64(&file, n);
    cr_buf_puts(&file, "{}");
    cr_expect_error(id, verdict(file.data, file.n, &err), &err, CR_E_INPUT, parts);
    cr_buf_free(&file);
}

START_TEST(bad_lengths)
{
    cr_expect_error("ST-01", verdict("", 0, &err), &err, CR_E_INPUT, "file of 0 bytes");
    cr_expect_error("ST-01", verdict("\2\0\0\0\0\0\0", 7, &err), &err, CR_E_INPUT, "file of 7 bytes");
    refuse_length("ST-02", 0, "header length 0");
    refuse_length("ST-02", 1, "header length 1");
    refuse_length("ST-03", 3, "header length 3, expected 2 to 2");
    refuse_length("ST-03", UINT64_MAX, "header length 18446744073709551615");
    refuse_length("ST-03", UINT64_MAX - 7, "header length 18446744073709551608");
    const char *path = cr_test_path("sparse"); /* ST-04 */
    struct cr_safetensors *st = NULL;
    uint64_t n = 100000001;
    cr_test_put_file(path, &n, sizeof n);
    ck_assert_int_eq(truncate(path, 8 + 100000001), 0);
    cr_expect_error("ST-04", cr_safetensors_open(path, &st, &err), &err, CR_E_INPUT, "100000001|16777216");
    struct cr_buf deep = {0}; /* ST-09 */
    cr_buf_u64(&deep, 500005);
    for (int i = 0; i < 100000; i++) {
        cr_buf_puts(&deep, "{\"a\":");
    }
    cr_buf_puts(&deep, "     ");
    cr_expect_error("ST-09", verdict(deep.data, deep.n, &err), &err, CR_E_INPUT, "nesting deeper");
    cr_buf_free(&deep);
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    cr_expect_error("ST-28", verdict(pointer, sizeof pointer - 1, &err), &err, CR_E_INPUT,
                    "; this is a Git LFS pointer");
    cr_expect_error("gguf", verdict("GGUF\3\0\0\0\0\0\0\0", 12, &err), &err, CR_E_INPUT, "GGUF file");
    cr_expect_error("missing", cr_safetensors_open(cr_test_path("none"), &st, &err), &err, CR_E_IO, "none|No such");
    ck_assert_ptr_null(st);
}
END_TEST

/* Limits of ours at the limit and one above: header 16 MiB, name 4096 bytes, description 4096 bytes. */
START_TEST(limits)
{
    for (size_t above = 0; above < 2; above++) {
        struct cr_buf text = {0};
        cr_buf_puts(&text, "{}");
        cr_buf_fill(&text, ' ', (16u << 20) - 2 + above);
        struct cr_buf file = assemble(text.data, text.n, 0);
        cr_status status = verdict(file.data, file.n, &err);
        ck_assert_int_eq(status, above == 0 ? CR_OK : CR_E_INPUT);
        cr_buf_free(&text);
        cr_buf_free(&file);
        cr_buf_puts(&text, "{\"");
        cr_buf_fill(&text, 'n', 4096 + above);
        cr_buf_puts(&text, "\":" F32_AT("0", "8") "}");
        file = assemble(text.data, text.n, 8);
        status = verdict(file.data, file.n, &err);
        ck_assert_int_eq(status, above == 0 ? CR_OK : CR_E_INPUT);
        ck_assert(above == 0 || strstr(err.message, "name of 4097 bytes") != NULL);
        cr_buf_free(&text);
        cr_buf_free(&file);
        static const char entry[] = F32_AT("0", "8");
        cr_buf_puts(&text, "{\"a\":{");
        cr_buf_fill(&text, ' ', 4096 - (sizeof entry - 1) + above);
        cr_buf_puts(&text, &entry[1]);
        cr_buf_puts(&text, "}");
        file = assemble(text.data, text.n, 8);
        status = verdict(file.data, file.n, &err);
        ck_assert_int_eq(status, above == 0 ? CR_OK : CR_E_INPUT);
        ck_assert(above == 0 || strstr(err.message, "description of 4097 bytes") != NULL);
        cr_buf_free(&text);
        cr_buf_free(&file);
    }
}
END_TEST

static struct cr_buf sample_file(void)
{
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\",\"\\u0061\":\"\\n\"},\"\\u0062\":" F32_AT(
        "0", "8") ",\"c\":{\"dtype\":\"BF16\",\"shape\":[3,1],\"data_offsets\":[8,14]}}";
    return assemble(header, sizeof header - 1, 14);
}

/* Every cut is refused; every byte set to 00 and FF, one up and down, each bit flipped gets a verdict. */
START_TEST(cut_and_changed_everywhere)
{
    struct cr_buf file = sample_file();
    int taken = 0, refused = 0;
    ck_assert_int_eq(verdict(file.data, file.n, &err), CR_OK);
    for (size_t n = 0; n < file.n; n++) {
        cr_expect_error("cut", verdict(file.data, n, &err), &err, CR_E_INPUT, "w.safetensors");
    }
    for (size_t i = 0; i < file.n - 14; i++) {
        uint8_t old = (uint8_t)file.data[i];
        for (int change = 0; change < 12; change++) {
            uint8_t new = change == 0   ? 0
                          : change == 1 ? 0xff
                          : change == 2 ? (uint8_t)(old + 1)
                          : change == 3 ? (uint8_t)(old - 1)
                                        : (uint8_t)(old ^ 1u << (change - 4));
            file.data[i] = (char)new;
            cr_status status = verdict(file.data, file.n, &err);
            ck_assert_msg(status == CR_OK || status == CR_E_INPUT, "byte %zu to %02x: %d", i, new, status);
            refused += status != CR_OK;
            taken += status == CR_OK;
        }
        file.data[i] = (char)old;
    }
    ck_assert_int_gt(taken, 50);
    ck_assert_int_gt(refused, 4 * taken);
    cr_buf_free(&file);
}
END_TEST

static cr_status parse_op(void *arg, struct cr_error *error)
{
    const struct cr_buf *file = arg;
    struct cr_safetensors *st = NULL;
    cr_status status = cr_safetensors_parse((const uint8_t *)file->data, file->n, "f", &st, error);
    cr_safetensors_close(st);
    return status;
}

static cr_status write_op(void *arg, struct cr_error *error)
{
    static const float x[2] = {1, 2};
    struct cr_safetensors_writer *w = cr_safetensors_writer_create();
    uint8_t *memory = NULL;
    size_t n;
    cr_status status;
    if (w == NULL) {
        return cr_fail(error, CR_E_MEMORY, "no memory");
    }
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", i);
        CR_TRY_OUT(status, cr_safetensors_writer_tensor(w, name, CR_ST_F32, 1, (const uint64_t[]){2}, x, error));
    }
    CR_TRY_OUT(status, cr_safetensors_writer_metadata(w, "format", "pt", error));
    CR_TRY_OUT(status, cr_safetensors_writer_to_memory(w, &memory, &n, error));
    CR_TRY_OUT(status, cr_safetensors_writer_write(w, arg, error));
out:
    cr_free(memory);
    cr_safetensors_writer_destroy(w);
    return status;
}

START_TEST(allocations_fail)
{
    struct cr_buf file = sample_file();
    char path[1024];
    snprintf(path, sizeof path, "%s", cr_test_path("w.safetensors"));
    ck_assert_int_eq((int)cr_test_alloc_sweep("parse", parse_op, &file), 6);
    ck_assert_int_ge((int)cr_test_alloc_sweep("write", write_op, path), 30);
    ck_assert_int_eq(cr_test_count_files(cr_test_dir(), ".tmp."), 0);
    cr_buf_free(&file);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("safetensors faults");
    TCase *tcase = tcase_create("safetensors faults");
    tcase_add_checked_fixture(tcase, NULL, cr_test_dir_remove);
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, bad_headers, 0, sizeof bad_cases / sizeof bad_cases[0]);
    tcase_add_test(tcase, bad_lengths);
    tcase_add_test(tcase, limits);
    tcase_add_test(tcase, cut_and_changed_everywhere);
    tcase_add_test(tcase, allocations_fail);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
