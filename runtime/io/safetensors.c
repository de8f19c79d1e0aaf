/* Opening: header, descriptions, ranges. Lookups are in safetensors_get.c, the writer in safetensors_write.c. */
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

/* "file: tensor "NAME"" as the label of an inner failure. raw: the key as it stands in the header. */
static const char *entry_label(const struct cr_safetensors *st, const struct cr_member *m, char label[CR_ESCAPE_BYTES])
{
    struct cr_error text;
    char name[200];
    cr_escape(name, sizeof name, m->key + 1, m->key_bytes - 2);
    cr_fail(&text, CR_E_INPUT, "%s: tensor \"%s\"", st->label, name);
    memcpy(label, text.message, sizeof text.message);
    return label;
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

static cr_status parse_entry(const struct cr_safetensors *st, const struct cr_member *m, struct cr_st_tensor *t,
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
            CR_TRY(parse_entry(st, &m, &scratch, err));
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
        CR_TRY(parse_entry(st, &m, t, err));
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
