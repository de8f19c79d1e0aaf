/* GGUF files that must be refused: the table of bad inputs case by case (ids in the comments and labels), cuts at
 * every byte, every byte changed. Inputs end before an unreadable page. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/buf.h"
#include "runtime/io/gguf.h"
#include "tests/runtime/gguf_faults_case.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

START_TEST(base_is_valid)
{
    struct base b = make_base();
    struct cr_error err;
    ck_assert_msg(verdict(b.file.data, b.file.n, &err) == CR_OK, "%s", err.message);
    ck_assert_msg(verdict(b.file.data, b.at[END], &err) == CR_OK, "%s", err.message);
    cr_buf_free(&b.file);
}
END_TEST

#define TOP UINT64_MAX

static const struct field_case {
    const char *id;
    enum field field;
    size_t width;
    uint64_t value;
    const char *message;
} field_cases[] = {
    {"GG-04 magic", MAGIC, 1, 'X', "magic|XGUF|expected \"GGUF\""},
    {"GG-04 lower case", MAGIC, 4, 0x66756767, "magic|gguf"},
    {"GG-04 reversed", MAGIC, 4, 0x47475546, "magic|FUGG"},
    {"GG-05", VERSION, 4, 0, "version 0"},
    {"GG-06", VERSION, 4, 1, "version 1|unsupported"},
    {"GG-07", VERSION, 4, 4, "version 4|unsupported"},
    {"GG-07 large", VERSION, 4, 1u << 31, "version 2147483648|unsupported"},
    {"GG-08", VERSION, 4, 0x03000000, "byte order"},
    {"GG-08 version 2", VERSION, 4, 0x02000000, "byte order"},
    {"GG-09", N_TENSORS, 8, TOP, "n_tensors 18446744073709551615"},
    {"GG-10", N_TENSORS, 8, TOP / 33 + 2, "n_tensors"},
    {"GG-11", N_TENSORS, 8, 4, "tensor 3"},
    {"GG-12", N_KV, 8, TOP, "n_kv 18446744073709551615"},
    {"GG-13", N_KV, 8, 1000000000, "n_kv 1000000000"},
    {"n_kv too small", N_KV, 8, 4, "tensor \"bools\"|n_dims 9"},
    {"GG-14", KEY_LENGTH, 8, 0, "key 0|length 0"},
    {"GG-15", KEY_LENGTH, 8, 1ull << 63, "key 0|key length"},
    {"GG-15 top", KEY_LENGTH, 8, TOP, "key 0|key length"},
    {"key with NUL", KEY, 1, 0, "key 0|NUL"},
    {"GG-18", VALUE_TYPE, 4, 13, "general.architecture|value type 13"},
    {"GG-18 255", VALUE_TYPE, 4, 255, "value type 255"},
    {"GG-18 -1", VALUE_TYPE, 4, TOP, "value type -1"},
    {"GG-19", STRING_LENGTH, 8, TOP, "general.architecture|string length"},
    {"GG-20", STRING_LENGTH, 8, 1 << 30, "string length 1073741824"},
    {"GG-21", ITEM_TYPE, 4, CR_GGUF_ARRAY, "strings|array of arrays"},
    {"item type", ITEM_TYPE, 4, 13, "strings|element type 13"},
    {"GG-22", BOOLS_COUNT, 8, 1ull << 63, "bools|array count"},
    {"GG-23", ITEM_COUNT, 8, (1ull << 61) + 2, "strings|array count"},
    {"GG-24", ITEM_COUNT, 8, 1ull << 32, "strings|array count 4294967296"},
    {"item length", ITEM_LENGTH, 8, TOP, "strings|array string length"},
    {"GG-25", BOOL_VALUE, 1, 2, "flag|bool with value 2"},
    {"GG-25 255", BOOL_VALUE, 1, 255, "flag|bool with value 255"},
    {"GG-25 in array", BOOLS_LAST, 1, 2, "bools|bool with value 2"},
    {"GG-26", ALIGN_VALUE, 4, 0, "general.alignment|value 0"},
    {"GG-27", ALIGN_VALUE, 4, 13, "general.alignment|value 13"},
    {"GG-27 33", ALIGN_VALUE, 4, 33, "general.alignment|value 33"},
    {"alignment 4", ALIGN_VALUE, 4, 4, "general.alignment|value 4"},
    {"alignment 2 MiB", ALIGN_VALUE, 4, 2 << 20, "general.alignment|value 2097152"},
    {"GG-28 i32", ALIGN_TYPE, 4, CR_GGUF_I32, "general.alignment|i32|u32"},
    {"GG-28 f32", ALIGN_TYPE, 4, CR_GGUF_F32, "general.alignment|f32|u32"},
    {"GG-29", ALIGN_VALUE, 4, 1 << 30, "general.alignment|value 1073741824"},
    {"GG-30 declared", NAME_LENGTH, 8, TOP, "tensor 0|name length"},
    {"GG-30 64", NAME_LENGTH, 8, 64, "tensor 0|name length 64|63"},
    {"empty tensor name", NAME_LENGTH, 8, 0, "tensor 0|length 0"},
    {"tensor name with NUL", NAME, 1, 0, "tensor 0|NUL"},
    {"GG-31", NAME_B, 1, 'a', "a.weight|twice"},
    {"GG-32", N_DIMS, 4, 5, "a.weight|n_dims 5"},
    {"GG-32 9", N_DIMS, 4, 9, "a.weight|n_dims 9"},
    {"GG-32 top", N_DIMS, 4, TOP, "a.weight|n_dims 4294967295"},
    {"n_dims 0", N_DIMS, 4, 0, "a.weight|n_dims 0"},
    {"GG-33", NE_1, 8, TOP, "a.weight|dimension 1 is -1"},
    {"GG-34 first", NE_0, 8, 0, "a.weight|dimension 0 is 0"},
    {"GG-34 last", NE_1, 8, 0, "a.weight|dimension 1 is 0"},
    {"GG-35", NE_1, 8, (1ull << 42) + 1, "a.weight|dimension 1"},
    {"dimension 2^31-1", NE_1, 8, 0x7fffffff, "b.weight|offset 160, expected 146028888000"},
    {"dimension 2^31", NE_1, 8, 1ull << 31, "a.weight|dimension 1"},
    {"GG-36", NE_C, 8, 255, "c.weight|row of 255|256"},
    {"GG-37 unknown", TYPE, 4, 200, "a.weight|type 200"},
    {"GG-37 2^31-1", TYPE, 4, 0x7fffffff, "a.weight|type 2147483647"},
    {"GG-37 negative", TYPE, 4, TOP, "a.weight|type -1"},
    {"GG-38 4", TYPE, 4, 4, "a.weight|removed"},
    {"GG-38 5", TYPE, 4, 5, "a.weight|removed"},
    {"GG-40", OFFSET_B, 8, 161, "b.weight|offset 161|multiple of the alignment"},
    {"GG-41", OFFSET_C, 8, TOP, "c.weight|offset 18446744073709551615"},
    {"GG-41 wraps", OFFSET_C, 8, TOP - 31, "c.weight|offset 18446744073709551584"},
    {"hole", OFFSET_C, 8, 224, "c.weight|offset 224, expected 192"},
    {"GG-45", OFFSET_B, 8, 0, "b.weight|offset 0, expected 160"},
    {"first not at 0", OFFSET, 8, 32, "a.weight|offset 32, expected 0"},
};

START_TEST(one_field_wrong)
{
    const struct field_case *c = &field_cases[_i];
    struct base b = make_base();
    patch(&b, c->field, c->width, c->value);
    refuse(c->id, b.file.data, b.file.n, c->message);
    cr_buf_free(&b.file);
}
END_TEST

/* GG-01, GG-02, GG-03, GG-43, GG-44: every length shorter than the data is refused. */
START_TEST(cut_at_every_byte)
{
    struct base b = make_base();
    for (size_t n = 0; n < b.at[END]; n++) {
        char id[32], missing[64];
        snprintf(id, sizeof id, "cut at %zu", n);
        snprintf(missing, sizeof missing, "truncated|%zu bytes missing", b.at[END] - n);
        refuse(id, b.file.data, n, n >= b.at[DATA] ? missing : "");
    }
    refuse("GG-01", "", 0, "truncated: magic");
    refuse("GG-02", "GG", 2, "truncated: magic");
    refuse("GG-03", b.file.data, 10, "truncated: n_tensors");
    refuse("GG-43", b.file.data, b.at[DATA], "truncated|a.weight");
    cr_buf_free(&b.file);
}
END_TEST

/* GG-16 (one byte more than is left), GG-17, GG-28 (u64 and string). */
START_TEST(whole_pairs_wrong)
{
    struct base b = make_base();
    patch(&b, KEY_LENGTH, 8, b.file.n - b.at[KEY] + 1);
    refuse("GG-16", b.file.data, b.file.n, "key 0|key length|left in the file");
    cr_buf_free(&b.file);
    static const char *const kinds[] = {"u64", "string", "twice"};
    for (int kind = 0; kind < 3; kind++) {
        b = (struct base){0};
        cr_buf_puts(&b.file, "GGUF");
        cr_buf_u32(&b.file, 3);
        cr_buf_u64(&b.file, 0);
        cr_buf_u64(&b.file, kind == 2 ? 2 : 1);
        put_key(&b, "general.alignment",
                kind == 0   ? CR_GGUF_U64
                : kind == 1 ? CR_GGUF_STRING
                            : CR_GGUF_U32,
                -1, -1, -1);
        if (kind == 2) {
            cr_buf_u32(&b.file, 32);
            put_key(&b, "general.alignment", CR_GGUF_U32, -1, -1, -1);
            cr_buf_u32(&b.file, 32);
        } else {
            cr_buf_u64(&b.file, kind == 0 ? 32 : 0);
        }
        char parts[64];
        snprintf(parts, sizeof parts, "general.alignment|%s", kinds[kind]);
        refuse(kind == 2 ? "GG-17" : "GG-28", b.file.data, b.file.n, parts);
        cr_buf_free(&b.file);
    }
}
END_TEST

/* Each metadata byte set to 00 and FF, one up and down, each bit flipped; 2000 random changes of two bytes. */
START_TEST(changed_everywhere)
{
    struct base b = make_base();
    struct cr_error err;
    int refused = 0, taken = 0;
    for (size_t i = 0; i < b.at[DATA]; i++) {
        uint8_t old = (uint8_t)b.file.data[i];
        for (int change = 0; change < 12; change++) {
            uint8_t new = change == 0   ? 0
                          : change == 1 ? 0xff
                          : change == 2 ? (uint8_t)(old + 1)
                          : change == 3 ? (uint8_t)(old - 1)
                                        : (uint8_t)(old ^ 1u << (change - 4));
            b.file.data[i] = (char)new;
            cr_status status = verdict(b.file.data, b.file.n, &err);
            ck_assert_msg(status == CR_OK || status == CR_E_INPUT, "byte %zu to %02x: %d", i, new, status);
            refused += status != CR_OK;
            taken += status == CR_OK;
        }
        b.file.data[i] = (char)old;
    }
    ck_assert_int_gt(refused, taken / 4);
    ck_assert_int_gt(taken, 100); /* letters of names and values may change */
    struct cr_rng rng = cr_rng_make(7);
    for (int run = 0; run < 2000; run++) {
        struct base c = make_base();
        c.file.data[cr_rng_below(&rng, (uint32_t)b.at[DATA])] = (char)cr_rng_below(&rng, 256);
        c.file.data[cr_rng_below(&rng, (uint32_t)b.at[DATA])] = (char)cr_rng_below(&rng, 256);
        cr_status status = verdict(c.file.data, c.file.n, &err);
        ck_assert(status == CR_OK || status == CR_E_INPUT);
        cr_buf_free(&c.file);
    }
    cr_buf_free(&b.file);
}
END_TEST

/* R3: names with terminal escapes come out printable and cut (cr_expect_error checks every byte). */
START_TEST(messages_are_printable)
{
    struct base b = make_base();
    memcpy(b.file.data + b.at[KEY], "\x1b[31m\r\n\xff\xfe\x80", 10);
    patch(&b, VALUE_TYPE, 4, 99);
    refuse("escape", b.file.data, b.file.n, "\\x1b[31m\\x0d\\n\\xff\\xfe\\x80");
    struct cr_error err;
    struct cr_gguf *g = NULL;
    cr_expect_error("label", cr_gguf_parse((const uint8_t *)"", 0, "a\x1b\nb", &g, &err), &err, CR_E_INPUT,
                    "a\\x1b\\nb: byte 0");
    cr_buf_free(&b.file);
}
END_TEST

START_TEST(foreign_files_are_named)
{
    refuse("lfs", "version https://git-lfs.github.com/spec/v1\n", 43, "Git LFS pointer");
    refuse("gzip", "\x1f\x8b\x08\0", 4, "gzip");
    refuse("bzip2", "BZh91AY&SY", 10, "bzip2");
    refuse("ggml", "lmgg\1\0\0\0", 8, "older ggml");
    refuse("zip", "PK\3\4....", 8, "zip");
    refuse("html", "<!DOCTYPE html>", 15, "HTML");
    refuse("safetensors", "\x40\0\0\0\0\0\0\0{\"a\"", 12, "safetensors");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gguf_faults");
    TCase *tcase = tcase_create("gguf_faults");
    tcase_add_checked_fixture(tcase, NULL, cr_test_dir_remove);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, base_is_valid);
    tcase_add_loop_test(tcase, one_field_wrong, 0, sizeof field_cases / sizeof field_cases[0]);
    tcase_add_test(tcase, cut_at_every_byte);
    tcase_add_test(tcase, whole_pairs_wrong);
    tcase_add_test(tcase, changed_everywhere);
    tcase_add_test(tcase, messages_are_printable);
    tcase_add_test(tcase, foreign_files_are_named);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
