/* cr_predict: one JSON line an example. */
#include <math.h>
#include <stdlib.h>

#include "runtime/core/alloc.h"
#include "runtime/eval/scoring.h"
#include "runtime/eval/temperature.h"
#include "runtime/io/json.h"
#include "runtime/metrics/metrics.h"
#include "runtime/thread/float_env.h"

struct receiver {
    const struct cr_scoring *scoring;
    bool (*emit)(void *ctx, const char *line);
    void *ctx;
};

static void set_choices(json_t *line, const struct cr_score *score)
{
    uint32_t n = score->example->n_choices;
    json_t *probs = json_array();
    json_t *logits = score->logits != NULL ? json_array() : json_null(); /* those of several members are not one */
    for (uint32_t c = 0; c < n; c++) {
        json_array_append_new(probs, json_real(score->probs[c]));
        if (score->logits != NULL) {
            json_array_append_new(logits, json_real((double)score->logits[c]));
        }
    }
    json_object_set_new(line, "answer",
                        score->example->unanswered ? json_null() : json_integer(score->example->answer));
    json_object_set_new(line, "prediction", json_integer((json_int_t)cr_argmax(score->probs, n)));
    json_object_set_new(line, "probs", probs);
    json_object_set_new(line, "logits", logits);
    if (score->calibrated != NULL) {
        json_t *calibrated = json_array();
        for (uint32_t c = 0; c < n; c++) {
            json_array_append_new(calibrated, json_real(score->calibrated[c]));
        }
        json_object_set_new(line, "calibrated", calibrated);
    }
}

static void set_text(json_t *line, const struct cr_score *score)
{
    static const char *const absent[] = {"answer", "prediction", "probs", "logits"};
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        json_object_set_new(line, absent[i], json_null());
    }
    json_object_set_new(line, "nll", cr_json_finite(score->all->nll / (double)score->n_targets));
    json_object_set_new(line, "n_targets", json_integer((json_int_t)score->n_targets));
}

static cr_status give(void *ctx, const struct cr_score *score, struct cr_error *err)
{
    struct receiver *receiver = ctx;
    int32_t task = score->example->task;
    json_t *line = json_object();
    /* The line of the file, so that lines still pair up when long examples were skipped. */
    json_object_set_new(line, "index", json_integer((json_int_t)score->example->line - 1));
    json_object_set_new(line, "task",
                        task >= 0 ? json_string(receiver->scoring->main.data.task_names[task]) : json_null());
    if (score->probs != NULL) {
        set_choices(line, score);
    } else {
        set_text(line, score);
    }
    if (score->global) {
        json_object_set_new(line, "adapter", json_string("global"));
    }
    json_object_set_new(line, "entropy", cr_json_finite(score->all->doubt.entropy));
    json_object_set_new(line, "mutual_information", cr_json_finite(score->all->doubt.mutual_information));
    if (score->n_members > 1 || receiver->scoring->sets.logit_draws > 0) {
        json_object_set_new(line, "expected_entropy", cr_json_finite(score->all->doubt.expected_entropy));
    }
    if (score->n_members > 1) {
        json_object_set_new(line, "disagreement", cr_json_finite(score->all->disagreement));
        json_object_set_new(line, "members", json_integer((json_int_t)score->n_members));
    }
    char *text = json_dumps(line, JSON_COMPACT);
    json_decref(line);
    if (text == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a line of output");
    }
    bool more = receiver->emit(receiver->ctx, text);
    free(text);
    return more ? CR_OK : cr_fail(err, CR_E_IO, "the receiver of the predictions takes no more");
}

cr_status cr_predict(const struct cr_eval_options *options, const struct cr_host *host,
                     bool (*emit)(void *ctx, const char *line), void *ctx, struct cr_error *err)
{
    struct cr_scoring scoring = {.answers = true};
    struct receiver receiver = {.scoring = &scoring, .emit = emit, .ctx = ctx};
    uint64_t saved = cr_float_env_enter();
    cr_status status = cr_scoring_open(options, host, &scoring, err);
    if (status == CR_OK && scoring.options.calibrate != NULL) {
        double nll[2];
        status = cr_temperature_of(&scoring, nll, err);
    }
    if (status == CR_OK) {
        status = cr_scoring_run(&scoring, &scoring.main, give, &receiver, err);
    }
    cr_float_env_leave(saved);
    cr_scoring_close(&scoring);
    return status;
}
