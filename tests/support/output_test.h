/* output_test: what tests look for in what evaluations write. */
#ifndef CR_TESTS_OUTPUT_TEST_H
#define CR_TESTS_OUTPUT_TEST_H

#include <check.h>
#include <jansson.h>
#include <string.h>

/* A number of a JSON object, which must be there. */
static inline double cr_output_number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    ck_assert_msg(json_is_number(value), "%s", key);
    return json_number_value(value);
}

/* How often a page says something. */
static inline size_t cr_output_count(const char *page, const char *part)
{
    size_t n = 0;
    while ((page = strstr(page, part)) != NULL) {
        n++;
        page += strlen(part);
    }
    return n;
}

#endif
