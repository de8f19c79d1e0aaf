/* Opening and reading posterior.safetensors. */
#include "runtime/posterior/posterior_private.h"

#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "runtime/io/json.h"

cr_status cr_posterior_present(const char *dir, bool *present, struct cr_error *err)
{
    return cr_dir_has(dir, CR_POSTERIOR_FILE, present, err);
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
    const char *numbers = cr_safetensors_metadata(made.st, CR_KEY_NUMBERS, &n);
    const char *label = cr_safetensors_label(made.st);
    CR_TRY_OUT(status, check_identity(&made, adapter, err));
    if (numbers == NULL) {
        status = cr_fail(err, CR_E_INPUT, "%s: metadata %s missing", label, CR_KEY_NUMBERS);
        goto out;
    }
    CR_TRY_OUT(status, cr_json_parse(numbers, n, label, &made.numbers, err));
    if (!json_is_object(made.numbers)) {
        status = cr_fail(err, CR_E_INPUT, "%s: metadata %s: an object expected", label, CR_KEY_NUMBERS);
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
    cr_posterior_matrix_shape(&adapter->slots[slot], part, shape);
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
    cr_posterior_label_rows_name(name, sizeof name, suffix);
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

cr_status cr_posterior_file_labels(const struct cr_posterior_file *file, uint32_t n, int32_t *ids, struct cr_error *err)
{
    const char *text = cr_safetensors_metadata(file->st, CR_KEY_LABELS, NULL);
    const char *c = text != NULL ? text : "";
    uint32_t found = 0;
    while (found < n && *c >= '0' && *c <= '9') {
        int64_t id = 0;
        for (; *c >= '0' && *c <= '9' && id <= INT32_MAX; c++) {
            id = 10 * id + *c - '0';
        }
        ids[found++] = (int32_t)(id <= INT32_MAX ? id : INT32_MAX);
        c += *c == ',' && found < n;
    }
    return found == n && *c == '\0' ? CR_OK
                                    : cr_fail(err, CR_E_INPUT, "%s: metadata %s: the tokens of %u label rows expected",
                                              cr_safetensors_label(file->st), CR_KEY_LABELS, n);
}

static cr_status read_label_rows(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                                 const char *suffix, float *values, struct cr_error *err)
{
    char name[160];
    if (adapter->n_labels == 0) {
        return CR_OK;
    }
    cr_posterior_label_rows_name(name, sizeof name, suffix);
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
    float *rows = cr_alloc(cr_adapter_reordered_floats(adapter, base), sizeof *rows); /* more than any one needs */
    if (rows == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for reading a posterior");
    }
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        const struct cr_lora *lora = &adapter->slots[i];
        for (int part = 0; part < 2 && lora->rank > 0; part++) {
            float *out = values + cr_posterior_matrix_begin(adapter, i, part);
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
    return memcmp(values, adapter->params, cr_adapter_rows_begin(adapter) * sizeof *values) == 0
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

/* One matrix of all rows, the first at values; values NULL: only its type and shape are looked at. */
static cr_status read_row_matrix(const struct cr_posterior_file *file, const char *name, const uint64_t shape[3],
                                 size_t head_dim, bool moves, uint16_t *room, uint16_t *values, size_t stride,
                                 struct cr_error *err)
{
    const struct cr_st_tensor *t = cr_safetensors_find(file->st, name);
    CR_TRY(check_rows(file, t, name, shape, err));
    size_t n = (size_t)(shape[1] * shape[2]);
    for (uint64_t k = 0; k < shape[0] && values != NULL; k++) {
        memcpy(room, (const char *)t->data + k * n * sizeof *room, n * sizeof *room);
        cr_posterior_move_rows(room, values + k * stride, shape + 1, head_dim, moves, false);
    }
    return CR_OK;
}

static cr_status read_row_matrices(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                                   const struct cr_adapter_base *base, const char *suffix, uint32_t n_rows,
                                   uint16_t *room, uint16_t *values, struct cr_error *err)
{
    char name[160];
    size_t stride = adapter->n_params;
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        const struct cr_lora *lora = &adapter->slots[i];
        for (int part = 0; part < 2 && lora->rank > 0; part++) {
            uint64_t shape[3] = {n_rows};
            uint16_t *at = values != NULL ? values + cr_posterior_matrix_begin(adapter, i, part) : NULL;
            cr_posterior_matrix_shape(lora, part, shape + 1);
            cr_posterior_tensor_name(name, sizeof name, i, part, suffix);
            CR_TRY(read_row_matrix(file, name, shape, base->head_dim, cr_posterior_reordered(base, i, part), room, at,
                                   stride, err));
        }
    }
    if (adapter->n_labels == 0) {
        return CR_OK;
    }
    uint64_t shape[3] = {n_rows, adapter->n_labels, adapter->n_embd};
    uint16_t *at = values != NULL ? values + cr_adapter_rows_begin(adapter) : NULL;
    cr_posterior_label_rows_name(name, sizeof name, suffix);
    return read_row_matrix(file, name, shape, base->head_dim, false, room, at, stride, err);
}

cr_status cr_posterior_file_rows(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                                 const struct cr_adapter_base *base, const char *suffix, uint32_t n_rows,
                                 uint16_t **values, struct cr_error *err)
{
    CR_TRY(read_row_matrices(file, adapter, base, suffix, n_rows, NULL, NULL, err));
    uint16_t *room = cr_alloc(adapter->n_params, sizeof *room); /* more than any matrix */
    uint16_t *made = cr_zalloc(adapter->n_params, n_rows * sizeof *made);
    cr_status status =
        room != NULL && made != NULL
            ? read_row_matrices(file, adapter, base, suffix, n_rows, room, made, err)
            : cr_fail(err, CR_E_MEMORY, "no memory for %u rows of %zu numbers", n_rows, adapter->n_params);
    cr_free(room);
    if (status == CR_OK) {
        *values = made;
    } else {
        cr_free(made);
    }
    return status;
}
