/* Reading forward through the metadata with checks; messages that say where. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/gguf_private.h"

cr_status cr_gguf_fail(struct cr_gguf_cursor *c, const char *format, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    return cr_fail(c->err, CR_E_INPUT, "%s: byte %llu: %s%s%s", c->label, (unsigned long long)c->at, c->where,
                   c->where[0] != '\0' ? ": " : "", text);
}

cr_status cr_gguf_no_memory(struct cr_gguf_cursor *c)
{
    return cr_fail(c->err, CR_E_MEMORY, "%s: no memory for the metadata", c->label);
}

/* "KIND i" and, once its name is known, the name. */
void cr_gguf_where(struct cr_gguf_cursor *c, const char *kind, uint64_t i, const char *name, size_t n)
{
    char shown[120];
    if (name == NULL) {
        snprintf(c->where, sizeof c->where, "%s %llu", kind, (unsigned long long)i);
    } else {
        snprintf(c->where, sizeof c->where, "%s \"%s\"", kind, cr_escape(shown, sizeof shown, name, n));
    }
}

cr_status cr_gguf_read_u32(struct cr_gguf_cursor *c, const char *what, uint32_t *out)
{
    if (cr_gguf_left(c) < 4) {
        return cr_gguf_fail(c, "truncated: %s needs 4 bytes, %llu left", what, (unsigned long long)cr_gguf_left(c));
    }
    *out = cr_le32(c->data + c->at);
    c->at += 4;
    return CR_OK;
}

cr_status cr_gguf_read_u64(struct cr_gguf_cursor *c, const char *what, uint64_t *out)
{
    if (cr_gguf_left(c) < 8) {
        return cr_gguf_fail(c, "truncated: %s needs 8 bytes, %llu left", what, (unsigned long long)cr_gguf_left(c));
    }
    *out = cr_le64(c->data + c->at);
    c->at += 8;
    return CR_OK;
}

/* A length-prefixed string; *text points into the file. */
cr_status cr_gguf_read_string(struct cr_gguf_cursor *c, const char *what, uint64_t max, const uint8_t **text,
                              uint64_t *n)
{
    uint64_t length = 0;
    uint64_t start = c->at;
    CR_TRY(cr_gguf_read_u64(c, what, &length));
    const char *wrong = length > cr_gguf_left(c) ? "left in the file" : length > max ? "allowed" : NULL;
    if (wrong != NULL) {
        uint64_t limit = length > cr_gguf_left(c) ? cr_gguf_left(c) : max;
        c->at = start;
        return cr_gguf_fail(c, "%s length %llu, at most %llu %s", what, (unsigned long long)length,
                            (unsigned long long)limit, wrong);
    }
    *text = c->data + c->at;
    *n = length;
    c->at += length;
    return CR_OK;
}

/* A string that names something: 1...max bytes without NUL. */
cr_status cr_gguf_read_name(struct cr_gguf_cursor *c, const char *what, uint64_t max, const uint8_t **text, uint64_t *n)
{
    uint64_t start = c->at;
    CR_TRY(cr_gguf_read_string(c, what, max, text, n));
    if (*n == 0 || memchr(*text, 0, (size_t)*n) != NULL) {
        c->at = start;
        return *n == 0 ? cr_gguf_fail(c, "%s length 0, expected 1 to %llu", what, (unsigned long long)max)
                       : cr_gguf_fail(c, "%s with a NUL byte", what);
    }
    return CR_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct cr_gguf_name *)a)->name, ((const struct cr_gguf_name *)b)->name);
}

/* Sorts the index; the name that stands in it twice, or NULL. */
const char *cr_gguf_sort_names(struct cr_gguf_name *index, size_t n)
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
