#include "runtime/eval/scoring.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "credence/kernels/math.h"
#include "runtime/core/alloc.h"
#include "runtime/core/clock.h"
#include "runtime/core/host.h"
#include "runtime/eval/metrics.h"
#include "runtime/eval/curvature.h"
#include "runtime/eval/nll.h"
#include "runtime/eval/temperature.h"
#include "runtime/thread/machine.h"

enum { DEFAULT_LENGTH = 2048 };

/* Where gradients are wanted: activations are computed again rather than kept beyond this. */
#define RECOMPUTE_ABOVE ((uint64_t)1 << 30)

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

static cr_status load_data(struct cr_scoring *s, const char *path, struct cr_scoring_set *set, struct cr_error *err)
{
    const struct cr_eval_options *o = &s->options;
    struct cr_dataset_options options = {.max_seq_length = o->max_seq_length,
                                         .on_long_skip = o->on_long_skip,
                                         .train_on_prompt = o->train_on_prompt,
                                         .chat_template = o->chat_template,
                                         .system = o->system,
                                         .normalize = o->normalize};
    set->path = path;
    return cr_dataset_open(path, s->tokenizer, &options, s->host, &set->data, err);
}

/* The first `limit` examples of each task (those without a task count as one). */
static cr_status choose_examples(const struct cr_scoring *s, struct cr_scoring_set *set, struct cr_error *err)
{
    set->order = cr_alloc(set->data.n, sizeof *set->order);
    uint64_t *taken = cr_zalloc(set->data.n_tasks + 1, sizeof *taken);
    if (set->order == NULL || taken == NULL) {
        cr_free(taken);
        return cr_fail(err, CR_E_MEMORY, "no memory for the order of %zu examples", set->data.n);
    }
    for (size_t i = 0; i < set->data.n; i++) {
        uint64_t *of_task = &taken[set->data.examples[i].task + 1];
        if (s->options.limit == 0 || *of_task < s->options.limit) {
            ++*of_task;
            set->order[set->n++] = (uint32_t)i;
        }
    }
    cr_free(taken);
    return CR_OK;
}

/* Which set answers for which task of this file. Call after choose_examples. */
static cr_status assign_tasks(const struct cr_scoring *s, struct cr_scoring_set *set, struct cr_error *err)
{
    char path[CR_ESCAPE_BYTES], shown[CR_ESCAPE_BYTES];
    if (!s->sets.by_task) {
        return CR_OK;
    }
    set->set_of = cr_zalloc(set->data.n_tasks + 1, sizeof *set->set_of);
    if (set->set_of == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %zu tasks", set->data.n_tasks);
    }
    for (size_t t = 0; t < set->data.n_tasks; t++) {
        set->set_of[t + 1] = cr_sets_of_task(&s->sets, set->data.task_names[t]);
    }
    cr_escape(path, sizeof path, set->path, strlen(set->path));
    for (size_t i = 0; i < set->n; i++) {
        const struct cr_example *example = &set->data.examples[set->order[i]];
        bool unknown = set->set_of[example->task + 1] == 0;
        const char *task = example->task >= 0 ? set->data.task_names[example->task] : "";
        set->n_global += unknown;
        if (unknown && s->options.strict_task) {
            return cr_fail(err, CR_E_INPUT, "%s:%" PRIu64 ": task \"%s\" is unknown to the adapter (--strict-task)",
                           path, example->line, cr_escape(shown, sizeof shown, task, strlen(task)));
        }
    }
    if (set->n_global > 0) {
        cr_host_log(s->host, CR_LOG_WARNING,
                    "%s: %" PRIu64 " of %zu examples name no task that the adapter knows: the "
                    "tasks' common one answers",
                    path, set->n_global, set->n);
    }
    return CR_OK;
}

/* Whether a Laplace posterior is being made: its validation file stands where a calibration's does. */
static bool gathers(const struct cr_scoring *s)
{
    return s->differentiates && s->sets.logit_draws == 0;
}

/* Laplace begins at one set of low-rank weights. Called before a posterior's own wish for gradients is known. */
static cr_status check_start(const struct cr_scoring *s, struct cr_error *err)
{
    const struct cr_posterior *p = s->differentiates ? s->sets.posteriors[0] : NULL;
    return p == NULL || (cr_posterior_is_point(p) && p->sets.n == 0 && p->adapter->prefix == NULL)
               ? CR_OK
               : cr_fail(err, CR_E_USAGE, "-a %s: of method %s; Laplace wants an adapter that was trained to a point",
                         p->label, p->adapter->method);
}

/* A file beside that of the data. */
static cr_status load_beside(struct cr_scoring *s, const char *flag, const char *path, struct cr_scoring_set *set,
                             struct cr_error *err)
{
    if (path == NULL) {
        return CR_OK;
    }
    if (!s->main.data.classification) {
        return cr_fail(err, CR_E_USAGE, "--%s needs questions with choices, the data file holds texts", flag);
    }
    CR_TRY(load_data(s, path, set, err));
    if (!set->data.classification) {
        return cr_fail(err, CR_E_INPUT, "the --%s file holds texts, the data file choices", flag);
    }
    if (set->data.n_labels > s->n_labels) {
        s->n_labels = set->data.n_labels;
        s->label_ids = set->data.label_ids;
    }
    CR_TRY(choose_examples(s, set, err));
    return assign_tasks(s, set, err);
}

static cr_status load_sets(struct cr_scoring *s, struct cr_error *err)
{
    CR_TRY(load_data(s, s->options.data, &s->main, err));
    CR_TRY(choose_examples(s, &s->main, err));
    if (s->differentiates && !s->main.data.classification) {
        return cr_fail(err, CR_E_USAGE,
                       "the linearised model answers questions with choices, the data file holds texts%s",
                       s->sets.logit_draws > 0 ? ": --weights or --mean answers them" : "");
    }
    CR_TRY(assign_tasks(s, &s->main, err));
    s->n_labels = s->main.data.n_labels;
    s->label_ids = s->main.data.classification ? s->main.data.label_ids : NULL;
    CR_TRY(load_beside(s, "ood", s->options.ood, &s->ood, err));
    return load_beside(s, gathers(s) ? "valid" : "calibrate", s->options.calibrate, &s->calibration, err);
}

static cr_status check_memory(const struct cr_scoring *s, uint64_t engine_bytes, uint64_t scratch_bytes,
                              struct cr_error *err)
{
    uint64_t draws = cr_sets_bytes(&s->sets) + scratch_bytes;
    const struct cr_adapter *adapter = s->differentiates ? s->sets.posteriors[0]->adapter : NULL;
    draws += adapter != NULL ? cr_jacobian_bytes(adapter, s->n_labels) : 0;
    draws += gathers(s) ? cr_laplace_set_bytes(adapter) + cr_curvature_bytes(adapter, s->workers.parallel) : 0;
    uint64_t budget = s->host->memory_bytes > 0 ? s->host->memory_bytes : cr_machine_memory_budget();
    uint64_t model = cr_gguf_file_bytes(s->model->gguf);
    uint64_t file = cr_machine_rss_file();
    uint64_t held = cr_machine_rss_anon() + (file > model ? file - model : 0);
    uint64_t overhead = OVERHEAD_BYTES + (uint64_t)s->workers.parallel->n_workers * OVERHEAD_PER_WORKER;
    uint64_t total = model + held + engine_bytes + draws + overhead;
    uint64_t peak = cr_machine_peak_rss();
    total = total > peak ? total : peak;
    if (total > budget) {
        return cr_fail(err, CR_E_MEMORY,
                       "memory: %.0f MiB predicted (model %.0f, passes %.0f, %zu sets of weights %.0f, program, "
                       "tokenizer, adapter "
                       "and data %.0f), %.0f MiB allowed: a smaller --max-seq-length%s needs less",
                       (double)total / MIB, (double)model / MIB, (double)engine_bytes / MIB, s->sets.n,
                       (double)draws / MIB, (double)(held + overhead) / MIB, (double)budget / MIB,
                       s->sets.n > 1 ? " or fewer --samples" : "");
    }
    return CR_OK;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* The prefix that every text sees, if there is one. */
static cr_status add_prefix(const struct cr_scoring *s, struct cr_engine_options *options, struct cr_error *err)
{
    const struct cr_prefix *prefix = cr_sets_prefix(&s->sets);
    if (prefix == NULL) {
        return CR_OK;
    }
    if (options->max_seq + prefix->n_rows > s->model->config.n_ctx) {
        return cr_fail(
            err, CR_E_USAGE,
            "a prefix of %u rows before a text of %zu tokens exceeds the context of the model, %u: a smaller "
            "--max-seq-length cuts the text",
            prefix->n_rows, options->max_seq, s->model->config.n_ctx);
    }
    if (prefix->n_labels > 0 && s->n_labels > prefix->n_labels) {
        return cr_fail(err, CR_E_INPUT, "%s: a question has %u choices, the prefix was trained on label rows for %u",
                       s->main.path, s->n_labels, prefix->n_labels);
    }
    options->prefix = prefix;
    return CR_OK;
}

/* Label rows of an adapter's own answer questions, with no more choices than they were trained for. */
static cr_status check_rows(const struct cr_scoring *s, struct cr_error *err)
{
    for (size_t a = 0; a < s->sets.n_posteriors; a++) {
        const struct cr_posterior *p = s->sets.posteriors[a];
        uint32_t n = p->adapter->n_labels;
        if (n > 0 && (s->label_ids == NULL || s->n_labels > n)) {
            return cr_fail(err, CR_E_INPUT, "%s: %s has label rows of its own for questions with at most %u choices",
                           s->main.path, p->label, n);
        }
    }
    return CR_OK;
}

static cr_status make_engine(struct cr_scoring *s, struct cr_error *err)
{
    struct cr_dataset *sets[] = {&s->main.data, &s->ood.data, &s->calibration.data};
    struct cr_engine_options options = {.model = s->model,
                                        .lora = s->sets.slots,
                                        .own_rows = s->sets.rows,
                                        .n_members = (uint32_t)s->sets.n_shown,
                                        .parallel = s->workers.parallel,
                                        .host = s->host,
                                        .tier = s->workers.tier,
                                        .label_ids = s->label_ids,
                                        .n_labels = s->n_labels};
    uint32_t shortest = UINT32_MAX;
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        if (s->options.mc_dropout || cr_sets_prefix(&s->sets) != NULL) {
            *sets[i] = cr_dataset_whole(sets[i]);
        }
        options.max_lead = larger(options.max_lead, sets[i]->n_lead);
        options.max_tokens = larger(options.max_tokens, sets[i]->n > 0 ? cr_batch_capacity(sets[i]) : 0);
        options.max_seq = larger(options.max_seq, sets[i]->max_ids);
        shortest = sets[i]->n > 0 && cr_batch_shortest(sets[i]) < shortest ? cr_batch_shortest(sets[i]) : shortest;
    }
    options.max_prefixes = options.max_tokens / shortest;
    CR_TRY(check_rows(s, err));
    CR_TRY(add_prefix(s, &options, err));
    size_t n_examples = larger(s->main.data.n, larger(s->ood.data.n, s->calibration.data.n));
    s->sorted = cr_alloc(n_examples, sizeof *s->sorted);
    s->row_of = cr_alloc(n_examples, sizeof *s->row_of);
    if (s->sorted == NULL || s->row_of == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the tasks of %zu examples", n_examples);
    }
    if (s->differentiates) {
        CR_TRY(cr_jacobian_init(&s->jacobian, s->sets.posteriors[0]->adapter, s->n_labels, err));
        options.lora = s->jacobian.slots;
        options.n_members = s->jacobian.n_parts;
        options.train = true;
        options.recompute = cr_engine_bytes(&options) > RECOMPUTE_ABOVE;
    }
    CR_TRY(cr_batch_init(&s->batch, options.max_tokens, err));
    CR_TRY(cr_batch_init(&s->shared, options.max_tokens, err));
    s->scratch_floats = cr_nll_scratch_floats(s->batch.max_rows, s->n_labels);
    CR_TRY(check_memory(s, cr_engine_bytes(&options), (s->sets.n + 1) * s->scratch_floats * sizeof(float), err));
    s->scratch = cr_alloc(s->sets.n + 1, s->scratch_floats * sizeof *s->scratch);
    s->work = cr_alloc(s->sets.n, (CR_LABELS_MAX + 2) * sizeof *s->work);
    s->linear = s->sets.logit_draws > 0 ? cr_alloc(s->batch.max_rows, sizeof *s->linear) : NULL;
    if (s->scratch == NULL || s->work == NULL || (s->sets.logit_draws > 0 && s->linear == NULL)) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the results of a pass");
    }
    CR_TRY(cr_sets_draw(&s->options, &s->sets, err));
    return cr_engine_create(&options, &s->engine, err);
}

cr_status cr_scoring_open(const struct cr_eval_options *options, const struct cr_host *host, struct cr_scoring *scoring,
                          struct cr_error *err)
{
    static const struct cr_host silent;
    scoring->host = host != NULL ? host : &silent;
    scoring->temperature = (double)NAN;
    CR_TRY(cr_eval_check_options(options, &scoring->options, err));
    CR_TRY(cr_workers_choose(&scoring->workers, scoring->host, err));
    CR_TRY(enter_phase(scoring, "load", err));
    CR_TRY(load_model(scoring, err));
    CR_TRY(cr_sets_open(&scoring->options, scoring->model, scoring->workers.tier, scoring->host, &scoring->sets, err));
    CR_TRY(check_start(scoring, err));
    scoring->differentiates |= scoring->sets.logit_draws > 0;
    CR_TRY(enter_phase(scoring, "data", err));
    CR_TRY(load_sets(scoring, err));
    CR_TRY(make_engine(scoring, err));
    cr_host_log(scoring->host, CR_LOG_INFO, "%zu examples, %s, method %s, %zu set%s of weights", scoring->main.n,
                scoring->main.data.classification ? "choices" : "texts", scoring->sets.method, scoring->sets.n,
                scoring->sets.n == 1 ? "" : "s");
    return enter_phase(scoring, "eval", err);
}

static void close_set(struct cr_scoring_set *set)
{
    cr_free(set->order);
    cr_free(set->set_of);
    cr_dataset_close(&set->data);
}

void cr_scoring_close(struct cr_scoring *s)
{
    cr_engine_destroy(s->engine);
    cr_batch_deinit(&s->batch);
    cr_batch_deinit(&s->shared);
    cr_sets_close(&s->sets);
    cr_free(s->sorted);
    cr_free(s->row_of);
    cr_free(s->scratch);
    cr_free(s->work);
    cr_free(s->linear);
    cr_jacobian_deinit(&s->jacobian);
    close_set(&s->main);
    close_set(&s->ood);
    close_set(&s->calibration);
    cr_tokenizer_close(s->tokenizer);
    cr_model_close(s->model);
    memset(s, 0, sizeof *s);
}

static cr_status not_finite(const struct cr_scoring_set *set, const struct cr_example *example, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    return cr_fail(err, CR_E_DIVERGED, "%s:%" PRIu64 ": the model's output is not a finite number",
                   cr_escape(shown, sizeof shown, set->path, strlen(set->path)), example->line);
}

/* Share of the members whose answer is not that of the mean of their logits. */
static double disagreement(const struct cr_scoring *s, const float *logits, uint32_t n_choices)
{
    double mean[CR_LABELS_MAX];
    size_t differ = 0;
    for (uint32_t c = 0; c < n_choices; c++) {
        mean[c] = 0;
        for (size_t m = 0; m < s->sets.n; m++) {
            mean[c] += (double)logits[m * s->scratch_floats + c];
        }
    }
    size_t answer = cr_argmax(mean, n_choices);
    for (size_t m = 0; m < s->sets.n; m++) {
        const float *own = logits + m * s->scratch_floats;
        size_t best = 0;
        for (uint32_t c = 1; c < n_choices; c++) {
            best = own[c] > own[best] ? c : best;
        }
        differ += best != answer;
    }
    return (double)differ / (double)s->sets.n;
}

/* By task, of an unknown one. */
static bool is_global(const struct cr_scoring_set *set, uint32_t index)
{
    return set->set_of != NULL && set->set_of[set->data.examples[index].task + 1] == 0;
}

/* One row an example. logits: of the first member; the others follow at scratch_floats. */
static cr_status give_choice(const struct cr_scoring *s, const struct cr_scoring_set *set, uint32_t index,
                             const float *logits, const struct cr_linear_answer *linear, cr_score_fn *fn, void *ctx,
                             struct cr_error *err)
{
    const struct cr_example *example = &set->data.examples[index];
    uint32_t n = example->n_choices;
    size_t n_members = s->sets.n;
    double wide[CR_LABELS_MAX], mean[CR_LABELS_MAX], calibrated[CR_LABELS_MAX];
    double *probs = s->work, *nll = probs + n_members * CR_LABELS_MAX, *running = nll + n_members;
    for (size_t m = 0; m < n_members; m++) {
        for (uint32_t c = 0; c < n; c++) {
            wide[c] = (double)logits[m * s->scratch_floats + c];
            if (!isfinite(wide[c])) {
                return not_finite(set, example, err);
            }
        }
        cr_softmax(wide, n, probs + m * n);
        nll[m] = cr_softmax_nll(wide, n, example->answer);
        running[m] = cr_mixture_nll(nll, m + 1);
    }
    if (linear != NULL) { /* one member: the mean over the logit draws */
        memcpy(probs, linear->probs, n * sizeof *probs);
        running[0] = -cr_ln(fmax(probs[example->answer], 0x1p-1022));
    }
    cr_mean_probs(probs, n_members, n, mean);
    double entropy = cr_entropy(mean, n);
    double expected = linear != NULL ? linear->expected_entropy : cr_expected_entropy(probs, n_members, n);
    double information = linear != NULL ? entropy - expected : cr_mutual_information(probs, n_members, n, mean);
    struct cr_score score = {.index = index,
                             .example = example,
                             .probs = mean,
                             .logits = n_members == 1 && linear == NULL ? logits : NULL,
                             .nll = running[n_members - 1],
                             .n_targets = 1,
                             .global = is_global(set, index),
                             .n_members = n_members,
                             .member_probs = probs,
                             .running_nll = running,
                             .entropy = entropy,
                             .expected_entropy = expected,
                             .mutual_information = information,
                             .disagreement = disagreement(s, logits, n)};
    if (isfinite(s->temperature)) {
        cr_temperature_apply(s->temperature, &score, calibrated, &score.calibrated_nll);
        score.calibrated = calibrated;
    }
    return fn(ctx, &score, err);
}

static cr_status give_choices(const struct cr_scoring *s, const struct cr_scoring_set *set, cr_score_fn *fn, void *ctx,
                              struct cr_error *err)
{
    for (size_t row = 0; row < s->batch.n_rows; row++) {
        uint32_t index = s->batch.example[s->batch.row_token[row]];
        const struct cr_linear_answer *linear = s->linear != NULL ? &s->linear[row] : NULL;
        CR_TRY(give_choice(s, set, index, s->scratch + row * s->n_labels, linear, fn, ctx, err));
    }
    return CR_OK;
}

/* The rows of an example follow each other; its sum is taken in the order of its tokens. A token's probability is the
 * mean over the members. */
static cr_status give_texts(const struct cr_scoring *s, const struct cr_scoring_set *set, cr_score_fn *fn, void *ctx,
                            struct cr_error *err)
{
    size_t n_members = s->sets.n;
    double *nll = s->work, *running = nll + n_members;
    for (size_t row = 0; row < s->batch.n_rows;) {
        uint32_t index = s->batch.example[s->batch.row_token[row]];
        struct cr_score score = {.index = index,
                                 .example = &set->data.examples[index],
                                 .global = is_global(set, index),
                                 .n_members = n_members,
                                 .running_nll = running,
                                 .entropy = (double)NAN,
                                 .expected_entropy = (double)NAN,
                                 .mutual_information = (double)NAN,
                                 .disagreement = (double)NAN};
        memset(running, 0, n_members * sizeof *running);
        while (row < s->batch.n_rows && s->batch.example[s->batch.row_token[row]] == index) {
            for (size_t m = 0; m < n_members; m++) {
                nll[m] = (double)s->scratch[m * s->scratch_floats + row];
                running[m] += cr_mixture_nll(nll, m + 1);
            }
            row++;
            score.n_targets++;
        }
        for (size_t m = 0; m < n_members; m++) {
            if (!isfinite(running[m])) {
                return not_finite(set, score.example, err);
            }
        }
        score.nll = running[n_members - 1];
        CR_TRY(fn(ctx, &score, err));
    }
    return CR_OK;
}

/* How many of the examples from `done` on go into one pass. */
static size_t take(const struct cr_scoring *s, const struct cr_scoring_set *set, size_t done)
{
    size_t n = cr_batch_take(&set->data, set->order + done, set->n - done);
    return s->options.batch_size > 0 && n > s->options.batch_size ? s->options.batch_size : n;
}

static void report(const struct cr_scoring *s, size_t total, size_t done, size_t before)
{
    struct cr_progress progress = progress_of("eval");
    progress.step = done;
    progress.n_steps = total;
    progress.tokens = s->tokens;
    progress.tok_s = s->seconds > 0 ? (double)s->tokens / s->seconds : (double)NAN;
    progress.eta_s = s->seconds / (double)done * (double)(total - done);
    progress.report = done * 10 / total != before * 10 / total; /* ten lines, whatever the length */
    if (progress.report) {
        progress.rss_mb = (double)cr_machine_rss() / MIB;
    }
    cr_host_progress(s->host, &progress);
}

static cr_status run_engine(struct cr_scoring *s, bool classification, const struct cr_token_batch *batch, float *out,
                            struct cr_error *err)
{
    return classification ? cr_engine_label_logits(s->engine, batch, out, err)
                          : cr_engine_token_nll(s->engine, batch, out, err);
}

/* The results of s->shared, example by example, to where s->batch has them. */
static void scatter(struct cr_scoring *s, const float *results, size_t n_floats)
{
    for (size_t row = 0; row < s->shared.n_rows; row++) {
        uint32_t *to = &s->row_of[s->shared.example[s->shared.row_token[row]]];
        memcpy(s->scratch + (*to)++ * n_floats, results + row * n_floats, n_floats * sizeof *results);
    }
}

/* The same, each example through the set of its task. */
static cr_status pass_by_task(struct cr_scoring *s, const struct cr_scoring_set *set, const uint32_t *order, size_t n,
                              struct cr_error *err)
{
    bool classification = set->data.classification;
    float *results = s->scratch + s->scratch_floats;
    for (size_t row = s->batch.n_rows; row-- > 0;) {
        s->row_of[s->batch.example[s->batch.row_token[row]]] = (uint32_t)row; /* in the end its first */
    }
    cr_batch_sort(&set->data, set->set_of, (uint32_t)s->sets.n_shown, order, n, s->sorted);
    cr_sets_show(&s->sets, 0, s->sets.n_shown, s->engine);
    for (size_t done = 0; done < n;) {
        done += cr_batch_fill_sorted(&s->shared, &set->data, set->set_of, s->sorted + done, n - done, 1.0f);
        CR_TRY(run_engine(s, classification, &s->shared, results, err));
        scatter(s, results, classification ? s->n_labels : 1);
    }
    return CR_OK;
}

/* The examples order[0 ... n-1], which are in s->batch, through every set of weights: so many sets at once as fit. */
static cr_status pass(struct cr_scoring *s, const struct cr_scoring_set *set, const uint32_t *order, size_t n,
                      struct cr_error *err)
{
    bool classification = set->data.classification;
    size_t fit = s->shared.max_tokens / cr_batch_part_tokens(&set->data, order, n);
    size_t n_floats = s->batch.n_rows * (classification ? s->n_labels : 1);
    float *together = s->scratch + s->sets.n * s->scratch_floats;
    for (size_t m = 0, n_members; m < s->sets.n; m += n_members) {
        size_t left = s->sets.n - m;
        n_members = fit < s->sets.n_shown ? fit : s->sets.n_shown;
        n_members = left < n_members ? left : n_members;
        if (!s->differentiates) { /* else the engine has the one set there is */
            cr_sets_show(&s->sets, m, n_members, s->engine);
        }
        if (n_members == 1) {
            CR_TRY(run_engine(s, classification, &s->batch, s->scratch + m * s->scratch_floats, err));
            continue;
        }
        cr_batch_clear(&s->shared);
        for (uint32_t i = 0; i < n_members; i++) {
            cr_batch_add_part(&s->shared, i, &set->data, order, n, 1.0f);
        }
        CR_TRY(run_engine(s, classification, &s->shared, together, err));
        for (size_t i = 0; i < n_members; i++) {
            memcpy(s->scratch + (m + i) * s->scratch_floats, together + i * n_floats, n_floats * sizeof *together);
        }
    }
    return CR_OK;
}

/* What the linearised model says of the examples in s->batch, whose logits are in s->scratch. */
static cr_status linearise(struct cr_scoring *s, const struct cr_scoring_set *set, const uint32_t *order, size_t n,
                           struct cr_error *err)
{
    const struct cr_posterior *p = s->linear != NULL ? s->sets.posteriors[0] : NULL;
    for (size_t done = 0, taken; p != NULL && done < n; done += taken) {
        taken = cr_jacobian_take(&s->jacobian, &set->data, order + done, n - done);
        CR_TRY(cr_jacobian_run(&s->jacobian, s->engine, &s->shared, &set->data, order + done, taken, err));
        const float *rows = s->jacobian.grads;
        struct cr_linear_question q = {.set = &p->laplace,
                                       .rng = &p->rng,
                                       .s2 = 1 / p->laplace.precision,
                                       .temperature = s->sets.temperature,
                                       .seed = s->options.seed,
                                       .n_draws = s->sets.logit_draws};
        for (size_t i = done; i < done + taken; i++) {
            const struct cr_example *example = &set->data.examples[order[i]];
            if (!cr_linear_answer(&q, order[i], s->scratch + i * s->n_labels, rows, s->jacobian.n_params,
                                  example->n_choices, &s->linear[i])) {
                return not_finite(set, example, err);
            }
            rows += example->n_choices * s->jacobian.n_params;
        }
    }
    return CR_OK;
}

cr_status cr_scoring_run(struct cr_scoring *s, const struct cr_scoring_set *set, cr_score_fn *fn, void *ctx,
                         struct cr_error *err)
{
    bool classification = set->data.classification;
    for (size_t done = 0; done < set->n;) {
        if (cr_host_stopped(s->host)) {
            return cr_fail(err, CR_E_STOPPED, "stopped after %zu of %zu examples", done, set->n);
        }
        uint64_t start = cr_clock_ns();
        size_t n = take(s, set, done);
        cr_batch_fill(&s->batch, &set->data, set->order + done, n, 1.0f);
        CR_TRY(s->sets.by_task ? pass_by_task(s, set, set->order + done, n, err)
                               : pass(s, set, set->order + done, n, err));
        CR_TRY(linearise(s, set, set->order + done, n, err));
        s->seconds += cr_clock_since(start);
        s->tokens += s->batch.n_tokens;
        if (cr_gguf_changed(s->model->gguf)) {
            return cr_fail(err, CR_E_IO, "%s: the model file changed while in use", s->model->path);
        }
        CR_TRY(classification ? give_choices(s, set, fn, ctx, err) : give_texts(s, set, fn, ctx, err));
        done += n;
        report(s, set->n, done, done - n);
    }
    return CR_OK;
}
