/* The PEFT directory of a prefix. */
#include <stdio.h>
#include <string.h>

#include "runtime/adapter/prefix_adapter.h"
#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"

#define TENSOR "prompt_embeddings"

static cr_status write_config(const struct cr_prefix *prefix, const struct cr_adapter_base *base, const char *dir,
                              struct cr_error *err)
{
    char *path = cr_path_join(dir, CR_PEFT_CONFIG);
    int heads = (int)(base->head_dim > 0 ? prefix->n_features / base->head_dim : 1), wide = (int)prefix->n_features;
    json_t *config =
        json_pack("{s:s,s:s,s:b,s:n,s:n,s:i,s:i,s:i,s:i,s:i,s:i,s:b}", "peft_type", "PREFIX_TUNING", "task_type",
                  "CAUSAL_LM", "inference_mode", 1, "base_model_name_or_path", "revision", "num_virtual_tokens",
                  (int)prefix->n_rows, "token_dim", wide, "num_transformer_submodules", 1, "num_attention_heads", heads,
                  "num_layers", (int)prefix->n_layers, "encoder_hidden_size", wide, "prefix_projection", 0);
    cr_status status = path == NULL || config == NULL ? cr_fail(err, CR_E_MEMORY, "out of memory for " CR_PEFT_CONFIG)
                                                      : cr_json_write(config, path, err);
    json_decref(config);
    cr_free(path);
    return status;
}

static cr_status write_table(const struct cr_adapter *adapter, const struct cr_adapter_base *base, const char *dir,
                             const char *method, const float *table, struct cr_error *err)
{
    const struct cr_prefix *prefix = adapter->prefix;
    const uint64_t shape[2] = {prefix->n_rows, (uint64_t)2 * prefix->n_layers * prefix->n_features};
    char *path = cr_path_join(dir, CR_PEFT_TENSORS);
    struct cr_safetensors_writer *w = cr_safetensors_writer_create();
    cr_status status = CR_OK;
    if (path == NULL || w == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "out of memory for writing a prefix");
        goto out;
    }
    CR_TRY_OUT(status, cr_peft_add_metadata(w, adapter, base, method, err));
    CR_TRY_OUT(status, cr_safetensors_writer_tensor(w, TENSOR, CR_ST_F32, 2, shape, table, err));
    status = cr_safetensors_writer_write(w, path, err);
out:
    cr_safetensors_writer_destroy(w);
    cr_free(path);
    return status;
}

cr_status cr_prefix_write_peft(const struct cr_adapter *adapter, const struct cr_adapter_base *base, const char *dir,
                               const char *method, struct cr_error *err)
{
    struct cr_adapter *centroid = NULL;
    float *table = cr_alloc(cr_prefix_table_floats(adapter->prefix), sizeof *table);
    cr_status status = CR_OK;
    if (table == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "out of memory for writing a prefix");
        goto out;
    }
    CR_TRY_OUT(status, cr_prefix_adapter_centroid(adapter, &centroid, err));
    CR_TRY_OUT(status, cr_prefix_to_table(centroid->prefix, base, 0, table, err));
    CR_TRY_OUT(status, write_table(centroid, base, dir, method, table, err));
    status = write_config(centroid->prefix, base, dir, err);
out:
    cr_adapter_destroy(centroid);
    cr_free(table);
    return status;
}

/* What the configuration says of the shape; a projection would be another parametrisation. */
static cr_status read_shape(const json_t *config, const struct cr_model *model, const char *label,
                            struct cr_prefix *shape, struct cr_error *err)
{
    bool projection = false;
    int64_t rows = 0, layers = 0, wide = 0;
    CR_TRY(cr_json_get_bool(config, "prefix_projection", false, &projection, label, err));
    if (projection) {
        return cr_fail(err, CR_E_INPUT, "%s: \"prefix_projection\" is true: only the table itself is supported", label);
    }
    CR_TRY(cr_json_get_int(config, "num_virtual_tokens", true, 1, CR_PREFIX_ROWS_MAX, &rows, label, err));
    CR_TRY(cr_json_get_int(config, "num_layers", true, 1, 4096, &layers, label, err));
    CR_TRY(cr_json_get_int(config, "token_dim", true, 1, 1 << 20, &wide, label, err));
    *shape = (struct cr_prefix){
        .n_layers = (uint32_t)layers, .n_vertices = 1, .n_rows = (uint32_t)rows, .n_features = (uint32_t)wide};
    if (model != NULL) {
        cr_prefix_shape_of(model, 1, (uint32_t)rows, 0, shape);
        if (layers != shape->n_layers || wide != shape->n_features) {
            return cr_fail(err, CR_E_INPUT,
                           "%s: a prefix of %d layers and keys of %d features, the model has %u and %u", label,
                           (int)layers, (int)wide, shape->n_layers, shape->n_features);
        }
    }
    return CR_OK;
}

static cr_status read_table(const struct cr_safetensors *st, const struct cr_adapter_base *base,
                            struct cr_adapter *adapter, struct cr_error *err)
{
    const struct cr_prefix *prefix = adapter->prefix;
    const char *label = cr_safetensors_label(st);
    const struct cr_st_tensor *t = cr_safetensors_find(st, TENSOR);
    uint64_t wide = (uint64_t)2 * prefix->n_layers * prefix->n_features;
    if (t == NULL || cr_safetensors_n(st) != 1 || t->n_dims != 2 || t->shape[0] != prefix->n_rows ||
        t->shape[1] != wide) {
        return cr_fail(err, CR_E_INPUT, "%s: one tensor " TENSOR " of shape %u x %llu expected", label, prefix->n_rows,
                       (unsigned long long)wide);
    }
    float *table = cr_alloc(cr_prefix_table_floats(prefix), sizeof *table);
    cr_status status = table != NULL ? cr_safetensors_read_f32(st, t, table, err)
                                     : cr_fail(err, CR_E_MEMORY, "%s: out of memory for a prefix", label);
    if (status == CR_OK) {
        status = cr_prefix_from_table(prefix, base, 0, table, err);
    }
    cr_free(table);
    return status;
}

cr_status cr_prefix_read_peft(const char *dir, const json_t *config, const struct cr_model *model, bool with_grads,
                              struct cr_adapter **out, struct cr_adapter_base *base, struct cr_error *err)
{
    struct cr_prefix shape;
    struct cr_safetensors *st = NULL;
    struct cr_adapter *adapter = NULL;
    struct cr_adapter_base found = {0};
    char label[CR_ESCAPE_BYTES];
    cr_escape(label, sizeof label, dir, strlen(dir));
    CR_TRY(read_shape(config, model, label, &shape, err));
    CR_TRY(cr_peft_open_tensors(dir, &st, err));
    cr_status status = CR_OK;
    CR_TRY_OUT(status, cr_peft_read_base(st, model, &found, err));
    CR_TRY_OUT(status, cr_prefix_adapter_create(&shape, with_grads, &adapter, err));
    CR_TRY_OUT(status, cr_peft_read_hash(st, &adapter->base_hash, err));
    cr_peft_read_method(st, adapter);
    status = read_table(st, &found, adapter, err);
out:
    if (status == CR_OK) {
        *base = found;
        *out = adapter;
    } else {
        cr_adapter_destroy(adapter);
    }
    cr_safetensors_close(st);
    return status;
}
