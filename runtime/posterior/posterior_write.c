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

static cr_status add_vector(struct cr_safetensors_writer *w, const struct cr_adapter *adapter,
                            const struct cr_adapter_base *base, const struct cr_posterior_vector *vector, float **room,
                            struct cr_error *err)
{
    struct cr_posterior_matrix m = {
        .adapter = adapter, .base = base, .suffix = vector->suffix, .with_label_rows = true};
    while (cr_posterior_next(&m)) {
        const float *values = vector->values + m.begin;
        if (m.moves) {
            cr_rows_gguf_to_hf(*room, values, (size_t)m.shape[0], (size_t)m.shape[1], base->head_dim);
            values = *room;
            *room += m.shape[0] * m.shape[1];
        }
        CR_TRY(cr_safetensors_writer_tensor(w, m.name, CR_ST_F32, 2, m.shape, values, err));
    }
    return CR_OK;
}

/* room: where the rows of a matrix stand together until the file is written. */
static cr_status add_rows(struct cr_safetensors_writer *w, const struct cr_adapter *adapter,
                          const struct cr_adapter_base *base, const struct cr_posterior_rows *rows, uint16_t *room,
                          struct cr_error *err)
{
    struct cr_posterior_matrix m = {.adapter = adapter, .base = base, .suffix = rows->suffix, .with_label_rows = true};
    while (cr_posterior_next(&m)) {
        uint64_t shape[3] = {rows->n_rows, m.shape[0], m.shape[1]};
        uint16_t *at = room;
        for (uint32_t k = 0; k < rows->n_rows; k++) {
            uint16_t *from = (uint16_t *)(uintptr_t)rows->values + k * rows->stride + m.begin;
            cr_posterior_move_rows(room, from, m.shape, base->head_dim, m.moves, true);
            room += m.shape[0] * m.shape[1];
        }
        CR_TRY(cr_safetensors_writer_tensor(w, m.name, CR_ST_BF16, 3, shape, at, err));
    }
    return CR_OK;
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
