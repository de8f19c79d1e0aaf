/* Opening and reading posterior.safetensors. */
#include "runtime/posterior/posterior_private.h"

#include <stdio.h>
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
    struct cr_posterior_matrix m = {.adapter = adapter, .with_label_rows = true};
    size_t n = 0;
    while (cr_posterior_next(&m)) {
        n += n_vectors;
    }
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

static const char *shape_text(char text[80], uint32_t n_dims, const uint64_t *shape)
{
    size_t n = 0;
    snprintf(text, 80, "none");
    for (uint32_t d = 0; d < n_dims && n < 80; d++) {
        n += (size_t)snprintf(text + n, 80 - n, "%s%llu", d > 0 ? " x " : "", (unsigned long long)shape[d]);
    }
    return text;
}

static cr_status find_tensor(const struct cr_posterior_file *file, const char *name, uint32_t n_dims,
                             const uint64_t *shape, const struct cr_st_tensor **out, struct cr_error *err)
{
    const char *label = cr_safetensors_label(file->st);
    const struct cr_st_tensor *t = cr_safetensors_find(file->st, name);
    if (t == NULL) {
        return cr_fail(err, CR_E_INPUT, "%s: no tensor %s, which the adapter beside it needs", label, name);
    }
    if (t->n_dims != n_dims || memcmp(t->shape, shape, n_dims * sizeof *shape) != 0) {
        char found[80], expected[80];
        return cr_fail(err, CR_E_INPUT, "%s: tensor %s has shape %s, %s expected", label, name,
                       shape_text(found, t->n_dims, t->shape), shape_text(expected, n_dims, shape));
    }
    *out = t;
    return CR_OK;
}

cr_status cr_posterior_read(const struct cr_posterior_file *file, const char *name, uint32_t n_dims,
                            const uint64_t *shape, float *out, struct cr_error *err)
{
    const struct cr_st_tensor *t = NULL;
    CR_TRY(find_tensor(file, name, n_dims, shape, &t, err));
    return cr_safetensors_read_f32(file->st, t, out, err);
}

cr_status cr_posterior_read_matrix(const struct cr_posterior_file *file, const struct cr_posterior_matrix *m,
                                   float *room, float *out, struct cr_error *err)
{
    if (!m->moves) {
        return cr_posterior_read(file, m->name, 2, m->shape, out, err);
    }
    size_t n_rows = (size_t)m->shape[0], head_dim = m->base->head_dim;
    if (head_dim == 0 || n_rows % head_dim != 0) {
        return cr_fail(err, CR_E_INPUT, "%s: heads of %zu rows do not fit %zu rows", cr_safetensors_label(file->st),
                       head_dim, n_rows);
    }
    CR_TRY(cr_posterior_read(file, m->name, 2, m->shape, room, err));
    cr_rows_hf_to_gguf(out, room, n_rows, (size_t)m->shape[1], head_dim);
    return CR_OK;
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

cr_status cr_posterior_file_vector(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                                   const struct cr_adapter_base *base, const char *suffix, float *values,
                                   struct cr_error *err)
{
    struct cr_posterior_matrix m = {.adapter = adapter, .base = base, .suffix = suffix, .with_label_rows = true};
    cr_status status = CR_OK;
    float *room = cr_alloc(cr_adapter_reordered_floats(adapter, base), sizeof *room); /* more than any one needs */
    if (room == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for reading a posterior");
    }
    while (status == CR_OK && cr_posterior_next(&m)) {
        status = cr_posterior_read_matrix(file, &m, room, values + m.begin, err);
    }
    cr_free(room);
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

/* values NULL: only types and shapes are looked at. */
static cr_status read_rows(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                           const struct cr_adapter_base *base, const char *suffix, uint32_t n_rows, uint16_t *room,
                           uint16_t *values, struct cr_error *err)
{
    struct cr_posterior_matrix m = {.adapter = adapter, .base = base, .suffix = suffix, .with_label_rows = true};
    while (cr_posterior_next(&m)) {
        uint64_t shape[3] = {n_rows, m.shape[0], m.shape[1]};
        const struct cr_st_tensor *t = NULL;
        CR_TRY(find_tensor(file, m.name, 3, shape, &t, err));
        if (t->dtype != CR_ST_BF16) {
            return cr_fail(err, CR_E_INPUT, "%s: tensor %s is %s, BF16 expected", cr_safetensors_label(file->st),
                           m.name, cr_st_dtype_name(t->dtype));
        }
        size_t n = (size_t)(m.shape[0] * m.shape[1]);
        for (size_t k = 0; k < n_rows && values != NULL; k++) {
            memcpy(room, (const char *)t->data + k * n * sizeof *room, n * sizeof *room);
            cr_posterior_move_rows(room, values + k * adapter->n_params + m.begin, m.shape, base->head_dim, m.moves,
                                   false);
        }
    }
    return CR_OK;
}

cr_status cr_posterior_file_rows(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                                 const struct cr_adapter_base *base, const char *suffix, uint32_t n_rows,
                                 uint16_t **values, struct cr_error *err)
{
    CR_TRY(read_rows(file, adapter, base, suffix, n_rows, NULL, NULL, err));
    uint16_t *room = cr_alloc(adapter->n_params, sizeof *room); /* more than any matrix */
    uint16_t *made = cr_zalloc(adapter->n_params, n_rows * sizeof *made);
    cr_status status = room != NULL && made != NULL ? read_rows(file, adapter, base, suffix, n_rows, room, made, err)
                                                    : cr_fail(err, CR_E_MEMORY, "no memory for %u rows of %zu numbers",
                                                              n_rows, adapter->n_params);
    cr_free(room);
    if (status == CR_OK) {
        *values = made;
    } else {
        cr_free(made);
    }
    return status;
}
