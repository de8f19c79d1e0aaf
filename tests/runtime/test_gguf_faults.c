/* GGUF files that must be refused: the table of bad inputs case by case (ids in the comments and labels), cuts at
 * every byte, every byte changed, every allocation failing. Inputs end before an unreadable page. */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/io/file.h"
#include "runtime/io/gguf.h"
#include "runtime/io/gguf_write.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

/* Fields of the base file, whose places are noted while it is built. */
enum field {
    MAGIC,
    VERSION,
    N_TENSORS,
    N_KV,
    KEY_LENGTH, /* of the first pair, general.architecture */
    KEY,
    VALUE_TYPE,
    STRING_LENGTH,
    ALIGN_TYPE, /* second pair */
    ALIGN_VALUE,
    BOOL_VALUE, /* third pair */
    ITEM_TYPE,  /* fourth pair, array of 2 strings */
    ITEM_COUNT,
    ITEM_LENGTH,
    BOOLS_COUNT, /* fifth pair, array of 3 bools */
    BOOLS_LAST,
    NAME_LENGTH, /* first tensor, Q8_0 [64, 2] */
    NAME,
    N_DIMS,
    NE_0,
    NE_1,
    TYPE,
    OFFSET,
    NAME_B, /* second tensor, F32 [8] */
    OFFSET_B,
    NE_C, /* third tensor, Q4_K [256] */
    TYPE_C,
    OFFSET_C,
    DATA,
    END,
    N_FIELDS
};

struct base {
    struct cr_buf file;
    size_t at[N_FIELDS];
};

static void put_key(struct base *b, const char *key, uint32_t type, int length_field, int text_field, int type_field)
{
    if (length_field >= 0) {
        b->at[length_field] = b->file.n;
        b->at[text_field] = b->file.n + 8;
    }
    cr_buf_u64(&b->file, strlen(key));
    cr_buf_puts(&b->file, key);
    if (type_field >= 0) {
        b->at[type_field] = b->file.n;
    }
    cr_buf_u32(&b->file, type);
}

static void put_string(struct base *b, const char *text)
{
    cr_buf_u64(&b->file, strlen(text));
    cr_buf_puts(&b->file, text);
}

static void put_pairs(struct base *b)
{
    put_key(b, "general.architecture", CR_GGUF_STRING, KEY_LENGTH, KEY, VALUE_TYPE);
    b->at[STRING_LENGTH] = b->file.n;
    put_string(b, "llama");
    put_key(b, "general.alignment", CR_GGUF_U32, -1, -1, ALIGN_TYPE);
    b->at[ALIGN_VALUE] = b->file.n;
    cr_buf_u32(&b->file, 32);
    put_key(b, "flag", CR_GGUF_BOOL, -1, -1, -1);
    b->at[BOOL_VALUE] = b->file.n;
    cr_buf_putc(&b->file, 1);
    put_key(b, "strings", CR_GGUF_ARRAY, -1, -1, -1);
    b->at[ITEM_TYPE] = b->file.n;
    cr_buf_u32(&b->file, CR_GGUF_STRING);
    b->at[ITEM_COUNT] = b->file.n;
    cr_buf_u64(&b->file, 2);
    b->at[ITEM_LENGTH] = b->file.n;
    put_string(b, "ab");
    put_string(b, "");
    put_key(b, "bools", CR_GGUF_ARRAY, -1, -1, -1);
    cr_buf_u32(&b->file, CR_GGUF_BOOL);
    b->at[BOOLS_COUNT] = b->file.n;
    cr_buf_u64(&b->file, 3);
    cr_buf_append(&b->file, "\1\0\1", 3);
    b->at[BOOLS_LAST] = b->file.n - 1;
}

static void put_tensors(struct base *b)
{
    b->at[NAME_LENGTH] = b->file.n;
    b->at[NAME] = b->file.n + 8;
    put_string(b, "a.weight");
    b->at[N_DIMS] = b->file.n;
    cr_buf_u32(&b->file, 2);
    b->at[NE_0] = b->file.n;
    cr_buf_u64(&b->file, 64);
    b->at[NE_1] = b->file.n;
    cr_buf_u64(&b->file, 2);
    b->at[TYPE] = b->file.n;
    cr_buf_u32(&b->file, CR_Q_Q8_0);
    b->at[OFFSET] = b->file.n;
    cr_buf_u64(&b->file, 0);
    b->at[NAME_B] = b->file.n + 8;
    put_string(b, "b.weight");
    cr_buf_u32(&b->file, 1);
    cr_buf_u64(&b->file, 8);
    cr_buf_u32(&b->file, CR_Q_F32);
    b->at[OFFSET_B] = b->file.n;
    cr_buf_u64(&b->file, 160);
    put_string(b, "c.weight");
    cr_buf_u32(&b->file, 1);
    b->at[NE_C] = b->file.n;
    cr_buf_u64(&b->file, 256);
    b->at[TYPE_C] = b->file.n;
    cr_buf_u32(&b->file, CR_Q_Q4_K);
    b->at[OFFSET_C] = b->file.n;
    cr_buf_u64(&b->file, 192);
}

static struct base make_base(void)
{
    struct base b = {0};
    cr_buf_puts(&b.file, "GGUF");
    b.at[VERSION] = 4;
    cr_buf_u32(&b.file, 3);
    b.at[N_TENSORS] = 8;
    cr_buf_u64(&b.file, 3);
    b.at[N_KV] = 16;
    cr_buf_u64(&b.file, 5);
    put_pairs(&b);
    put_tensors(&b);
    cr_buf_fill(&b.file, 0, (32 - b.file.n % 32) % 32);
    b.at[DATA] = b.file.n;
    cr_buf_fill(&b.file, 0x11, 192 + 144);
    b.at[END] = b.file.n;
    cr_buf_fill(&b.file, 0, (32 - b.file.n % 32) % 32);
    ck_assert(!b.file.failed);
    return b;
}

/* Reads everything an open file offers, so that a wrong range dies at the unreadable page. */
static uint64_t touch(const struct cr_gguf *g)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < cr_gguf_n_kv(g); i++) {
        struct cr_gguf_value v;
        cr_gguf_value_at(g, i, &v);
        sum += strlen(cr_gguf_key(g, i));
        ck_assert(cr_gguf_find(g, cr_gguf_key(g, i), NULL));
        for (uint64_t j = 0; v.type == CR_GGUF_ARRAY && j < v.n; j++) {
            size_t n = 0;
            if (v.item_type == CR_GGUF_STRING) {
                const char *s = cr_gguf_array_str(&v, j, &n);
                sum += n > 0 ? (uint8_t)s[n - 1] : 0;
            } else {
                sum += (uint64_t)cr_gguf_array_int(&v, j);
                sum += cr_gguf_array_float(&v, j) > 0;
            }
        }
        for (uint64_t j = 0; v.type == CR_GGUF_STRING && j < v.n; j++) {
            sum += v.data[j];
        }
    }
    for (size_t i = 0; i < cr_gguf_n_tensors(g); i++) {
        const struct cr_gguf_tensor *t = cr_gguf_tensor_at(g, i);
        ck_assert_ptr_eq(cr_gguf_tensor_find(g, t->name), t);
        for (uint64_t j = 0; j < t->bytes; j++) {
            sum += ((const uint8_t *)t->data)[j];
        }
    }
    return sum;
}

/* A copy of n bytes is parsed; the verdict, with the outputs checked. */
static cr_status verdict(const void *data, size_t n, struct cr_error *err)
{
    uint8_t *guarded = cr_guard_alloc(n > 0 ? n : 1, 1, CR_AT_END);
    memcpy(guarded, data, n);
    struct cr_gguf *g = NULL;
    long live = cr_alloc_live();
    memset(err, 0, sizeof *err);
    cr_status status = cr_gguf_parse(guarded, n, "model.gguf", &g, err);
    ck_assert((g != NULL) == (status == CR_OK));
    if (g != NULL) {
        touch(g);
        cr_gguf_close(g);
    }
    ck_assert_int_eq((int)(cr_alloc_live() - live), 0);
    cr_guard_free(guarded);
    return status;
}

static void refuse(const char *id, const void *data, size_t n, const char *parts)
{
    struct cr_error err;
    char all[256];
    snprintf(all, sizeof all, "model.gguf: byte|%s", parts);
    cr_expect_error(id, verdict(data, n, &err), &err, CR_E_INPUT, all);
}

static void patch(struct base *b, enum field field, size_t width, uint64_t value)
{
    for (size_t i = 0; i < width; i++) {
        b->file.data[b->at[field] + i] = (char)(uint8_t)(value >> 8 * i);
    }
}

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

/* Sizes that need a longer file than the base: key and string lengths around their limits. */
START_TEST(name_limits)
{
    for (size_t length = 65534; length <= 65536; length++) {
        struct cr_buf file = {0};
        struct cr_error err;
        cr_buf_puts(&file, "GGUF");
        cr_buf_u32(&file, 3);
        cr_buf_u64(&file, 0);
        cr_buf_u64(&file, 1);
        cr_buf_u64(&file, length);
        cr_buf_fill(&file, 'k', length);
        cr_buf_u32(&file, CR_GGUF_U8);
        cr_buf_putc(&file, 0);
        if (length <= 65535) {
            ck_assert_int_eq(verdict(file.data, file.n, &err), CR_OK);
        } else {
            refuse("key of 65536", file.data, file.n, "key length 65536, at most 65535");
        }
        cr_buf_free(&file);
    }
    for (size_t length = 62; length <= 64; length++) { /* GG-30 */
        struct cr_buf file = {0};
        struct cr_error err;
        cr_buf_puts(&file, "GGUF");
        cr_buf_u32(&file, 3);
        cr_buf_u64(&file, 1);
        cr_buf_u64(&file, 0);
        cr_buf_u64(&file, length);
        cr_buf_fill(&file, 't', length);
        cr_buf_u32(&file, 1);
        cr_buf_u64(&file, 1);
        cr_buf_u32(&file, CR_Q_F32);
        cr_buf_u64(&file, 0);
        cr_buf_fill(&file, 0, 64);
        if (length <= 63) {
            ck_assert_int_eq(verdict(file.data, file.n, &err), CR_OK);
        } else {
            refuse("name of 64", file.data, file.n, "name length 64, at most 63");
        }
        cr_buf_free(&file);
    }
}
END_TEST

/* Counts and sizes at their limits and one above; the memory behind them is never touched. */
START_TEST(count_limits)
{
    struct cr_error err = {0};
    struct cr_gguf *g = NULL;
    size_t n = (size_t)80 << 20;
    uint8_t *file = calloc(1, n);
    ck_assert_ptr_nonnull(file);
    static const struct {
        uint64_t n_tensors, n_kv;
        const char *message;
    } counts[] = {{65536, 0, "tensor 0|length 0"},
                  {65537, 0, "n_tensors 65537, at most 65536 allowed"},
                  {0, 65536, "key 0|length 0"},
                  {0, 65537, "n_kv 65537, at most 65536 allowed"}};
    for (size_t i = 0; i < 4; i++) {
        struct cr_buf head = {0};
        cr_buf_puts(&head, "GGUF");
        cr_buf_u32(&head, 3);
        cr_buf_u64(&head, counts[i].n_tensors);
        cr_buf_u64(&head, counts[i].n_kv);
        memcpy(file, head.data, head.n);
        cr_expect_error("counts", cr_gguf_parse(file, n, "x", &g, &err), &err, CR_E_INPUT, counts[i].message);
        cr_buf_free(&head);
    }
    for (uint64_t above = 0; above < 2; above++) {
        struct base b = {0};
        cr_buf_puts(&b.file, "GGUF");
        cr_buf_u32(&b.file, 3);
        cr_buf_u64(&b.file, 0);
        cr_buf_u64(&b.file, 1);
        put_key(&b, "s", CR_GGUF_STRING, -1, -1, -1);
        cr_buf_u64(&b.file, (64u << 20) + above);
        memcpy(file, b.file.data, b.file.n);
        cr_status status = cr_gguf_parse(file, n, "x", &g, &err);
        if (above == 0) {
            ck_assert_msg(status == CR_OK, "%s", err.message);
            cr_gguf_close(g);
            g = NULL;
        } else {
            cr_expect_error("string", status, &err, CR_E_INPUT, "\"s\"|67108865, at most 67108864 allowed");
        }
        cr_buf_free(&b.file);
    }
    free(file);
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

static void *nested_arrays(void *arg)
{
    struct cr_error *err = arg;
    struct base b = {0};
    cr_buf_puts(&b.file, "GGUF");
    cr_buf_u32(&b.file, 3);
    cr_buf_u64(&b.file, 0);
    cr_buf_u64(&b.file, 1);
    put_key(&b, "deep", CR_GGUF_ARRAY, -1, -1, -1);
    for (int i = 0; i < 10000; i++) {
        cr_buf_u32(&b.file, CR_GGUF_ARRAY);
        cr_buf_u64(&b.file, 1);
    }
    struct cr_gguf *g = NULL;
    err->status = cr_gguf_parse((const uint8_t *)b.file.data, b.file.n, "model.gguf", &g, err);
    cr_buf_free(&b.file);
    return NULL;
}

/* GG-21 and R9: depth 10,000 on a stack of 256 KiB. */
START_TEST(deep_arrays)
{
    struct cr_error err = {0};
    pthread_attr_t attributes;
    pthread_t thread;
    ck_assert_int_eq(pthread_attr_init(&attributes), 0);
    ck_assert_int_eq(pthread_attr_setstacksize(&attributes, 256 << 10), 0);
    ck_assert_int_eq(pthread_create(&thread, &attributes, nested_arrays, &err), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    cr_expect_error("GG-21", err.status, &err, CR_E_INPUT, "deep|array of arrays");
}
END_TEST

/* Four dimensions below their limit whose product wraps 64 bits; and sums of padded sizes that would. */
START_TEST(products_wrap)
{
    struct cr_buf file = {0};
    cr_buf_puts(&file, "GGUF");
    cr_buf_u32(&file, 3);
    cr_buf_u64(&file, 1);
    cr_buf_u64(&file, 0);
    cr_buf_u64(&file, 1);
    cr_buf_puts(&file, "t");
    cr_buf_u32(&file, 4);
    size_t dims = file.n;
    for (int d = 0; d < 4; d++) {
        cr_buf_u64(&file, 1 << 20);
    }
    cr_buf_u32(&file, CR_Q_F32);
    cr_buf_u64(&file, 0);
    cr_buf_fill(&file, 0, 64);
    refuse("product", file.data, file.n, "\"t\"|beyond 2^63");
    file.data[dims + 26] = 0; /* the last dimension 2^20 becomes 2^10 : 2^72 bytes */
    file.data[dims + 25] = 4;
    refuse("product 2", file.data, file.n, "\"t\"|beyond 2^63");
    cr_buf_free(&file);
    cr_buf_puts(&file, "GGUF");
    cr_buf_u32(&file, 3);
    cr_buf_u64(&file, 3);
    cr_buf_u64(&file, 0);
    for (uint64_t t = 0; t < 3; t++) { /* 2^62 bytes each: the sum passes 2^63 with the second */
        cr_buf_u64(&file, 1);
        cr_buf_putc(&file, (char)('a' + t));
        cr_buf_u32(&file, 2);
        cr_buf_u64(&file, 1u << 30);
        cr_buf_u64(&file, 1u << 30);
        cr_buf_u32(&file, CR_Q_F32);
        cr_buf_u64(&file, t << 62);
    }
    cr_buf_fill(&file, 0, 64);
    refuse("sum", file.data, file.n, "\"b\"|beyond 2^63");
    cr_buf_free(&file);
}
END_TEST

/* R5 and R6: what is allocated while refusing an enormous declared count does not depend on it. */
START_TEST(counts_do_not_allocate)
{
    static const struct {
        enum field field;
        uint64_t value;
    } cases[] = {{N_KV, 1000000000}, {N_TENSORS, 1ull << 40}, {ITEM_COUNT, 1ull << 32}, {STRING_LENGTH, 1 << 30}};
    for (size_t i = 0; i < 4; i++) {
        struct base b = make_base();
        struct cr_error err;
        struct cr_gguf *g = NULL;
        patch(&b, cases[i].field, 8, cases[i].value);
        long before = cr_alloc_count();
        ck_assert_int_eq(cr_gguf_parse((const uint8_t *)b.file.data, b.file.n, "x", &g, &err), CR_E_INPUT);
        ck_assert_int_le(cr_alloc_count() - before, 3); /* the object, its label, at most the table of 5 pairs */
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
    refuse("ggml", "lmgg\1\0\0\0", 8, "older ggml");
    refuse("zip", "PK\3\4....", 8, "zip");
    refuse("html", "<!DOCTYPE html>", 15, "HTML");
    refuse("safetensors", "\x40\0\0\0\0\0\0\0{\"a\"", 12, "safetensors");
}
END_TEST

struct memory {
    const uint8_t *data;
    size_t n;
    const char *path;
};

static cr_status parse_op(void *arg, struct cr_error *err)
{
    struct memory *m = arg;
    struct cr_gguf *g = NULL;
    cr_status status = cr_gguf_parse(m->data, m->n, "model.gguf", &g, err);
    cr_gguf_close(g);
    return status;
}

static cr_status open_op(void *arg, struct cr_error *err)
{
    struct memory *m = arg;
    struct cr_gguf *g = NULL;
    cr_status status = cr_gguf_open(m->path, &g, err);
    cr_gguf_close(g);
    return status;
}

static cr_status write_op(void *arg, struct cr_error *err)
{
    struct memory *m = arg;
    static const char *const words[] = {"a", "bc"};
    static const float x[40];
    struct cr_gguf_writer *w = cr_gguf_writer_create();
    uint8_t *memory = NULL;
    size_t n;
    cr_status status = w != NULL ? CR_OK : cr_fail(err, CR_E_MEMORY, "no memory");
    char key[300];
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    if (status != CR_OK) {
        goto out;
    }
    CR_TRY_OUT(status, cr_gguf_writer_kv_str_array(w, "s", words, 2, err));
    CR_TRY_OUT(status, cr_gguf_writer_kv_u32(w, key, 2, err));
    CR_TRY_OUT(status, cr_gguf_writer_tensor(w, "t", CR_Q_F32, 1, (const uint64_t[]){40}, x, sizeof x, err));
    CR_TRY_OUT(status, cr_gguf_writer_write(w, m->path, err));
    CR_TRY_OUT(status, cr_gguf_writer_to_memory(w, &memory, &n, err));
out:
    cr_free(memory);
    cr_gguf_writer_destroy(w);
    return status;
}

START_TEST(allocations_fail)
{
    struct base b = make_base();
    char path[1024];
    snprintf(path, sizeof path, "%s", cr_test_path("m.gguf"));
    cr_test_put_file(path, b.file.data, b.file.n);
    struct memory m = {(const uint8_t *)b.file.data, b.file.n, path};
    ck_assert_int_eq((int)cr_test_alloc_sweep("parse", parse_op, &m), 8);
    ck_assert_int_eq((int)cr_test_alloc_sweep("open", open_op, &m), 8);
    cr_buf_free(&b.file);
    snprintf(path, sizeof path, "%s", cr_test_path("w.gguf"));
    ck_assert_int_ge((int)cr_test_alloc_sweep("write", write_op, &m), 10);
    ck_assert_int_eq(cr_test_count_files(cr_test_dir(), ".tmp."), 0);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
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
    tcase_add_test(tcase, name_limits);
    tcase_add_test(tcase, count_limits);
    tcase_add_test(tcase, whole_pairs_wrong);
    tcase_add_test(tcase, deep_arrays);
    tcase_add_test(tcase, products_wrap);
    tcase_add_test(tcase, counts_do_not_allocate);
    tcase_add_test(tcase, changed_everywhere);
    tcase_add_test(tcase, messages_are_printable);
    tcase_add_test(tcase, foreign_files_are_named);
    tcase_add_test(tcase, allocations_fail);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
