/* cr_laplace: a Laplace posterior around a trained adapter, from passes over its training examples.
 *
 * For each micro-batch a forward pass gives p(y|x), then one training pass for every class y, its loss weighted by the
 * root of p(y|x): products of the gradients are then weighted by p(y|x), an expectation taken exactly.
 */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/core/clock.h"
#include "runtime/core/host.h"
#include "runtime/core/options.h"
#include "runtime/eval/laplace_fit.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "runtime/io/json.h"
#include "runtime/metrics/metrics.h"
#include "runtime/posterior/members.h"
#include "runtime/posterior/output_dir.h"
#include "runtime/thread/float_env.h"

static cr_status check_options(const struct cr_laplace_options *given, struct cr_laplace_options *o,
                               struct cr_error *err)
{
    *o = (struct cr_laplace_options){0};
    CR_TRY(cr_options_copy(o, sizeof *o, given, err));
    if (o->adapter == NULL || o->output == NULL) {
        return cr_fail(err, CR_E_USAGE, "%s is required", o->adapter == NULL ? "--adapter" : "--output");
    }
    if (cr_same_file(o->valid, o->data)) {
        return cr_fail(err, CR_E_USAGE, "--valid is the same file as --data: its NLL would favour the point");
    }
    if (cr_same_file(o->output, o->adapter)) {
        return cr_fail(err, CR_E_USAGE, "--output is the same as --adapter, which stays as it is");
    }
    const struct cr_output_input kept[] = {
        {"--model", o->model}, {"--data", o->data}, {"--adapter", o->adapter}, {"--valid", o->valid}};
    CR_TRY(cr_output_keep_inputs(o->output, false, kept, sizeof kept / sizeof kept[0], err));
    if (!(o->prior_precision >= 0) || !isfinite(o->prior_precision)) {
        return cr_fail(err, CR_E_USAGE, "--prior-precision %g, expected a number above 0", o->prior_precision);
    }
    if (o->prior_precision > 0 && o->valid != NULL) {
        return cr_fail(err, CR_E_USAGE, "--prior-precision and --valid exclude each other: one is to choose");
    }
    if (o->no_valid && o->valid != NULL) {
        return cr_fail(err, CR_E_USAGE, "--valid and --no-valid exclude each other");
    }
    return CR_OK;
}

/* Where nothing is said, the examples that the run of the adapter held out choose. */
static cr_status find_valid(struct cr_laplace_fit *f, const struct cr_host *host, struct cr_error *err)
{
    struct cr_laplace_options *o = &f->options;
    char shown[CR_ESCAPE_BYTES];
    if (o->valid != NULL || o->no_valid || o->prior_precision > 0) {
        return CR_OK;
    }
    f->own_valid = cr_path_join(o->adapter, "valid.jsonl");
    if (f->own_valid == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a path");
    }
    if (access(f->own_valid, F_OK) == 0 && !cr_same_file(f->own_valid, o->data)) {
        o->valid = f->own_valid;
        cr_host_log(host, CR_LOG_INFO,
                    "%s, held out by the run of the adapter, chooses the prior precision (--no-valid: the evidence)",
                    cr_escape(shown, sizeof shown, o->valid, strlen(o->valid)));
    }
    return CR_OK;
}

static cr_status open_scoring(struct cr_laplace_fit *f, const struct cr_host *host, struct cr_error *err)
{
    const struct cr_laplace_options *o = &f->options;
    struct cr_scoring *s = &f->scoring;
    struct cr_eval_options eval;
    cr_eval_options_init(&eval);
    eval.model = o->model;
    eval.data = o->data;
    eval.adapter = o->adapter;
    eval.calibrate = o->valid;
    eval.max_seq_length = o->max_seq_length;
    eval.on_long_skip = o->on_long_skip;
    eval.normalize = o->normalize;
    eval.allow_inexact = o->allow_inexact;
    eval.seed = o->seed;
    eval.samples = 1;
    s->differentiates = true;
    return cr_scoring_open(&eval, host, s, err);
}

/* p(y|x) of the rows in the batch, from their logits, in the places of these. Returns the log-likelihood. */
static double to_probabilities(const struct cr_scoring *s)
{
    double log_lik = 0;
    for (size_t row = 0; row < s->batch.n_rows; row++) {
        float *z = s->scratch + row * s->n_labels;
        double wide[CR_LABELS_MAX];
        uint32_t n = s->batch.row_choices[row];
        for (uint32_t c = 0; c < n; c++) {
            wide[c] = (double)z[c];
        }
        log_lik -= cr_softmax_nll(wide, n, (size_t)s->batch.row_target[row]);
        cr_softmax(wide, n, wide);
        for (uint32_t c = 0; c < n; c++) {
            z[c] = (float)wide[c];
        }
    }
    return log_lik;
}

static cr_status gather_batch(struct cr_laplace_fit *f, struct cr_error *err)
{
    struct cr_scoring *s = &f->scoring;
    struct cr_token_batch *batch = &s->batch;
    uint32_t n_classes = 0;
    CR_TRY(cr_engine_label_logits(s->engine, batch, s->scratch, err));
    f->log_lik += to_probabilities(s);
    if (!isfinite(f->log_lik)) {
        return cr_fail(err, CR_E_DIVERGED, "the model's output is not a finite number");
    }
    for (size_t row = 0; row < batch->n_rows; row++) {
        n_classes = batch->row_choices[row] > n_classes ? batch->row_choices[row] : n_classes;
    }
    for (uint32_t c = 0; c < n_classes; c++) {
        for (size_t row = 0; row < batch->n_rows; row++) {
            bool has = c < batch->row_choices[row];
            batch->row_target[row] = has ? (int32_t)c : 0;
            batch->row_weight[row] = has ? (float)sqrt((double)s->scratch[row * s->n_labels + c]) : 0;
        }
        f->curvature.inputs = c == 0;
        CR_TRY(cr_engine_train(s->engine, batch, s->jacobian.noise, s->jacobian.loss, err));
    }
    s->tokens += batch->n_tokens;
    return CR_OK;
}

static cr_status gather(struct cr_laplace_fit *f, struct cr_error *err)
{
    struct cr_scoring *s = &f->scoring;
    const struct cr_scoring_set *set = &s->main;
    const struct cr_dataset whole = cr_dataset_whole(&set->data); /* every token counts */
    cr_engine_observe(s->engine, cr_curvature_view, &f->curvature);
    for (size_t done = 0; done < set->n;) {
        if (cr_host_stopped(s->host)) {
            return cr_fail(err, CR_E_STOPPED, "stopped after %zu of %zu examples; nothing written", done, set->n);
        }
        size_t n = cr_batch_take(&whole, set->order + done, set->n - done);
        uint64_t start = cr_clock_ns();
        cr_batch_fill(&s->batch, &whole, set->order + done, n, 1.0f);
        CR_TRY(gather_batch(f, err));
        CR_TRY(cr_scoring_unchanged(s, err));
        s->seconds += cr_clock_since(start);
        done += n;
        struct cr_progress progress = cr_progress_of("eval");
        progress.step = done;
        progress.n_steps = set->n;
        progress.tokens = s->tokens;
        progress.tok_s = (double)s->tokens / s->seconds;
        progress.eta_s = s->seconds / (double)done * (double)(set->n - done);
        progress.report = done == set->n;
        cr_host_progress(s->host, &progress);
    }
    cr_engine_observe(s->engine, NULL, NULL);
    return cr_curvature_finish(&f->curvature, set->n, err);
}

static json_t *summary_of(const struct cr_laplace_fit *f)
{
    const struct cr_laplace_result *r = &f->result;
    json_t *object = json_object(), *trials = json_array();
    json_object_set_new(object, "version", json_string(CREDENCE_VERSION));
    json_object_set_new(object, "method", json_string("laplace"));
    json_object_set_new(object, "adapter", cr_json_text(f->options.adapter));
    json_object_set_new(object, "data", cr_json_text(f->options.data));
    json_object_set_new(object, "n_examples", json_integer((json_int_t)r->n_examples));
    json_object_set_new(object, "tokens", json_integer((json_int_t)r->tokens));
    json_object_set_new(object, "seconds", cr_json_finite(r->seconds));
    json_object_set_new(object, "log_likelihood", cr_json_finite(r->log_likelihood));
    json_object_set_new(object, "evidence", cr_json_finite(r->evidence));
    json_object_set_new(object, "prior_precision", cr_json_finite(r->prior_precision));
    json_object_set_new(object, "chosen_by", json_string(f->chosen_by));
    json_object_set_new(object, "valid", f->options.valid != NULL ? cr_json_text(f->options.valid) : json_null());
    json_object_set_new(object, "valid_nll_point", cr_json_finite(r->valid_nll[0]));
    for (size_t t = 0; t < f->n_trials; t++) {
        json_t *trial = json_object();
        json_object_set_new(trial, "prior_precision", json_real(f->trials[t].precision));
        json_object_set_new(trial, "valid_nll", cr_json_finite(f->trials[t].nll));
        json_array_append_new(trials, trial);
    }
    json_object_set_new(object, "trials", trials);
    return object;
}

static cr_status write_outputs(struct cr_laplace_fit *f, struct cr_error *err)
{
    const struct cr_scoring *s = &f->scoring;
    const char *dir = f->options.output;
    const struct cr_gguf *gguf = s->model->gguf;
    const struct cr_posterior *p = s->sets.posteriors[0];
    struct cr_posterior_about about = {.adapter = p->adapter,
                                       .model = s->model,
                                       .template_name = "choices-t1",
                                       .tokenizer_hash =
                                           cr_xxh3_64(cr_gguf_bytes(gguf), (size_t)cr_gguf_data_offset(gguf)),
                                       .label_ids = s->label_ids,
                                       .n_labels = s->n_labels};
    int lock_fd = -1;
    CR_TRY(cr_scoring_unchanged(s, err)); /* its head is read once more, above */
    CR_TRY(cr_output_take(dir, f->options.force, &lock_fd, err));
    char *gguf_path = cr_path_join(dir, "adapter.gguf"), *summary_path = cr_path_join(dir, "summary.json");
    json_t *summary = summary_of(f);
    cr_status status = CR_OK;
    if (gguf_path == NULL || summary_path == NULL || summary == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for a path");
        goto out;
    }
    CR_TRY_OUT(status, cr_laplace_write(&f->set, &about, dir, err));
    CR_TRY_OUT(status, cr_adapter_save_peft(p->adapter, s->model, dir, "laplace", err));
    CR_TRY_OUT(status, cr_adapter_save_gguf(p->adapter, s->model, gguf_path, err));
    status = cr_json_write(summary, summary_path, err);
out:
    cr_dir_unlock(lock_fd);
    json_decref(summary);
    cr_free(gguf_path);
    cr_free(summary_path);
    return status;
}

static cr_status run(struct cr_laplace_fit *f, const struct cr_laplace_options *options, const struct cr_host *host,
                     struct cr_error *err)
{
    struct cr_scoring *s = &f->scoring;
    CR_TRY(check_options(options, &f->options, err));
    CR_TRY(find_valid(f, host, err));
    CR_TRY(cr_dir_check_output(f->options.output, f->options.force, false, err));
    CR_TRY(open_scoring(f, host, err));
    CR_TRY(cr_scoring_keep_trained(s, f->options.adapter, err));
    const struct cr_adapter *adapter = s->sets.posteriors[0]->adapter;
    CR_TRY(cr_rng_ops_init(&f->rng, s->workers.tier));
    CR_TRY(cr_laplace_set_init(&f->set, adapter, err));
    CR_TRY(cr_curvature_init(&f->curvature, &f->set, adapter, s->workers.parallel, err));
    CR_TRY(gather(f, err));
    CR_TRY(cr_laplace_choose(f, err));
    f->result.n_examples = s->main.n;
    f->result.tokens = s->tokens;
    f->result.seconds = s->seconds;
    f->result.log_likelihood = f->log_lik;
    return write_outputs(f, err);
}

cr_status cr_laplace(const struct cr_laplace_options *options, const struct cr_host *host,
                     struct cr_laplace_result *result, struct cr_error *err)
{
    struct cr_laplace_fit *f = cr_zalloc(1, sizeof *f);
    if (f == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a Laplace posterior");
    }
    uint64_t saved = cr_float_env_enter();
    cr_status status = run(f, options, host, err);
    cr_float_env_leave(saved);
    if (status == CR_OK && result != NULL) {
        *result = f->result;
    }
    cr_scoring_close(&f->scoring);
    cr_curvature_deinit(&f->curvature);
    cr_laplace_set_free(&f->set);
    cr_free(f->values);
    cr_free(f->own_valid);
    cr_free(f);
    return status;
}
