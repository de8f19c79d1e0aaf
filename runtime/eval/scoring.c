#include "runtime/eval/scoring.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/clock.h"
#include "runtime/core/host.h"
#include "runtime/eval/metrics.h"
#include "runtime/eval/nll.h"
#include "runtime/thread/machine.h"

enum { DEFAULT_LENGTH = 2048 };

#define MIB (1024.0 * 1024.0)

/* Libraries, thread stacks and allocator slack that no term names, as in training. */
#define OVERHEAD_BYTES ((uint64_t)6 << 20)
#define OVERHEAD_PER_WORKER ((uint64_t)128 << 10)

static struct cr_progress progress_of(const char *phase)
{
    return (struct cr_progress){.phase = phase,
                                .loss = (double)NAN,
                                .lr = (double)NAN,
                                .grad_norm = (double)NAN,
                                .tok_s = (double)NAN,
                                .eta_s = (double)NAN};
}

static cr_status enter_phase(const struct cr_scoring *s, const char *phase, struct cr_error *err)
{
    struct cr_progress progress = progress_of(phase);
    cr_host_progress(s->host, &progress);
    return cr_host_stopped(s->host) ? cr_fail(err, CR_E_STOPPED, "stopped before the first example") : CR_OK;
}

static cr_status load_model(struct cr_scoring *s, struct cr_error *err)
{
    CR_TRY(cr_model_open(s->options.model, &s->model, err));
    CR_TRY(cr_tokenizer_open(s->model->gguf, &s->tokenizer, err));
    uint32_t context = s->model->config.n_ctx;
    uint32_t *length = &s->options.max_seq_length;
    if (*length > context) {
        return cr_fail(err, CR_E_USAGE, "--max-seq-length %u is above the context of the model, %u", *length, context);
    }
    if (*length == 0) {
        *length = context < DEFAULT_LENGTH ? context : DEFAULT_LENGTH;
    }
    return CR_OK;
}

static cr_status load_adapter(struct cr_scoring *s, struct cr_error *err)
{
    if (s->options.adapter == NULL) {
        snprintf(s->method, sizeof s->method, "base");
        return CR_OK;
    }
    CR_TRY(cr_adapter_load(s->options.adapter, s->model, false, s->options.allow_inexact, s->host, &s->adapter, err));
    snprintf(s->method, sizeof s->method, "%s", s->adapter->method[0] != '\0' ? s->adapter->method : "lora");
    return CR_OK;
}

static cr_status load_data(struct cr_scoring *s, struct cr_error *err)
{
    const struct cr_eval_options *o = &s->options;
    struct cr_dataset_options options = {.max_seq_length = o->max_seq_length,
                                         .on_long_skip = o->on_long_skip,
                                         .train_on_prompt = o->train_on_prompt,
                                         .chat_template = o->chat_template,
                                         .system = o->system,
                                         .normalize = o->normalize};
    return cr_dataset_open(o->data, s->tokenizer, &options, s->host, &s->data, err);
}

/* The first `limit` examples of each task (those without a task count as one). */
static cr_status choose_examples(struct cr_scoring *s, struct cr_error *err)
{
    s->order = cr_alloc(s->data.n, sizeof *s->order);
    uint64_t *taken = cr_zalloc(s->data.n_tasks + 1, sizeof *taken);
    if (s->order == NULL || taken == NULL) {
        cr_free(taken);
        return cr_fail(err, CR_E_MEMORY, "no memory for the order of %zu examples", s->data.n);
    }
    for (size_t i = 0; i < s->data.n; i++) {
        uint64_t *of_task = &taken[s->data.examples[i].task + 1];
        if (s->options.limit == 0 || *of_task < s->options.limit) {
            ++*of_task;
            s->order[s->n++] = (uint32_t)i;
        }
    }
    cr_free(taken);
    return CR_OK;
}

static cr_status check_memory(const struct cr_scoring *s, uint64_t engine_bytes, struct cr_error *err)
{
    uint64_t budget = s->host->memory_bytes > 0 ? s->host->memory_bytes : cr_machine_memory_budget();
    uint64_t model = cr_gguf_file_bytes(s->model->gguf);
    uint64_t file = cr_machine_rss_file();
    uint64_t held = cr_machine_rss_anon() + (file > model ? file - model : 0);
    uint64_t overhead = OVERHEAD_BYTES + (uint64_t)s->workers.parallel->n_workers * OVERHEAD_PER_WORKER;
    uint64_t total = model + held + engine_bytes + overhead;
    uint64_t peak = cr_machine_peak_rss();
    total = total > peak ? total : peak;
    if (total > budget) {
        return cr_fail(
            err, CR_E_MEMORY,
            "memory: %.0f MiB predicted (model %.0f, passes %.0f, program, tokenizer, adapter and data %.0f), "
            "%.0f MiB allowed: a smaller --max-seq-length needs less",
            (double)total / MIB, (double)model / MIB, (double)engine_bytes / MIB, (double)(held + overhead) / MIB,
            (double)budget / MIB);
    }
    return CR_OK;
}

static cr_status make_engine(struct cr_scoring *s, struct cr_error *err)
{
    struct cr_engine_options options = {.model = s->model,
                                        .lora = s->adapter != NULL ? s->adapter->slots : NULL,
                                        .parallel = s->workers.parallel,
                                        .host = s->host,
                                        .tier = s->workers.tier,
                                        .max_tokens = cr_batch_capacity(&s->data),
                                        .max_seq = s->data.max_ids,
                                        .label_ids = s->data.classification ? s->data.label_ids : NULL,
                                        .n_labels = s->data.n_labels};
    CR_TRY(check_memory(s, cr_engine_bytes(&options), err));
    CR_TRY(cr_batch_init(&s->batch, options.max_tokens, err));
    s->scratch = cr_alloc(cr_nll_scratch_floats(s->batch.max_rows, s->data.n_labels), sizeof *s->scratch);
    if (s->scratch == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the results of a pass");
    }
    return cr_engine_create(&options, &s->engine, err);
}

cr_status cr_scoring_open(const struct cr_eval_options *options, const struct cr_host *host, struct cr_scoring *scoring,
                          struct cr_error *err)
{
    static const struct cr_host silent;
    scoring->host = host != NULL ? host : &silent;
    CR_TRY(cr_eval_check_options(options, &scoring->options, err));
    CR_TRY(cr_workers_choose(&scoring->workers, scoring->host, err));
    CR_TRY(enter_phase(scoring, "load", err));
    CR_TRY(load_model(scoring, err));
    CR_TRY(load_adapter(scoring, err));
    CR_TRY(enter_phase(scoring, "data", err));
    CR_TRY(load_data(scoring, err));
    CR_TRY(choose_examples(scoring, err));
    CR_TRY(make_engine(scoring, err));
    cr_host_log(scoring->host, CR_LOG_INFO, "%zu examples, %s, method %s", scoring->n,
                scoring->data.classification ? "choices" : "texts", scoring->method);
    return enter_phase(scoring, "eval", err);
}

void cr_scoring_close(struct cr_scoring *s)
{
    cr_engine_destroy(s->engine);
    cr_batch_deinit(&s->batch);
    cr_adapter_destroy(s->adapter);
    cr_free(s->scratch);
    cr_free(s->order);
    cr_dataset_close(&s->data);
    cr_tokenizer_close(s->tokenizer);
    cr_model_close(s->model);
    memset(s, 0, sizeof *s);
}

static cr_status not_finite(const struct cr_scoring *s, const struct cr_example *example, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    return cr_fail(err, CR_E_DIVERGED, "%s:%" PRIu64 ": the model's output is not a finite number",
                   cr_escape(shown, sizeof shown, s->options.data, strlen(s->options.data)), example->line);
}

/* One row an example: the model is a single member. */
static cr_status give_choices(const struct cr_scoring *s, cr_score_fn *fn, void *ctx, struct cr_error *err)
{
    for (size_t row = 0; row < s->batch.n_rows; row++) {
        uint32_t index = s->batch.example[s->batch.row_token[row]];
        const struct cr_example *example = &s->data.examples[index];
        const float *logits = s->scratch + row * s->data.n_labels;
        double wide[CR_LABELS_MAX];
        double probs[CR_LABELS_MAX];
        for (uint32_t c = 0; c < example->n_choices; c++) {
            if (!isfinite(logits[c])) {
                return not_finite(s, example, err);
            }
            wide[c] = (double)logits[c];
        }
        cr_softmax(wide, example->n_choices, probs);
        struct cr_score score = {.index = index,
                                 .example = example,
                                 .probs = probs,
                                 .logits = logits,
                                 .nll = cr_softmax_nll(wide, example->n_choices, example->answer),
                                 .n_targets = 1,
                                 .entropy = cr_entropy(probs, example->n_choices),
                                 .mutual_information = 0};
        CR_TRY(fn(ctx, &score, err));
    }
    return CR_OK;
}

/* The rows of an example follow each other; its sum is taken in the order of its tokens. */
static cr_status give_texts(const struct cr_scoring *s, cr_score_fn *fn, void *ctx, struct cr_error *err)
{
    for (size_t row = 0; row < s->batch.n_rows;) {
        uint32_t index = s->batch.example[s->batch.row_token[row]];
        struct cr_score score = {.index = index,
                                 .example = &s->data.examples[index],
                                 .entropy = (double)NAN,
                                 .mutual_information = (double)NAN};
        while (row < s->batch.n_rows && s->batch.example[s->batch.row_token[row]] == index) {
            score.nll += (double)s->scratch[row++];
            score.n_targets++;
        }
        if (!isfinite(score.nll)) {
            return not_finite(s, score.example, err);
        }
        CR_TRY(fn(ctx, &score, err));
    }
    return CR_OK;
}

/* How many of the examples from `done` on go into one pass. */
static size_t take(const struct cr_scoring *s, size_t done)
{
    size_t n = cr_batch_take(&s->data, s->order + done, s->n - done);
    return s->options.batch_size > 0 && n > s->options.batch_size ? s->options.batch_size : n;
}

static void report(const struct cr_scoring *s, size_t done, size_t before)
{
    struct cr_progress progress = progress_of("eval");
    progress.step = done;
    progress.n_steps = s->n;
    progress.tokens = s->tokens;
    progress.tok_s = s->seconds > 0 ? (double)s->tokens / s->seconds : (double)NAN;
    progress.eta_s = s->seconds / (double)done * (double)(s->n - done);
    progress.report = done * 10 / s->n != before * 10 / s->n; /* ten lines, whatever the length */
    if (progress.report) {
        progress.rss_mb = (double)cr_machine_rss() / MIB;
    }
    cr_host_progress(s->host, &progress);
}

cr_status cr_scoring_run(struct cr_scoring *s, cr_score_fn *fn, void *ctx, struct cr_error *err)
{
    for (size_t done = 0; done < s->n;) {
        if (cr_host_stopped(s->host)) {
            return cr_fail(err, CR_E_STOPPED, "stopped after %zu of %zu examples", done, s->n);
        }
        uint64_t start = cr_clock_ns();
        size_t n = take(s, done);
        cr_batch_fill(&s->batch, &s->data, s->order + done, n, 1.0f);
        CR_TRY(s->data.classification ? cr_engine_label_logits(s->engine, &s->batch, s->scratch, err)
                                      : cr_engine_token_nll(s->engine, &s->batch, s->scratch, err));
        s->seconds += cr_clock_since(start);
        s->tokens += s->batch.n_tokens;
        if (cr_gguf_changed(s->model->gguf)) {
            return cr_fail(err, CR_E_IO, "%s: the model file changed while in use", s->model->path);
        }
        CR_TRY(s->data.classification ? give_choices(s, fn, ctx, err) : give_texts(s, fn, ctx, err));
        done += n;
        report(s, done, done - n);
    }
    return CR_OK;
}
