/* gguf_faults_case: a small valid GGUF file whose fields are noted while it is built, patched and parsed before an
 * unreadable page.
 */
#ifndef CR_TESTS_GGUF_FAULTS_CASE_H
#define CR_TESTS_GGUF_FAULTS_CASE_H

#include <check.h>
#include <stdio.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/io/gguf.h"
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

static inline void put_key(struct base *b, const char *key, uint32_t type, int length_field, int text_field,
                           int type_field)
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

static inline void put_string(struct base *b, const char *text)
{
    cr_buf_u64(&b->file, strlen(text));
    cr_buf_puts(&b->file, text);
}

static inline void put_pairs(struct base *b)
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

static inline void put_tensors(struct base *b)
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

static inline struct base make_base(void)
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
static inline uint64_t touch(const struct cr_gguf *g)
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
static inline cr_status verdict(const void *data, size_t n, struct cr_error *err)
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

static inline void refuse(const char *id, const void *data, size_t n, const char *parts)
{
    struct cr_error err;
    char all[256];
    snprintf(all, sizeof all, "model.gguf: byte|%s", parts);
    cr_expect_error(id, verdict(data, n, &err), &err, CR_E_INPUT, all);
}

static inline void patch(struct base *b, enum field field, size_t width, uint64_t value)
{
    for (size_t i = 0; i < width; i++) {
        b->file.data[b->at[field] + i] = (char)(uint8_t)(value >> 8 * i);
    }
}

#endif
