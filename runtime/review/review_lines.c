/* Charts that a caller brings along: one section of a page, from a JSON file.
 *
 *   {"title", "note"?, "charts": [{"title", "x", "lines": [{"name"?, "points": [[x, y], ...]}, ...]}, ...]}
 */
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/json.h"
#include "runtime/review/review_parts.h"

/* Far above what a page can show. */
#define MAX_FILE_BYTES ((size_t)1 << 26)

static cr_status read_points(const json_t *list, const char *label, struct cr_kept *kept, struct cr_report_line *line,
                             struct cr_error *err)
{
    size_t n = json_array_size(list);
    struct cr_report_point *points = cr_alloc(n, sizeof *points);
    CR_TRY(cr_kept_add(kept, points, err));
    for (size_t i = 0; i < n; i++) {
        const json_t *pair = json_array_get(list, i);
        if (json_array_size(pair) != 2 || !json_is_number(json_array_get(pair, 0)) ||
            !json_is_number(json_array_get(pair, 1))) {
            return cr_fail(err, CR_E_INPUT, "%s: point %zu of a line is not a pair of numbers", label, i + 1);
        }
        points[i] = (struct cr_report_point){.step = json_number_value(json_array_get(pair, 0)),
                                             .value = json_number_value(json_array_get(pair, 1))};
    }
    line->series = (struct cr_report_series){.points = points, .n = n};
    line->marks = true;
    return CR_OK;
}

static cr_status read_chart(const json_t *object, const char *label, struct cr_kept *kept,
                            struct cr_report_chart *chart, struct cr_error *err)
{
    const json_t *list = json_object_get(object, "lines");
    size_t n = json_array_size(list), n_points = 0;
    struct cr_report_line *lines = cr_zalloc(n, sizeof *lines);
    CR_TRY(cr_kept_add(kept, lines, err));
    CR_TRY(cr_json_get_str(object, "title", true, &chart->title, NULL, label, err));
    CR_TRY(cr_json_get_str(object, "x", true, &chart->x_label, NULL, label, err));
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_array_get(list, i);
        CR_TRY(cr_json_get_str(one, "name", false, &lines[i].name, NULL, label, err));
        CR_TRY(read_points(json_object_get(one, "points"), label, kept, &lines[i], err));
        n_points += lines[i].series.n;
    }
    if (n_points == 0) {
        return cr_fail(err, CR_E_INPUT, "%s: a chart without \"lines\" that have \"points\"", label);
    }
    chart->lines = lines;
    chart->n_lines = n;
    return CR_OK;
}

static cr_status read_section(const json_t *object, const char *label, struct cr_kept *kept,
                              struct cr_report_section *out, struct cr_error *err)
{
    const json_t *list = json_object_get(object, "charts");
    size_t n = json_array_size(list);
    struct cr_report_chart *charts = cr_zalloc(n, sizeof *charts);
    CR_TRY(cr_kept_add(kept, charts, err));
    CR_TRY(cr_json_get_str(object, "title", true, &out->title, NULL, label, err));
    CR_TRY(cr_json_get_str(object, "note", false, &out->note, NULL, label, err));
    if (n == 0) {
        return cr_fail(err, CR_E_INPUT, "%s: no list of \"charts\"", label);
    }
    for (size_t i = 0; i < n; i++) {
        CR_TRY(read_chart(json_array_get(list, i), label, kept, &charts[i], err));
    }
    out->charts = charts;
    out->n_charts = n;
    return CR_OK;
}

cr_status cr_review_lines(const char *path, struct cr_kept *kept, json_t **json, struct cr_report_section *out,
                          struct cr_error *err)
{
    char label[CR_ESCAPE_BYTES];
    CR_TRY(cr_json_load(path, MAX_FILE_BYTES, json, err));
    return read_section(*json, cr_escape(label, sizeof label, path, strlen(path)), kept, out, err);
}
