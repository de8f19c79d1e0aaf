/* Opening a file: header, then pairs (gguf_pairs.c) and tensors (gguf_tensors.c). Lookups are in gguf_get.c. */
#include "runtime/io/gguf.h"

#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/gguf_private.h"
#include "runtime/io/sniff.h"

static cr_status check_magic(struct cr_gguf_cursor *c)
{
    static const char magic[] = "GGUF";
    size_t n = c->n < 4 ? (size_t)c->n : 4;
    if (memcmp(c->data, magic, n) != 0) {
        char shown[32];
        const char *kind = cr_sniff(c->data, (size_t)c->n);
        cr_escape(shown, sizeof shown, (const char *)c->data, n);
        return cr_gguf_fail(c, "magic \"%s\", expected \"GGUF\"%s%s", shown, kind != NULL ? "; this is " : "",
                            kind != NULL ? kind : "");
    }
    if (n < 4) {
        return cr_gguf_fail(c, "truncated: magic needs 4 bytes, %zu in the file", n);
    }
    c->at = 4;
    return CR_OK;
}

static cr_status check_count(struct cr_gguf_cursor *c, const char *what, uint64_t n, uint64_t limit,
                             uint64_t item_bytes)
{
    uint64_t most = cr_gguf_left(c) / item_bytes;
    if (n > most || n > limit) {
        return cr_gguf_fail(c, "%s %llu, at most %llu %s", what, (unsigned long long)n,
                            (unsigned long long)(most < limit ? most : limit),
                            most < limit ? "fit into the rest of the file" : "allowed");
    }
    return CR_OK;
}

static cr_status read_header(struct cr_gguf_cursor *c, struct cr_gguf *g)
{
    CR_TRY(check_magic(c));
    CR_TRY(cr_gguf_read_u32(c, "version", &g->version));
    if (g->version != 2 && g->version != 3) {
        c->at = 4;
        return g->version == 0x02000000 || g->version == 0x03000000
                   ? cr_gguf_fail(c, "version in the other byte order (big-endian file), expected little-endian")
                   : cr_gguf_fail(c, "version %u is unsupported, expected 2 or 3", g->version);
    }
    uint64_t n_tensors = 0, n_kv = 0;
    CR_TRY(cr_gguf_read_u64(c, "n_tensors", &n_tensors));
    CR_TRY(cr_gguf_read_u64(c, "n_kv", &n_kv));
    CR_TRY(check_count(c, "n_tensors", n_tensors, CR_GGUF_MAX_TENSORS, 33)); /* shortest tensor record */
    CR_TRY(check_count(c, "n_kv", n_kv, CR_GGUF_MAX_KV, 14));                /* shortest pair */
    g->n_tensors = (size_t)n_tensors;
    g->n_kv = (size_t)n_kv;
    return CR_OK;
}

static cr_status read_all(struct cr_gguf_cursor *c, struct cr_gguf *g)
{
    CR_TRY(read_header(c, g));
    CR_TRY(cr_gguf_read_pairs(c, g));
    return cr_gguf_read_tensors(c, g);
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
    struct cr_gguf_cursor c = {.data = g->data, .n = g->bytes, .label = shown, .err = err};
    cr_status status;
    g->label = cr_strdup(shown);
    if (g->label == NULL) {
        status = cr_gguf_no_memory(&c);
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
