/* The default system text of a Jinja template, without running it. One pass over the template tells raw text from
 * string literals; two patterns are looked for in them:
 *   1. a literal (or literals joined by + or ~, or raw text) that holds a whole system turn of the kind: its opening,
 *      the text, its end marker;
 *   2. {% set NAME = 'text' %} where NAME ends in system_message.
 * The first hit counts. Every byte is looked at a bounded number of times. */
#define _GNU_SOURCE /* memmem */
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/tokenizer/chat.h"
#include "runtime/tokenizer/chat_style.h"

struct scan {
    const char *text;
    size_t n;
    size_t at;
    char *literal; /* decoded; room for n bytes */
    size_t literal_bytes;
    const char *open; /* of a system turn; NULL: nothing marks one, only the assignment can be recognised */
    const char *close;
    const char *found; /* inside literal */
    size_t found_bytes;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static size_t skip_space(const struct scan *s, size_t at)
{
    while (at < s->n && is_space(s->text[at])) {
        at++;
    }
    return at;
}

/* Pattern 1 in the literal at hand. */
static bool has_turn(struct scan *s)
{
    const char *open = s->open == NULL ? NULL : memmem(s->literal, s->literal_bytes, s->open, strlen(s->open));
    if (open == NULL) {
        return false;
    }
    const char *begin = open + strlen(s->open);
    size_t left = (size_t)(s->literal + s->literal_bytes - begin);
    const char *end = memmem(begin, left, s->close, strlen(s->close));
    if (end == NULL || end == begin) {
        return false;
    }
    s->found = begin;
    s->found_bytes = (size_t)(end - begin);
    return true;
}

/* Decodes the literal whose opening quote stands at s->at; leaves s->at behind its closing quote. */
static void read_literal(struct scan *s)
{
    char quote = s->text[s->at++];
    while (s->at < s->n && s->text[s->at] != quote) {
        char c = s->text[s->at++];
        if (c == '\\' && s->at < s->n) {
            char escaped = s->text[s->at++];
            switch (escaped) {
            case 'n':
                c = '\n';
                break;
            case 't':
                c = '\t';
                break;
            case 'r':
                c = '\r';
                break;
            case '\\':
            case '\'':
            case '"':
                c = escaped;
                break;
            default:
                s->at--;
                break; /* kept as it is: the backslash now, the rest in the next round */
            }
        }
        s->literal[s->literal_bytes++] = c;
    }
    s->at += s->at < s->n;
}

/* Whether the text before `at` ends in NAMEsystem_message = . */
static bool is_assigned(const struct scan *s, size_t at)
{
    const char name[] = "system_message";
    const size_t n_name = sizeof name - 1;
    while (at > 0 && is_space(s->text[at - 1])) {
        at--;
    }
    if (at == 0 || s->text[at - 1] != '=') {
        return false;
    }
    at--;
    while (at > 0 && is_space(s->text[at - 1])) {
        at--;
    }
    return at >= n_name && memcmp(s->text + at - n_name, name, n_name) == 0;
}

static bool ends_statement(const struct scan *s)
{
    size_t at = skip_space(s, s->at);
    at += at < s->n && s->text[at] == '-';
    return s->n - at >= 2 && memcmp(s->text + at, "%}", 2) == 0;
}

/* Reads literals joined by + or ~ from the quote at s->at. */
static bool visit_literals(struct scan *s)
{
    const bool assigned = is_assigned(s, s->at);
    s->literal_bytes = 0;
    for (;;) {
        read_literal(s);
        size_t next = skip_space(s, s->at);
        if (next >= s->n || (s->text[next] != '+' && s->text[next] != '~')) {
            break;
        }
        next = skip_space(s, next + 1);
        if (next >= s->n || (s->text[next] != '\'' && s->text[next] != '"')) {
            break;
        }
        s->at = next;
    }
    if (has_turn(s)) {
        return true;
    }
    if (assigned && s->literal_bytes > 0 && ends_statement(s)) {
        s->found = s->literal;
        s->found_bytes = s->literal_bytes;
        return true;
    }
    return false;
}

/* Inside {{ }} or {% %}, up to and with the closing mark. */
static bool visit_code(struct scan *s)
{
    while (s->at < s->n) {
        char c = s->text[s->at];
        if (c == '\'' || c == '"') {
            if (visit_literals(s)) {
                return true;
            }
        } else if ((c == '}' || c == '%') && s->at + 1 < s->n && s->text[s->at + 1] == '}') {
            s->at += 2;
            return false;
        } else {
            s->at++;
        }
    }
    return false;
}

static bool visit_raw(struct scan *s)
{
    size_t begin = s->at;
    while (s->at < s->n && !(s->text[s->at] == '{' && s->at + 1 < s->n && strchr("{%#", s->text[s->at + 1]) != NULL &&
                             s->text[s->at + 1] != '\0')) {
        s->at++;
    }
    s->literal_bytes = s->at - begin;
    memcpy(s->literal, s->text + begin, s->literal_bytes);
    return has_turn(s);
}

static bool scan_template(struct scan *s)
{
    while (s->at < s->n) {
        if (visit_raw(s)) {
            return true;
        }
        if (s->at >= s->n) {
            return false;
        }
        if (s->text[s->at + 1] == '#') {
            const char *end = memmem(s->text + s->at + 2, s->n - s->at - 2, "#}", 2);
            s->at = end == NULL ? s->n : (size_t)(end - s->text) + 2;
        } else {
            s->at += 2;
            if (visit_code(s)) {
                return true;
            }
        }
    }
    return false;
}

cr_status cr_chat_default_system(enum cr_chat_kind kind, const char *template_text, size_t template_bytes, char **text,
                                 size_t *n, struct cr_error *err)
{
    const struct cr_chat_style *style = cr_chat_style(kind);
    char open[64];
    if (style == NULL) {
        return cr_fail(err, CR_E_USAGE, "no kind of chat template given");
    }
    if (style->after_role != NULL && style->any_role) {
        snprintf(open, sizeof open, "%ssystem%s", style->assistant.open, style->after_role);
    } else {
        snprintf(open, sizeof open, "%s", style->system.open);
    }
    struct scan scan = {.text = template_text, .n = template_bytes, .open = open};
    scan.close = style->any_role ? style->assistant.end : style->system.end;
    if (open[0] == '\0' || scan.close[0] == '\0') {
        scan.open = NULL;
    }
    scan.literal = cr_alloc(template_bytes, 1);
    if (scan.literal == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a chat template of %zu bytes", template_bytes);
    }
    cr_status status = CR_OK;
    char *copy = NULL;
    size_t copy_bytes = 0;
    if (scan_template(&scan)) {
        copy_bytes = scan.found_bytes;
        copy = cr_strndup(scan.found, copy_bytes);
        if (copy == NULL) {
            status = cr_fail(err, CR_E_MEMORY, "no memory for a system text of %zu bytes", copy_bytes);
            goto out;
        }
    }
    *text = copy;
    *n = copy_bytes;
out:
    cr_free(scan.literal);
    return status;
}
