/* Configuration files: a JSON object whose members are flags. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "credence/credence.h"
#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/io/json.h"

enum { MAX_CONFIG_BYTES = 1 << 20 };

/* Shortest text of a real that reads back as the same value. jansson writes a point whatever the locale. */
static cr_status put_real(struct cr_buf *text, const json_t *value, struct cr_error *err)
{
    char digits[64];
    for (size_t precision = 6; precision <= 17; precision++) {
        size_t n = json_dumpb(value, digits, sizeof digits, JSON_ENCODE_ANY | JSON_REAL_PRECISION(precision));
        json_t *back = n > 0 && n <= sizeof digits ? json_loadb(digits, n, JSON_DECODE_ANY, NULL) : NULL;
        if (back == NULL) {
            return cr_fail(err, CR_E_MEMORY, "no memory for a number");
        }
        bool same = json_number_value(back) == json_number_value(value);
        json_decref(back);
        if (same || precision == 17) {
            cr_buf_append(text, digits, n);
            break;
        }
    }
    return CR_OK;
}

/* Appends the text a flag would be given as. */
static cr_status put_value(struct cr_buf *text, const char *key, const json_t *value, struct cr_error *err)
{
    char escaped[CR_ESCAPE_BYTES];
    switch (json_typeof(value)) {
    case JSON_STRING:
        if (strlen(json_string_value(value)) != json_string_length(value)) {
            return cr_fail(err, CR_E_INPUT, "key \"%s\": a string with a zero byte",
                           cr_escape(escaped, sizeof escaped, key, strlen(key)));
        }
        cr_buf_puts(text, json_string_value(value));
        return CR_OK;
    case JSON_INTEGER:
        cr_buf_printf(text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return CR_OK;
    case JSON_REAL:
        return put_real(text, value, err);
    case JSON_TRUE:
    case JSON_FALSE:
        cr_buf_puts(text, json_is_true(value) ? "yes" : "no");
        return CR_OK;
    case JSON_ARRAY:
    case JSON_OBJECT:
    case JSON_NULL:
        break;
    }
    return cr_fail(err, CR_E_INPUT, "key \"%s\": expected a string, a number, true, false or a list of those",
                   cr_escape(escaped, sizeof escaped, key, strlen(key)));
}

/* What the caller sets from the members. */
struct config {
    cr_config_set *set;
    void *ctx;
    struct cr_buf text;
};

/* value NULL: that of an empty list. */
static cr_status set_value(struct config *config, const char *key, size_t place, const json_t *value,
                           struct cr_error *err)
{
    struct cr_buf *text = &config->text;
    cr_buf_clear(text);
    cr_buf_puts(text, "");
    CR_TRY(value != NULL ? put_value(text, key, value, err) : CR_OK);
    if (text->failed || text->data == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the value of a key");
    }
    return config->set(config->ctx, key, place, text->data, err);
}

static cr_status set_member(struct config *config, const char *key, const json_t *value, struct cr_error *err)
{
    size_t n = json_array_size(value); /* 0 of what is no list */
    if (n == 0) {
        return set_value(config, key, 0, json_is_array(value) ? NULL : value, err);
    }
    for (size_t i = 0; i < n; i++) {
        CR_TRY(set_value(config, key, i, json_array_get(value, i), err));
    }
    return CR_OK;
}

cr_status cr_config_read(const char *path, cr_config_set *set, void *ctx, struct cr_error *err)
{
    json_t *object = NULL;
    struct config config = {.set = set, .ctx = ctx};
    char escaped[CR_ESCAPE_BYTES];
    const char *key;
    json_t *value;
    CR_TRY(cr_json_load(path, MAX_CONFIG_BYTES, &object, err));
    cr_escape(escaped, sizeof escaped, path, strlen(path));
    cr_status status = CR_OK;
    if (!json_is_object(object)) {
        status = cr_fail(err, CR_E_INPUT, "%s: expected a JSON object of flags", escaped);
        goto out;
    }
    json_object_foreach(object, key, value)
    {
        status = set_member(&config, key, value, err);
        if (status != CR_OK) {
            cr_fail_prefix(err, status, "%s", escaped);
            goto out;
        }
    }
out:
    cr_buf_free(&config.text);
    json_decref(object);
    return status;
}
