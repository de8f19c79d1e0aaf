#include "runtime/posterior/posterior_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/adapter/peft_config.h"
#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/core/error.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "runtime/io/json.h"

#define KEY_NUMBERS "credence.posterior"

void cr_posterior_tensor_name(char *out, size_t n, size_t slot, int part, const char *suffix)
{
    char module[96];
    cr_peft_module_name(module, sizeof module, (uint32_t)(slot / CR_N_PROJ), (enum cr_proj)(slot % CR_N_PROJ));
    snprintf(out, n, "base_model.model.%s.lora_%c.weight%s", module, part == 0 ? 'A' : 'B', suffix);
}

bool cr_posterior_reordered(const struct cr_adapter_base *base, size_t slot, int part)
{
    return part == 1 && cr_adapter_permutes(base, (enum cr_proj)(slot % CR_N_PROJ));
}

static size_t matrix_begin(const struct cr_adapter *adapter, size_t slot, int part)
{
    const struct cr_lora *lora = &adapter->slots[slot];
    return (size_t)((part == 0 ? lora->a : lora->b) - adapter->params);
}

static void matrix_shape(const struct cr_lora *lora, int part, uint64_t shape[2])
{
    shape[0] = part == 0 ? lora->rank : lora->n_out;
    shape[1] = part == 0 ? lora->n_in : lora->rank;
}

/* Floats of all reordered matrices of one vector. */
static size_t reordered_floats(const struct cr_adapter *adapter, const struct cr_adapter_base *base)
{
    size_t n = 0;
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        n += cr_posterior_reordered(base, i, 1) ? (size_t)adapter->slots[i].rank * adapter->slots[i].n_out : 0;
    }
    return n;
}

static void rows_name(char *out, size_t n, const char *suffix)
{
    snprintf(out, n, "base_model.model.lm_head.label_rows%s", suffix);
}

static cr_status add_label_rows(struct cr_safetensors_writer *w, const struct cr_adapter *adapter,
                                const struct cr_posterior_vector *vector, struct cr_error *err)
{
    char name[160];
    uint64_t shape[2] = {adapter->n_labels, adapter->n_embd};
    rows_name(name, sizeof name, vector->suffix);
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
            const float *values = vector->values + matrix_begin(adapter, i, part);
            cr_posterior_tensor_name(name, sizeof name, i, part, vector->suffix);
            matrix_shape(lora, part, shape);
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

/* Row of the GGUF order that stands at row r of the Hugging Face order (layout.h). */
static size_t source_row(size_t r, size_t head_dim, bool moves)
{
    size_t in = r % head_dim, half = head_dim / 2;
    return moves ? r - in + 2 * (in % half) + in / half : r;
}

/* One matrix of row k between memory and the file's order; `out` says the direction. */
static void move_rows(uint16_t *file, uint16_t *memory, const uint64_t shape[2], size_t head_dim, bool moves, bool out)
{
    for (size_t r = 0; r < shape[0]; r++) {
        uint16_t *here = memory + source_row(r, moves ? head_dim : 1, moves) * shape[1];
        uint16_t *there = file + r * shape[1];
        memcpy(out ? there : here, out ? here : there, shape[1] * sizeof *here);
    }
}

static cr_status add_rows(struct cr_safetensors_writer *w, const struct cr_adapter *adapter,
                          const struct cr_adapter_base *base, const struct cr_posterior_rows *rows, uint16_t *room,
                          struct cr_error *err)
{
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        const struct cr_lora *lora = &adapter->slots[i];
        for (int part = 0; part < 2 && lora->rank > 0; part++) {
            char name[160];
            uint64_t shape[3] = {rows->n_rows};
            uint16_t *at = room;
            matrix_shape(lora, part, shape + 1);
            cr_posterior_tensor_name(name, sizeof name, i, part, rows->suffix);
            for (uint32_t k = 0; k < rows->n_rows; k++) {
                uint16_t *from =
                    (uint16_t *)(uintptr_t)rows->values + k * rows->stride + matrix_begin(adapter, i, part);
                move_rows(room, from, shape + 1, base->head_dim, cr_posterior_reordered(base, i, part), true);
                room += shape[1] * shape[2];
            }
            CR_TRY(cr_safetensors_writer_tensor(w, name, CR_ST_BF16, 3, shape, at, err));
        }
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
        status = cr_safetensors_writer_metadata(w, "credence.labels", labels.data, err);
    }
    cr_buf_free(&targets);
    cr_buf_free(&labels);
    return status;
}

static cr_status add_json(struct cr_safetensors_writer *w, const char *key, const json_t *value, struct cr_error *err)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    if (text == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for metadata");
    }
    cr_status status = cr_safetensors_writer_metadata(w, key, text, err);
    free(text);
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
    bool own_head = adapter->prefix != NULL && adapter->prefix->n_labels > 0;
    CR_TRY(cr_safetensors_writer_metadata(w, "credence.head", own_head ? "vertices" : "frozen", err));
    CR_TRY(cr_safetensors_writer_metadata(w, "credence.template", about->template_name, err));
    CR_TRY(cr_safetensors_writer_metadata(w, "credence.tokenizer_xxh3", cr_hex_64(hex, about->tokenizer_hash), err));
    CR_TRY(add_lists(w, about, err));
    return add_json(w, KEY_NUMBERS, numbers, err);
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
    float *room = cr_alloc(n_vectors * reordered_floats(about->adapter, &base) + n_sides, sizeof *room);
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

bool cr_posterior_present(const char *dir)
{
    char *path = cr_path_join(dir, CR_POSTERIOR_FILE);
    bool present = path != NULL && access(path, F_OK) == 0;
    cr_free(path);
    return present;
}

/* Method and base, as both files record them. */
static cr_status check_identity(struct cr_posterior_file *file, const struct cr_adapter *adapter, struct cr_error *err)
{
    const char *label = cr_safetensors_label(file->st);
    char shown[CR_ESCAPE_BYTES];
    size_t n = 0;
    const char *method = cr_safetensors_metadata(file->st, CR_KEY_METHOD, &n);
    if (method == NULL || n == 0 || n >= sizeof file->method || strlen(method) != n) {
        return cr_fail(err, CR_E_INPUT, "%s: metadata %s missing or too long", label, CR_KEY_METHOD);
    }
    memcpy(file->method, method, n + 1);
    if (strcmp(file->method, adapter->method) != 0) {
        return cr_fail(err, CR_E_INPUT, "%s: method is \"%s\", the adapter beside it is of \"%s\"", label,
                       cr_escape(shown, sizeof shown, method, n), adapter->method);
    }
    const char *hash = cr_safetensors_metadata(file->st, CR_KEY_BASE_HASH, &n);
    uint64_t value = 0;
    if (hash != NULL) {
        CR_TRY(cr_base_hash_parse(hash, n, label, &value, err));
    }
    if (value != adapter->base_hash) {
        char recorded[17], other[17];
        cr_hex_64(recorded, value);
        cr_hex_64(other, adapter->base_hash);
        return cr_fail(err, CR_E_INPUT, "%s: made on base %s, the adapter beside it on %s", label, recorded, other);
    }
    return CR_OK;
}

cr_status cr_posterior_file_open(const char *dir, const struct cr_adapter *adapter, struct cr_posterior_file *file,
                                 struct cr_error *err)
{
    struct cr_posterior_file made = {0};
    char *path = cr_path_join(dir, CR_POSTERIOR_FILE);
    cr_status status =
        path != NULL ? cr_safetensors_open(path, &made.st, err) : cr_fail(err, CR_E_MEMORY, "no memory for a path");
    cr_free(path);
    if (status != CR_OK) {
        return status;
    }
    size_t n = 0;
    const char *numbers = cr_safetensors_metadata(made.st, KEY_NUMBERS, &n);
    const char *label = cr_safetensors_label(made.st);
    CR_TRY_OUT(status, check_identity(&made, adapter, err));
    if (numbers == NULL) {
        status = cr_fail(err, CR_E_INPUT, "%s: metadata %s missing", label, KEY_NUMBERS);
        goto out;
    }
    CR_TRY_OUT(status, cr_json_parse(numbers, n, label, &made.numbers, err));
    if (!json_is_object(made.numbers)) {
        status = cr_fail(err, CR_E_INPUT, "%s: metadata %s: an object expected", label, KEY_NUMBERS);
    }
out:
    if (status != CR_OK) {
        cr_posterior_file_close(&made);
    } else {
        *file = made;
    }
    return status;
}

cr_status cr_posterior_file_check(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                                  size_t n_vectors, struct cr_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        n += adapter->slots[i].rank > 0 ? 2 * n_vectors : 0;
    }
    n += adapter->n_labels > 0 ? n_vectors : 0;
    return cr_safetensors_n(file->st) == n
               ? CR_OK
               : cr_fail(err, CR_E_INPUT, "%s: %zu tensors, %zu expected for the adapter beside it",
                         cr_safetensors_label(file->st), cr_safetensors_n(file->st), n);
}

void cr_posterior_file_close(struct cr_posterior_file *file)
{
    cr_safetensors_close(file->st);
    json_decref(file->numbers);
    memset(file, 0, sizeof *file);
}

static cr_status read_matrix(const struct cr_posterior_file *file, const struct cr_adapter *adapter, size_t slot,
                             int part, const char *suffix, float *out, struct cr_error *err)
{
    char name[160];
    uint64_t shape[2];
    const char *label = cr_safetensors_label(file->st);
    cr_posterior_tensor_name(name, sizeof name, slot, part, suffix);
    matrix_shape(&adapter->slots[slot], part, shape);
    const struct cr_st_tensor *t = cr_safetensors_find(file->st, name);
    if (t == NULL) {
        return cr_fail(err, CR_E_INPUT, "%s: no tensor %s, which the adapter beside it needs", label, name);
    }
    if (t->n_dims != 2 || t->shape[0] != shape[0] || t->shape[1] != shape[1]) {
        return cr_fail(err, CR_E_INPUT, "%s: tensor %s has shape %llu x %llu, the adapter beside it %llu x %llu", label,
                       name, t->n_dims > 0 ? (unsigned long long)t->shape[0] : 0,
                       t->n_dims > 1 ? (unsigned long long)t->shape[1] : 0, (unsigned long long)shape[0],
                       (unsigned long long)shape[1]);
    }
    return cr_safetensors_read_f32(file->st, t, out, err);
}

cr_status cr_posterior_file_add_rows(const struct cr_posterior_file *file, const char *suffix,
                                     struct cr_adapter **adapter, struct cr_error *err)
{
    char name[160];
    rows_name(name, sizeof name, suffix);
    const struct cr_st_tensor *t = cr_safetensors_find(file->st, name);
    if (t == NULL) {
        return CR_OK;
    }
    if (t->n_dims != 2 || t->shape[0] > UINT16_MAX || t->shape[1] > UINT32_MAX) {
        return cr_fail(err, CR_E_INPUT, "%s: tensor %s has no shape of label rows", cr_safetensors_label(file->st),
                       name);
    }
    return cr_adapter_add_rows(adapter, (uint32_t)t->shape[0], (uint32_t)t->shape[1], err);
}

static cr_status read_label_rows(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                                 const char *suffix, float *values, struct cr_error *err)
{
    char name[160];
    if (adapter->n_labels == 0) {
        return CR_OK;
    }
    rows_name(name, sizeof name, suffix);
    const struct cr_st_tensor *t = cr_safetensors_find(file->st, name);
    if (t == NULL || t->n_dims != 2 || t->shape[0] != adapter->n_labels || t->shape[1] != adapter->n_embd) {
        return cr_fail(err, CR_E_INPUT, "%s: no tensor %s of shape %u x %u", cr_safetensors_label(file->st), name,
                       adapter->n_labels, adapter->n_embd);
    }
    return cr_safetensors_read_f32(file->st, t, values + cr_adapter_rows_begin(adapter), err);
}

cr_status cr_posterior_file_vector(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                                   const struct cr_adapter_base *base, const char *suffix, float *values,
                                   struct cr_error *err)
{
    cr_status status = CR_OK;
    float *rows = cr_alloc(reordered_floats(adapter, base), sizeof *rows); /* more than any one needs */
    if (rows == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for reading a posterior");
    }
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        const struct cr_lora *lora = &adapter->slots[i];
        for (int part = 0; part < 2 && lora->rank > 0; part++) {
            float *out = values + matrix_begin(adapter, i, part);
            bool moves = cr_posterior_reordered(base, i, part);
            if (moves && (base->head_dim == 0 || lora->n_out % base->head_dim != 0)) {
                status = cr_fail(err, CR_E_INPUT, "%s: heads of %u rows do not fit %u rows",
                                 cr_safetensors_label(file->st), base->head_dim, lora->n_out);
                goto out;
            }
            CR_TRY_OUT(status, read_matrix(file, adapter, i, part, suffix, moves ? rows : out, err));
            if (moves) {
                cr_rows_hf_to_gguf(out, rows, lora->n_out, lora->rank, base->head_dim);
            }
        }
    }
    status = read_label_rows(file, adapter, suffix, values, err);
out:
    cr_free(rows);
    return status;
}

cr_status cr_posterior_file_mean(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                                 const struct cr_adapter_base *base, float *values, struct cr_error *err)
{
    memcpy(values, adapter->params, adapter->n_params * sizeof *values); /* for the gaps */
    CR_TRY(cr_posterior_file_vector(file, adapter, base, ".mean", values, err));
    return memcmp(values, adapter->params, adapter->n_params * sizeof *values) == 0
               ? CR_OK
               : cr_fail(err, CR_E_INPUT, "%s: its means are not the adapter beside it",
                         cr_safetensors_label(file->st));
}

static cr_status check_rows(const struct cr_posterior_file *file, const struct cr_st_tensor *t, const char *name,
                            const uint64_t shape[3], struct cr_error *err)
{
    const char *label = cr_safetensors_label(file->st);
    if (t == NULL) {
        return cr_fail(err, CR_E_INPUT, "%s: no tensor %s, which the adapter beside it needs", label, name);
    }
    bool good = t->dtype == CR_ST_BF16 && t->n_dims == 3;
    for (int d = 0; d < 3 && good; d++) {
        good = t->shape[d] == shape[d];
    }
    return good ? CR_OK
                : cr_fail(err, CR_E_INPUT, "%s: tensor %s is %s of another shape, BF16 %llu x %llu x %llu expected",
                          label, name, cr_st_dtype_name(t->dtype), (unsigned long long)shape[0],
                          (unsigned long long)shape[1], (unsigned long long)shape[2]);
}

cr_status cr_posterior_file_rows(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                                 const struct cr_adapter_base *base, const char *suffix, uint32_t n_rows,
                                 uint16_t *values, size_t stride, struct cr_error *err)
{
    cr_status status = CR_OK;
    uint16_t *room = cr_alloc(adapter->n_params, sizeof *room); /* more than any matrix */
    if (room == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for reading a posterior");
    }
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        const struct cr_lora *lora = &adapter->slots[i];
        for (int part = 0; part < 2 && lora->rank > 0; part++) {
            char name[160];
            uint64_t shape[3] = {n_rows};
            matrix_shape(lora, part, shape + 1);
            cr_posterior_tensor_name(name, sizeof name, i, part, suffix);
            const struct cr_st_tensor *t = cr_safetensors_find(file->st, name);
            CR_TRY_OUT(status, check_rows(file, t, name, shape, err));
            size_t n = (size_t)(shape[1] * shape[2]);
            for (uint32_t k = 0; k < n_rows; k++) {
                uint16_t *to = values + k * stride + matrix_begin(adapter, i, part);
                memcpy(room, (const char *)t->data + k * n * sizeof *room, n * sizeof *room);
                move_rows(room, to, shape + 1, base->head_dim, cr_posterior_reordered(base, i, part), false);
            }
        }
    }
out:
    cr_free(room);
    return status;
}
