#include "runtime/io/json.h"

#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/core/utf8.h"
#include "runtime/io/file.h"
#include "runtime/io/limits.h"
#include "runtime/io/sniff.h"

/* "label: " or nothing, as the two arguments of "%s%s". */
#define LABEL(label) (label) != NULL ? (label) : "", (label) != NULL ? ": " : ""

struct scan {
    const uint8_t *s;
    size_t n, at;
    int depth;
    const char *what; /* set = fault at `at` */
};

static void scan_byte_fault(struct scan *scan)
{
    uint8_t c = scan->s[scan->at];
    scan->what = c >= 0x80 ? "invalid UTF-8" : "control character, expected it escaped as \\u00XX";
}

/* From behind an opening quote to behind the closing one; the end of the data is left to the parser. */
static void scan_string(struct scan *scan)
{
    while (scan->at < scan->n) {
        uint8_t c = scan->s[scan->at];
        size_t length = c < 0x20 ? 0 : cr_utf8_length((const char *)scan->s + scan->at, scan->n - scan->at);
        if (length == 0) {
            scan_byte_fault(scan);
            return;
        }
        scan->at += length;
        if (c == '"') {
            return;
        }
        if (c == '\\' && scan->at < scan->n && scan->s[scan->at] < 0x80 && scan->s[scan->at] >= 0x20) {
            scan->at++;
        }
    }
}

static void scan_all(struct scan *scan)
{
    while (scan->at < scan->n && scan->what == NULL) {
        uint8_t c = scan->s[scan->at];
        if (c == '"') {
            scan->at++;
            scan_string(scan);
            continue;
        }
        if (c == '{' || c == '[') {
            if (++scan->depth > CR_JSON_MAX_DEPTH) {
                scan->what = "nesting deeper than 64 levels";
                return;
            }
        } else if (c == '}' || c == ']') {
            scan->depth--;
        }
        bool blank = c == ' ' || c == '\n' || c == '\r' || c == '\t';
        size_t length = c < 0x20 && !blank ? 0 : cr_utf8_length((const char *)scan->s + scan->at, scan->n - scan->at);
        if (length == 0) {
            scan_byte_fault(scan);
            return;
        }
        scan->at += length;
    }
}

cr_status cr_json_scan(const char *data, size_t n, const char *label, size_t *fault, struct cr_error *err)
{
    struct scan scan = {.s = (const uint8_t *)data, .n = n};
    scan_all(&scan);
    if (scan.what == NULL) {
        const char *bom = n >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0 ? cr_sniff(data, n) : NULL;
        if (bom == NULL) {
            return CR_OK;
        }
        if (fault != NULL) {
            *fault = 0;
        }
        return cr_fail(err, CR_E_INPUT, "%s%sis %s, expected plain JSON in UTF-8", LABEL(label), bom);
    }
    if (fault != NULL) {
        *fault = scan.at;
    }
    const char *kind = cr_sniff(data, n);
    if (kind != NULL) {
        return cr_fail(err, CR_E_INPUT, "%s%sis %s, expected JSON in UTF-8", LABEL(label), kind);
    }
    return cr_fail(err, CR_E_INPUT, "%s%sbyte %zu (0x%02x): %s", LABEL(label), scan.at, scan.s[scan.at], scan.what);
}

cr_status cr_json_parse(const char *data, size_t n, const char *label, json_t **out, struct cr_error *err)
{
    CR_TRY(cr_json_scan(data, n, label, NULL, err));
    json_error_t error;
    json_t *value = json_loadb(data, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (value != NULL) {
        *out = value;
        return CR_OK;
    }
    if (json_error_code(&error) == json_error_out_of_memory) {
        return cr_fail(err, CR_E_MEMORY, "%s%sno memory to parse %zu bytes of JSON", LABEL(label), n);
    }
    const char *kind = cr_sniff(data, n);
    if (kind != NULL) {
        return cr_fail(err, CR_E_INPUT, "%s%sis %s, expected JSON", LABEL(label), kind);
    }
    char text[CR_ESCAPE_BYTES]; /* the parser quotes bytes of the file in its text */
    cr_escape(text, sizeof text, error.text, strnlen(error.text, sizeof error.text));
    return cr_fail(err, CR_E_INPUT, "%s%sbyte %d, line %d, column %d: %s", LABEL(label), error.position, error.line,
                   error.column, text);
}

cr_status cr_json_load(const char *path, size_t max_bytes, json_t **out, struct cr_error *err)
{
    uint8_t *data;
    size_t n;
    char shown[CR_ESCAPE_BYTES];
    CR_TRY(cr_file_read(path, max_bytes, &data, &n, err));
    cr_escape(shown, sizeof shown, path, strlen(path));
    cr_status status = cr_json_parse((const char *)data, n, shown, out, err);
    cr_free(data);
    return status;
}

const char *cr_json_type_name(const json_t *value)
{
    static const char *const names[] = {"an object",     "an array", "a string", "an integer",
                                        "a real number", "true",     "false",    "null"};
    return names[json_typeof(value)];
}

/* The member, NULL with CR_OK when it may be and is absent. */
static cr_status member(const json_t *object, const char *key, bool required, const json_t **value, const char *label,
                        struct cr_error *err)
{
    *value = NULL;
    if (!json_is_object(object)) {
        return cr_fail(err, CR_E_INPUT, "%s%s%s, expected an object with \"%s\"", LABEL(label),
                       object != NULL ? cr_json_type_name(object) : "nothing", key);
    }
    const json_t *found = json_object_get(object, key);
    if (found == NULL || (!required && json_is_null(found))) {
        return required ? cr_fail(err, CR_E_INPUT, "%s%s\"%s\" is missing", LABEL(label), key) : CR_OK;
    }
    *value = found;
    return CR_OK;
}

static cr_status wrong_type(const json_t *value, const char *key, const char *expected, const char *label,
                            struct cr_error *err)
{
    return cr_fail(err, CR_E_INPUT, "%s%s\"%s\" is %s, expected %s", LABEL(label), key, cr_json_type_name(value),
                   expected);
}

cr_status cr_json_get_str(const json_t *object, const char *key, bool required, const char **out, size_t *n,
                          const char *label, struct cr_error *err)
{
    const json_t *value;
    CR_TRY(member(object, key, required, &value, label, err));
    if (value == NULL) {
        return CR_OK;
    }
    if (!json_is_string(value)) {
        return wrong_type(value, key, "a string", label, err);
    }
    *out = json_string_value(value);
    if (n != NULL) {
        *n = json_string_length(value);
    }
    return CR_OK;
}

cr_status cr_json_get_int(const json_t *object, const char *key, bool required, int64_t min, int64_t max, int64_t *out,
                          const char *label, struct cr_error *err)
{
    const json_t *value;
    CR_TRY(member(object, key, required, &value, label, err));
    if (value == NULL) {
        return CR_OK;
    }
    if (!json_is_integer(value)) {
        return wrong_type(value, key, "an integer", label, err);
    }
    int64_t number = json_integer_value(value);
    if (number < min || number > max) {
        return cr_fail(err, CR_E_INPUT, "%s%s\"%s\" is %lld, expected %lld to %lld", LABEL(label), key,
                       (long long)number, (long long)min, (long long)max);
    }
    *out = number;
    return CR_OK;
}

cr_status cr_json_get_number(const json_t *object, const char *key, bool required, double *out, const char *label,
                             struct cr_error *err)
{
    const json_t *value;
    CR_TRY(member(object, key, required, &value, label, err));
    if (value == NULL) {
        return CR_OK;
    }
    if (!json_is_number(value) || !isfinite(json_number_value(value))) {
        return wrong_type(value, key, "a finite number", label, err);
    }
    *out = json_number_value(value);
    return CR_OK;
}

cr_status cr_json_get_bool(const json_t *object, const char *key, bool required, bool *out, const char *label,
                           struct cr_error *err)
{
    const json_t *value;
    CR_TRY(member(object, key, required, &value, label, err));
    if (value == NULL) {
        return CR_OK;
    }
    if (!json_is_boolean(value)) {
        return wrong_type(value, key, "true or false", label, err);
    }
    *out = json_is_true(value);
    return CR_OK;
}

cr_status cr_json_check_object(const char *option, const char *text, struct cr_error *err)
{
    json_t *value = NULL;
    if (text == NULL) {
        return CR_OK;
    }
    cr_status status = cr_json_parse(text, strlen(text), option, &value, err);
    if (status == CR_OK && !json_is_object(value)) {
        status = cr_fail(err, CR_E_USAGE, "%s: %s, one JSON object expected", option, cr_json_type_name(value));
    }
    json_decref(value);
    return status == CR_E_INPUT ? cr_fail_prefix(err, CR_E_USAGE, "options") : status;
}

/* Lists of numbers go on one line: behind `[`, white space is left out up to `]` when no other value comes before it.
 */
static void join_numbers(char *text)
{
    char *to = text;
    bool in_string = false, joining = false;
    for (const char *from = text; *from != '\0'; from++) {
        if (*from == '"') {
            in_string = !in_string;
        } else if (in_string && *from == '\\') {
            *to++ = *from++; /* what is escaped ends no string */
        } else if (!in_string && *from == '[') {
            joining = from[1 + strcspn(from + 1, "[{]\"")] == ']';
        } else if (!in_string && *from == ']') {
            joining = false;
        }
        if (!joining || (*from != ' ' && *from != '\n')) {
            *to++ = *from;
        }
    }
    *to = '\0';
}

static int append_text(const char *text, size_t n, void *out)
{
    cr_buf_append(out, text, n);
    return 0;
}

char *cr_json_dumps(const json_t *value, size_t flags)
{
    struct cr_buf out = {0};
    char *text = json_dump_callback(value, append_text, &out, flags) == 0 ? cr_buf_take(&out, NULL) : NULL;
    cr_buf_free(&out);
    return text;
}

cr_status cr_json_write(const json_t *value, const char *path, struct cr_error *err)
{
    char *text = cr_json_dumps(value, JSON_SORT_KEYS | JSON_INDENT(2) | JSON_ENCODE_ANY);
    if (text == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory to format JSON");
    }
    join_numbers(text);
    struct cr_buf line = {0};
    cr_buf_puts(&line, text);
    cr_buf_putc(&line, '\n');
    cr_status status = line.failed ? cr_fail(err, CR_E_MEMORY, "no memory to format JSON")
                                   : cr_file_write(path, line.data, line.n, err);
    cr_buf_free(&line);
    cr_free(text);
    return status;
}

/* What a value did not get into is no longer whole. */
static void keep_whole(json_t **container, int result)
{
    if (result != 0) {
        json_decref(*container);
        *container = NULL;
    }
}

void cr_json_put(json_t **object, const char *key, json_t *value)
{
    keep_whole(object, json_object_set_new(*object, key, value));
}

void cr_json_add(json_t **array, json_t *value)
{
    keep_whole(array, json_array_append_new(*array, value));
}

json_t *cr_json_finite(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *cr_json_text(const char *text)
{
    json_t *value = json_string(text);
    char shown[CR_ESCAPE_BYTES];
    return value != NULL ? value : json_string(cr_escape(shown, sizeof shown, text, strlen(text)));
}
