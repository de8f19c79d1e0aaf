/* Strict JSON: one linear scan of ours for what the bytes must satisfy, then jansson for the grammar.
 *
 * Refused beyond RFC 8259: invalid UTF-8, nesting deeper than 64, duplicate keys (after unescaping), a NUL in a key,
 * numbers outside int64 (integers) or double (reals), bytes behind the value, a byte-order mark. NUL in a string is
 * kept. Errors: CR_E_INPUT with label (printed as it is: escape paths first), byte offset, line and column;
 * CR_E_MEMORY. Integers stay integers.
 */
#ifndef CR_IO_JSON_H
#define CR_IO_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/core/error.h"

/* UTF-8 validity, depth, raw control characters; foreign kinds of file (UTF-16, gzip, byte-order mark) are named.
 * *fault (may be NULL) = offset of the first offending byte. label NULL: the message has no prefix. */
cr_status cr_json_scan(const char *data, size_t n, const char *label, size_t *fault, struct cr_error *err);

/* Scan and parse of one value. *out is owned: json_decref. Untouched on failure. */
cr_status cr_json_parse(const char *data, size_t n, const char *label, json_t **out, struct cr_error *err);

/* The same from a file of at most max_bytes. */
cr_status cr_json_load(const char *path, size_t max_bytes, json_t **out, struct cr_error *err);

/* A text that must be one JSON object, refused before the work that it belongs to; NULL is fine. Errors: CR_E_USAGE
 * naming the option, CR_E_MEMORY. */
cr_status cr_json_check_object(const char *option, const char *text, struct cr_error *err);

/* Members of an object. Absent (or null, when not required): CR_E_INPUT if required, else CR_OK with *out untouched.
 * Wrong type or out of range: CR_E_INPUT naming label and key. Strings are borrowed from `object`. */
cr_status cr_json_get_str(const json_t *object, const char *key, bool required, const char **out, size_t *n,
                          const char *label, struct cr_error *err);
cr_status cr_json_get_int(const json_t *object, const char *key, bool required, int64_t min, int64_t max, int64_t *out,
                          const char *label, struct cr_error *err);
cr_status cr_json_get_number(const json_t *object, const char *key, bool required, double *out, const char *label,
                             struct cr_error *err); /* integer or real, finite */
cr_status cr_json_get_bool(const json_t *object, const char *key, bool required, bool *out, const char *label,
                           struct cr_error *err);

/* "an object", "a string", ...; static storage. */
const char *cr_json_type_name(const json_t *value);

/* object[key] = value, value at the end of an array, as jansson's own calls, for texts of which no part may be missing:
 * without memory for it, or for value, *object is freed and NULL from then on, which no writer takes. Take value. */
void cr_json_put(json_t **object, const char *key, json_t *value);
void cr_json_add(json_t **array, json_t *value);

/* A number, or null when it is none. New reference, NULL without memory. */
json_t *cr_json_finite(double value);

/* A string; bytes that are not UTF-8 are written as escapes. New reference, NULL without memory. */
json_t *cr_json_text(const char *text);

/* As json_dumps, but NULL whatever memory fails: jansson (2.14) takes no notice when the text of a key finds no room.
 * Returns owned: cr_free. */
char *cr_json_dumps(const json_t *value, size_t flags);

/* Atomic write: sorted keys, indent 2, lists of numbers on one line, a final line feed. */
cr_status cr_json_write(const json_t *value, const char *path, struct cr_error *err);

#endif
