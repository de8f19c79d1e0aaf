#include "runtime/metrics/columns.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>

#include "runtime/core/alloc.h"
#include "runtime/io/json.h"

enum kind { WHOLE_64, WHOLE_32, SIGNED_32, FLAG, REAL };

struct column {
    const char *name;
    enum kind kind;
    size_t offset; /* in struct cr_outcome */
    bool of_choices, of_texts;
    double min, max;
};

#define AT(field) offsetof(struct cr_outcome, field)
#define LINES_MAX 9007199254740992.0 /* whole numbers are exact in a double up to here */

static const struct column columns[] = {
    {"line", WHOLE_64, AT(line), true, true, 1, LINES_MAX},
    {"task", SIGNED_32, AT(task), true, true, -1, INT32_MAX},
    {"nll", REAL, AT(nll), true, true, 0, INFINITY},
    {"targets", WHOLE_32, AT(n_targets), false, true, 1, UINT32_MAX},
    {"prediction", WHOLE_32, AT(prediction), true, false, 0, UINT32_MAX},
    {"correct", FLAG, AT(correct), true, false, 0, 1},
    {"confidence", REAL, AT(confidence), true, false, 0, 1},
    {"brier", REAL, AT(brier), true, false, 0, 2},
    {"entropy", REAL, AT(entropy), true, false, 0, INFINITY},
};

enum { N_COLUMNS = sizeof columns / sizeof columns[0] };

/* Rounding may take a sum of probabilities this far beyond its bounds; it is read as the bound. */
#define SLACK 1e-9

static json_t *get(const struct cr_outcome *o, const struct column *column)
{
    const void *at = (const char *)o + column->offset;
    switch (column->kind) {
    case WHOLE_64:
        return json_integer((json_int_t) * (const uint64_t *)at);
    case WHOLE_32:
        return json_integer(*(const uint32_t *)at);
    case SIGNED_32:
        return json_integer(*(const int32_t *)at);
    case FLAG:
        return json_integer(*(const bool *)at);
    case REAL:
        break;
    }
    return cr_json_finite(*(const double *)at);
}

static void set(struct cr_outcome *o, const struct column *column, const json_t *value)
{
    void *at = (char *)o + column->offset;
    switch (column->kind) {
    case WHOLE_64:
        *(uint64_t *)at = (uint64_t)json_integer_value(value);
        break;
    case WHOLE_32:
        *(uint32_t *)at = (uint32_t)json_integer_value(value);
        break;
    case SIGNED_32:
        *(int32_t *)at = (int32_t)json_integer_value(value);
        break;
    case FLAG:
        *(bool *)at = json_integer_value(value) != 0;
        break;
    case REAL:
        *(double *)at = fmin(fmax(json_number_value(value), column->min), column->max);
        break;
    }
}

json_t *cr_columns_object(const struct cr_outcomes *outcomes)
{
    json_t *object = json_object();
    for (size_t c = 0; c < N_COLUMNS; c++) {
        if (outcomes->classification ? columns[c].of_choices : columns[c].of_texts) {
            json_t *list = json_array();
            for (size_t i = 0; i < outcomes->n; i++) {
                json_array_append_new(list, get(&outcomes->items[i], &columns[c]));
            }
            json_object_set_new(object, columns[c].name, list);
        }
    }
    return object;
}

static cr_status read_column(const struct column *column, const json_t *list, const char *label,
                             struct cr_outcomes *out, struct cr_error *err)
{
    if (json_array_size(list) != out->n) {
        return cr_fail(err, CR_E_INPUT, "%s: examples: \"%s\" has %zu numbers, expected %zu as \"line\"", label,
                       column->name, json_array_size(list), out->n);
    }
    for (size_t i = 0; i < out->n; i++) {
        const json_t *value = json_array_get(list, i);
        double number = json_number_value(value);
        bool fits = column->kind == REAL ? json_is_number(value) : json_is_integer(value);
        double slack = column->kind == REAL ? SLACK : 0;
        if (!fits || !(number >= column->min - slack && number <= column->max + slack)) {
            return cr_fail(err, CR_E_INPUT, "%s: examples: number %zu of \"%s\" is not a %s from %g to %g", label,
                           i + 1, column->name, column->kind == REAL ? "number" : "whole number", column->min,
                           column->max);
        }
        set(&out->items[i], column, value);
    }
    return CR_OK;
}

static cr_status check_rows(const struct cr_outcomes *outcomes, size_t n_tasks, const char *label, struct cr_error *err)
{
    for (size_t i = 0; i < outcomes->n; i++) {
        const struct cr_outcome *o = &outcomes->items[i];
        if (o->task >= 0 && (size_t)o->task >= n_tasks) {
            return cr_fail(err, CR_E_INPUT,
                           "%s: examples: task %" PRId32 " of line %" PRIu64 ", but there are %zu tasks", label,
                           o->task, o->line, n_tasks);
        }
        if (i > 0 && o->line <= outcomes->items[i - 1].line) {
            return cr_fail(err, CR_E_INPUT, "%s: examples: line %" PRIu64 " after line %" PRIu64, label, o->line,
                           outcomes->items[i - 1].line);
        }
    }
    return CR_OK;
}

cr_status cr_columns_read(const json_t *object, size_t n_tasks, const char *label, struct cr_outcomes *out,
                          struct cr_error *err)
{
    struct cr_outcomes made = {.n = json_array_size(json_object_get(object, "line")),
                               .classification = json_object_get(object, "prediction") != NULL,
                               .n_bins = out->n_bins};
    cr_status status = CR_OK;
    if (made.n == 0) {
        return cr_fail(err, CR_E_INPUT, "%s: examples: \"line\" is no list of numbers", label);
    }
    made.items = cr_zalloc(made.n, sizeof *made.items);
    if (made.items == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %zu results", made.n);
    }
    for (size_t i = 0; i < made.n; i++) {
        made.items[i].index = (uint32_t)i;
        made.items[i].n_targets = 1; /* choices; texts say it themselves */
    }
    for (size_t c = 0; c < N_COLUMNS; c++) {
        if (made.classification ? columns[c].of_choices : columns[c].of_texts) {
            CR_TRY_OUT(status, read_column(&columns[c], json_object_get(object, columns[c].name), label, &made, err));
        }
    }
    CR_TRY_OUT(status, check_rows(&made, n_tasks, label, err));
    *out = made;
    made.items = NULL;
out:
    cr_free(made.items);
    return status;
}
