#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/io/file.h"
#include "runtime/io/safetensors.h"

struct text_pair {
    char *key, *value; /* owned */
};

struct output {
    char *name; /* owned */
    enum cr_st_dtype dtype;
    uint32_t n_dims;
    uint64_t shape[CR_SAFETENSORS_MAX_DIMS];
    const void *data; /* borrowed */
    size_t bytes;
};

struct cr_safetensors_writer {
    struct text_pair *pairs;
    size_t n_pairs, pairs_room;
    struct output *tensors;
    size_t n, tensors_room;
};

struct cr_safetensors_writer *cr_safetensors_writer_create(void)
{
    return cr_zalloc(1, sizeof(struct cr_safetensors_writer));
}

void cr_safetensors_writer_destroy(struct cr_safetensors_writer *w)
{
    if (w == NULL) {
        return;
    }
    for (size_t i = 0; i < w->n_pairs; i++) {
        cr_free(w->pairs[i].key);
        cr_free(w->pairs[i].value);
    }
    for (size_t i = 0; i < w->n; i++) {
        cr_free(w->tensors[i].name);
    }
    cr_free(w->pairs);
    cr_free(w->tensors);
    cr_free(w);
}

static cr_status no_memory(struct cr_error *err)
{
    return cr_fail(err, CR_E_MEMORY, "no memory to build a safetensors file");
}

cr_status cr_safetensors_writer_metadata(struct cr_safetensors_writer *w, const char *key, const char *value,
                                         struct cr_error *err)
{
    struct text_pair *pairs = cr_grow(w->pairs, w->n_pairs, 1, &w->pairs_room, sizeof *pairs);
    if (pairs == NULL) {
        return no_memory(err);
    }
    w->pairs = pairs;
    struct text_pair pair = {cr_strdup(key), cr_strdup(value)};
    if (pair.key == NULL || pair.value == NULL) {
        cr_free(pair.key);
        cr_free(pair.value);
        return no_memory(err);
    }
    w->pairs[w->n_pairs++] = pair;
    return CR_OK;
}

static cr_status fail_name(struct cr_error *err, const char *name, const char *text)
{
    char shown[CR_ESCAPE_BYTES];
    return cr_fail(err, CR_E_USAGE, "safetensors: \"%s\" %s", cr_escape(shown, sizeof shown, name, strlen(name)), text);
}

cr_status cr_safetensors_writer_tensor(struct cr_safetensors_writer *w, const char *name, enum cr_st_dtype dtype,
                                       uint32_t n_dims, const uint64_t *shape, const void *data, struct cr_error *err)
{
    size_t name_bytes = strlen(name);
    if (name_bytes == 0 || name_bytes > CR_SAFETENSORS_MAX_NAME_BYTES || strcmp(name, "__metadata__") == 0) {
        return fail_name(err, name, "is no name for a tensor");
    }
    if (n_dims > CR_SAFETENSORS_MAX_DIMS) {
        return fail_name(err, name, "has more than 8 dimensions");
    }
    struct output t = {.dtype = dtype, .n_dims = n_dims, .data = data, .bytes = cr_st_dtype_bytes(dtype)};
    for (uint32_t d = 0; d < n_dims; d++) {
        t.shape[d] = shape[d];
        if (shape[d] > SIZE_MAX || !cr_mul_size(t.bytes, (size_t)shape[d], &t.bytes)) {
            return fail_name(err, name, "has a shape beyond the address space");
        }
    }
    struct output *tensors = cr_grow(w->tensors, w->n, 1, &w->tensors_room, sizeof *tensors);
    if (tensors == NULL) {
        return no_memory(err);
    }
    w->tensors = tensors;
    t.name = cr_strdup(name);
    if (t.name == NULL) {
        return no_memory(err);
    }
    w->tensors[w->n++] = t;
    return CR_OK;
}

static int compare_outputs(const void *a, const void *b)
{
    const struct output *x = a, *y = b;
    size_t x_bytes = cr_st_dtype_bytes(x->dtype), y_bytes = cr_st_dtype_bytes(y->dtype);
    if (x_bytes != y_bytes) {
        return x_bytes > y_bytes ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

static int compare_output_names(const void *a, const void *b)
{
    const struct output *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int compare_pairs(const void *a, const void *b)
{
    return strcmp(((const struct text_pair *)a)->key, ((const struct text_pair *)b)->key);
}

static cr_status check_unique(const struct cr_safetensors_writer *w, struct cr_error *err)
{
    for (size_t i = 1; i < w->n_pairs; i++) {
        if (strcmp(w->pairs[i - 1].key, w->pairs[i].key) == 0) {
            return fail_name(err, w->pairs[i].key, "is a metadata key added twice");
        }
    }
    const struct output **by_name = cr_alloc(w->n, sizeof *by_name);
    if (by_name == NULL) {
        return no_memory(err);
    }
    for (size_t i = 0; i < w->n; i++) {
        by_name[i] = &w->tensors[i];
    }
    if (w->n > 0) {
        qsort(by_name, w->n, sizeof *by_name, compare_output_names);
    }
    const char *twice = NULL;
    for (size_t i = 1; i < w->n && twice == NULL; i++) {
        twice = strcmp(by_name[i - 1]->name, by_name[i]->name) == 0 ? by_name[i]->name : NULL;
    }
    cr_free(by_name);
    return twice == NULL ? CR_OK : fail_name(err, twice, "is a tensor added twice");
}

static void put_metadata(const struct cr_safetensors_writer *w, struct cr_buf *head)
{
    cr_buf_puts(head, "\"__metadata__\":{");
    for (size_t i = 0; i < w->n_pairs; i++) {
        const struct text_pair *pair = &w->pairs[i];
        cr_buf_puts(head, i > 0 ? "," : "");
        cr_buf_json_string(head, pair->key, strlen(pair->key));
        cr_buf_putc(head, ':');
        cr_buf_json_string(head, pair->value, strlen(pair->value));
    }
    cr_buf_putc(head, '}');
}

/* Length, header and padding; sorts what will be written. */
static cr_status build_header(struct cr_safetensors_writer *w, struct cr_buf *head, struct cr_error *err)
{
    if (w->n_pairs > 0) {
        qsort(w->pairs, w->n_pairs, sizeof *w->pairs, compare_pairs);
    }
    if (w->n > 0) {
        qsort(w->tensors, w->n, sizeof *w->tensors, compare_outputs);
    }
    CR_TRY(check_unique(w, err));
    uint64_t at = 0;
    cr_buf_u64(head, 0);
    cr_buf_putc(head, '{');
    if (w->n_pairs > 0) {
        put_metadata(w, head);
    }
    for (size_t i = 0; i < w->n; i++) {
        const struct output *t = &w->tensors[i];
        cr_buf_puts(head, i > 0 || w->n_pairs > 0 ? "," : "");
        cr_buf_json_string(head, t->name, strlen(t->name));
        cr_buf_printf(head, ":{\"dtype\":\"%s\",\"shape\":[", cr_st_dtype_name(t->dtype));
        for (uint32_t d = 0; d < t->n_dims; d++) {
            cr_buf_printf(head, "%s%llu", d > 0 ? "," : "", (unsigned long long)t->shape[d]);
        }
        cr_buf_printf(head, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                      (unsigned long long)(at + t->bytes));
        at += t->bytes;
    }
    cr_buf_putc(head, '}');
    cr_buf_fill(head, ' ', (8 - head->n % 8) % 8);
    if (head->failed) {
        return no_memory(err);
    }
    uint64_t n = head->n - 8;
    if (n > CR_SAFETENSORS_MAX_HEADER) {
        return cr_fail(err, CR_E_USAGE, "safetensors header of %llu bytes, at most %llu allowed", (unsigned long long)n,
                       (unsigned long long)CR_SAFETENSORS_MAX_HEADER);
    }
    for (int i = 0; i < 8; i++) {
        head->data[i] = (char)(uint8_t)(n >> 8 * i);
    }
    return CR_OK;
}

cr_status cr_safetensors_writer_write(struct cr_safetensors_writer *w, const char *path, struct cr_error *err)
{
    struct cr_buf head = {0};
    struct cr_file_writer file = {0};
    cr_status status;
    CR_TRY_OUT(status, build_header(w, &head, err));
    CR_TRY_OUT(status, cr_file_writer_open(&file, path, err));
    CR_TRY_OUT(status, cr_file_writer_write(&file, head.data, head.n, err));
    for (size_t i = 0; i < w->n; i++) {
        CR_TRY_OUT(status, cr_file_writer_write(&file, w->tensors[i].data, w->tensors[i].bytes, err));
    }
    status = cr_file_writer_commit(&file, err);
out:
    cr_file_writer_abort(&file);
    cr_buf_free(&head);
    return status;
}

cr_status cr_safetensors_writer_to_memory(struct cr_safetensors_writer *w, uint8_t **data, size_t *n,
                                          struct cr_error *err)
{
    struct cr_buf memory = {0};
    cr_status status;
    CR_TRY_OUT(status, build_header(w, &memory, err));
    for (size_t i = 0; i < w->n; i++) {
        cr_buf_append(&memory, w->tensors[i].data, w->tensors[i].bytes);
    }
    size_t bytes = 0;
    char *taken = cr_buf_take(&memory, &bytes);
    if (taken == NULL) {
        status = no_memory(err);
        goto out;
    }
    *data = (uint8_t *)taken;
    *n = bytes;
out:
    cr_buf_free(&memory);
    return status;
}
