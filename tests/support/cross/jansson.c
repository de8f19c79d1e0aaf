#include "tests/support/cross/jansson.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A value, its name where it is a member of an object, and the rest of its object or array. */
struct json_t {
    json_type type;
    char *key, *string;
    double number;
    json_int_t integer;
    size_t n;
    json_t *first, *last, *next;
};

struct reader {
    const char *at;
    int line;
};

static void skip_space(struct reader *r)
{
    for (; *r->at == ' ' || *r->at == '\n' || *r->at == '\t' || *r->at == '\r'; r->at++) {
        r->line += *r->at == '\n';
    }
}

static int accept(struct reader *r, char c)
{
    skip_space(r);
    if (*r->at != c) {
        return 0;
    }
    r->at++;
    return 1;
}

static char *read_string(struct reader *r)
{
    if (!accept(r, '"')) {
        return NULL;
    }
    size_t n = strcspn(r->at, "\"\\\n");
    if (r->at[n] != '"') {
        return NULL;
    }
    char *text = strndup(r->at, n);
    r->at += n + 1;
    return text;
}

static json_t *read_value(struct reader *r);

/* Members up to the closing bracket; 0 = error. */
static int read_members(struct reader *r, json_t *json)
{
    char close = json->type == JSON_OBJECT ? '}' : ']';
    if (accept(r, close)) {
        return 1;
    }
    do {
        char *key = NULL;
        if (json->type == JSON_OBJECT && ((key = read_string(r)) == NULL || !accept(r, ':'))) {
            free(key);
            return 0;
        }
        json_t *member = read_value(r);
        if (member == NULL) {
            free(key);
            return 0;
        }
        member->key = key;
        if (json->last != NULL) {
            json->last->next = member;
        } else {
            json->first = member;
        }
        json->last = member;
        json->n++;
    } while (accept(r, ','));
    return accept(r, close);
}

static int read_number(struct reader *r, json_t *json)
{
    size_t n = strspn(r->at, "+-.0123456789eE");
    char *end;
    json->type = strcspn(r->at, ".eE") < n ? JSON_REAL : JSON_INTEGER;
    json->number = strtod(r->at, &end);
    json->integer = strtoll(r->at, NULL, 10);
    int good = n > 0 && end == r->at + n;
    r->at += n;
    return good;
}

static int read_word(struct reader *r, json_t *json)
{
    static const char *const words[] = {"true", "false", "null"};
    static const json_type types[] = {JSON_TRUE, JSON_FALSE, JSON_NULL};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t n = strlen(words[i]);
        if (strncmp(r->at, words[i], n) == 0) {
            r->at += n;
            json->type = types[i];
            return 1;
        }
    }
    return 0;
}

static json_t *read_value(struct reader *r)
{
    json_t *json = calloc(1, sizeof *json);
    int good = json != NULL;
    skip_space(r);
    if (!good) {
        return NULL;
    }
    if (*r->at == '{' || *r->at == '[') {
        json->type = *r->at++ == '{' ? JSON_OBJECT : JSON_ARRAY;
        good = read_members(r, json);
    } else if (*r->at == '"') {
        json->type = JSON_STRING;
        json->string = read_string(r);
        good = json->string != NULL;
    } else if (*r->at >= 'a' && *r->at <= 'z') {
        good = read_word(r, json);
    } else {
        good = read_number(r, json);
    }
    if (!good) {
        json_decref(json);
        return NULL;
    }
    return json;
}

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return NULL;
    }
    char *text = NULL;
    if (fseek(file, 0, SEEK_END) == 0) {
        long n = ftell(file);
        rewind(file);
        text = n >= 0 ? calloc(1, (size_t)n + 1) : NULL;
        if (text != NULL && fread(text, 1, (size_t)n, file) != (size_t)n) {
            free(text);
            text = NULL;
        }
    }
    fclose(file);
    return text;
}

json_t *json_load_file(const char *path, size_t flags, json_error_t *error)
{
    (void)flags;
    char *text = read_file(path);
    struct reader reader = {text, 1};
    json_t *root = text != NULL ? read_value(&reader) : NULL;
    if (root != NULL) {
        skip_space(&reader);
        if (*reader.at != '\0') {
            json_decref(root);
            root = NULL;
        }
    }
    if (root == NULL) {
        error->line = reader.line;
        snprintf(error->text, sizeof error->text, "%s %s", text == NULL ? "cannot read" : "not understood:", path);
    }
    free(text);
    return root;
}

void json_decref(json_t *json)
{
    for (json_t *member = json->first, *next; member != NULL; member = next) {
        next = member->next;
        json_decref(member);
    }
    free(json->key);
    free(json->string);
    free(json);
}

int cr_cross_json_is(const json_t *json, unsigned types)
{
    return json != NULL && (types >> json->type & 1u);
}

json_t *json_object_get(const json_t *object, const char *key)
{
    json_t *member = cr_cross_json_first(object);
    while (member != NULL && strcmp(member->key, key) != 0) {
        member = member->next;
    }
    return member;
}

size_t json_object_size(const json_t *object)
{
    return json_is_object(object) ? object->n : 0;
}

json_t *cr_cross_json_first(const json_t *object)
{
    return json_is_object(object) ? object->first : NULL;
}

json_t *cr_cross_json_next(const json_t *member)
{
    return member->next;
}

const char *cr_cross_json_name(const json_t *member)
{
    return member->key;
}

size_t json_array_size(const json_t *array)
{
    return json_is_array(array) ? array->n : 0;
}

json_t *json_array_get(const json_t *array, size_t index)
{
    json_t *member = index < json_array_size(array) ? array->first : NULL;
    for (size_t i = 0; i < index && member != NULL; i++) {
        member = member->next;
    }
    return member;
}

const char *json_string_value(const json_t *string)
{
    return json_is_string(string) ? string->string : NULL;
}

json_int_t json_integer_value(const json_t *integer)
{
    return json_is_integer(integer) ? integer->integer : 0;
}

double json_real_value(const json_t *real)
{
    return json_is_real(real) ? real->number : 0;
}

double json_number_value(const json_t *number)
{
    return json_is_number(number) ? number->number : 0;
}
