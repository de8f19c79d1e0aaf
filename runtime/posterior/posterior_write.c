/* Writing posterior.safetensors. */
#include "runtime/posterior/posterior_private.h"

#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/core/error.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "runtime/io/json.h"

static cr_status add_label_rows(struct cr_safetensors_writer *w, const struct cr_adapter *adapter,
                                const struct cr_posterior_vector *vector, struct cr_error *err)
{
    char name[160];
    uint64_t shape[2] = {adapter->n_labels, adapter->n_embd};
    cr_posterior_label_rows_name(name, sizeof name, vector->suffix);
    return adapter->n_labels > 0 ? cr_safetensors_writer_tensor(w, name, CR_ST_F32, 2, shape,
                                                                vector->values + cr_adapter_rows_begin(adapter), err)
                                 : CR_OK;
}

static cr_status add_vector(struct cr_safetensors_writer *w, const struct cr_adapter *adapter,
                            const struct cr_adapter_base *base, const struct cr_posterior_vector *vector, float **room,
                            struct cr_error *err)
{
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        const struct cr_lora *lora = &adapter->slots[i];
        for (int part = 0; part < 2 && lora->rank > 0; part++) {
            char name[160];
            uint64_t shape[2];
            const float *values = vector->values + cr_posterior_matrix_begin(adapter, i, part);
            cr_posterior_tensor_name(name, sizeof name, i, part, vector->suffix);
            cr_posterior_matrix_shape(lora, part, shape);
            if (cr_posterior_reordered(base, i, part)) {
                cr_rows_gguf_to_hf(*room, values, lora->n_out, lora->rank, base->head_dim);
                values = *room;
                *room += (size_t)lora->n_out * lora->rank;
            }
            CR_TRY(cr_safetensors_writer_tensor(w, name, CR_ST_F32, 2, shape, values, err));
        }
    }
    return add_label_rows(w, adapter, vector, err);
}

/* One matrix of all rows. room: where it stands together until the file is written; moves on behind it. */
static cr_status add_row_matrix(struct cr_safetensors_writer *w, const struct cr_posterior_rows *rows, size_t begin,
                                const char *name, const uint64_t matrix[2], size_t head_dim, bool moves,
                                uint16_t **room, struct cr_error *err)
{
    uint64_t shape[3] = {rows->n_rows, matrix[0], matrix[1]};
    uint16_t *at = *room;
    for (uint32_t k = 0; k < rows->n_rows; k++) {
        uint16_t *from = (uint16_t *)(uintptr_t)rows->values + k * rows->stride + begin;
        cr_posterior_move_rows(*room, from, matrix, head_dim, moves, true);
        *room += matrix[0] * matrix[1];
    }
    return cr_safetensors_writer_tensor(w, name, CR_ST_BF16, 3, shape, at, err);
}

static cr_status add_rows(struct cr_safetensors_writer *w, const struct cr_adapter *adapter,
                          const struct cr_adapter_base *base, const struct cr_posterior_rows *rows, uint16_t *room,
                          struct cr_error *err)
{
    char name[160];
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        const struct cr_lora *lora = &adapter->slots[i];
        for (int part = 0; part < 2 && lora->rank > 0; part++) {
            uint64_t shape[2];
            cr_posterior_matrix_shape(lora, part, shape);
            cr_posterior_tensor_name(name, sizeof name, i, part, rows->suffix);
            CR_TRY(add_row_matrix(w, rows, cr_posterior_matrix_begin(adapter, i, part), name, shape, base->head_dim,
                                  cr_posterior_reordered(base, i, part), &room, err));
        }
    }
    if (adapter->n_labels == 0) {
        return CR_OK;
    }
    uint64_t shape[2] = {adapter->n_labels, adapter->n_embd};
    cr_posterior_label_rows_name(name, sizeof name, rows->suffix);
    return add_row_matrix(w, rows, cr_adapter_rows_begin(adapter), name, shape, base->head_dim, false, &room, err);
}

/* A list as text: projections, or label tokens. */
static cr_status add_lists(struct cr_safetensors_writer *w, const struct cr_posterior_about *about,
                           struct cr_error *err)
{
    struct cr_buf targets = {0}, labels = {0};
    for (int p = 0; p < CR_N_PROJ; p++) {
        if ((about->adapter->targets >> p & 1) != 0) {
            cr_buf_printf(&targets, "%s%s", targets.n > 0 ? "," : "", cr_proj_hf_name((enum cr_proj)p));
        }
    }
    for (uint32_t i = 0; i < about->n_labels; i++) {
        cr_buf_printf(&labels, "%s%d", i > 0 ? "," : "", (int)about->label_ids[i]);
    }
    cr_status status = targets.failed || labels.failed ? cr_fail(err, CR_E_MEMORY, "no memory for metadata") : CR_OK;
    if (status == CR_OK && targets.n > 0) {
        status = cr_safetensors_writer_metadata(w, "credence.targets", targets.data, err);
    }
    if (status == CR_OK && about->n_labels > 0) {
        status = cr_safetensors_writer_metadata(w, CR_KEY_LABELS, labels.data, err);
    }
    cr_buf_free(&targets);
    cr_buf_free(&labels);
    return status;
}

static cr_status add_json(struct cr_safetensors_writer *w, const char *key, const json_t *value, struct cr_error *err)
{
    char *text = cr_json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    if (text == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for metadata");
    }
    cr_status status = cr_safetensors_writer_metadata(w, key, text, err);
    cr_free(text);
    return status;
}

static cr_status add_number(struct cr_safetensors_writer *w, const char *key, double value, struct cr_error *err)
{
    json_t *number = json_real(value);
    cr_status status = add_json(w, key, number, err);
    json_decref(number);
    return status;
}

static cr_status add_metadata(struct cr_safetensors_writer *w, const struct cr_posterior_about *about,
                              const struct cr_adapter_base *base, const char *method, const json_t *numbers,
                              struct cr_error *err)
{
    const struct cr_adapter *adapter = about->adapter;
    char hex[17], text[24];
    CR_TRY(cr_safetensors_writer_metadata(w, "format", "pt", err));
    CR_TRY(cr_safetensors_writer_metadata(w, CR_KEY_METHOD, method, err));
    CR_TRY(cr_safetensors_writer_metadata(w, "credence.version", CREDENCE_VERSION, err));
    CR_TRY(cr_safetensors_writer_metadata(w, CR_KEY_ARCHITECTURE, base->architecture, err));
    snprintf(text, sizeof text, "%u", base->head_dim);
    CR_TRY(cr_safetensors_writer_metadata(w, CR_KEY_HEAD_DIM, text, err));
    if (adapter->base_hash != 0) {
        CR_TRY(cr_safetensors_writer_metadata(w, CR_KEY_BASE_HASH, cr_hex_64(hex, adapter->base_hash), err));
    }
    if (adapter->prefix == NULL) {
        snprintf(text, sizeof text, "%u", adapter->rank);
        CR_TRY(cr_safetensors_writer_metadata(w, "credence.rank", text, err));
        CR_TRY(add_number(w, "credence.alpha", adapter->alpha, err));
    }
    const char *head = adapter->prefix != NULL && adapter->prefix->n_labels > 0 ? "vertices"
                       : adapter->n_labels == 0                                 ? "frozen"
                       : strcmp(method, "ensemble") == 0                        ? "members"
                                                                                : "trained";
    CR_TRY(cr_safetensors_writer_metadata(w, "credence.head", head, err));
    CR_TRY(cr_safetensors_writer_metadata(w, "credence.template", about->template_name, err));
    CR_TRY(cr_safetensors_writer_metadata(w, "credence.tokenizer_xxh3", cr_hex_64(hex, about->tokenizer_hash), err));
    CR_TRY(add_lists(w, about, err));
    return add_json(w, CR_KEY_NUMBERS, numbers, err);
}

cr_status cr_posterior_write(const struct cr_posterior_about *about, const char *method, const json_t *numbers,
                             const struct cr_posterior_vector *vectors, size_t n_vectors,
                             const struct cr_posterior_rows *rows, const char *dir, struct cr_error *err)
{
    struct cr_posterior_content content = {
        .method = method, .numbers = numbers, .vectors = vectors, .n_vectors = n_vectors, .rows = rows};
    return cr_posterior_write_content(about, &content, dir, err);
}

cr_status cr_posterior_write_content(const struct cr_posterior_about *about, const struct cr_posterior_content *content,
                                     const char *dir, struct cr_error *err)
{
    const struct cr_posterior_rows *rows = content->rows;
    size_t n_vectors = content->n_vectors, n_sides = 0;
    for (size_t i = 0; i < content->n_sides; i++) {
        n_sides += cr_posterior_sides_floats(about->adapter, &content->sides[i]);
    }
    cr_status status = CR_OK;
    struct cr_adapter_base base;
    cr_adapter_base_of(about->model, &base);
    char *path = cr_path_join(dir, CR_POSTERIOR_FILE);
    float *room = cr_alloc(n_vectors * cr_adapter_reordered_floats(about->adapter, &base) + n_sides, sizeof *room);
    float *at = room;
    size_t n_rows = rows != NULL ? rows->n_rows : 0;
    uint16_t *rows_room = cr_alloc(n_rows * about->adapter->n_params, sizeof *rows_room);
    struct cr_safetensors_writer *w = cr_safetensors_writer_create();
    if (path == NULL || room == NULL || rows_room == NULL || w == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for writing a posterior");
        goto out;
    }
    CR_TRY_OUT(status, add_metadata(w, about, &base, content->method, content->numbers, err));
    for (size_t v = 0; v < n_vectors; v++) {
        CR_TRY_OUT(status, add_vector(w, about->adapter, &base, &content->vectors[v], &at, err));
    }
    for (size_t i = 0; i < content->n_sides; i++) {
        CR_TRY_OUT(status, cr_posterior_add_sides(w, about->adapter, &base, &content->sides[i], at, err));
        at += cr_posterior_sides_floats(about->adapter, &content->sides[i]);
    }
    if (rows != NULL) {
        CR_TRY_OUT(status, add_rows(w, about->adapter, &base, rows, rows_room, err));
    }
    status = cr_safetensors_writer_write(w, path, err);
out:
    cr_safetensors_writer_destroy(w);
    cr_free(room);
    cr_free(rows_room);
    cr_free(path);
    return status;
}

cr_status cr_posterior_write_tensors(const struct cr_posterior_about *about, const char *method, const json_t *numbers,
                                     const struct cr_posterior_tensor *tensors, size_t n, const char *dir,
                                     struct cr_error *err)
{
    cr_status status = CR_OK;
    struct cr_adapter_base base;
    cr_adapter_base_of(about->model, &base);
    char *path = cr_path_join(dir, CR_POSTERIOR_FILE);
    struct cr_safetensors_writer *w = cr_safetensors_writer_create();
    if (path == NULL || w == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for writing a posterior");
        goto out;
    }
    CR_TRY_OUT(status, add_metadata(w, about, &base, method, numbers, err));
    for (size_t i = 0; i < n; i++) {
        const struct cr_posterior_tensor *t = &tensors[i];
        CR_TRY_OUT(status, cr_safetensors_writer_tensor(w, t->name, CR_ST_F32, t->n_dims, t->shape, t->values, err));
    }
    status = cr_safetensors_writer_write(w, path, err);
out:
    cr_safetensors_writer_destroy(w);
    cr_free(path);
    return status;
}
