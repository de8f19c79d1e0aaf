#include "runtime/data/line.h"

#include <string.h>

#include "runtime/core/error.h"
#include "runtime/io/json.h"

static struct cr_line_text text_of(const json_t *string)
{
    return (struct cr_line_text){json_string_value(string), json_string_length(string)};
}

static cr_status field_text(const json_t *object, const char *key, struct cr_line_text *out, struct cr_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (value == NULL) {
        return cr_fail(err, CR_E_INPUT, "field \"%s\" is missing", key);
    }
    if (!json_is_string(value)) {
        return cr_fail(err, CR_E_INPUT, "field \"%s\" is %s, a string expected", key, cr_json_type_name(value));
    }
    *out = text_of(value);
    return CR_OK;
}

static cr_status field_array(const json_t *object, const char *key, const json_t **out, struct cr_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (value == NULL) {
        return cr_fail(err, CR_E_INPUT, "field \"%s\" is missing", key);
    }
    if (!json_is_array(value)) {
        return cr_fail(err, CR_E_INPUT, "field \"%s\" is %s, an array expected", key, cr_json_type_name(value));
    }
    *out = value;
    return CR_OK;
}

static cr_status parse_answer(const json_t *value, uint32_t n_choices, uint32_t *answer, struct cr_error *err)
{
    char last = (char)('A' + (int)n_choices - 1);
    if (json_is_integer(value)) {
        json_int_t index = json_integer_value(value);
        if (index < 0 || index >= (json_int_t)n_choices) {
            return cr_fail(err, CR_E_INPUT, "field \"answer\" is %lld, 0...%u expected (the choice counted from 0)",
                           (long long)index, n_choices - 1);
        }
        *answer = (uint32_t)index;
        return CR_OK;
    }
    if (json_is_string(value)) {
        struct cr_line_text letter = text_of(value);
        if (letter.n != 1 || letter.bytes[0] < 'A' || letter.bytes[0] > last) {
            char shown[CR_ESCAPE_BYTES];
            return cr_fail(err, CR_E_INPUT, "field \"answer\" is \"%s\", one letter A...%c or an index 0...%u expected",
                           cr_escape(shown, sizeof shown, letter.bytes, letter.n), last, n_choices - 1);
        }
        *answer = (uint32_t)(letter.bytes[0] - 'A');
        return CR_OK;
    }
    return cr_fail(err, CR_E_INPUT, "field \"answer\" is %s, an index 0...%u or a letter A...%c expected",
                   cr_json_type_name(value), n_choices - 1, last);
}

static cr_status parse_task(const json_t *object, struct cr_line_text *task, struct cr_error *err)
{
    const json_t *value = json_object_get(object, "task");
    if (value == NULL || json_is_null(value)) { /* predict writes null where there is none */
        return CR_OK;
    }
    struct cr_line_text found = {0};
    CR_TRY(field_text(object, "task", &found, err));
    if (found.n == 0 || found.n > CR_TASK_BYTES_MAX || memchr(found.bytes, 0, found.n) != NULL) {
        return cr_fail(err, CR_E_INPUT, "field \"task\" has %zu bytes, 1...%d without a zero byte expected", found.n,
                       CR_TASK_BYTES_MAX);
    }
    *task = found;
    return CR_OK;
}

static cr_status parse_choices(struct cr_line *line, struct cr_error *err)
{
    CR_TRY(field_text(line->object, "question", &line->question, err));
    CR_TRY(field_array(line->object, "choices", &line->choices, err));
    if (line->question.n == 0) {
        return cr_fail(err, CR_E_INPUT, "field \"question\" is empty");
    }
    size_t n = json_array_size(line->choices);
    if (n < 2 || n > CR_LABELS_MAX) {
        return cr_fail(err, CR_E_INPUT, "field \"choices\" has %zu entries, 2...%d expected", n, CR_LABELS_MAX);
    }
    line->n_choices = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        const json_t *choice = json_array_get(line->choices, i);
        if (!json_is_string(choice)) {
            return cr_fail(err, CR_E_INPUT, "field \"choices\": entry %zu is %s, a string expected", i,
                           cr_json_type_name(choice));
        }
        if (json_string_length(choice) == 0) {
            return cr_fail(err, CR_E_INPUT, "field \"choices\": entry %zu is empty", i);
        }
    }
    const json_t *answer = json_object_get(line->object, "answer");
    line->answered = answer != NULL && !json_is_null(answer);
    return line->answered ? parse_answer(answer, line->n_choices, &line->answer, err) : CR_OK;
}

static cr_status parse_messages(struct cr_line *line, struct cr_error *err)
{
    CR_TRY(field_array(line->object, "messages", &line->messages, err));
    size_t n = json_array_size(line->messages);
    for (size_t i = 0; i < n; i++) {
        const json_t *message = json_array_get(line->messages, i);
        if (!json_is_object(message)) {
            return cr_fail(err, CR_E_INPUT, "field \"messages\": entry %zu is %s, an object expected", i,
                           cr_json_type_name(message));
        }
        struct cr_line_text unused;
        cr_status status = field_text(message, "role", &unused, err);
        if (status == CR_OK) {
            status = field_text(message, "content", &unused, err);
        }
        if (status != CR_OK) {
            return cr_fail_prefix(err, status, "field \"messages\": entry %zu", i);
        }
    }
    return CR_OK;
}

static cr_status parse_fields(struct cr_line *line, struct cr_error *err)
{
    const json_t *object = line->object;
    if (json_object_get(object, "choices") != NULL || json_object_get(object, "question") != NULL) {
        line->kind = CR_EXAMPLE_CHOICE;
        return parse_choices(line, err);
    }
    if (json_object_get(object, "prompt") != NULL || json_object_get(object, "completion") != NULL) {
        line->kind = CR_EXAMPLE_PROMPT;
        CR_TRY(field_text(object, "prompt", &line->prompt, err));
        return field_text(object, "completion", &line->completion, err);
    }
    if (json_object_get(object, "messages") != NULL) {
        line->kind = CR_EXAMPLE_MESSAGES;
        return parse_messages(line, err);
    }
    if (json_object_get(object, "text") != NULL) {
        line->kind = CR_EXAMPLE_TEXT;
        return field_text(object, "text", &line->text, err);
    }
    return cr_fail(err, CR_E_INPUT,
                   "no known fields: question + choices + answer, prompt + completion, messages, or "
                   "text expected");
}

cr_status cr_line_parse(const char *data, size_t n_bytes, struct cr_line *line, struct cr_error *err)
{
    struct cr_line fresh = {0};
    cr_status status = cr_json_parse(data, n_bytes, NULL, &fresh.object, err);
    if (status == CR_E_INPUT && n_bytes > 0 && (data[0] == '[' || (n_bytes == 1 && data[0] == '{'))) {
        return cr_fail(err, status,
                       "the line opens an %s that does not end in it; JSON Lines expected: one object a "
                       "line, no brackets around them",
                       data[0] == '[' ? "array" : "object");
    }
    CR_TRY(status);
    if (!json_is_object(fresh.object)) {
        status = cr_fail(err, CR_E_INPUT, "the line is %s, an object expected (JSON Lines: one object a line)",
                         cr_json_type_name(fresh.object));
    } else {
        status = parse_fields(&fresh, err);
    }
    if (status == CR_OK) {
        status = parse_task(fresh.object, &fresh.task, err);
    }
    if (status != CR_OK) {
        cr_line_deinit(&fresh);
        return status;
    }
    *line = fresh;
    return CR_OK;
}

void cr_line_deinit(struct cr_line *line)
{
    json_decref(line->object);
    memset(line, 0, sizeof *line);
}

struct cr_line_text cr_line_choice(const struct cr_line *line, uint32_t i)
{
    return text_of(json_array_get(line->choices, i));
}

size_t cr_line_n_messages(const struct cr_line *line)
{
    return json_array_size(line->messages);
}

void cr_line_message(const struct cr_line *line, size_t i, struct cr_line_text *role, struct cr_line_text *content)
{
    const json_t *message = json_array_get(line->messages, i);
    *role = text_of(json_object_get(message, "role"));
    *content = text_of(json_object_get(message, "content"));
}

const char *cr_example_kind_name(enum cr_example_kind kind)
{
    switch (kind) {
    case CR_EXAMPLE_CHOICE:
        return "choices";
    case CR_EXAMPLE_PROMPT:
        return "prompt/completion";
    case CR_EXAMPLE_MESSAGES:
        return "messages";
    case CR_EXAMPLE_TEXT:
        return "text";
    }
    return "unknown";
}
