#include "runtime/io/members.h"

#include <string.h>

#include "runtime/io/json.h"

static void skip_blanks(struct cr_members *s)
{
    while (s->at < s->n && strchr(" \t\r\n", s->text[s->at]) != NULL && s->text[s->at] != '\0') {
        s->at++;
    }
}

static cr_status expected(const struct cr_members *s, const char *what, struct cr_error *err)
{
    char shown[16] = "the end";
    if (s->at < s->n) {
        cr_escape(shown, sizeof shown, s->text + s->at, 1);
    }
    return cr_fail(err, CR_E_INPUT, "%s: byte %zu: found %s, expected %s", s->label, s->at, shown, what);
}

/* From an opening quote to behind the closing one. */
static cr_status skip_string(struct cr_members *s, const char *what, struct cr_error *err)
{
    if (s->at >= s->n || s->text[s->at] != '"') {
        return expected(s, what, err);
    }
    for (s->at++; s->at < s->n; s->at++) {
        if (s->text[s->at] == '\\') {
            s->at++;
        } else if (s->text[s->at] == '"') {
            s->at++;
            return CR_OK;
        }
    }
    s->at = s->n;
    return expected(s, "the closing quote of a string", err);
}

static cr_status skip_value(struct cr_members *s, struct cr_error *err)
{
    size_t start = s->at;
    size_t depth = 0;
    while (s->at < s->n) {
        char c = s->text[s->at];
        if (c == '"') {
            CR_TRY(skip_string(s, "a string", err));
            continue;
        }
        if (depth == 0 && strchr(",}] \t\r\n", c) != NULL) {
            break;
        }
        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
        s->at++;
        if (depth == 0 && (c == '}' || c == ']')) {
            break;
        }
    }
    if (depth > 0) {
        return expected(s, "a closing bracket", err);
    }
    return s->at > start ? CR_OK : expected(s, "a value", err);
}

static cr_status finish(struct cr_members *s, bool *more, struct cr_error *err)
{
    s->at++;
    skip_blanks(s);
    *more = false;
    return s->at == s->n ? CR_OK : expected(s, "the end", err);
}

cr_status cr_members_next(struct cr_members *s, struct cr_member *m, bool *more, struct cr_error *err)
{
    skip_blanks(s);
    if (!s->begun) {
        if (s->at >= s->n || s->text[s->at] != '{') {
            return expected(s, "{", err);
        }
        s->begun = true;
        s->at++;
        skip_blanks(s);
        if (s->at < s->n && s->text[s->at] == '}') {
            return finish(s, more, err);
        }
    } else {
        if (s->at < s->n && s->text[s->at] == '}') {
            return finish(s, more, err);
        }
        if (s->at >= s->n || s->text[s->at] != ',') {
            return expected(s, ", or }", err);
        }
        s->at++;
        skip_blanks(s);
    }
    m->key = s->text + s->at;
    CR_TRY(skip_string(s, "a key in double quotes", err));
    m->key_bytes = (size_t)(s->text + s->at - m->key);
    skip_blanks(s);
    if (s->at >= s->n || s->text[s->at] != ':') {
        return expected(s, ":", err);
    }
    s->at++;
    skip_blanks(s);
    m->value = s->text + s->at;
    CR_TRY(skip_value(s, err));
    m->value_bytes = (size_t)(s->text + s->at - m->value);
    *more = true;
    return CR_OK;
}

cr_status cr_json_unescape(const char *text, size_t n, bool no_nul, const char *label, char *out, size_t *out_bytes,
                           struct cr_error *err)
{
    if (n >= 2 && text[0] == '"' && memchr(text, '\\', n) == NULL) { /* no escapes: scanned text is a string as is */
        memcpy(out, text + 1, n - 2);
        *out_bytes = n - 2;
        return CR_OK;
    }
    json_t *value = NULL;
    CR_TRY(cr_json_parse(text, n, label, &value, err));
    cr_status status = CR_OK;
    if (!json_is_string(value)) {
        status = cr_fail(err, CR_E_INPUT, "%s: is no string, expected a string", label);
    } else if (no_nul && memchr(json_string_value(value), 0, json_string_length(value)) != NULL) {
        status = cr_fail(err, CR_E_INPUT, "%s: name with a NUL", label);
    } else {
        *out_bytes = json_string_length(value);
        memcpy(out, json_string_value(value), *out_bytes);
    }
    json_decref(value);
    return status;
}
