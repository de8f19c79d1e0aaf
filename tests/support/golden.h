/* golden: stored reference numbers of tests/data. Every function ends the running Check test with a message when a
 * number is missing or the lists have another size. */
#ifndef CR_TESTS_GOLDEN_H
#define CR_TESTS_GOLDEN_H

#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>

/* Owned: json_decref. */
static inline json_t *cr_golden_load(const char *name)
{
    char path[512];
    json_error_t why;
    snprintf(path, sizeof path, "%s/%s", CR_TEST_DATA, name);
    json_t *file = json_load_file(path, 0, &why);
    ck_assert_msg(file != NULL, "%s: %s", path, why.text);
    return file;
}

static inline json_t *cr_golden_get(const json_t *object, const char *key)
{
    json_t *found = json_object_get(object, key);
    ck_assert_msg(found != NULL, "no %s", key);
    return found;
}

static inline double cr_golden_number(const json_t *object, const char *key)
{
    json_t *found = cr_golden_get(object, key);
    ck_assert_msg(json_is_number(found), "%s is no number", key);
    return json_number_value(found);
}

/* The same, or infinity where a text stands: "inf", no limit. */
static inline double cr_golden_limit(const json_t *object, const char *key)
{
    json_t *found = cr_golden_get(object, key);
    return json_is_string(found) ? (double)INFINITY : json_number_value(found);
}

/* Numbers of nested lists in order of the file, at most n; returns their number. */
static inline size_t cr_golden_flat(const json_t *list, double *out, size_t n)
{
    if (json_is_number(list)) {
        ck_assert_uint_ge(n, 1);
        out[0] = json_number_value(list);
        return 1;
    }
    ck_assert(json_is_array(list));
    size_t used = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        used += cr_golden_flat(json_array_get(list, i), out + used, n - used);
    }
    return used;
}

static inline void cr_golden_fill(const json_t *object, const char *key, double *out, size_t n)
{
    size_t found = cr_golden_flat(cr_golden_get(object, key), out, n);
    ck_assert_msg(found == n, "%s: %zu numbers, expected %zu", key, found, n);
}

/* |got - want| <= tolerance times the larger of |want| and the largest |want| of the list. */
static inline void cr_golden_near(const char *what, const double *got, const double *want, size_t n, double tolerance)
{
    double scale = 0;
    for (size_t i = 0; i < n; i++) {
        scale = fmax(scale, fabs(want[i]));
    }
    for (size_t i = 0; i < n; i++) {
        ck_assert_msg(fabs(got[i] - want[i]) <= tolerance * scale, "%s[%zu]: %.17g, expected %.17g", what, i, got[i],
                      want[i]);
    }
}

/* The same against the numbers of a key. */
static inline void cr_golden_expect(const json_t *object, const char *key, const double *got, size_t n,
                                    double tolerance)
{
    double want[512];
    ck_assert_uint_le(n, 512);
    cr_golden_fill(object, key, want, n);
    cr_golden_near(key, got, want, n, tolerance);
}

#endif
