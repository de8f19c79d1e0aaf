/* What a training run left beside its adapter. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/core/host.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"
#include "runtime/review/review_parts.h"

/* Far above what a run of any length writes. */
#define MAX_FILE_BYTES ((size_t)1 << 28)

static json_t *parse_line(const char *text, size_t n)
{
    json_t *line = NULL;
    if (cr_json_parse(text, n, NULL, &line, NULL) != CR_OK || !json_is_object(line)) {
        json_decref(line);
        return NULL;
    }
    return line;
}

static void add_point(struct cr_report_series *series, struct cr_report_point *points, double step, const json_t *value)
{
    if (json_is_number(value)) { /* null: a step without a finite loss */
        points[series->n++] = (struct cr_report_point){.step = step, .value = json_number_value(value)};
        series->points = points;
    }
}

static cr_status read_journal(const char *text, size_t n, struct cr_kept *kept, struct cr_training *training,
                              struct cr_error *err)
{
    size_t n_lines = 1;
    for (size_t i = 0; i < n; i++) {
        n_lines += text[i] == '\n';
    }
    struct cr_report_point *loss = cr_alloc(n_lines, sizeof *loss);
    CR_TRY(cr_kept_add(kept, loss, err));
    struct cr_report_point *rate = cr_alloc(n_lines, sizeof *rate);
    CR_TRY(cr_kept_add(kept, rate, err));
    for (size_t at = 0; at < n;) {
        const char *end = memchr(text + at, '\n', n - at);
        size_t length = end != NULL ? (size_t)(end - text) - at : n - at;
        json_t *line = parse_line(text + at, length);
        double step = json_number_value(json_object_get(line, "step"));
        add_point(&training->loss, loss, step, json_object_get(line, "loss"));
        add_point(&training->rate, rate, step, json_object_get(line, "tok_s"));
        json_decref(line);
        at += length + 1;
    }
    return CR_OK;
}

static cr_status read_evaluations(const json_t *list, struct cr_kept *kept, struct cr_training *training,
                                  struct cr_error *err)
{
    struct cr_report_point *points = cr_alloc(json_array_size(list) + 1, sizeof *points);
    size_t i;
    json_t *one;
    CR_TRY(cr_kept_add(kept, points, err));
    json_array_foreach((json_t *)(uintptr_t)list, i, one)
    {
        add_point(&training->valid, points, json_number_value(json_object_get(one, "step")),
                  json_object_get(one, "nll"));
    }
    return CR_OK;
}

/* Points a run measured between the vertices of its prefix, vertex by vertex; others than that are left out. */
static cr_status read_path(const json_t *posterior, struct cr_kept *kept, struct cr_training *training,
                           struct cr_error *err)
{
    const json_t *list = json_object_get(posterior, "path");
    const json_t *centroid = json_object_get(posterior, "centroid_nll");
    size_t n = json_array_size(list);
    json_int_t last = json_integer_value(json_object_get(json_array_get(list, n - 1), "vertex"));
    if (n == 0 || !json_is_number(centroid) || last < 1 || (size_t)last >= n || n % ((size_t)last + 1) != 0) {
        return CR_OK;
    }
    size_t n_vertices = (size_t)last + 1;
    double *path = cr_alloc(n, sizeof *path);
    CR_TRY(cr_kept_add(kept, path, err));
    for (size_t i = 0; i < n; i++) {
        const json_t *point = json_array_get(list, i);
        const json_t *nll = json_object_get(point, "nll");
        path[i] = json_number_value(nll);
        if (!json_is_number(nll) ||
            json_integer_value(json_object_get(point, "vertex")) != (json_int_t)(i * n_vertices / n)) {
            return CR_OK;
        }
    }
    training->path = path;
    training->n_vertices = n_vertices;
    training->n_path = n / n_vertices;
    training->centroid_nll = json_number_value(centroid);
    return CR_OK;
}

/* Every resolved setting as text; the flags as given make the command line instead. */
static cr_status read_settings(const json_t *settings, struct cr_kept *kept, struct cr_training *training,
                               struct cr_error *err)
{
    struct cr_report_pair *pairs = cr_alloc(json_object_size(settings) + 1, sizeof *pairs);
    const char *key;
    json_t *value;
    CR_TRY(cr_kept_add(kept, pairs, err));
    training->settings = pairs;
    json_object_foreach((json_t *)(uintptr_t)settings, key, value)
    {
        struct cr_buf text = {0};
        struct cr_report_pair *pair = &pairs[training->n_settings];
        if (strcmp(key, "flags") == 0 || json_is_null(value)) {
            continue;
        }
        char *json =
            json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
        cr_buf_puts(&text, json_is_string(value) ? json_string_value(value) : json != NULL ? json : "");
        free(json);
        CR_TRY(cr_kept_text(kept, &text, &pair->value, err));
        cr_buf_puts(&text, key);
        CR_TRY(cr_kept_text(kept, &text, &pair->key, err));
        training->n_settings++;
    }
    return CR_OK;
}

static cr_status read_summary(const json_t *summary, struct cr_kept *kept, struct cr_training *training,
                              struct cr_error *err)
{
    const json_t *settings = json_object_get(summary, "settings");
    const json_t *flags = json_object_get(settings, "flags");
    CR_TRY(read_evaluations(json_object_get(summary, "evaluations"), kept, training, err));
    CR_TRY(read_path(json_object_get(summary, "posterior"), kept, training, err));
    CR_TRY(read_settings(settings, kept, training, err));
    if (json_object_size(flags) > 0) {
        struct cr_buf line = {0};
        cr_command_line(&line, "finetune", flags);
        CR_TRY(cr_kept_text(kept, &line, &training->command, err));
    }
    return CR_OK;
}

/* A file that is broken costs its part of the page, which is said; without memory there is none. */
static cr_status go_without(cr_status status, const struct cr_error *why, const char *part, const struct cr_host *host,
                            struct cr_error *err)
{
    if (status == CR_E_MEMORY) {
        return cr_fail(err, status, "%s", why->message);
    }
    cr_host_log(host, CR_LOG_WARNING, "report without the %s of the training: %s", part, why->message);
    return CR_OK;
}

cr_status cr_review_training(const char *dir, const struct cr_host *host, struct cr_kept *kept,
                             struct cr_training *training, struct cr_error *err)
{
    uint8_t *text = NULL;
    size_t n = 0;
    json_t *summary = NULL;
    struct cr_error why;
    char *journal_path = cr_path_join(dir, "train.jsonl");
    CR_TRY(cr_kept_add(kept, journal_path, err));
    char *summary_path = cr_path_join(dir, "summary.json");
    CR_TRY(cr_kept_add(kept, summary_path, err));
    if (access(journal_path, F_OK) == 0) {
        cr_status status = cr_file_read(journal_path, MAX_FILE_BYTES, &text, &n, &why);
        if (status != CR_OK) {
            CR_TRY(go_without(status, &why, "course", host, err));
        } else {
            status = read_journal((const char *)text, n, kept, training, err);
            cr_free(text);
            CR_TRY(status);
        }
    }
    if (access(summary_path, F_OK) == 0) {
        cr_status status = cr_json_load(summary_path, MAX_FILE_BYTES, &summary, &why);
        if (status != CR_OK) {
            return go_without(status, &why, "settings", host, err);
        }
        status = read_summary(summary, kept, training, err);
        json_decref(summary);
        return status;
    }
    return CR_OK;
}
