#include "runtime/io/gguf_write.h"

#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/io/file.h"
#include "runtime/io/gguf_private.h"
#include "runtime/io/hash.h"

struct record {
    const void *data; /* borrowed */
    size_t bytes;
};

/* Records and pairs are kept as the bytes of the file; `seen` holds the digests of the names for duplicate checks
 * (a clash of two 64-bit digests among at most 2^16 names would need about 2^32 tries). */
struct cr_gguf_writer {
    struct cr_buf pairs, tensors, records, seen_keys, seen_tensors;
    uint64_t n_kv, n_tensors, data_bytes;
};

static const uint32_t alignment = CR_GGUF_DEFAULT_ALIGNMENT;

struct cr_gguf_writer *cr_gguf_writer_create(void)
{
    return cr_zalloc(1, sizeof(struct cr_gguf_writer));
}

void cr_gguf_writer_destroy(struct cr_gguf_writer *w)
{
    if (w == NULL) {
        return;
    }
    cr_buf_free(&w->pairs);
    cr_buf_free(&w->tensors);
    cr_buf_free(&w->records);
    cr_buf_free(&w->seen_keys);
    cr_buf_free(&w->seen_tensors);
    cr_free(w);
}

static cr_status no_memory(struct cr_error *err)
{
    return cr_fail(err, CR_E_MEMORY, "no memory to build a GGUF file");
}

/* Refuses a name that is empty, too long or seen before, else remembers it. */
static cr_status check_name(struct cr_buf *seen, const char *kind, const char *name, size_t max, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    size_t n = strlen(name);
    if (n == 0 || n > max) {
        return cr_fail(err, CR_E_USAGE, "GGUF %s \"%s\": name of %zu bytes, expected 1 to %zu", kind,
                       cr_escape(shown, sizeof shown, name, n), n, max);
    }
    uint64_t digest = cr_xxh3_64(name, n);
    for (size_t i = 0; i < seen->n; i += sizeof digest) {
        if (memcmp(seen->data + i, &digest, sizeof digest) == 0) {
            return cr_fail(err, CR_E_USAGE, "GGUF %s \"%s\" added twice", kind,
                           cr_escape(shown, sizeof shown, name, n));
        }
    }
    cr_buf_append(seen, &digest, sizeof digest);
    return seen->failed ? no_memory(err) : CR_OK;
}

static void put_string(struct cr_buf *buf, const char *text, size_t n)
{
    cr_buf_u64(buf, n);
    cr_buf_append(buf, text, n);
}

static cr_status begin_pair(struct cr_gguf_writer *w, const char *key, enum cr_gguf_type type, struct cr_error *err)
{
    if (w->n_kv >= CR_GGUF_MAX_KV) {
        return cr_fail(err, CR_E_USAGE, "GGUF with more than %u keys", CR_GGUF_MAX_KV);
    }
    CR_TRY(check_name(&w->seen_keys, "key", key, CR_GGUF_MAX_KEY_BYTES, err));
    put_string(&w->pairs, key, strlen(key));
    cr_buf_u32(&w->pairs, (uint32_t)type);
    w->n_kv++;
    return CR_OK;
}

static cr_status end_pair(struct cr_gguf_writer *w, struct cr_error *err)
{
    return w->pairs.failed ? no_memory(err) : CR_OK;
}

cr_status cr_gguf_writer_kv_u32(struct cr_gguf_writer *w, const char *key, uint32_t value, struct cr_error *err)
{
    if (strcmp(key, "general.alignment") == 0 && value != alignment) {
        return cr_fail(err, CR_E_USAGE, "GGUF key \"general.alignment\" is %u, expected %u", value, alignment);
    }
    CR_TRY(begin_pair(w, key, CR_GGUF_U32, err));
    cr_buf_u32(&w->pairs, value);
    return end_pair(w, err);
}

cr_status cr_gguf_writer_kv_f32(struct cr_gguf_writer *w, const char *key, float value, struct cr_error *err)
{
    CR_TRY(begin_pair(w, key, CR_GGUF_F32, err));
    cr_buf_f32(&w->pairs, value);
    return end_pair(w, err);
}

cr_status cr_gguf_writer_kv_strn(struct cr_gguf_writer *w, const char *key, const char *value, size_t n,
                                 struct cr_error *err)
{
    CR_TRY(begin_pair(w, key, CR_GGUF_STRING, err));
    put_string(&w->pairs, value, n);
    return end_pair(w, err);
}

cr_status cr_gguf_writer_kv_str(struct cr_gguf_writer *w, const char *key, const char *value, struct cr_error *err)
{
    return cr_gguf_writer_kv_strn(w, key, value, strlen(value), err);
}

static cr_status begin_array(struct cr_gguf_writer *w, const char *key, enum cr_gguf_type item_type, size_t n,
                             struct cr_error *err)
{
    CR_TRY(begin_pair(w, key, CR_GGUF_ARRAY, err));
    cr_buf_u32(&w->pairs, (uint32_t)item_type);
    cr_buf_u64(&w->pairs, n);
    return CR_OK;
}

cr_status cr_gguf_writer_kv_str_array(struct cr_gguf_writer *w, const char *key, const char *const *items, size_t n,
                                      struct cr_error *err)
{
    CR_TRY(begin_array(w, key, CR_GGUF_STRING, n, err));
    for (size_t i = 0; i < n; i++) {
        put_string(&w->pairs, items[i], strlen(items[i]));
    }
    return end_pair(w, err);
}

cr_status cr_gguf_writer_kv_f32_array(struct cr_gguf_writer *w, const char *key, const float *items, size_t n,
                                      struct cr_error *err)
{
    CR_TRY(begin_array(w, key, CR_GGUF_F32, n, err));
    for (size_t i = 0; i < n; i++) {
        cr_buf_f32(&w->pairs, items[i]);
    }
    return end_pair(w, err);
}

cr_status cr_gguf_writer_kv_i32_array(struct cr_gguf_writer *w, const char *key, const int32_t *items, size_t n,
                                      struct cr_error *err)
{
    CR_TRY(begin_array(w, key, CR_GGUF_I32, n, err));
    for (size_t i = 0; i < n; i++) {
        cr_buf_u32(&w->pairs, (uint32_t)items[i]);
    }
    return end_pair(w, err);
}

cr_status cr_gguf_writer_kv_raw(struct cr_gguf_writer *w, const char *key, enum cr_gguf_type type, const void *value,
                                size_t n, struct cr_error *err)
{
    CR_TRY(begin_pair(w, key, type, err));
    cr_buf_append(&w->pairs, value, n);
    return end_pair(w, err);
}

/* Bytes of the shape in blocks of the type; false when it does not fit. */
static bool shape_bytes(int type, uint32_t n_dims, const uint64_t *ne, uint64_t *bytes)
{
    const struct cr_qtype_info *info = cr_qtype_info(type);
    if (info == NULL || info->removed || n_dims < 1 || n_dims > 4 || ne[0] % info->block_values != 0) {
        return false;
    }
    *bytes = info->block_bytes;
    for (uint32_t d = 0; d < n_dims; d++) {
        uint64_t factor = d == 0 ? ne[0] / info->block_values : ne[d];
        if (ne[d] < 1 || ne[d] > CR_GGUF_MAX_DIMENSION || __builtin_mul_overflow(*bytes, factor, bytes)) {
            return false;
        }
    }
    return true;
}

cr_status cr_gguf_writer_tensor(struct cr_gguf_writer *w, const char *name, int type, uint32_t n_dims,
                                const uint64_t *ne, const void *data, size_t bytes, struct cr_error *err)
{
    uint64_t expected;
    char shown[CR_ESCAPE_BYTES];
    if (w->n_tensors >= CR_GGUF_MAX_TENSORS) {
        return cr_fail(err, CR_E_USAGE, "GGUF with more than %u tensors", CR_GGUF_MAX_TENSORS);
    }
    if (!shape_bytes(type, n_dims, ne, &expected) || expected != bytes) {
        return cr_fail(err, CR_E_USAGE, "GGUF tensor \"%s\": shape, type %d and %zu bytes do not fit together",
                       cr_escape(shown, sizeof shown, name, strlen(name)), type, bytes);
    }
    CR_TRY(check_name(&w->seen_tensors, "tensor", name, CR_GGUF_MAX_NAME_BYTES, err));
    struct record record = {data, bytes};
    cr_buf_append(&w->records, &record, sizeof record);
    put_string(&w->tensors, name, strlen(name));
    cr_buf_u32(&w->tensors, n_dims);
    for (uint32_t d = 0; d < n_dims; d++) {
        cr_buf_u64(&w->tensors, ne[d]);
    }
    cr_buf_u32(&w->tensors, (uint32_t)type);
    cr_buf_u64(&w->tensors, w->data_bytes);
    w->data_bytes += (bytes + alignment - 1) / alignment * alignment;
    w->n_tensors++;
    return w->tensors.failed || w->records.failed ? no_memory(err) : CR_OK;
}

/* Where the bytes go: a file or memory. */
struct sink {
    struct cr_file_writer *file;
    struct cr_buf *memory;
    struct cr_error *err;
};

static cr_status put(const struct sink *sink, const void *data, size_t n)
{
    if (sink->file != NULL) {
        return cr_file_writer_write(sink->file, data, n, sink->err);
    }
    cr_buf_append(sink->memory, data, n);
    return sink->memory->failed ? no_memory(sink->err) : CR_OK;
}

static cr_status put_all(const struct cr_gguf_writer *w, const struct sink *sink)
{
    static const char zeros[CR_GGUF_DEFAULT_ALIGNMENT];
    struct cr_buf head = {0};
    if (w->pairs.failed || w->tensors.failed || w->records.failed || w->seen_keys.failed || w->seen_tensors.failed) {
        return no_memory(sink->err);
    }
    cr_buf_puts(&head, "GGUF");
    cr_buf_u32(&head, 3);
    cr_buf_u64(&head, w->n_tensors);
    cr_buf_u64(&head, w->n_kv);
    cr_buf_append(&head, w->pairs.data, w->pairs.n);
    cr_buf_append(&head, w->tensors.data, w->tensors.n);
    cr_buf_fill(&head, 0, (alignment - head.n % alignment) % alignment);
    cr_status status = head.failed ? no_memory(sink->err) : put(sink, head.data, head.n);
    for (size_t i = 0; i < w->n_tensors && status == CR_OK; i++) {
        struct record record;
        memcpy(&record, w->records.data + i * sizeof record, sizeof record);
        status = put(sink, record.data, record.bytes);
        if (status == CR_OK) {
            status = put(sink, zeros, (alignment - record.bytes % alignment) % alignment);
        }
    }
    cr_buf_free(&head);
    return status;
}

cr_status cr_gguf_writer_write(const struct cr_gguf_writer *w, const char *path, struct cr_error *err)
{
    struct cr_file_writer file;
    CR_TRY(cr_file_writer_open(&file, path, err));
    cr_status status = put_all(w, &(struct sink){.file = &file, .err = err});
    if (status == CR_OK) {
        status = cr_file_writer_commit(&file, err);
    }
    cr_file_writer_abort(&file);
    return status;
}

cr_status cr_gguf_writer_to_memory(const struct cr_gguf_writer *w, uint8_t **data, size_t *n, struct cr_error *err)
{
    struct cr_buf memory = {0};
    cr_status status = put_all(w, &(struct sink){.memory = &memory, .err = err});
    size_t bytes = 0;
    char *taken = status == CR_OK ? cr_buf_take(&memory, &bytes) : NULL;
    cr_buf_free(&memory);
    if (status != CR_OK || taken == NULL) {
        return status != CR_OK ? status : no_memory(err);
    }
    *data = (uint8_t *)taken;
    *n = bytes;
    return CR_OK;
}
