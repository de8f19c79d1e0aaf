#include "runtime/metrics/result.h"

#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/json.h"
#include "runtime/metrics/columns.h"

/* How sure the members are, and how far they agree. */
static void set_uncertainty(json_t *object, const struct cr_group_metrics *m)
{
    json_object_set_new(object, "entropy", cr_json_finite(m->entropy));
    json_object_set_new(object, "expected_entropy", cr_json_finite(m->expected_entropy));
    json_object_set_new(object, "mutual_information", cr_json_finite(m->mutual_information));
    json_object_set_new(object, "disagreement", cr_json_finite(m->disagreement));
}

/* Figures after the first 1, 2, ... members. */
static json_t *running_list(const struct cr_group_metrics *running, size_t n_members, bool classification)
{
    json_t *list = json_array();
    for (size_t k = 0; k < n_members; k++) {
        const struct cr_group_metrics *m = &running[k];
        json_t *object = json_object();
        json_object_set_new(object, "members", json_integer((json_int_t)k + 1));
        json_object_set_new(object, "accuracy", cr_json_finite(m->accuracy));
        json_object_set_new(object, "nll", cr_json_finite(m->nll));
        json_object_set_new(object, "ece", cr_json_finite(m->ece));
        json_object_set_new(object, "brier", cr_json_finite(m->brier));
        if (classification) {
            set_uncertainty(object, m);
        } else {
            json_object_set_new(object, "perplexity", cr_json_finite(m->perplexity));
        }
        json_array_append_new(list, object);
    }
    return list;
}

/* Figures at the fitted temperature. The accuracy is that of the raw probabilities. */
static json_t *calibrated_object(const struct cr_group_metrics *m)
{
    json_t *object = json_object();
    json_object_set_new(object, "nll", cr_json_finite(m->nll));
    json_object_set_new(object, "ece", cr_json_finite(m->ece));
    json_object_set_new(object, "brier", cr_json_finite(m->brier));
    json_object_set_new(object, "auroc_error", cr_json_finite(m->auroc_error));
    return object;
}

/* How the temperature was found. */
static json_t *calibration_object(const struct cr_eval_result *result)
{
    json_t *object = json_object();
    json_object_set_new(object, "temperature", cr_json_finite(result->temperature));
    json_object_set_new(object, "n", json_integer((json_int_t)result->n_calibration));
    json_object_set_new(object, "nll_raw", cr_json_finite(result->calibration_nll[0]));
    json_object_set_new(object, "nll", cr_json_finite(result->calibration_nll[1]));
    return object;
}

/* group 0 is all of it. */
static json_t *group(const struct cr_eval_result *result, size_t number)
{
    const struct cr_group_metrics *m = number == 0 ? &result->all : &result->groups[number - 1];
    bool classification = result->classification;
    json_t *object = json_object();
    json_object_set_new(object, "task", m->task[0] != '\0' ? json_string(m->task) : json_null());
    json_object_set_new(object, "n", json_integer((json_int_t)m->n));
    json_object_set_new(object, "accuracy", cr_json_finite(m->accuracy));
    json_object_set_new(object, "nll", cr_json_finite(m->nll));
    json_object_set_new(object, "ece", cr_json_finite(m->ece));
    json_object_set_new(object, "brier", cr_json_finite(m->brier));
    json_object_set_new(object, "auroc_error", cr_json_finite(m->auroc_error));
    if (!classification) {
        json_object_set_new(object, "perplexity", cr_json_finite(m->perplexity));
    }
    if (classification && (result->n_members > 1 || result->samples > 1)) { /* draws of logits are no members */
        set_uncertainty(object, m);
    }
    if (result->calibrated != NULL) {
        json_object_set_new(object, "calibrated", calibrated_object(&result->calibrated[number]));
    }
    if (result->running != NULL) {
        json_object_set_new(
            object, "running",
            running_list(result->running + number * result->n_members, result->n_members, classification));
    }
    return object;
}

static json_t *numbers(const double *values, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(list, cr_json_finite(values[i]));
    }
    return list;
}

static json_t *ood_object(const struct cr_evaluation *e, bool with_examples)
{
    const struct cr_ood_metrics *o = &e->result->ood;
    json_t *object = json_object();
    json_t *information = json_object();
    json_object_set_new(object, "n_in", json_integer((json_int_t)o->n_in));
    json_object_set_new(object, "n_out", json_integer((json_int_t)o->n_out));
    json_object_set_new(object, "auroc", cr_json_finite(o->auroc));
    json_object_set_new(object, "average_precision", cr_json_finite(o->average_precision));
    json_object_set_new(object, "entropy_in", cr_json_finite(o->mean_in));
    json_object_set_new(object, "entropy_out", cr_json_finite(o->mean_out));
    json_object_set_new(information, "auroc", cr_json_finite(o->information_auroc));
    json_object_set_new(information, "average_precision", cr_json_finite(o->information_average_precision));
    json_object_set_new(object, "mutual_information", information);
    if (with_examples) {
        json_object_set_new(object, "entropies_in", numbers(e->ood.in, e->ood.n_in));
        json_object_set_new(object, "entropies_out", numbers(e->ood.out, e->ood.n_out));
    }
    return object;
}

static json_t *data_object(const struct cr_evaluation *e)
{
    json_t *object = json_object();
    json_t *tasks = json_array();
    for (size_t t = 0; t < e->n_tasks; t++) {
        json_array_append_new(tasks, cr_json_text(e->task_names[t]));
    }
    json_object_set_new(object, "path", cr_json_text(e->data));
    json_object_set_new(object, "xxh3", json_string(e->data_hash));
    json_object_set_new(object, "tasks", tasks);
    return object;
}

static cr_status set_settings(json_t *object, const char *settings, struct cr_error *err)
{
    json_t *flags = NULL;
    if (settings != NULL) {
        CR_TRY(cr_json_parse(settings, strlen(settings), "settings_json", &flags, err));
        json_object_set_new(object, "settings", flags);
    }
    return CR_OK;
}

cr_status cr_result_write(const struct cr_evaluation *e, const struct cr_eval_options *options, struct cr_error *err)
{
    const struct cr_eval_result *result = e->result;
    json_t *object = json_object();
    json_t *groups = json_array();
    json_object_set_new(object, "model", cr_json_text(e->model));
    json_object_set_new(object, "method", json_string(result->method));
    json_object_set_new(object, "samples", json_integer(result->samples));
    if (result->n_members > 1) {
        json_object_set_new(object, "members", json_integer((json_int_t)result->n_members));
    }
    json_object_set_new(object, "tokens", json_integer((json_int_t)result->tokens));
    json_object_set_new(object, "seconds", cr_json_finite(result->seconds));
    json_object_set_new(object, "tok_s", cr_json_finite(result->tok_s));
    for (size_t i = 0; i < result->n_groups; i++) {
        json_array_append_new(groups, group(result, i + 1));
    }
    json_object_set_new(object, "groups", groups);
    json_object_set_new(object, "all", group(result, 0));
    if (result->calibrated != NULL) {
        json_object_set_new(object, "calibration", calibration_object(result));
    }
    if (isfinite(result->bora_perplexity)) {
        json_object_set_new(object, "ppl_bora", json_real(result->bora_perplexity));
    }
    if (result->n_global > 0) {
        json_object_set_new(object, "global", json_integer((json_int_t)result->n_global));
    }
    if (isfinite(result->pair_disagreement)) {
        json_object_set_new(object, "pair_disagreement", json_real(result->pair_disagreement));
        json_object_set_new(object, "pair_distance", json_real(result->pair_distance));
    }
    json_object_set_new(object, "data", data_object(e));
    if (!options->no_examples) {
        json_object_set_new(object, "examples", cr_columns_object(&e->outcomes));
        if (e->calibrated.items != NULL) {
            json_object_set_new(object, "calibrated_examples", cr_columns_object(&e->calibrated));
        }
    }
    if (result->has_ood) {
        json_object_set_new(object, "ood", ood_object(e, !options->no_examples));
    }
    cr_status status = set_settings(object, options->settings_json, err);
    if (status == CR_OK) {
        status = cr_json_write(object, options->json, err);
    }
    json_decref(object);
    return status;
}
