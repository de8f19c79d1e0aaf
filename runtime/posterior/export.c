/* export: an adapter, or one set of weights of a posterior, in the file form of another program. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "credence/credence.h"
#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/core/host.h"
#include "runtime/core/options.h"
#include "runtime/io/file.h"
#include "runtime/posterior/output_dir.h"
#include "runtime/posterior/posterior.h"

enum { METHOD_BYTES = 16 };

/* One file among those that are read: a member of the adapter's directory goes by its name, what else is there does
 * not. */
static cr_status is_read(const char *output, const char *dir, bool *found, struct cr_error *err)
{
    for (int i = 1; i < CR_OUTPUT_N - 1 && !*found; i++) { /* neither summary.json nor adapter.gguf is */
        char *path = cr_path_join(dir, cr_output_names[i]);
        if (path == NULL) {
            return cr_fail(err, CR_E_MEMORY, "no memory for a path");
        }
        *found = cr_same_file(output, path);
        cr_free(path);
    }
    return CR_OK;
}

/* What is read stays as it is. */
static cr_status check_paths(const struct cr_export_options *o, bool gguf, struct cr_error *err)
{
    const struct cr_output_input kept[] = {{"--adapter", o->adapter}, {"--model", o->model}};
    for (int i = 0; i < 2; i++) {
        if (cr_same_file(o->output, kept[i].path)) {
            return cr_fail(err, CR_E_USAGE, "export: --output is the same as %s, which stays as it is", kept[i].flag);
        }
    }
    bool found = false;
    if (gguf) {
        CR_TRY(is_read(o->output, o->adapter, &found, err));
    }
    if (found) {
        return cr_fail(err, CR_E_USAGE, "export: --output is a file of --adapter, which stays as it is");
    }
    return gguf ? CR_OK : cr_output_keep_inputs(o->output, false, kept, 2, err);
}

static cr_status check_options(const struct cr_export_options *options, bool *gguf, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    if (options->adapter == NULL || options->output == NULL) {
        return cr_fail(err, CR_E_USAGE, "export: %s expected", options->adapter == NULL ? "adapter" : "output");
    }
    const char *format = options->format != NULL ? options->format : "peft";
    if (strcmp(format, "peft") != 0 && strcmp(format, "gguf") != 0) {
        return cr_fail(err, CR_E_USAGE, "export: format is \"%s\", peft or gguf expected",
                       cr_escape(shown, sizeof shown, format, strlen(format)));
    }
    if (options->mean && options->sample_set) {
        return cr_fail(err, CR_E_USAGE, "export: --mean and --sample exclude each other");
    }
    if (options->member_set && (options->mean || options->sample_set || options->prune > 0)) {
        return cr_fail(err, CR_E_USAGE, "export: --member excludes --%s",
                       options->mean         ? "mean"
                       : options->sample_set ? "sample"
                                             : "prune");
    }
    if (options->task != NULL && (options->mean || options->sample_set || options->member_set || options->prune > 0)) {
        return cr_fail(err, CR_E_USAGE, "export: --task excludes --%s",
                       options->mean         ? "mean"
                       : options->sample_set ? "sample"
                       : options->member_set ? "member"
                                             : "prune");
    }
    if (!(options->posterior_temperature >= 0) || !isfinite(options->posterior_temperature)) {
        return cr_fail(err, CR_E_USAGE, "export: --posterior-temperature %g, expected a number above 0",
                       options->posterior_temperature);
    }
    if (options->posterior_temperature > 0 && !options->sample_set) {
        return cr_fail(err, CR_E_USAGE, "export: --posterior-temperature belongs to --sample");
    }
    if (!(options->prune >= 0 && options->prune < 1)) {
        return cr_fail(err, CR_E_USAGE, "export: --prune %g, expected a number from 0 to below 1", options->prune);
    }
    *gguf = strcmp(format, "gguf") == 0;
    return check_paths(options, *gguf, err);
}

static cr_status choose_member(struct cr_posterior *posterior, const struct cr_export_options *options,
                               struct cr_error *err)
{
    if (!cr_posterior_is_ensemble(posterior)) {
        return cr_fail(err, CR_E_USAGE, "--member: %s is no ensemble", posterior->label);
    }
    if (!options->member_set || options->member >= posterior->sets.n) {
        return cr_fail(err, CR_E_USAGE,
                       "%s is an ensemble, of which no one set of weights is the mean: --member K, 0 to %u, expected",
                       posterior->label, posterior->sets.n - 1);
    }
    struct cr_posterior_draw draw = {.sample = options->member};
    return cr_posterior_draw(posterior, &draw, posterior->adapter->params, err);
}

/* Label rows of its own: of the member or the set of weights that is written. */
static bool has_rows(const struct cr_posterior *posterior)
{
    return posterior->adapter->n_labels > 0;
}

/* Whether label rows of its own can go where they are asked to go. */
static cr_status check_head(const struct cr_posterior *posterior, const struct cr_model *model, bool gguf,
                            struct cr_error *err)
{
    uint32_t n = posterior->adapter->n_labels;
    const int32_t *ids = cr_posterior_head(posterior)->label_ids;
    if (gguf) {
        return cr_fail(err, CR_E_USAGE,
                       "%s: trained with %u label rows of its own, for which a GGUF adapter has no place: "
                       "--drop-head writes one without them",
                       posterior->label, n);
    }
    if (model == NULL) {
        return cr_fail(err, CR_E_USAGE,
                       "%s: trained with %u label rows of its own, written as the difference to those of the "
                       "model: --model expected, or --drop-head",
                       posterior->label, n);
    }
    if (model->config.tied) {
        return cr_fail(err, CR_E_USAGE,
                       "%s: trained with %u label rows of its own; the output matrix of this model is its "
                       "embedding, which must stay as it is: --drop-head writes one without them",
                       posterior->label, n);
    }
    if (ids == NULL) {
        return cr_fail(
            err, CR_E_USAGE,
            "%s: a checkpoint does not say which tokens its %u label rows are of: export the finished run, or "
            "--drop-head",
            posterior->label, n);
    }
    for (uint32_t i = 0; i < n; i++) {
        if ((uint32_t)ids[i] >= model->config.n_vocab) {
            return cr_fail(err, CR_E_INPUT, "%s: label token %d, the model has %u", posterior->label, (int)ids[i],
                           model->config.n_vocab);
        }
    }
    return CR_OK;
}

/* The label rows of what has been chosen. head->delta is owned. */
static cr_status make_head(const struct cr_posterior *posterior, const struct cr_model *model,
                           struct cr_peft_head *head, float **delta, struct cr_error *err)
{
    const struct cr_adapter *adapter = posterior->adapter;
    const float *rows = adapter->params + cr_adapter_rows_begin(adapter);
    const int32_t *ids = cr_posterior_head(posterior)->label_ids;
    size_t n = (size_t)adapter->n_labels * adapter->n_embd;
    *delta = cr_alloc(n, sizeof **delta);
    if (*delta == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %u label rows", adapter->n_labels);
    }
    cr_model_label_rows(model, CR_TIER_SCALAR, ids, adapter->n_labels, *delta);
    for (size_t i = 0; i < n; i++) {
        (*delta)[i] = rows[i] - (*delta)[i];
    }
    *head = (struct cr_peft_head){.ids = ids,
                                  .delta = *delta,
                                  .n = adapter->n_labels,
                                  .n_embd = adapter->n_embd,
                                  .n_vocab = model->config.n_vocab};
    return CR_OK;
}

static void say_dropped(const struct cr_posterior *posterior, const struct cr_host *host)
{
    const struct cr_head_nll *nll = &cr_posterior_head(posterior)->nll;
    const char *whose = cr_posterior_is_ensemble(posterior) ? "all members together" : "the mean";
    if (isfinite(nll->model)) {
        cr_host_log(host, CR_LOG_WARNING, "%s: without its label rows; held-out NLL of %s %.4f with them, %.4f without",
                    posterior->label, whose, nll->own, nll->model);
    } else {
        cr_host_log(host, CR_LOG_WARNING, "%s: without its label rows; what that costs was not measured",
                    posterior->label);
    }
}

/* Label rows of its own go into the head, or are left out when asked to. */
static cr_status take_rows(const struct cr_posterior *posterior, const struct cr_model *model,
                           const struct cr_export_options *options, bool gguf, const struct cr_host *host,
                           struct cr_peft_head *head, float **delta, struct cr_error *err)
{
    if (!has_rows(posterior)) {
        return options->drop_head
                   ? cr_fail(err, CR_E_USAGE, "--drop-head: %s has no label rows of its own", posterior->label)
                   : CR_OK;
    }
    if (options->drop_head) {
        say_dropped(posterior, host);
        return CR_OK;
    }
    CR_TRY(check_head(posterior, model, gguf, err));
    return make_head(posterior, model, head, delta, err);
}

static cr_status choose_task(struct cr_posterior *posterior, const char *task, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    if (!cr_posterior_has_tasks(posterior)) {
        return cr_fail(err, CR_E_USAGE, "--task: %s has no adapters by task", posterior->label);
    }
    struct cr_posterior_draw draw = {.sample = cr_weight_sets_find(&posterior->sets, task)};
    if (draw.sample == 0) {
        return cr_fail(err, CR_E_USAGE, "--task: %s has no task \"%s\" (its %u are in its posterior.safetensors)",
                       posterior->label, cr_escape(shown, sizeof shown, task, strlen(task)), posterior->sets.n - 1);
    }
    return cr_posterior_draw(posterior, &draw, posterior->adapter->params, err);
}

/* What will be written stands in the parameters of the adapter afterwards. */
static cr_status choose(struct cr_posterior *posterior, const struct cr_export_options *options, struct cr_error *err)
{
    struct cr_adapter *adapter = posterior->adapter;
    if (options->task != NULL) {
        return choose_task(posterior, options->task, err);
    }
    if (options->member_set || cr_posterior_is_ensemble(posterior)) {
        return choose_member(posterior, options, err);
    }
    if (options->prune > 0) {
        CR_TRY(cr_posterior_prune(posterior, options->prune, err));
    }
    if (!options->sample_set) {
        return CR_OK;
    }
    if (cr_posterior_is_simplex(posterior)) {
        return cr_fail(
            err, CR_E_USAGE,
            "--sample: a draw of %s has other rows for every text and layer: only its centroid is one prefix",
            posterior->label);
    }
    if (cr_posterior_is_point(posterior)) {
        return cr_fail(err, CR_E_USAGE, "--sample: %s is one set of weights, not a posterior", posterior->label);
    }
    float *drawn = cr_alloc(adapter->n_params, sizeof *drawn);
    if (drawn == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a draw of %zu weights", adapter->n_params);
    }
    double temperature = options->posterior_temperature;
    struct cr_posterior_draw draw = {
        .seed = options->seed, .sample = options->sample, .temperature = temperature > 0 ? temperature : 1};
    cr_status status = cr_posterior_draw(posterior, &draw, drawn, err);
    if (status == CR_OK) {
        memcpy(adapter->params, drawn, adapter->n_params * sizeof *drawn);
    }
    cr_free(drawn);
    return status;
}

/* An existing file is replaced only when asked to. */
static cr_status check_file(const char *path, bool force, struct cr_error *err)
{
    struct stat info;
    char shown[CR_ESCAPE_BYTES];
    CR_TRY(cr_check_output("--output", path, err));
    return force || lstat(path, &info) != 0 ? CR_OK
                                            : cr_fail(err, CR_E_USAGE, "%s exists already (force replaces it)",
                                                      cr_escape(shown, sizeof shown, path, strlen(path)));
}

/* What is written is one set of weights, and says so: "swag-sample". text [METHOD_BYTES] has room for it. */
static const char *method_of(const struct cr_posterior *posterior, const struct cr_export_options *options, char *text)
{
    const char *method = posterior->adapter->method, *kind = cr_posterior_kind_name(posterior->kind);
    if (cr_posterior_is_ensemble(posterior)) {
        return has_rows(posterior) && options->drop_head ? CR_HEADLESS_MEMBER : CR_MEMBER_METHOD;
    }
    if (cr_posterior_has_tasks(posterior)) {
        return options->task != NULL ? CR_TASK_METHOD : CR_COMMON_METHOD;
    }
    if (options->drop_head) {
        return CR_HEADLESS_SWAG;
    }
    if (kind != NULL && (posterior->kind != CR_POSTERIOR_PREFIX || cr_posterior_is_simplex(posterior))) {
        snprintf(text, METHOD_BYTES, "%s-%s", kind, options->sample_set ? "sample" : "mean");
        return text;
    }
    return method[0] != '\0' ? method : NULL;
}

cr_status cr_export(const struct cr_export_options *given, const struct cr_host *host, struct cr_error *err)
{
    cr_status status = CR_OK;
    struct cr_export_options copy = {0}; /* fields that an older caller does not know are 0 */
    const struct cr_export_options *options = &copy;
    CR_TRY(cr_options_copy(&copy, sizeof copy, given, err));
    bool gguf = false;
    struct cr_model *model = NULL;
    struct cr_posterior *posterior = NULL;
    struct cr_peft_head head = {0};
    float *delta = NULL; /* owned: its rows */
    int lock_fd = -1;
    char method[METHOD_BYTES];
    CR_TRY(check_options(options, &gguf, err));
    if (options->model != NULL) {
        CR_TRY(cr_model_open(options->model, &model, err));
    }
    /* The scalar tier draws the same bits as any other. */
    CR_TRY_OUT(status, cr_posterior_open(options->adapter, model, options->allow_inexact, host, CR_TIER_SCALAR,
                                         &posterior, err));
    CR_TRY_OUT(status, choose(posterior, options, err));
    const struct cr_adapter *adapter = posterior->adapter;
    CR_TRY_OUT(status, take_rows(posterior, model, options, gguf, host, &head, &delta, err));
    if (cr_host_stopped(host)) {
        status = cr_fail(err, CR_E_STOPPED, "stopped; nothing written");
        goto out;
    }
    if (gguf) {
        CR_TRY_OUT(status, check_file(options->output, options->force, err));
        status = cr_adapter_write_gguf(adapter, &posterior->base, options->output, err);
    } else {
        if (adapter->prefix != NULL && adapter->prefix->n_labels > 0) {
            cr_host_log(host, CR_LOG_WARNING,
                        "%s: its trained label rows have no place in a PEFT directory of a prefix", posterior->label);
        }
        CR_TRY_OUT(status, cr_output_take(options->output, options->force, &lock_fd, err));
        status = cr_adapter_write_peft(adapter, &posterior->base, head.n > 0 ? &head : NULL, options->output,
                                       method_of(posterior, options, method), err);
    }
out:
    cr_dir_unlock(lock_fd);
    cr_free(delta);
    cr_posterior_close(posterior);
    cr_model_close(model);
    return status;
}
