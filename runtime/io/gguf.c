/* Opening: header, metadata, tensor records. Lookups are in gguf_get.c. */
#include "runtime/io/gguf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/dequant/dequant.h"
#include "runtime/core/alloc.h"
#include "runtime/io/gguf_private.h"
#include "runtime/io/limits.h"
#include "runtime/io/sniff.h"

/* Reads forward through the metadata. `where` describes the item being read, for messages. */
struct cursor {
    const uint8_t *data;
    uint64_t n, at;
    const char *label;
    char where[160];
    struct cr_error *err;
};

static uint64_t left(const struct cursor *c)
{
    return c->n - c->at;
}

static cr_status fail(struct cursor *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

static cr_status fail(struct cursor *c, const char *format, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    return cr_fail(c->err, CR_E_INPUT, "%s: byte %llu: %s%s%s", c->label, (unsigned long long)c->at, c->where,
                   c->where[0] != '\0' ? ": " : "", text);
}

static cr_status no_memory(struct cursor *c)
{
    return cr_fail(c->err, CR_E_MEMORY, "%s: no memory for the metadata", c->label);
}

/* "KIND i" and, once its name is known, the name. */
static void set_where(struct cursor *c, const char *kind, uint64_t i, const char *name, size_t n)
{
    char shown[120];
    if (name == NULL) {
        snprintf(c->where, sizeof c->where, "%s %llu", kind, (unsigned long long)i);
    } else {
        snprintf(c->where, sizeof c->where, "%s \"%s\"", kind, cr_escape(shown, sizeof shown, name, n));
    }
}

static cr_status read_u32(struct cursor *c, const char *what, uint32_t *out)
{
    if (left(c) < 4) {
        return fail(c, "truncated: %s needs 4 bytes, %llu left", what, (unsigned long long)left(c));
    }
    *out = cr_le32(c->data + c->at);
    c->at += 4;
    return CR_OK;
}

static cr_status read_u64(struct cursor *c, const char *what, uint64_t *out)
{
    if (left(c) < 8) {
        return fail(c, "truncated: %s needs 8 bytes, %llu left", what, (unsigned long long)left(c));
    }
    *out = cr_le64(c->data + c->at);
    c->at += 8;
    return CR_OK;
}

/* A length-prefixed string; *text points into the file. */
static cr_status read_string(struct cursor *c, const char *what, uint64_t max, const uint8_t **text, uint64_t *n)
{
    uint64_t length = 0;
    uint64_t start = c->at;
    CR_TRY(read_u64(c, what, &length));
    const char *wrong = length > left(c) ? "left in the file" : length > max ? "allowed" : NULL;
    if (wrong != NULL) {
        uint64_t limit = length > left(c) ? left(c) : max;
        c->at = start;
        return fail(c, "%s length %llu, at most %llu %s", what, (unsigned long long)length,
                    (unsigned long long)limit, wrong);
    }
    *text = c->data + c->at;
    *n = length;
    c->at += length;
    return CR_OK;
}

/* A string that names something: 1...max bytes without NUL. */
static cr_status read_name(struct cursor *c, const char *what, uint64_t max, const uint8_t **text, uint64_t *n)
{
    uint64_t start = c->at;
    CR_TRY(read_string(c, what, max, text, n));
    if (*n == 0 || memchr(*text, 0, (size_t)*n) != NULL) {
        c->at = start;
        return *n == 0 ? fail(c, "%s length 0, expected 1 to %llu", what, (unsigned long long)max)
                       : fail(c, "%s with a NUL byte", what);
    }
    return CR_OK;
}

static cr_status skip_bools(struct cursor *c, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        if (c->data[c->at] > 1) {
            return fail(c, "bool with value %u, expected 0 or 1", c->data[c->at]);
        }
        c->at++;
    }
    return CR_OK;
}

static cr_status skip_array(struct cursor *c, struct pair *pair)
{
    uint32_t item_type = 0;
    uint64_t n = 0;
    CR_TRY(read_u32(c, "element type", &item_type));
    if (item_type == CR_GGUF_ARRAY || cr_gguf_item_bytes(item_type) == 0) {
        c->at -= 4;
        return item_type == CR_GGUF_ARRAY ? fail(c, "array of arrays, expected scalars or strings")
                                          : fail(c, "array element type %u, expected 0 to 12", item_type);
    }
    CR_TRY(read_u64(c, "array count", &n));
    uint64_t most = left(c) / cr_gguf_item_bytes(item_type); /* a string takes 8 bytes at least */
    if (n > most) {
        c->at -= 8;
        return fail(c, "array count %llu, room for at most %llu elements in the file", (unsigned long long)n,
                    (unsigned long long)most);
    }
    pair->item_type = item_type;
    pair->n = n;
    pair->value_at = c->at;
    if (item_type == CR_GGUF_BOOL) {
        return skip_bools(c, n);
    }
    if (item_type != CR_GGUF_STRING) {
        c->at += n * cr_gguf_item_bytes(item_type);
        return CR_OK;
    }
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *text;
        uint64_t bytes;
        CR_TRY(read_string(c, "array string", CR_GGUF_MAX_STRING_BYTES, &text, &bytes));
    }
    return CR_OK;
}

/* Only now that all strings are known to be there is their index allocated: 8 bytes for 8 or more in the file. */
static cr_status index_strings(struct cursor *c, struct pair *pair)
{
    if (pair->type != CR_GGUF_ARRAY || pair->item_type != CR_GGUF_STRING || pair->n == 0) {
        return CR_OK;
    }
    pair->item_offsets = cr_alloc((size_t)pair->n, sizeof *pair->item_offsets);
    if (pair->item_offsets == NULL) {
        return no_memory(c);
    }
    uint64_t at = pair->value_at;
    for (uint64_t i = 0; i < pair->n; i++) {
        pair->item_offsets[i] = at;
        at += 8 + cr_le64(c->data + at);
    }
    return CR_OK;
}

static cr_status read_pair(struct cursor *c, uint64_t i, struct pair *pair)
{
    const uint8_t *key = NULL;
    uint64_t key_bytes = 0;
    set_where(c, "key", i, NULL, 0);
    CR_TRY(read_name(c, "key", CR_GGUF_MAX_KEY_BYTES, &key, &key_bytes));
    pair->key_at = c->at - key_bytes;
    pair->key_bytes = key_bytes;
    set_where(c, "key", i, (const char *)key, (size_t)key_bytes);
    uint32_t type = 0;
    CR_TRY(read_u32(c, "value type", &type));
    size_t bytes = cr_gguf_item_bytes(type);
    if (bytes == 0) {
        c->at -= 4;
        return fail(c, "value type %lld, expected 0 to 12", (long long)(int32_t)type);
    }
    pair->type = type;
    pair->n = 1;
    pair->value_at = c->at;
    if (type == CR_GGUF_ARRAY) {
        CR_TRY(skip_array(c, pair));
        return index_strings(c, pair);
    }
    if (type == CR_GGUF_STRING) {
        const uint8_t *text;
        CR_TRY(read_string(c, "string", CR_GGUF_MAX_STRING_BYTES, &text, &pair->n));
        pair->value_at = c->at - pair->n;
        return CR_OK;
    }
    if (left(c) < bytes) {
        return fail(c, "truncated: value needs %zu bytes, %llu left", bytes, (unsigned long long)left(c));
    }
    if (type == CR_GGUF_BOOL) {
        return skip_bools(c, 1);
    }
    c->at += bytes;
    return CR_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct name_index *)a)->name, ((const struct name_index *)b)->name);
}

/* Sorts the index; the name that stands in it twice, or NULL. */
static const char *sort_names(struct name_index *index, size_t n)
{
    if (n > 0) {
        qsort(index, n, sizeof *index, compare_names);
    }
    for (size_t i = 1; i < n; i++) {
        if (strcmp(index[i - 1].name, index[i].name) == 0) {
            return index[i].name;
        }
    }
    return NULL;
}

/* Terminated copies of all keys in one block: the file has no terminators. */
static cr_status copy_keys(struct cursor *c, struct cr_gguf *g)
{
    size_t bytes = 0;
    for (size_t i = 0; i < g->n_kv; i++) {
        bytes += (size_t)g->kv[i].key_bytes + 1;
    }
    g->key_text = cr_alloc(bytes, 1);
    g->kv_index = cr_alloc(g->n_kv, sizeof *g->kv_index);
    if (g->key_text == NULL || g->kv_index == NULL) {
        return no_memory(c);
    }
    char *text = g->key_text;
    for (size_t i = 0; i < g->n_kv; i++) {
        struct pair *pair = &g->kv[i];
        memcpy(text, g->data + pair->key_at, (size_t)pair->key_bytes);
        text[pair->key_bytes] = '\0';
        pair->key = text;
        g->kv_index[i] = (struct name_index){text, i};
        text += pair->key_bytes + 1;
    }
    const char *twice = sort_names(g->kv_index, g->n_kv);
    if (twice != NULL) {
        set_where(c, "key", 0, twice, strlen(twice));
        return fail(c, "appears twice");
    }
    return CR_OK;
}

static cr_status read_alignment(struct cursor *c, struct cr_gguf *g)
{
    static const char key[] = "general.alignment";
    struct cr_gguf_value v;
    g->alignment = CR_GGUF_DEFAULT_ALIGNMENT;
    if (!cr_gguf_find(g, key, &v)) {
        return CR_OK;
    }
    set_where(c, "key", 0, key, sizeof key - 1);
    c->at = (uint64_t)(v.data - c->data);
    if (v.type != CR_GGUF_U32) {
        return fail(c, "type %s, expected u32", cr_gguf_type_name(v.type));
    }
    uint32_t value = cr_le32(v.data);
    if (value < CR_GGUF_MIN_ALIGNMENT || value > CR_GGUF_MAX_ALIGNMENT || (value & (value - 1)) != 0) {
        return fail(c, "value %u, expected a power of two from 8 to 1048576", value);
    }
    g->alignment = value;
    return CR_OK;
}

/* Values and bytes of a tensor, dimension by dimension with checked products. */
static cr_status size_tensor(struct cursor *c, struct cr_gguf_tensor *t)
{
    const struct cr_qtype_info *info = cr_qtype_info(t->type);
    if (info == NULL || info->removed || info->block_bytes == 0) {
        return info != NULL && info->removed
                   ? fail(c, "type %d (%s) was removed from the format", t->type, info->name)
                   : fail(c, "type %d is not a known tensor type", t->type);
    }
    if (t->ne[0] % info->block_values != 0) {
        return fail(c, "row of %llu values, expected a multiple of %zu for %s", (unsigned long long)t->ne[0],
                    info->block_values, info->name);
    }
    uint64_t bytes = t->ne[0] / info->block_values;
    bool wraps = __builtin_mul_overflow(bytes, (uint64_t)info->block_bytes, &bytes);
    for (uint32_t d = 1; d < 4 && !wraps; d++) {
        wraps = __builtin_mul_overflow(bytes, t->ne[d], &bytes);
    }
    if (wraps || bytes > INT64_MAX) {
        return fail(c, "size of %llu x %llu x %llu x %llu values is beyond 2^63 bytes", (unsigned long long)t->ne[0],
                    (unsigned long long)t->ne[1], (unsigned long long)t->ne[2], (unsigned long long)t->ne[3]);
    }
    t->bytes = bytes;
    return CR_OK;
}

static cr_status read_tensor(struct cursor *c, uint64_t i, struct tensor *slot)
{
    struct cr_gguf_tensor *t = &slot->public;
    const uint8_t *name = NULL;
    uint64_t n = 0;
    uint32_t type = 0;
    set_where(c, "tensor", i, NULL, 0);
    CR_TRY(read_name(c, "name", CR_GGUF_MAX_NAME_BYTES, &name, &n));
    memcpy(slot->name, name, (size_t)n); /* the block is zeroed: terminated */
    t->name = slot->name;
    set_where(c, "tensor", i, slot->name, (size_t)n);
    CR_TRY(read_u32(c, "n_dims", &t->n_dims));
    if (t->n_dims < 1 || t->n_dims > 4) {
        c->at -= 4;
        return fail(c, "n_dims %u, expected 1 to 4", t->n_dims);
    }
    for (uint32_t d = 0; d < 4; d++) {
        t->ne[d] = 1;
        if (d >= t->n_dims) {
            continue;
        }
        CR_TRY(read_u64(c, "dimension", &t->ne[d]));
        if (t->ne[d] < 1 || t->ne[d] > CR_GGUF_MAX_DIMENSION) {
            c->at -= 8;
            return fail(c, "dimension %u is %lld, expected 1 to 2147483647", d, (long long)t->ne[d]);
        }
    }
    CR_TRY(read_u32(c, "type", &type));
    t->type = (int)(int32_t)type;
    c->at -= 4;
    CR_TRY(size_tensor(c, t));
    c->at += 4;
    return read_u64(c, "offset", &t->offset);
}

static uint64_t padding(uint64_t at, uint32_t alignment)
{
    return (alignment - at % alignment) % alignment;
}

/* Every tensor must begin where the padded ones before it end; all must lie inside the file. */
static cr_status place_tensors(struct cursor *c, struct cr_gguf *g)
{
    uint64_t start = c->at + padding(c->at, g->alignment);
    uint64_t room = start <= c->n ? c->n - start : 0;
    uint64_t expected = 0, end = 0;
    const struct tensor *first_cut = NULL;
    g->data_offset = start;
    for (size_t i = 0; i < g->n_tensors; i++) {
        struct tensor *slot = &g->tensors[i];
        struct cr_gguf_tensor *t = &slot->public;
        set_where(c, "tensor", i, t->name, strlen(t->name));
        if (t->offset != expected) {
            return fail(c, "offset %llu, expected %llu (%s)", (unsigned long long)t->offset,
                        (unsigned long long)expected,
                        t->offset % g->alignment != 0 ? "a multiple of the alignment" : "end of the tensor before it");
        }
        end = t->offset + t->bytes; /* both at most 2^63 - 1 + one padding: no wrap */
        if (end > INT64_MAX) {
            return fail(c, "data beyond 2^63 bytes");
        }
        if (end > room && first_cut == NULL) {
            first_cut = slot;
        }
        expected = end + padding(end, g->alignment);
        t->data = end <= room ? g->data + start + t->offset : NULL;
    }
    if (first_cut != NULL) {
        c->at = c->n;
        set_where(c, "tensor", 0, first_cut->name, strlen(first_cut->name));
        uint64_t missing = start + end - c->n;
        return fail(c, "truncated: the file ends inside the tensor data, %llu bytes missing",
                    (unsigned long long)missing);
    }
    g->trailing_bytes = room > expected ? room - expected : 0;
    return CR_OK;
}

static cr_status read_tensors(struct cursor *c, struct cr_gguf *g)
{
    g->tensors = cr_zalloc(g->n_tensors, sizeof *g->tensors);
    g->tensor_index = cr_alloc(g->n_tensors, sizeof *g->tensor_index);
    if (g->tensors == NULL || g->tensor_index == NULL) {
        return no_memory(c);
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        CR_TRY(read_tensor(c, i, &g->tensors[i]));
        g->tensor_index[i] = (struct name_index){g->tensors[i].name, i};
    }
    const char *twice = sort_names(g->tensor_index, g->n_tensors);
    if (twice != NULL) {
        set_where(c, "tensor", 0, twice, strlen(twice));
        return fail(c, "appears twice");
    }
    return place_tensors(c, g);
}

static cr_status check_magic(struct cursor *c)
{
    static const char magic[] = "GGUF";
    size_t n = c->n < 4 ? (size_t)c->n : 4;
    if (memcmp(c->data, magic, n) != 0) {
        char shown[32];
        const char *kind = cr_sniff(c->data, (size_t)c->n);
        return fail(c, "magic \"%s\", expected \"GGUF\"%s%s", cr_escape(shown, sizeof shown, (const char *)c->data, n),
                    kind != NULL ? "; this is " : "", kind != NULL ? kind : "");
    }
    if (n < 4) {
        return fail(c, "truncated: magic needs 4 bytes, %zu in the file", n);
    }
    c->at = 4;
    return CR_OK;
}

static cr_status check_count(struct cursor *c, const char *what, uint64_t n, uint64_t limit, uint64_t item_bytes)
{
    uint64_t most = left(c) / item_bytes;
    if (n > most || n > limit) {
        return fail(c, "%s %llu, at most %llu %s", what, (unsigned long long)n,
                    (unsigned long long)(most < limit ? most : limit),
                    most < limit ? "fit into the rest of the file" : "allowed");
    }
    return CR_OK;
}

static cr_status read_header(struct cursor *c, struct cr_gguf *g)
{
    CR_TRY(check_magic(c));
    CR_TRY(read_u32(c, "version", &g->version));
    if (g->version != 2 && g->version != 3) {
        c->at = 4;
        return g->version == 0x02000000 || g->version == 0x03000000
                   ? fail(c, "version in the other byte order (big-endian file), expected little-endian")
                   : fail(c, "version %u is unsupported, expected 2 or 3", g->version);
    }
    uint64_t n_tensors = 0, n_kv = 0;
    CR_TRY(read_u64(c, "n_tensors", &n_tensors));
    CR_TRY(read_u64(c, "n_kv", &n_kv));
    CR_TRY(check_count(c, "n_tensors", n_tensors, CR_GGUF_MAX_TENSORS, 33)); /* shortest tensor record */
    CR_TRY(check_count(c, "n_kv", n_kv, CR_GGUF_MAX_KV, 14));                /* shortest pair */
    g->n_tensors = (size_t)n_tensors;
    g->n_kv = (size_t)n_kv;
    return CR_OK;
}

static cr_status read_all(struct cursor *c, struct cr_gguf *g)
{
    CR_TRY(read_header(c, g));
    g->kv = cr_zalloc(g->n_kv, sizeof *g->kv);
    if (g->kv == NULL) {
        return no_memory(c);
    }
    for (size_t i = 0; i < g->n_kv; i++) {
        CR_TRY(read_pair(c, i, &g->kv[i]));
    }
    uint64_t end = c->at;
    CR_TRY(copy_keys(c, g));
    CR_TRY(read_alignment(c, g));
    c->at = end;
    return read_tensors(c, g);
}

/* Takes the map, also on failure. */
static cr_status open_mapped(struct cr_file_map map, const char *label, struct cr_gguf **out, struct cr_error *err)
{
    struct cr_gguf *g = cr_zalloc(1, sizeof *g);
    char shown[CR_ESCAPE_BYTES];
    cr_escape(shown, sizeof shown, label, strlen(label));
    if (g == NULL) {
        cr_file_map_close(&map);
        return cr_fail(err, CR_E_MEMORY, "%s: no memory for the metadata", shown);
    }
    g->map = map;
    g->data = map.data;
    g->bytes = map.bytes;
    struct cursor c = {.data = g->data, .n = g->bytes, .label = shown, .err = err};
    cr_status status;
    g->label = cr_strdup(shown);
    if (g->label == NULL) {
        status = no_memory(&c);
        goto out;
    }
    CR_TRY_OUT(status, read_all(&c, g));
    if (cr_gguf_changed(g)) {
        status = cr_fail(err, CR_E_IO, "%s: file changed while it was read", shown);
        goto out;
    }
    *out = g;
    g = NULL;
out:
    cr_gguf_close(g);
    return status;
}

cr_status cr_gguf_open(const char *path, struct cr_gguf **out, struct cr_error *err)
{
    struct cr_file_map map;
    CR_TRY(cr_file_map_open(path, &map, err));
    return open_mapped(map, path, out, err);
}

cr_status cr_gguf_parse(const uint8_t *data, size_t bytes, const char *label, struct cr_gguf **out,
                        struct cr_error *err)
{
    return open_mapped((struct cr_file_map){.data = data, .bytes = bytes, .fd = -1}, label, out, err);
}

void cr_gguf_close(struct cr_gguf *g)
{
    if (g == NULL) {
        return;
    }
    for (size_t i = 0; g->kv != NULL && i < g->n_kv; i++) {
        cr_free(g->kv[i].item_offsets);
    }
    cr_free(g->kv);
    cr_free(g->kv_index);
    cr_free(g->key_text);
    cr_free(g->tensors);
    cr_free(g->tensor_index);
    cr_free(g->label);
    cr_file_map_close(&g->map);
    cr_free(g);
}
