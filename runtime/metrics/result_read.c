/* An evaluation's JSON file, read back for comparisons. Any file may be given: nothing in it is believed. */
#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/json.h"
#include "runtime/metrics/columns.h"
#include "runtime/metrics/metrics.h"
#include "runtime/metrics/result.h"

/* More than a million examples take. */
#define MAX_FILE_BYTES ((size_t)1 << 29)

/* More members than this are no posterior. */
enum { MAX_MEMBERS = 100000 };

static cr_status read_data(struct cr_result_file *f, const json_t *examples, bool calibrated, const char *label,
                           struct cr_error *err)
{
    const json_t *data = json_object_get(f->json, "data");
    const json_t *tasks = json_object_get(data, "tasks");
    const char *hash;
    size_t n;
    if (!json_is_object(data) || !json_is_object(examples)) {
        return cr_fail(err, CR_E_INPUT, "%s: no %sexamples in it: a file of eval --json %s is needed", label,
                       calibrated ? "calibrated " : "", calibrated ? "--calibrate" : "without --no-examples");
    }
    CR_TRY(cr_json_get_str(data, "path", true, &f->evaluation.data, NULL, label, err));
    CR_TRY(cr_json_get_str(data, "xxh3", true, &hash, &n, label, err));
    if (n >= sizeof f->evaluation.data_hash) {
        return cr_fail(err, CR_E_INPUT, "%s: data.xxh3 of %zu characters, expected 32", label, n);
    }
    memcpy(f->evaluation.data_hash, hash, n + 1);
    f->evaluation.n_tasks = json_array_size(tasks);
    f->task_names = cr_alloc(f->evaluation.n_tasks, sizeof *f->task_names);
    if (f->task_names == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %zu tasks", f->evaluation.n_tasks);
    }
    for (size_t t = 0; t < f->evaluation.n_tasks; t++) {
        f->task_names[t] = json_string_value(json_array_get(tasks, t));
        if (f->task_names[t] == NULL) {
            return cr_fail(err, CR_E_INPUT, "%s: data.tasks: not a list of texts", label);
        }
    }
    f->evaluation.task_names = f->task_names;
    return CR_OK;
}

static cr_status read_head(struct cr_result_file *f, const char *label, struct cr_error *err)
{
    const char *method;
    int64_t samples = 1, members = 1;
    if (!json_is_object(f->json)) {
        return cr_fail(err, CR_E_INPUT, "%s: not the file of an evaluation", label);
    }
    CR_TRY(cr_json_get_str(f->json, "model", true, &f->evaluation.model, NULL, label, err));
    CR_TRY(cr_json_get_str(f->json, "method", true, &method, NULL, label, err));
    CR_TRY(cr_json_get_int(f->json, "samples", true, 1, UINT32_MAX, &samples, label, err));
    CR_TRY(cr_json_get_int(f->json, "members", false, 1, MAX_MEMBERS, &members, label, err));
    if (strlen(method) >= sizeof f->result.method) {
        return cr_fail(err, CR_E_INPUT, "%s: method: a name of more than %zu characters", label,
                       sizeof f->result.method - 1);
    }
    memcpy(f->result.method, method, strlen(method) + 1);
    f->result.samples = (uint32_t)samples;
    f->result.n_members = (size_t)members;
    return CR_OK;
}

static double real(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

/* Figures on all examples after the first 1, 2, ... members: left out when they do not fit the rest. */
static cr_status read_running(struct cr_result_file *f, struct cr_error *err)
{
    const json_t *list = json_object_get(json_object_get(f->json, "all"), "running");
    size_t n_members = f->result.n_members;
    if (n_members == 1 || json_array_size(list) != n_members) {
        return CR_OK;
    }
    f->result.running = cr_zalloc(n_members, sizeof *f->result.running);
    if (f->result.running == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the figures of %zu members", n_members);
    }
    for (size_t k = 0; k < n_members; k++) {
        const json_t *at = json_array_get(list, k);
        f->result.running[k] = (struct cr_group_metrics){.accuracy = real(at, "accuracy"),
                                                         .nll = real(at, "nll"),
                                                         .ece = real(at, "ece"),
                                                         .brier = real(at, "brier"),
                                                         .perplexity = real(at, "perplexity"),
                                                         .auroc_error = (double)NAN,
                                                         .entropy = real(at, "entropy"),
                                                         .expected_entropy = real(at, "expected_entropy"),
                                                         .mutual_information = real(at, "mutual_information"),
                                                         .disagreement = real(at, "disagreement")};
    }
    return CR_OK;
}

static cr_status read_entropies(const json_t *list, const char *label, double **out, size_t *n, struct cr_error *err)
{
    *n = json_array_size(list);
    *out = cr_alloc(*n, sizeof **out);
    if (*out == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %zu entropies", *n);
    }
    for (size_t i = 0; i < *n; i++) {
        const json_t *value = json_array_get(list, i);
        (*out)[i] = json_number_value(value);
        if (!json_is_number(value) || !((*out)[i] >= 0)) {
            return cr_fail(err, CR_E_INPUT, "%s: ood: entropy %zu of a list is not a number from 0", label, i + 1);
        }
    }
    return CR_OK;
}

static cr_status read_ood(struct cr_result_file *f, const char *label, struct cr_error *err)
{
    const json_t *ood = json_object_get(f->json, "ood");
    const json_t *information = json_object_get(ood, "mutual_information");
    CR_TRY(read_entropies(json_object_get(ood, "entropies_in"), label, &f->ood.in, &f->ood.n_in, err));
    CR_TRY(read_entropies(json_object_get(ood, "entropies_out"), label, &f->ood.out, &f->ood.n_out, err));
    f->result.has_ood = f->ood.n_in > 0 && f->ood.n_out > 0;
    f->result.ood = (struct cr_ood_metrics){.n_in = f->ood.n_in,
                                            .n_out = f->ood.n_out,
                                            .auroc = real(ood, "auroc"),
                                            .average_precision = real(ood, "average_precision"),
                                            .mean_in = real(ood, "entropy_in"),
                                            .mean_out = real(ood, "entropy_out"),
                                            .information_auroc = real(information, "auroc"),
                                            .information_average_precision = real(information, "average_precision")};
    f->evaluation.ood = f->ood;
    return CR_OK;
}

cr_status cr_result_load(const char *path, bool calibrated, struct cr_result_file *f, struct cr_error *err)
{
    char label[CR_ESCAPE_BYTES];
    cr_escape(label, sizeof label, path, strlen(path));
    f->path = path;
    f->evaluation.outcomes.n_bins = CR_BINS_DEFAULT;
    CR_TRY(cr_json_load(path, MAX_FILE_BYTES, &f->json, err));
    CR_TRY(read_head(f, label, err));
    const json_t *examples = json_object_get(f->json, calibrated ? "calibrated_examples" : "examples");
    CR_TRY(read_data(f, examples, calibrated, label, err));
    CR_TRY(cr_columns_read(examples, f->evaluation.n_tasks, label, &f->evaluation.outcomes, err));
    f->items = f->evaluation.outcomes.items;
    if (!calibrated) { /* the figures of fewer members are raw */
        CR_TRY(read_running(f, err));
    }
    return read_ood(f, label, err);
}

void cr_result_close(struct cr_result_file *f)
{
    cr_eval_result_deinit(&f->result);
    cr_ood_entropies_deinit(&f->ood);
    cr_free(f->items);
    cr_free(f->task_names);
    json_decref(f->json);
    *f = (struct cr_result_file){0};
}
