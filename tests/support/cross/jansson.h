/* jansson: as much of the JSON library's interface as the kernel tests use, for builds where it is not at hand (cross
 * builds). Reads the files of tests/data: objects, arrays, numbers, true, false, null and strings without escapes;
 * anything else is an error. Getters of the wrong kind give NULL, 0 or "no", as there.
 */
#ifndef CR_TESTS_CROSS_JANSSON_H
#define CR_TESTS_CROSS_JANSSON_H

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct json_t json_t;
typedef long long json_int_t;

typedef struct {
    int line;
    char text[160];
} json_error_t;

json_t *json_load_file(const char *path, size_t flags, json_error_t *error); /* flags: 0 */
void json_decref(json_t *json);                                              /* of a root: frees everything under it */

typedef enum {
    JSON_OBJECT,
    JSON_ARRAY,
    JSON_STRING,
    JSON_INTEGER,
    JSON_REAL,
    JSON_TRUE,
    JSON_FALSE,
    JSON_NULL
} json_type;

int cr_cross_json_is(const json_t *json, unsigned types); /* one of the types whose bit is set; NULL is none */
#define json_is_object(json) cr_cross_json_is(json, 1u << JSON_OBJECT)
#define json_is_array(json) cr_cross_json_is(json, 1u << JSON_ARRAY)
#define json_is_string(json) cr_cross_json_is(json, 1u << JSON_STRING)
#define json_is_integer(json) cr_cross_json_is(json, 1u << JSON_INTEGER)
#define json_is_real(json) cr_cross_json_is(json, 1u << JSON_REAL)
#define json_is_number(json) cr_cross_json_is(json, 1u << JSON_INTEGER | 1u << JSON_REAL)
#define json_is_true(json) cr_cross_json_is(json, 1u << JSON_TRUE)
#define json_is_false(json) cr_cross_json_is(json, 1u << JSON_FALSE)
#define json_is_boolean(json) cr_cross_json_is(json, 1u << JSON_TRUE | 1u << JSON_FALSE)
#define json_is_null(json) cr_cross_json_is(json, 1u << JSON_NULL)
#define json_boolean_value(json) json_is_true(json)

json_t *json_object_get(const json_t *object, const char *key);
size_t json_object_size(const json_t *object);
size_t json_array_size(const json_t *array);
json_t *json_array_get(const json_t *array, size_t index);
const char *json_string_value(const json_t *string);
json_int_t json_integer_value(const json_t *integer);
double json_real_value(const json_t *real);
double json_number_value(const json_t *number);

/* First member of an object, the one after `member`, and a member's name. */
json_t *cr_cross_json_first(const json_t *object);
json_t *cr_cross_json_next(const json_t *member);
const char *cr_cross_json_name(const json_t *member);
#define json_object_foreach(object, key, value)                                                                        \
    for ((value) = cr_cross_json_first(object); (value) != NULL && ((key) = cr_cross_json_name(value)) != NULL;        \
         (value) = cr_cross_json_next(value))

#define json_array_foreach(array, index, value)                                                                        \
    for ((index) = 0; (index) < json_array_size(array) && ((value) = json_array_get(array, index)) != NULL; (index)++)

#endif
