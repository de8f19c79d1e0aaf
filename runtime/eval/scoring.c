/* Opening and closing: model, adapter and data, then the engine and room for what it says. */
#include "runtime/eval/scoring_parts.h"

#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/host.h"
#include "runtime/eval/curvature.h"
#include "runtime/eval/nll.h"
#include "runtime/metrics/outcome.h"
#include "runtime/thread/memory.h"

/* Where gradients are wanted: activations are computed again rather than kept beyond this. */
#define RECOMPUTE_ABOVE ((uint64_t)1 << 30)

static cr_status enter_phase(const struct cr_scoring *s, const char *phase, struct cr_error *err)
{
    struct cr_progress progress = cr_progress_of(phase);
    cr_host_progress(s->host, &progress);
    return cr_host_stopped(s->host) ? cr_fail(err, CR_E_STOPPED, "stopped before the first example") : CR_OK;
}

static cr_status load_model(struct cr_scoring *s, struct cr_error *err)
{
    CR_TRY(cr_model_open(s->options.model, &s->model, err));
    CR_TRY(cr_tokenizer_open(s->model->gguf, &s->tokenizer, err));
    uint32_t *length = &s->options.max_seq_length;
    return cr_dataset_limit(*length, s->model->config.n_ctx, length, err);
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

/* Why the predicted peak is what it is, bytes. */
struct memory {
    uint64_t model, engine, draws, rest, total;
};

/* Floats of the results of a micro-batch for each set, and of a pass. */
static uint64_t scratch_floats(const struct cr_scoring *s, size_t micro_tokens, size_t pass_tokens)
{
    return (uint64_t)s->sets.n * cr_nll_scratch_floats(micro_tokens, s->n_labels) +
           cr_nll_scratch_floats(pass_tokens, s->n_labels);
}

/* held: in use before anything that the terms name was allocated. */
static struct memory predict(const struct cr_scoring *s, uint64_t held, const struct cr_engine_options *options,
                             size_t micro_tokens)
{
    struct memory m = {.model = cr_gguf_file_bytes(s->model->gguf), .engine = cr_engine_bytes(options)};
    m.draws = cr_sets_bytes(&s->sets) + scratch_floats(s, micro_tokens, options->max_tokens) * sizeof(float) +
              s->sets.n * ((CR_LABELS_MAX + 1) * sizeof *s->work + sizeof *s->running) +
              (micro_tokens + options->max_tokens) * 8 * sizeof(uint32_t); /* the batches */
    const struct cr_adapter *adapter = s->differentiates ? s->sets.posteriors[0]->adapter : NULL;
    m.draws += adapter != NULL ? cr_jacobian_bytes(adapter, s->n_labels) : 0;
    if (cr_scoring_gathers(s)) {
        m.draws += cr_laplace_set_bytes(adapter) + cr_curvature_bytes(adapter, s->workers.parallel) +
                   cr_laplace_make_bytes(adapter);
    }
    size_t kept = s->keeps ? s->sets.n + (s->options.calibrate != NULL) : 0;
    m.draws += (uint64_t)kept * s->main.n * sizeof(struct cr_outcome);
    m.rest = held + cr_memory_overhead(s->workers.parallel->n_workers);
    m.total = m.model + m.rest + m.engine + m.draws;
    return m;
}

static cr_status check_memory(const struct cr_scoring *s, uint64_t held, const struct cr_engine_options *options,
                              size_t micro_tokens, struct cr_error *err)
{
    struct memory m = predict(s, held, options, micro_tokens);
    uint64_t budget = cr_memory_budget(s->host);
    if (m.total > budget) {
        return cr_fail(err, CR_E_MEMORY,
                       "memory: %.0f MiB predicted (model %.0f, passes %.0f, %zu sets of weights %.0f, program, "
                       "tokenizer, adapter "
                       "and data %.0f), %.0f MiB allowed: a smaller --max-seq-length%s needs less",
                       (double)m.total / CR_MIB, (double)m.model / CR_MIB, (double)m.engine / CR_MIB, s->sets.n,
                       (double)m.draws / CR_MIB, (double)m.rest / CR_MIB, (double)budget / CR_MIB,
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

/* Room for as many sets in a pass as memory and CR_PASS_TOKENS allow. shortest: tokens of a sequence. */
static void share_passes(const struct cr_scoring *s, uint64_t held, struct cr_engine_options *options, size_t shortest)
{
    bool one = s->sets.by_task || s->differentiates;
    size_t micro = options->max_tokens, n = cr_batch_joint_sets(micro, one ? 1 : s->sets.n_shown);
    do {
        options->max_tokens = cr_batch_joint(micro, n);
        options->max_prefixes = options->max_tokens / shortest;
    } while (n-- > 1 && predict(s, held, options, micro).total > cr_memory_budget(s->host));
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
    uint64_t held = cr_memory_held(cr_gguf_file_bytes(s->model->gguf));
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        if (cr_sets_by_text(&s->sets, &s->options)) {
            *sets[i] = cr_dataset_whole(sets[i]);
        }
        options.max_lead = larger(options.max_lead, sets[i]->n_lead);
        options.max_tokens = larger(options.max_tokens, sets[i]->n > 0 ? cr_batch_capacity(sets[i]) : 0);
        options.max_seq = larger(options.max_seq, sets[i]->max_ids);
        shortest = sets[i]->n > 0 && cr_batch_shortest(sets[i]) < shortest ? cr_batch_shortest(sets[i]) : shortest;
    }
    size_t micro_tokens = options.max_tokens;
    CR_TRY(check_rows(s, err));
    CR_TRY(add_prefix(s, &options, err));
    share_passes(s, held, &options, shortest);
    size_t n_examples = larger(s->main.data.n, larger(s->ood.data.n, s->calibration.data.n));
    s->sorted = cr_alloc(n_examples, sizeof *s->sorted);
    s->row_of = cr_alloc(n_examples, sizeof *s->row_of);
    if (s->sorted == NULL || s->row_of == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the tasks of %zu examples", n_examples);
    }
    const struct cr_adapter *differentiated = s->differentiates ? s->sets.posteriors[0]->adapter : NULL;
    if (differentiated != NULL) {
        CR_TRY(cr_jacobian_init(&s->jacobian, differentiated, s->n_labels, err));
        options.lora = s->jacobian.slots;
        options.n_members = s->jacobian.n_parts;
        options.train = true;
        options.recompute = cr_engine_bytes(&options) > RECOMPUTE_ABOVE;
    }
    CR_TRY(check_memory(s, held, &options, micro_tokens, err));
    if (differentiated != NULL) {
        CR_TRY(cr_jacobian_allocate(&s->jacobian, differentiated, err));
    }
    CR_TRY(cr_batch_init(&s->batch, micro_tokens, err));
    CR_TRY(cr_batch_init(&s->shared, options.max_tokens, err));
    s->scratch_floats = cr_nll_scratch_floats(micro_tokens, s->n_labels);
    s->scratch = cr_alloc(scratch_floats(s, micro_tokens, options.max_tokens), sizeof *s->scratch);
    s->work = cr_alloc(s->sets.n, (CR_LABELS_MAX + 1) * sizeof *s->work);
    s->running = cr_alloc(s->sets.n, sizeof *s->running);
    s->linear = s->sets.logit_draws > 0 ? cr_alloc(s->batch.max_rows, sizeof *s->linear) : NULL;
    if (s->scratch == NULL || s->work == NULL || s->running == NULL || (s->sets.logit_draws > 0 && s->linear == NULL)) {
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
    CR_TRY(cr_scoring_load_sets(scoring, err));
    CR_TRY(make_engine(scoring, err));
    cr_host_log(scoring->host, CR_LOG_INFO, "%zu examples, %s, method %s, %zu set%s of weights", scoring->main.n,
                scoring->main.data.classification ? "choices" : "texts", scoring->sets.method, scoring->sets.n,
                scoring->sets.n == 1 ? "" : "s");
    return enter_phase(scoring, "eval", err);
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
    cr_free(s->running);
    cr_free(s->linear);
    cr_jacobian_deinit(&s->jacobian);
    cr_scoring_close_set(&s->main);
    cr_scoring_close_set(&s->ood);
    cr_scoring_close_set(&s->calibration);
    cr_tokenizer_close(s->tokenizer);
    cr_model_close(s->model);
    cr_workers_release(&s->workers);
    memset(s, 0, sizeof *s);
}
