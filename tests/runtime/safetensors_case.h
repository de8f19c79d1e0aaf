/* safetensors_case: files in memory that end before an unreadable page, touched everywhere. */
#ifndef CR_TESTS_SAFETENSORS_CASE_H
#define CR_TESTS_SAFETENSORS_CASE_H

#include <check.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/io/safetensors_private.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

static struct cr_error err;

static inline uint64_t touch(const struct cr_safetensors *st)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < cr_safetensors_n(st); i++) {
        const struct cr_st_tensor *t = cr_safetensors_at(st, i);
        ck_assert_ptr_eq(cr_safetensors_find(st, t->name), t);
        for (size_t j = 0; j < t->bytes; j++) {
            sum += ((const uint8_t *)t->data)[j];
        }
        float *values = cr_alloc((size_t)t->n, sizeof *values);
        struct cr_error ignored;
        cr_status status = cr_safetensors_read_f32(st, t, values, &ignored);
        ck_assert(status == CR_OK || status == CR_E_INPUT);
        cr_free(values);
    }
    for (size_t i = 0; i < st->n_meta; i++) {
        const char *key = st->text + st->meta[i].key, *value = st->text + st->meta[i].value;
        ck_assert_ptr_eq(cr_safetensors_metadata(st, key, NULL), value);
        sum += strlen(value);
    }
    return sum;
}

static inline cr_status verdict(const void *data, size_t n, struct cr_error *error)
{
    uint8_t *guarded = cr_guard_alloc(n > 0 ? n : 1, 1, CR_AT_END);
    memcpy(guarded, data, n);
    struct cr_safetensors *st = NULL;
    long live = cr_alloc_live();
    memset(error, 0, sizeof *error);
    cr_status status = cr_safetensors_parse(guarded, n, "w.safetensors", &st, error);
    ck_assert((st != NULL) == (status == CR_OK));
    if (st != NULL) {
        touch(st);
        cr_safetensors_close(st);
    }
    ck_assert_int_eq((int)(cr_alloc_live() - live), 0);
    cr_guard_free(guarded);
    return status;
}

/* Length, header, n_data bytes of data. */
static inline struct cr_buf assemble(const char *header, size_t header_bytes, size_t n_data)
{
    struct cr_buf file = {0};
    cr_buf_u64(&file, header_bytes);
    cr_buf_append(&file, header, header_bytes);
    cr_buf_fill(&file, 0, n_data);
    return file;
}

#define F32_AT(begin, end) "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[" begin "," end "]}"
#define HEADER(text) text, sizeof(text) - 1

#endif
