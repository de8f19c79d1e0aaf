/* The outputs of a finished run: adapter files first, summary.json last. */
#include "runtime/train/train.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/hash.h"
#include "runtime/io/json.h"
#include "runtime/posterior/own_head.h"
#include "runtime/thread/machine.h"

static double total_seconds(const struct cr_train *train)
{
    return train->earlier_seconds + train->train_seconds;
}

static double rate(const struct cr_train *train)
{
    double seconds = total_seconds(train);
    return seconds > 0 ? (double)train->history->tokens / seconds : 0;
}

static json_t *one_eval(uint64_t step, double nll)
{
    json_t *object = json_object();
    json_object_set_new(object, "step", json_integer((json_int_t)step));
    json_object_set_new(object, "nll", cr_json_finite(nll));
    return object;
}

/* Resolved settings, and the flags as the caller gave them. */
static cr_status settings_object(const struct cr_train *train, json_t **out, struct cr_error *err)
{
    json_t *settings = NULL;
    json_t *flags = NULL;
    CR_TRY(cr_json_parse(train->settings, strlen(train->settings), "settings", &settings, err));
    const char *given = train->options.settings_json;
    cr_status status = given != NULL ? cr_json_parse(given, strlen(given), "settings_json", &flags, err) : CR_OK;
    if (status != CR_OK) {
        json_decref(settings);
        return status;
    }
    json_object_set_new(settings, "flags", flags != NULL ? flags : json_object());
    *out = settings;
    return CR_OK;
}

static void set_numbers(const struct cr_train *train, json_t *summary)
{
    const struct cr_train_history *h = train->history;
    char hex[17];
    json_object_set_new(summary, "version", json_string(CREDENCE_VERSION));
    json_object_set_new(summary, "run_id", json_string(cr_hex_64(hex, train->run_id)));
    json_object_set_new(summary, "steps", json_integer((json_int_t)train->step));
    json_object_set_new(summary, "tokens", json_integer((json_int_t)h->tokens));
    json_object_set_new(summary, "seconds", json_real(total_seconds(train)));
    json_object_set_new(summary, "tok_s", json_real(rate(train)));
    json_object_set_new(summary, "peak_rss_mb", json_real((double)cr_machine_peak_rss() / CR_MIB));
    json_object_set_new(summary, "predicted_mb", json_real((double)train->memory.peak / CR_MIB));
    json_object_set_new(summary, "threads", json_integer(train->workers.parallel->n_workers));
    json_object_set_new(summary, "n_train", json_integer((json_int_t)train->n_train));
    json_object_set_new(summary, "n_valid", json_integer((json_int_t)train->n_valid));
    json_object_set_new(summary, "n_params", json_integer((json_int_t)train->adapter->n_trainable));
    json_object_set_new(summary, "skipped_steps", json_integer((json_int_t)h->n_skipped));
    json_object_set_new(summary, "lr_halvings", json_integer((json_int_t)h->n_halvings));
    json_object_set_new(summary, "final_loss", cr_json_finite(h->last_report_loss));
    json_object_set_new(summary, "best", h->n_evals > 0 ? one_eval(h->best_step, h->best_nll) : json_null());
    json_t *evals = json_array();
    for (uint64_t i = 0; i < h->n_evals; i++) {
        json_array_append_new(evals, one_eval(h->evals[i].step, h->evals[i].nll));
    }
    json_object_set_new(summary, "evaluations", evals);
    if (train->method->facts != NULL) {
        json_t *facts = json_object();
        train->method->facts(train->state, facts);
        json_object_set_new(summary, "posterior", facts);
    }
}

static cr_status write_summary(const struct cr_train *train, const char *path, struct cr_error *err)
{
    json_t *settings = NULL;
    json_t *digests = NULL;
    CR_TRY(settings_object(train, &settings, err));
    json_t *summary = json_object();
    json_object_set_new(summary, "settings", settings);
    cr_status status = cr_json_parse(train->digests, strlen(train->digests), "digests", &digests, err);
    if (status == CR_OK) {
        json_object_set_new(summary, "digests", digests);
        set_numbers(train, summary);
        status = cr_json_write(summary, path, err);
    }
    json_decref(summary);
    return status;
}

/* How prompts became tokens, as the posterior records it. */
static const char *template_name(const struct cr_train *train)
{
    const char *chat = train->options.chat_template;
    return train->data.classification ? "choices-t1" : chat != NULL ? chat : "model";
}

static cr_status write_posterior(const struct cr_train *train, struct cr_error *err)
{
    const struct cr_gguf *gguf = train->model->gguf;
    struct cr_posterior_about about = {.adapter = cr_train_acting(train),
                                       .model = train->model,
                                       .template_name = template_name(train),
                                       .tokenizer_hash =
                                           cr_xxh3_64(cr_gguf_bytes(gguf), (size_t)cr_gguf_data_offset(gguf)),
                                       .label_ids = train->data.label_ids,
                                       .n_labels = train->data.classification ? train->n_labels : 0};
    return train->method->write != NULL ? train->method->write(train->state, &about, train->options.output, err)
                                        : CR_OK;
}

static cr_status write_adapter(struct cr_train *train, const char *gguf_path, struct cr_error *err)
{
    struct cr_adapter adapter = cr_adapter_set(cr_train_acting(train), 0);
    cr_train_show_point(train);
    CR_TRY(write_posterior(train, err));
    if (train->method->no_adapter) {
        return CR_OK;
    }
    const char *method = adapter.n_labels > 0 ? CR_HEADLESS_SWAG : train->options.method; /* of swag alone */
    CR_TRY(cr_adapter_save_peft(&adapter, train->model, train->options.output, method, err));
    return cr_train_writes(train, "adapter.gguf") ? cr_adapter_save_gguf(&adapter, train->model, gguf_path, err)
                                                  : CR_OK;
}

cr_status cr_train_write_outputs(struct cr_train *train, struct cr_error *err)
{
    struct cr_progress progress = cr_progress_of("write");
    progress.step = train->step;
    progress.n_steps = train->n_steps;
    cr_host_progress(train->host, &progress);
    char *gguf_path = cr_path_join(train->options.output, "adapter.gguf");
    char *summary_path = cr_path_join(train->options.output, "summary.json");
    struct cr_error why = {0};
    cr_status status = CR_E_MEMORY;
    if (gguf_path == NULL || summary_path == NULL) {
        cr_fail(&why, status, "no memory for a path");
        goto out;
    }
    if (train->best != NULL && train->has_best) {
        train->method->put_result(train->state, train->best);
    }
    status = cr_train_tune(train, &why);
    if (status == CR_OK) {
        status = write_adapter(train, gguf_path, &why);
    }
    if (status == CR_OK) {
        status = write_summary(train, summary_path, &why);
    }
out:
    if (status != CR_OK) {
        cr_fail(err, status, "%.400s; last checkpoint: %.200s (credence export -a FILE -o OUT writes its adapter)",
                why.message, train->last_checkpoint != NULL ? train->last_checkpoint : "none");
    }
    cr_free(gguf_path);
    cr_free(summary_path);
    return status;
}

void cr_train_fill_result(const struct cr_train *train, struct cr_finetune_result *result)
{
    const struct cr_train_history *h = train->history;
    result->steps = train->step;
    result->tokens = h->tokens;
    result->n_train = train->n_train;
    result->n_valid = train->n_valid;
    result->n_params = train->adapter->n_trainable;
    result->seconds = total_seconds(train);
    result->tok_s = rate(train);
    result->peak_rss_mb = (double)cr_machine_peak_rss() / CR_MIB;
    result->final_loss = h->last_report_loss;
    result->best_nll = h->best_nll;
    result->best_step = h->best_step;
    result->predicted_mb = (double)train->memory.peak / CR_MIB;
}
