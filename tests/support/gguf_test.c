#include "tests/support/gguf_test.h"

#include "runtime/core/buf.h"
#include "runtime/io/gguf_private.h"

cr_status cr_test_kv_bool(struct cr_gguf_writer *w, const char *key, bool value, struct cr_error *err)
{
    return cr_gguf_writer_kv_raw(w, key, CR_GGUF_BOOL, value ? "\1" : "\0", 1, err);
}

cr_status cr_test_kv_copy(struct cr_gguf_writer *w, const struct cr_gguf *from, size_t i, struct cr_error *err)
{
    struct cr_gguf_value v;
    const char *key = cr_gguf_key(from, i);
    cr_gguf_value_at(from, i, &v);
    if (v.type == CR_GGUF_STRING) {
        return cr_gguf_writer_kv_strn(w, key, (const char *)v.data, (size_t)v.n, err);
    }
    if (v.type != CR_GGUF_ARRAY) {
        return cr_gguf_writer_kv_raw(w, key, v.type, v.data, cr_gguf_item_bytes(v.type), err);
    }
    size_t bytes = (size_t)v.n * cr_gguf_item_bytes(v.item_type);
    if (v.item_type == CR_GGUF_STRING && v.n > 0) {
        size_t last;
        const char *text = cr_gguf_array_str(&v, v.n - 1, &last);
        bytes = (size_t)((const uint8_t *)text + last - v.data);
    }
    struct cr_buf raw = {0};
    cr_buf_u32(&raw, (uint32_t)v.item_type);
    cr_buf_u64(&raw, v.n);
    cr_buf_append(&raw, v.data, bytes);
    cr_status status = cr_gguf_writer_kv_raw(w, key, CR_GGUF_ARRAY, raw.data, raw.n, err);
    cr_buf_free(&raw);
    return status;
}
