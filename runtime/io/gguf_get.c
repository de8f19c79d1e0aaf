/* Lookups in an open file: no allocation, no state. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/io/gguf_private.h"

static const struct {
    const char *name;
    size_t bytes;
} types[13] = {
    [CR_GGUF_U8] = {"u8", 1},        [CR_GGUF_I8] = {"i8", 1},     [CR_GGUF_U16] = {"u16", 2},
    [CR_GGUF_I16] = {"i16", 2},      [CR_GGUF_U32] = {"u32", 4},   [CR_GGUF_I32] = {"i32", 4},
    [CR_GGUF_F32] = {"f32", 4},      [CR_GGUF_BOOL] = {"bool", 1}, [CR_GGUF_STRING] = {"string", 8},
    [CR_GGUF_ARRAY] = {"array", 12}, [CR_GGUF_U64] = {"u64", 8},   [CR_GGUF_I64] = {"i64", 8},
    [CR_GGUF_F64] = {"f64", 8},
};

size_t cr_gguf_item_bytes(uint32_t type)
{
    return type < 13 ? types[type].bytes : 0;
}

const char *cr_gguf_type_name(enum cr_gguf_type type)
{
    return (unsigned)type < 13 ? types[type].name : "unknown";
}

const char *cr_gguf_label(const struct cr_gguf *g)
{
    return g->label;
}

uint32_t cr_gguf_version(const struct cr_gguf *g)
{
    return g->version;
}

uint64_t cr_gguf_data_offset(const struct cr_gguf *g)
{
    return g->data_offset;
}

uint64_t cr_gguf_file_bytes(const struct cr_gguf *g)
{
    return g->bytes;
}

uint64_t cr_gguf_trailing_bytes(const struct cr_gguf *g)
{
    return g->trailing_bytes;
}

const uint8_t *cr_gguf_bytes(const struct cr_gguf *g)
{
    return g->data;
}

bool cr_gguf_changed(const struct cr_gguf *g)
{
    return g->map.fd >= 0 && cr_file_map_changed(&g->map);
}

size_t cr_gguf_n_kv(const struct cr_gguf *g)
{
    return g->n_kv;
}

const char *cr_gguf_key(const struct cr_gguf *g, size_t i)
{
    return g->kv[i].key;
}

void cr_gguf_value_at(const struct cr_gguf *g, size_t i, struct cr_gguf_value *v)
{
    const struct cr_gguf_pair *pair = &g->kv[i];
    *v = (struct cr_gguf_value){
        .type = pair->type,
        .item_type = pair->item_type,
        .n = pair->n,
        .data = g->data + pair->value_at,
        .item_offsets = pair->item_offsets,
        .base = g->data,
    };
}

static int compare_to_entry(const void *name, const void *entry)
{
    return strcmp(name, ((const struct cr_gguf_name *)entry)->name);
}

static const struct cr_gguf_name *search(const struct cr_gguf_name *index, size_t n, const char *name)
{
    return n > 0 ? bsearch(name, index, n, sizeof *index, compare_to_entry) : NULL;
}

bool cr_gguf_find(const struct cr_gguf *g, const char *key, struct cr_gguf_value *v)
{
    const struct cr_gguf_name *entry = search(g->kv_index, g->n_kv, key);
    if (entry != NULL && v != NULL) {
        cr_gguf_value_at(g, entry->i, v);
    }
    return entry != NULL;
}

size_t cr_gguf_n_tensors(const struct cr_gguf *g)
{
    return g->n_tensors;
}

const struct cr_gguf_tensor *cr_gguf_tensor_at(const struct cr_gguf *g, size_t i)
{
    return &g->tensors[i].public;
}

const struct cr_gguf_tensor *cr_gguf_tensor_find(const struct cr_gguf *g, const char *name)
{
    const struct cr_gguf_name *entry = search(g->tensor_index, g->n_tensors, name);
    return entry != NULL ? &g->tensors[entry->i].public : NULL;
}

/* Integer at p; false when it is no integer type. Above INT64_MAX: INT64_MAX and *above. */
static bool load_int(enum cr_gguf_type type, const uint8_t *p, int64_t *out, bool *above)
{
    *above = false;
    switch (type) {
    case CR_GGUF_U8:
        *out = p[0];
        return true;
    case CR_GGUF_I8:
        *out = (int8_t)p[0];
        return true;
    case CR_GGUF_U16:
        *out = p[0] | p[1] << 8;
        return true;
    case CR_GGUF_I16:
        *out = (int16_t)(p[0] | p[1] << 8);
        return true;
    case CR_GGUF_U32:
        *out = cr_le32(p);
        return true;
    case CR_GGUF_I32:
        *out = (int32_t)cr_le32(p);
        return true;
    case CR_GGUF_U64:
        *above = cr_le64(p) > INT64_MAX;
        *out = *above ? INT64_MAX : (int64_t)cr_le64(p);
        return true;
    case CR_GGUF_I64:
        *out = (int64_t)cr_le64(p);
        return true;
    default:
        return false;
    }
}

static bool load_float(enum cr_gguf_type type, const uint8_t *p, double *out)
{
    if (type == CR_GGUF_F32) {
        float value;
        uint32_t bits = cr_le32(p);
        memcpy(&value, &bits, sizeof value);
        *out = (double)value;
        return true;
    }
    if (type == CR_GGUF_F64) {
        uint64_t bits = cr_le64(p);
        memcpy(out, &bits, sizeof *out);
        return true;
    }
    return false;
}

bool cr_gguf_scalar_int(const struct cr_gguf_value *v, int64_t *out)
{
    bool above;
    return load_int(v->type, v->data, out, &above) && !above;
}

bool cr_gguf_scalar_float(const struct cr_gguf_value *v, double *out)
{
    return load_float(v->type, v->data, out);
}

/* A key may hold what a file says of its architecture. */
#define SHOWN(key) cr_escape((char[CR_ESCAPE_BYTES]){0}, CR_ESCAPE_BYTES, (key), strlen(key))

/* The value with *found, or the error of an absent required key. */
static cr_status lookup(const struct cr_gguf *g, const char *key, bool required, struct cr_gguf_value *v, bool *found,
                        struct cr_error *err)
{
    *found = cr_gguf_find(g, key, v);
    return *found || !required ? CR_OK : cr_fail(err, CR_E_INPUT, "%s: key \"%s\" is missing", g->label, SHOWN(key));
}

static cr_status wrong_type(const struct cr_gguf *g, const char *key, const struct cr_gguf_value *v,
                            const char *expected, struct cr_error *err)
{
    bool array = v->type == CR_GGUF_ARRAY;
    return cr_fail(err, CR_E_INPUT, "%s: key \"%s\" has type %s%s, expected %s", g->label, SHOWN(key),
                   array ? "array of " : "", cr_gguf_type_name(array ? v->item_type : v->type), expected);
}

static cr_status get_int(const struct cr_gguf *g, const char *key, bool required, int64_t min, int64_t max,
                         int64_t *out, bool *found, struct cr_error *err)
{
    struct cr_gguf_value v;
    bool above;
    CR_TRY(lookup(g, key, required, &v, found, err));
    if (!*found) {
        return CR_OK;
    }
    if (!load_int(v.type, v.data, out, &above)) {
        return wrong_type(g, key, &v, "an integer", err);
    }
    if (above || *out < min || *out > max) {
        return cr_fail(err, CR_E_INPUT, "%s: key \"%s\" is %s%lld, expected %lld to %lld", g->label, SHOWN(key),
                       above ? "above " : "", (long long)*out, (long long)min, (long long)max);
    }
    return CR_OK;
}

cr_status cr_gguf_u32(const struct cr_gguf *g, const char *key, bool required, uint32_t *out, struct cr_error *err)
{
    int64_t value;
    bool found;
    CR_TRY(get_int(g, key, required, 0, UINT32_MAX, &value, &found, err));
    if (found) {
        *out = (uint32_t)value;
    }
    return CR_OK;
}

cr_status cr_gguf_i64(const struct cr_gguf *g, const char *key, bool required, int64_t *out, struct cr_error *err)
{
    int64_t value;
    bool found;
    CR_TRY(get_int(g, key, required, INT64_MIN, INT64_MAX, &value, &found, err));
    if (found) {
        *out = value;
    }
    return CR_OK;
}

cr_status cr_gguf_f32(const struct cr_gguf *g, const char *key, bool required, float *out, struct cr_error *err)
{
    struct cr_gguf_value v;
    bool found;
    double value;
    CR_TRY(lookup(g, key, required, &v, &found, err));
    if (!found) {
        return CR_OK;
    }
    if (!load_float(v.type, v.data, &value)) {
        return wrong_type(g, key, &v, "a float", err);
    }
    if (!isfinite(value) || !(fabs(value) <= 3.4028234663852886e38)) { /* largest f32 */
        return cr_fail(err, CR_E_INPUT, "%s: key \"%s\" is %g, expected a finite f32", g->label, SHOWN(key), value);
    }
    *out = (float)value;
    return CR_OK;
}

cr_status cr_gguf_bool(const struct cr_gguf *g, const char *key, bool required, bool *out, struct cr_error *err)
{
    struct cr_gguf_value v;
    bool found;
    CR_TRY(lookup(g, key, required, &v, &found, err));
    if (!found) {
        return CR_OK;
    }
    if (v.type != CR_GGUF_BOOL) {
        return wrong_type(g, key, &v, "bool", err);
    }
    *out = v.data[0] != 0;
    return CR_OK;
}

cr_status cr_gguf_str(const struct cr_gguf *g, const char *key, bool required, const char **s, size_t *n,
                      struct cr_error *err)
{
    struct cr_gguf_value v;
    bool found;
    CR_TRY(lookup(g, key, required, &v, &found, err));
    if (!found) {
        return CR_OK;
    }
    if (v.type != CR_GGUF_STRING) {
        return wrong_type(g, key, &v, "string", err);
    }
    *s = (const char *)v.data;
    *n = (size_t)v.n;
    return CR_OK;
}

static bool is_kind(enum cr_gguf_type type, enum cr_gguf_kind kind)
{
    switch (kind) {
    case CR_GGUF_KIND_STRING:
        return type == CR_GGUF_STRING;
    case CR_GGUF_KIND_FLOAT:
        return type == CR_GGUF_F32 || type == CR_GGUF_F64;
    case CR_GGUF_KIND_BOOL:
        return type == CR_GGUF_BOOL;
    default:
        return type != CR_GGUF_STRING && type != CR_GGUF_ARRAY && type != CR_GGUF_BOOL && type != CR_GGUF_F32 &&
               type != CR_GGUF_F64;
    }
}

cr_status cr_gguf_array(const struct cr_gguf *g, const char *key, enum cr_gguf_kind kind, bool required,
                        struct cr_gguf_value *v, struct cr_error *err)
{
    static const char *const expected[] = {"an array of strings", "an array of integers", "an array of floats",
                                           "an array of bools"};
    struct cr_gguf_value value;
    bool found;
    CR_TRY(lookup(g, key, required, &value, &found, err));
    if (!found) {
        memset(v, 0, sizeof *v);
        return CR_OK;
    }
    if (value.type != CR_GGUF_ARRAY || !is_kind(value.item_type, kind)) {
        return wrong_type(g, key, &value, expected[kind], err);
    }
    *v = value;
    return CR_OK;
}

const char *cr_gguf_array_str(const struct cr_gguf_value *v, uint64_t i, size_t *n)
{
    const uint8_t *at = v->base + v->item_offsets[i];
    *n = (size_t)cr_le64(at);
    return (const char *)at + 8;
}

int64_t cr_gguf_array_int(const struct cr_gguf_value *v, uint64_t i)
{
    const uint8_t *at = v->data + i * types[v->item_type].bytes;
    int64_t value = 0;
    bool above;
    return v->item_type == CR_GGUF_BOOL ? at[0] : load_int(v->item_type, at, &value, &above) ? value : 0;
}

double cr_gguf_array_float(const struct cr_gguf_value *v, uint64_t i)
{
    double value = 0;
    load_float(v->item_type, v->data + i * types[v->item_type].bytes, &value);
    return value;
}
