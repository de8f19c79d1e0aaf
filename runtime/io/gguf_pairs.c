/* The metadata part of an opening: every pair is checked and indexed. */
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/gguf_private.h"

static cr_status skip_bools(struct cr_gguf_cursor *c, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        if (c->data[c->at] > 1) {
            return cr_gguf_fail(c, "bool with value %u, expected 0 or 1", c->data[c->at]);
        }
        c->at++;
    }
    return CR_OK;
}

static cr_status skip_array(struct cr_gguf_cursor *c, struct cr_gguf_pair *pair)
{
    uint32_t item_type = 0;
    uint64_t n = 0;
    CR_TRY(cr_gguf_read_u32(c, "element type", &item_type));
    if (item_type == CR_GGUF_ARRAY || cr_gguf_item_bytes(item_type) == 0) {
        c->at -= 4;
        return item_type == CR_GGUF_ARRAY ? cr_gguf_fail(c, "array of arrays, expected scalars or strings")
                                          : cr_gguf_fail(c, "array element type %u, expected 0 to 12", item_type);
    }
    CR_TRY(cr_gguf_read_u64(c, "array count", &n));
    uint64_t most = cr_gguf_left(c) / cr_gguf_item_bytes(item_type); /* a string takes 8 bytes at least */
    if (n > most) {
        c->at -= 8;
        return cr_gguf_fail(c, "array count %llu, room for at most %llu elements in the file", (unsigned long long)n,
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
        CR_TRY(cr_gguf_read_string(c, "array string", CR_GGUF_MAX_STRING_BYTES, &text, &bytes));
    }
    return CR_OK;
}

/* Only now that all strings are known to be there is their index allocated: 8 bytes for 8 or more in the file. */
static cr_status index_strings(struct cr_gguf_cursor *c, struct cr_gguf_pair *pair)
{
    if (pair->type != CR_GGUF_ARRAY || pair->item_type != CR_GGUF_STRING || pair->n == 0) {
        return CR_OK;
    }
    pair->item_offsets = cr_alloc((size_t)pair->n, sizeof *pair->item_offsets);
    if (pair->item_offsets == NULL) {
        return cr_gguf_no_memory(c);
    }
    uint64_t at = pair->value_at;
    for (uint64_t i = 0; i < pair->n; i++) {
        pair->item_offsets[i] = at;
        at += 8 + cr_le64(c->data + at);
    }
    return CR_OK;
}

static cr_status read_pair(struct cr_gguf_cursor *c, uint64_t i, struct cr_gguf_pair *pair)
{
    const uint8_t *key = NULL;
    uint64_t key_bytes = 0;
    cr_gguf_where(c, "key", i, NULL, 0);
    CR_TRY(cr_gguf_read_name(c, "key", CR_GGUF_MAX_KEY_BYTES, &key, &key_bytes));
    pair->key_at = c->at - key_bytes;
    pair->key_bytes = key_bytes;
    cr_gguf_where(c, "key", i, (const char *)key, (size_t)key_bytes);
    uint32_t type = 0;
    CR_TRY(cr_gguf_read_u32(c, "value type", &type));
    size_t bytes = cr_gguf_item_bytes(type);
    if (bytes == 0) {
        c->at -= 4;
        return cr_gguf_fail(c, "value type %lld, expected 0 to 12", (long long)(int32_t)type);
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
        CR_TRY(cr_gguf_read_string(c, "string", CR_GGUF_MAX_STRING_BYTES, &text, &pair->n));
        pair->value_at = c->at - pair->n;
        return CR_OK;
    }
    if (cr_gguf_left(c) < bytes) {
        return cr_gguf_fail(c, "truncated: value needs %zu bytes, %llu left", bytes,
                            (unsigned long long)cr_gguf_left(c));
    }
    if (type == CR_GGUF_BOOL) {
        return skip_bools(c, 1);
    }
    c->at += bytes;
    return CR_OK;
}

/* Terminated copies of all keys in one block: the file has no terminators. */
static cr_status copy_keys(struct cr_gguf_cursor *c, struct cr_gguf *g)
{
    size_t bytes = 0;
    for (size_t i = 0; i < g->n_kv; i++) {
        bytes += (size_t)g->kv[i].key_bytes + 1;
    }
    g->key_text = cr_alloc(bytes, 1);
    g->kv_index = cr_alloc(g->n_kv, sizeof *g->kv_index);
    if (g->key_text == NULL || g->kv_index == NULL) {
        return cr_gguf_no_memory(c);
    }
    char *text = g->key_text;
    for (size_t i = 0; i < g->n_kv; i++) {
        struct cr_gguf_pair *pair = &g->kv[i];
        memcpy(text, g->data + pair->key_at, (size_t)pair->key_bytes);
        text[pair->key_bytes] = '\0';
        pair->key = text;
        g->kv_index[i] = (struct cr_gguf_name){text, i};
        text += pair->key_bytes + 1;
    }
    const char *twice = cr_gguf_sort_names(g->kv_index, g->n_kv);
    if (twice != NULL) {
        cr_gguf_where(c, "key", 0, twice, strlen(twice));
        return cr_gguf_fail(c, "appears twice");
    }
    return CR_OK;
}

static cr_status read_alignment(struct cr_gguf_cursor *c, struct cr_gguf *g)
{
    static const char key[] = "general.alignment";
    struct cr_gguf_value v;
    g->alignment = CR_GGUF_DEFAULT_ALIGNMENT;
    if (!cr_gguf_find(g, key, &v)) {
        return CR_OK;
    }
    cr_gguf_where(c, "key", 0, key, sizeof key - 1);
    c->at = (uint64_t)(v.data - c->data);
    if (v.type != CR_GGUF_U32) {
        return cr_gguf_fail(c, "type %s, expected u32", cr_gguf_type_name(v.type));
    }
    uint32_t value = cr_le32(v.data);
    if (value < CR_GGUF_MIN_ALIGNMENT || value > CR_GGUF_MAX_ALIGNMENT || (value & (value - 1)) != 0) {
        return cr_gguf_fail(c, "value %u, expected a power of two from 8 to 1048576", value);
    }
    g->alignment = value;
    return CR_OK;
}

cr_status cr_gguf_read_pairs(struct cr_gguf_cursor *c, struct cr_gguf *g)
{
    g->kv = cr_zalloc(g->n_kv, sizeof *g->kv);
    if (g->kv == NULL) {
        return cr_gguf_no_memory(c);
    }
    for (size_t i = 0; i < g->n_kv; i++) {
        CR_TRY(read_pair(c, i, &g->kv[i]));
    }
    uint64_t end = c->at;
    CR_TRY(copy_keys(c, g));
    CR_TRY(read_alignment(c, g));
    c->at = end;
    return CR_OK;
}
