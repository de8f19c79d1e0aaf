/* The description of one tensor in the header. */
#include <string.h>

#include "runtime/io/json.h"
#include "runtime/io/safetensors_private.h"

/* "file: tensor "NAME"" as the label of an inner failure. raw: the key as it stands in the header. */
static void entry_label(const struct cr_safetensors *st, const struct cr_member *m, char label[CR_ESCAPE_BYTES])
{
    struct cr_error text;
    char name[200];
    cr_escape(name, sizeof name, m->key + 1, m->key_bytes - 2);
    cr_fail(&text, CR_E_INPUT, "%s: tensor \"%s\"", st->label, name);
    memcpy(label, text.message, sizeof text.message);
}

static cr_status parse_dtype(const json_t *object, const char *label, enum cr_st_dtype *out, struct cr_error *err)
{
    const char *name = NULL;
    CR_TRY(cr_json_get_str(object, "dtype", true, &name, NULL, label, err));
    for (int d = 0; d < CR_ST_N_DTYPES; d++) {
        if (strcmp(cr_st_dtype_name((enum cr_st_dtype)d), name) == 0) {
            *out = (enum cr_st_dtype)d;
            return CR_OK;
        }
    }
    char shown[64];
    return cr_fail(err, CR_E_INPUT, "%s: dtype \"%s\" is unknown, expected F32, F16, BF16 or another of the format",
                   label, cr_escape(shown, sizeof shown, name, strlen(name)));
}

static cr_status whole_number(const json_t *value, const char *what, const char *label, uint64_t *out,
                              struct cr_error *err)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return cr_fail(err, CR_E_INPUT, "%s: %s is not an integer from 0 up", label, what);
    }
    *out = (uint64_t)json_integer_value(value);
    return CR_OK;
}

static cr_status parse_shape(const json_t *object, const char *label, struct cr_st_tensor *t, struct cr_error *err)
{
    const json_t *shape = json_object_get(object, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > CR_SAFETENSORS_MAX_DIMS) {
        return cr_fail(err, CR_E_INPUT, "%s: shape %s, expected an array of at most %d dimensions", label,
                       shape == NULL          ? "is missing"
                       : json_is_array(shape) ? "is longer"
                                              : "is no array",
                       CR_SAFETENSORS_MAX_DIMS);
    }
    t->n_dims = (uint32_t)json_array_size(shape);
    uint64_t n = 1;
    bool wraps = false;
    for (uint32_t d = 0; d < t->n_dims; d++) {
        CR_TRY(whole_number(json_array_get(shape, d), "shape", label, &t->shape[d], err));
        wraps = wraps || __builtin_mul_overflow(n, t->shape[d], &n);
    }
    uint64_t bytes;
    if (wraps || __builtin_mul_overflow(n, (uint64_t)cr_st_dtype_bytes(t->dtype), &bytes) || bytes > PTRDIFF_MAX) {
        return cr_fail(err, CR_E_INPUT, "%s: shape product is beyond 2^63 bytes", label);
    }
    t->n = n;
    t->bytes = (size_t)bytes;
    return CR_OK;
}

static cr_status parse_offsets(const json_t *object, const char *label, struct cr_st_tensor *t, struct cr_error *err)
{
    const json_t *offsets = json_object_get(object, "data_offsets");
    uint64_t end = 0;
    if (!json_is_array(offsets) || json_array_size(offsets) != 2) {
        return cr_fail(err, CR_E_INPUT, "%s: data_offsets %s, expected [begin, end]", label,
                       offsets == NULL ? "is missing" : "is no array of two");
    }
    CR_TRY(whole_number(json_array_get(offsets, 0), "data_offsets begin", label, &t->begin, err));
    CR_TRY(whole_number(json_array_get(offsets, 1), "data_offsets end", label, &end, err));
    if (end < t->begin || end - t->begin != t->bytes) {
        return cr_fail(err, CR_E_INPUT, "%s: data_offsets %llu to %llu, expected %zu bytes for shape and dtype", label,
                       (unsigned long long)t->begin, (unsigned long long)end, t->bytes);
    }
    return CR_OK;
}

cr_status cr_st_parse_entry(const struct cr_safetensors *st, const struct cr_member *m, struct cr_st_tensor *t,
                            struct cr_error *err)
{
    char label[CR_ESCAPE_BYTES];
    json_t *object = NULL;
    entry_label(st, m, label);
    if (m->value_bytes > CR_SAFETENSORS_MAX_ENTRY_BYTES) {
        return cr_fail(err, CR_E_INPUT, "%s: description of %zu bytes, expected at most %u", label, m->value_bytes,
                       CR_SAFETENSORS_MAX_ENTRY_BYTES);
    }
    CR_TRY(cr_json_parse(m->value, m->value_bytes, label, &object, err));
    cr_status status = parse_dtype(object, label, &t->dtype, err);
    if (status == CR_OK) {
        status = parse_shape(object, label, t, err);
    }
    if (status == CR_OK) {
        status = parse_offsets(object, label, t, err);
    }
    json_decref(object);
    return status;
}
