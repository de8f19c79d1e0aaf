/* Lookups in an open file, and tensor values as f32. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/common/half.h"
#include "runtime/io/safetensors_private.h"

static const struct {
    const char *name;
    size_t bytes;
} dtypes[CR_ST_N_DTYPES] = {
    [CR_ST_BOOL] = {"BOOL", 1},       [CR_ST_U8] = {"U8", 1},           [CR_ST_I8] = {"I8", 1},
    [CR_ST_F8_E5M2] = {"F8_E5M2", 1}, [CR_ST_F8_E4M3] = {"F8_E4M3", 1}, [CR_ST_F8_E8M0] = {"F8_E8M0", 1},
    [CR_ST_I16] = {"I16", 2},         [CR_ST_U16] = {"U16", 2},         [CR_ST_F16] = {"F16", 2},
    [CR_ST_BF16] = {"BF16", 2},       [CR_ST_I32] = {"I32", 4},         [CR_ST_U32] = {"U32", 4},
    [CR_ST_F32] = {"F32", 4},         [CR_ST_C64] = {"C64", 8},         [CR_ST_F64] = {"F64", 8},
    [CR_ST_I64] = {"I64", 8},         [CR_ST_U64] = {"U64", 8},
};

const char *cr_st_dtype_name(enum cr_st_dtype dtype)
{
    return (unsigned)dtype < CR_ST_N_DTYPES ? dtypes[dtype].name : "unknown";
}

size_t cr_st_dtype_bytes(enum cr_st_dtype dtype)
{
    return (unsigned)dtype < CR_ST_N_DTYPES ? dtypes[dtype].bytes : 0;
}

const char *cr_safetensors_label(const struct cr_safetensors *st)
{
    return st->label;
}

bool cr_safetensors_changed(const struct cr_safetensors *st)
{
    return st->map.fd >= 0 && cr_file_map_changed(&st->map);
}

size_t cr_safetensors_n(const struct cr_safetensors *st)
{
    return st->n;
}

const struct cr_st_tensor *cr_safetensors_at(const struct cr_safetensors *st, size_t i)
{
    return &st->tensors[i];
}

static int compare_to_name(const void *name, const void *entry)
{
    return strcmp(name, ((const struct cr_st_name *)entry)->name);
}

const struct cr_st_tensor *cr_safetensors_find(const struct cr_safetensors *st, const char *name)
{
    const struct cr_st_name *entry =
        st->n > 0 ? bsearch(name, st->index, st->n, sizeof *st->index, compare_to_name) : NULL;
    return entry != NULL ? &st->tensors[entry->i] : NULL;
}

const char *cr_safetensors_metadata(const struct cr_safetensors *st, const char *key, size_t *n)
{
    size_t low = 0, high = st->n_meta;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct cr_st_meta *meta = &st->meta[middle];
        int order = strcmp(key, st->text + meta->key);
        if (order == 0) {
            if (n != NULL) {
                *n = meta->value_bytes;
            }
            return st->text + meta->value;
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

static float load_half(const uint8_t *p, enum cr_st_dtype dtype)
{
    uint16_t bits = (uint16_t)(p[0] | p[1] << 8);
    return dtype == CR_ST_F16 ? cr_f16_to_f32(bits) : cr_bf16_to_f32(bits);
}

cr_status cr_safetensors_read_f32(const struct cr_safetensors *st, const struct cr_st_tensor *t, float *out,
                                  struct cr_error *err)
{
    char name[300];
    const uint8_t *p = t->data;
    if (t->dtype != CR_ST_F32 && t->dtype != CR_ST_F16 && t->dtype != CR_ST_BF16) {
        return cr_fail(err, CR_E_INPUT, "%s: tensor \"%s\": dtype %s, expected F32, F16 or BF16", st->label,
                       cr_escape(name, sizeof name, t->name, strlen(t->name)), cr_st_dtype_name(t->dtype));
    }
    for (uint64_t i = 0; i < t->n; i++) {
        float value;
        if (t->dtype == CR_ST_F32) {
            const uint8_t *q = p + 4 * i;
            value = cr_f32_from_bits(q[0] | (uint32_t)q[1] << 8 | (uint32_t)q[2] << 16 | (uint32_t)q[3] << 24);
        } else {
            value = load_half(p + 2 * i, t->dtype);
        }
        if (!isfinite(value)) {
            return cr_fail(err, CR_E_INPUT, "%s: tensor \"%s\": element %llu is %f, expected a finite value", st->label,
                           cr_escape(name, sizeof name, t->name, strlen(t->name)), (unsigned long long)i,
                           (double)value);
        }
        out[i] = value;
    }
    return CR_OK;
}
