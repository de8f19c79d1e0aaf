#include "runtime/posterior/prefix_file.h"

#include <string.h>

#include "runtime/adapter/prefix_adapter.h"
#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/io/json.h"
#include "runtime/posterior/posterior_private.h"

#define VERTICES "prompt_embeddings.vertices"
#define HEAD "prompt_embeddings.head"

static struct cr_posterior_tensor vertices_of(const struct cr_prefix *prefix, const float *values)
{
    uint64_t wide = (uint64_t)2 * prefix->n_layers * prefix->n_features;
    return (struct cr_posterior_tensor){VERTICES, 3, {prefix->n_vertices, prefix->n_rows, wide}, values};
}

static struct cr_posterior_tensor head_of(const struct cr_prefix *prefix)
{
    return (struct cr_posterior_tensor){HEAD,
                                        3,
                                        {prefix->n_vertices, prefix->n_labels, prefix->n_embd},
                                        prefix->params + cr_prefix_rows_floats(prefix)};
}

cr_status cr_prefix_file_write(const struct cr_posterior_about *about, const char *dir, struct cr_error *err)
{
    const struct cr_prefix *prefix = about->adapter->prefix;
    struct cr_adapter_base base;
    size_t n = cr_prefix_table_floats(prefix);
    float *tables = cr_alloc(prefix->n_vertices * n, sizeof *tables);
    json_t *numbers = cr_prefix_shape_json(prefix);
    cr_status status = CR_OK;
    cr_adapter_base_of(about->model, &base);
    if (tables == NULL || numbers == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for writing a posterior");
        goto out;
    }
    cr_json_put(&numbers, "offset", json_integer(prefix->n_rows));
    cr_json_put(&numbers, "rotated", json_false());
    for (uint32_t j = 0; j < prefix->n_vertices; j++) {
        CR_TRY_OUT(status, cr_prefix_to_table(prefix, &base, j, tables + j * n, err));
    }
    const struct cr_posterior_tensor tensors[] = {vertices_of(prefix, tables), head_of(prefix)};
    status = cr_posterior_write_tensors(about, "prefix", numbers, tensors, prefix->n_labels > 0 ? 2 : 1, dir, err);
out:
    json_decref(numbers);
    cr_free(tables);
    return status;
}

static cr_status read_tensor(const struct cr_posterior_file *file, const struct cr_posterior_tensor *expected,
                             float *out, struct cr_error *err)
{
    return cr_posterior_read(file, expected->name, expected->n_dims, expected->shape, out, err);
}

static cr_status read_numbers(const struct cr_posterior_file *file, const struct cr_prefix *beside,
                              struct cr_prefix *shape, struct cr_error *err)
{
    const char *label = cr_safetensors_label(file->st);
    int64_t offset = 0;
    CR_TRY(cr_prefix_shape_read(file->numbers, NULL, label, shape, err));
    CR_TRY(cr_json_get_int(file->numbers, "offset", true, 0, INT32_MAX, &offset, label, err));
    if (offset != shape->n_rows || !json_is_false(json_object_get(file->numbers, "rotated"))) {
        return cr_fail(err, CR_E_INPUT,
                       "%s: tokens begin at position %lld behind %u rows, or keys are to be rotated: not supported",
                       label, (long long)offset, shape->n_rows);
    }
    bool same = shape->n_layers == beside->n_layers && shape->n_rows == beside->n_rows &&
                shape->n_features == beside->n_features && (beside->n_embd == 0 || shape->n_embd == beside->n_embd);
    return same ? CR_OK
                : cr_fail(err, CR_E_INPUT,
                          "%s: %u layers, %u rows, %u features, width %u: not those of the adapter "
                          "beside it or of the model",
                          label, shape->n_layers, shape->n_rows, shape->n_features, shape->n_embd);
}

static cr_status read_vertices(const struct cr_posterior_file *file, const struct cr_adapter_base *base,
                               struct cr_adapter *adapter, struct cr_error *err)
{
    struct cr_prefix *prefix = adapter->prefix;
    struct cr_posterior_tensor vertices = vertices_of(prefix, NULL), head = head_of(prefix);
    size_t n = cr_prefix_table_floats(prefix), expected = prefix->n_labels > 0 ? 2 : 1;
    if (cr_safetensors_n(file->st) != expected) {
        return cr_fail(err, CR_E_INPUT, "%s: %zu tensors, %zu expected", cr_safetensors_label(file->st),
                       cr_safetensors_n(file->st), expected);
    }
    float *tables = cr_alloc(prefix->n_vertices * n, sizeof *tables);
    if (tables == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for reading a posterior");
    }
    cr_status status = read_tensor(file, &vertices, tables, err);
    for (uint32_t j = 0; status == CR_OK && j < prefix->n_vertices; j++) {
        status = cr_prefix_from_table(prefix, base, j, tables + j * n, err);
    }
    if (status == CR_OK && prefix->n_labels > 0) {
        status = read_tensor(file, &head, prefix->params + cr_prefix_rows_floats(prefix), err);
    }
    cr_free(tables);
    return status;
}

/* The directory's own table is the mean of the vertices. */
static cr_status check_centroid(const struct cr_posterior_file *file, const struct cr_adapter *made,
                                const struct cr_adapter *beside, struct cr_error *err)
{
    struct cr_adapter *centroid = NULL;
    CR_TRY(cr_prefix_adapter_centroid(made, &centroid, err));
    bool same = memcmp(centroid->params, beside->params, cr_prefix_rows_floats(beside->prefix) * sizeof(float)) == 0;
    cr_adapter_destroy(centroid);
    return same ? CR_OK
                : cr_fail(err, CR_E_INPUT, "%s: the mean of its vertices is not the adapter beside it",
                          cr_safetensors_label(file->st));
}

cr_status cr_prefix_file_read(const char *dir, const struct cr_adapter_base *base, struct cr_adapter **adapter,
                              struct cr_error *err)
{
    struct cr_posterior_file file;
    struct cr_prefix shape;
    struct cr_adapter *made = NULL, *beside = *adapter;
    CR_TRY(cr_posterior_file_open(dir, beside, &file, err));
    cr_status status = CR_OK;
    CR_TRY_OUT(status, read_numbers(&file, beside->prefix, &shape, err));
    CR_TRY_OUT(status, cr_prefix_adapter_create(&shape, false, &made, err));
    CR_TRY_OUT(status, read_vertices(&file, base, made, err));
    CR_TRY_OUT(status, check_centroid(&file, made, beside, err));
    made->base_hash = beside->base_hash;
    memcpy(made->method, beside->method, sizeof made->method);
    *adapter = made;
    made = beside;
out:
    cr_adapter_destroy(made);
    cr_posterior_file_close(&file);
    return status;
}
