/* Opening: header, names, ranges. One description is in safetensors_entry.c, lookups are in safetensors_get.c, the
 * writer in safetensors_write.c. */
#define _GNU_SOURCE /* qsort_r */
#include "runtime/io/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"
#include "runtime/io/members.h"
#include "runtime/io/safetensors_private.h"
#include "runtime/io/sniff.h"

/* The shortest description that can be valid: {"dtype":"U8","shape":[],"data_offsets":[0,0]}. Anything shorter is
 * refused while counting, so that the table of tensors is never larger than a few times the text. */
#define SHORTEST_ENTRY 46

static cr_status no_memory(const struct cr_safetensors *st, struct cr_error *err)
{
    return cr_fail(err, CR_E_MEMORY, "%s: no memory for the header", st->label);
}

/* Unescapes a string into the text block and terminates it. */
static cr_status keep_text(struct cr_safetensors *st, const char *raw, size_t raw_bytes, bool no_nul, uint32_t *at,
                           size_t *bytes, struct cr_error *err)
{
    char *out = st->text + st->text_bytes;
    size_t n = 0;
    CR_TRY(cr_json_unescape(raw, raw_bytes, no_nul, st->label, out, &n, err));
    out[n] = '\0';
    *at = (uint32_t)st->text_bytes;
    *bytes = n;
    st->text_bytes += n + 1;
    return CR_OK;
}

static bool is_metadata(const struct cr_safetensors *st, uint32_t key)
{
    return strcmp(st->text + key, "__metadata__") == 0;
}

static struct cr_members walk(const struct cr_safetensors *st, const char *text, size_t n)
{
    return (struct cr_members){.text = text, .n = n, .label = st->label};
}

static int compare_meta(const void *a, const void *b, void *text)
{
    const char *t = text;
    return strcmp(t + ((const struct cr_st_meta *)a)->key, t + ((const struct cr_st_meta *)b)->key);
}

static cr_status parse_metadata(struct cr_safetensors *st, const struct cr_member *object, struct cr_error *err)
{
    struct cr_member m;
    bool more = false;
    if (st->meta != NULL) {
        return cr_fail(err, CR_E_INPUT, "%s: \"__metadata__\" appears twice", st->label);
    }
    struct cr_members members = walk(st, object->value, object->value_bytes);
    size_t n = 0;
    for (;; n++) {
        CR_TRY(cr_members_next(&members, &m, &more, err));
        if (!more) {
            break;
        }
        if (m.value[0] != '"') {
            char key[100], value[100];
            return cr_fail(err, CR_E_INPUT, "%s: \"__metadata__\" %s is %s, expected a string", st->label,
                           cr_escape(key, sizeof key, m.key, m.key_bytes),
                           cr_escape(value, sizeof value, m.value, m.value_bytes));
        }
    }
    st->meta = cr_alloc(n, sizeof *st->meta);
    if (st->meta == NULL) {
        return no_memory(st, err);
    }
    members = walk(st, object->value, object->value_bytes);
    for (size_t i = 0; i < n; i++) {
        size_t bytes;
        struct cr_st_meta *meta = &st->meta[i];
        CR_TRY(cr_members_next(&members, &m, &more, err));
        CR_TRY(keep_text(st, m.key, m.key_bytes, true, &meta->key, &bytes, err));
        CR_TRY(keep_text(st, m.value, m.value_bytes, false, &meta->value, &bytes, err));
        meta->value_bytes = (uint32_t)bytes;
    }
    st->n_meta = n;
    if (n > 0) {
        qsort_r(st->meta, n, sizeof *st->meta, compare_meta, st->text);
    }
    for (size_t i = 1; i < n; i++) {
        if (compare_meta(&st->meta[i - 1], &st->meta[i], st->text) == 0) {
            char key[100];
            const char *twice = st->text + st->meta[i].key;
            return cr_fail(err, CR_E_INPUT, "%s: \"__metadata__\" key \"%s\" appears twice", st->label,
                           cr_escape(key, sizeof key, twice, strlen(twice)));
        }
    }
    return CR_OK;
}

/* Number of members; every one long enough to be a tensor or the metadata. */
static cr_status count_entries(const struct cr_safetensors *st, size_t *n, struct cr_error *err)
{
    struct cr_members members = walk(st, st->header, st->header_bytes);
    for (*n = 0;; ++*n) {
        struct cr_member m;
        bool more = false;
        CR_TRY(cr_members_next(&members, &m, &more, err));
        if (!more) {
            return CR_OK;
        }
        if (m.value_bytes < SHORTEST_ENTRY && (m.key_bytes < 14 || m.value[0] != '{')) {
            struct cr_st_tensor scratch;
            CR_TRY(cr_st_parse_entry(st, &m, &scratch, err));
        }
    }
}

static cr_status parse_entries(struct cr_safetensors *st, size_t n_members, struct cr_error *err)
{
    struct cr_members members = walk(st, st->header, st->header_bytes);
    for (size_t i = 0; i < n_members; i++) {
        struct cr_member m;
        bool more = false;
        uint32_t key = 0;
        size_t key_bytes = 0;
        CR_TRY(cr_members_next(&members, &m, &more, err));
        CR_TRY(keep_text(st, m.key, m.key_bytes, true, &key, &key_bytes, err));
        if (is_metadata(st, key)) {
            CR_TRY(parse_metadata(st, &m, err));
            continue;
        }
        if (key_bytes == 0 || key_bytes > CR_SAFETENSORS_MAX_NAME_BYTES) {
            return cr_fail(err, CR_E_INPUT, "%s: tensor name of %zu bytes, expected 1 to %u", st->label, key_bytes,
                           CR_SAFETENSORS_MAX_NAME_BYTES);
        }
        struct cr_st_tensor *t = &st->tensors[st->n];
        CR_TRY(cr_st_parse_entry(st, &m, t, err));
        t->name = st->text + key;
        st->n++;
    }
    return CR_OK;
}

static int compare_ranges(const void *a, const void *b)
{
    const struct cr_st_tensor *x = a, *y = b;
    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    if (x->bytes != y->bytes) {
        return x->bytes < y->bytes ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct cr_st_name *)a)->name, ((const struct cr_st_name *)b)->name);
}

static cr_status range_fault(const struct cr_safetensors *st, const struct cr_st_tensor *t, const char *what,
                             uint64_t place, struct cr_error *err)
{
    char name[300];
    return cr_fail(err, CR_E_INPUT, "%s: tensor \"%s\": data_offsets %llu to %llu %s at %llu", st->label,
                   cr_escape(name, sizeof name, t->name, strlen(t->name)), (unsigned long long)t->begin,
                   (unsigned long long)(t->begin + t->bytes), what, (unsigned long long)place);
}

/* The ranges in order must follow each other and end with the file. */
static cr_status place_tensors(struct cr_safetensors *st, struct cr_error *err)
{
    size_t start = 8 + st->header_bytes;
    uint64_t room = st->bytes - start;
    uint64_t at = 0;
    qsort(st->tensors, st->n, sizeof *st->tensors, compare_ranges);
    for (size_t i = 0; i < st->n; i++) {
        struct cr_st_tensor *t = &st->tensors[i];
        if (t->begin > room || t->bytes > room - t->begin) {
            return range_fault(st, t, "reach beyond the data, truncated", room, err);
        }
        if (t->begin != at) {
            return range_fault(
                st, t, t->begin < at ? "overlap the tensor before, which ends" : "leave a hole, expected to begin", at,
                err);
        }
        at += t->bytes;
        t->data = st->data + start + t->begin;
        st->index[i] = (struct cr_st_name){t->name, i};
    }
    if (at != room) {
        return cr_fail(err, CR_E_INPUT, "%s: %llu bytes after the last tensor, expected none", st->label,
                       (unsigned long long)(room - at));
    }
    qsort(st->index, st->n, sizeof *st->index, compare_names);
    for (size_t i = 1; i < st->n; i++) {
        if (compare_names(&st->index[i - 1], &st->index[i]) == 0) {
            char name[300];
            return cr_fail(err, CR_E_INPUT, "%s: tensor \"%s\" appears twice", st->label,
                           cr_escape(name, sizeof name, st->index[i].name, strlen(st->index[i].name)));
        }
    }
    return CR_OK;
}

static cr_status find_header(struct cr_safetensors *st, struct cr_error *err)
{
    const char *kind = st->bytes > 8 && st->data[8] == '{' ? NULL : cr_sniff(st->data, st->bytes);
    const char *is = kind != NULL ? "; this is " : "";
    kind = kind != NULL ? kind : "";
    if (st->bytes < 8) {
        return cr_fail(err, CR_E_INPUT, "%s: file of %zu bytes, expected at least 8 for the header length%s%s",
                       st->label, st->bytes, is, kind);
    }
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) {
        n = n << 8 | st->data[i];
    }
    uint64_t most = st->bytes - 8 < CR_SAFETENSORS_MAX_HEADER ? st->bytes - 8 : CR_SAFETENSORS_MAX_HEADER;
    if (n < 2 || n > most) {
        return cr_fail(err, CR_E_INPUT, "%s: byte 0: header length %llu, expected 2 to %llu%s%s", st->label,
                       (unsigned long long)n, (unsigned long long)most, is, kind);
    }
    st->header = (const char *)st->data + 8;
    st->header_bytes = (size_t)n;
    return CR_OK;
}

static cr_status read_all(struct cr_safetensors *st, struct cr_error *err)
{
    size_t n = 0;
    CR_TRY(find_header(st, err));
    cr_status status = cr_json_scan(st->header, st->header_bytes, NULL, NULL, err);
    if (status != CR_OK) {
        return cr_fail_prefix(err, status, "%s: header", st->label);
    }
    CR_TRY(count_entries(st, &n, err));
    st->text = cr_alloc(st->header_bytes, 1);
    st->tensors = cr_zalloc(n, sizeof *st->tensors);
    st->index = cr_alloc(n, sizeof *st->index);
    if (st->text == NULL || st->tensors == NULL || st->index == NULL) {
        return no_memory(st, err);
    }
    CR_TRY(parse_entries(st, n, err));
    return place_tensors(st, err);
}

static cr_status open_mapped(struct cr_file_map map, const char *label, struct cr_safetensors **out,
                             struct cr_error *err)
{
    struct cr_safetensors *st = cr_zalloc(1, sizeof *st);
    char shown[CR_ESCAPE_BYTES];
    cr_escape(shown, sizeof shown, label, strlen(label));
    if (st == NULL) {
        cr_file_map_close(&map);
        return cr_fail(err, CR_E_MEMORY, "%s: no memory for the header", shown);
    }
    st->map = map;
    st->data = map.data;
    st->bytes = map.bytes;
    cr_status status;
    st->label = cr_strdup(shown);
    if (st->label == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "%s: no memory for the header", shown);
        goto out;
    }
    CR_TRY_OUT(status, read_all(st, err));
    if (cr_safetensors_changed(st)) {
        status = cr_fail(err, CR_E_IO, "%s: file changed while it was read", shown);
        goto out;
    }
    *out = st;
    st = NULL;
out:
    cr_safetensors_close(st);
    return status;
}

cr_status cr_safetensors_open(const char *path, struct cr_safetensors **out, struct cr_error *err)
{
    struct cr_file_map map;
    CR_TRY(cr_file_map_open(path, &map, err));
    return open_mapped(map, path, out, err);
}

cr_status cr_safetensors_parse(const uint8_t *data, size_t bytes, const char *label, struct cr_safetensors **out,
                               struct cr_error *err)
{
    return open_mapped((struct cr_file_map){.data = data, .bytes = bytes, .fd = -1}, label, out, err);
}

void cr_safetensors_close(struct cr_safetensors *st)
{
    if (st == NULL) {
        return;
    }
    cr_free(st->tensors);
    cr_free(st->index);
    cr_free(st->meta);
    cr_free(st->text);
    cr_free(st->label);
    cr_file_map_close(&st->map);
    cr_free(st);
}
