/* Walking the members of a JSON object without building a tree: the text of each key and value in turn. Memory stays
 * independent of the object's size. Values are only delimited here; their grammar is for cr_json_parse. */
#ifndef CR_IO_MEMBERS_H
#define CR_IO_MEMBERS_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/core/error.h"

struct cr_members {
    const char *text; /* borrowed; must have passed cr_json_scan */
    size_t n, at;
    const char *label; /* printed as it is */
    bool begun;
};

struct cr_member {
    const char *key; /* with its quotes, still escaped */
    size_t key_bytes;
    const char *value;
    size_t value_bytes;
};

/* The next member into *m; *more = false behind the last, when nothing but blanks may follow. CR_E_INPUT with the
 * byte offset for what is no object, a missing quote, colon or comma, a comma before the closing brace, a tail. */
cr_status cr_members_next(struct cr_members *members, struct cr_member *m, bool *more, struct cr_error *err);

/* Unescapes a JSON string (with its quotes) into out, which has room for n bytes; always shorter than the text.
 * Not terminated. CR_E_INPUT when it is no string or (with no_nul) holds a NUL. */
cr_status cr_json_unescape(const char *text, size_t n, bool no_nul, const char *label, char *out, size_t *out_bytes,
                           struct cr_error *err);

#endif
