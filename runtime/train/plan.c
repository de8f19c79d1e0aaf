/* How long a run is and what it will take, before anything is allocated. */
#include "runtime/train/train.h"

#include <inttypes.h>
#include <string.h>

#include "runtime/adapter/layout.h"
#include "runtime/core/alloc.h"
#include "runtime/eval/nll.h"

/* Stored activations above this prediction make recomputing the default: fixed, so that the choice is a function of
 * the settings and never of what else the machine is doing. */
#define RECOMPUTE_ABOVE ((uint64_t)2 << 30)

/* Several sets share a pass while it takes no more than this. */
#define JOINT_BYTES ((uint64_t)2 << 30)

/* Texts and heads in a checkpoint beside parameters, state and evaluations. */
#define CHECKPOINT_BYTES ((uint64_t)64 << 10)

static uint64_t divide_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/* Which passes share tokens among texts: none where masks, signs or mixtures are a text's own. */
static void resolve_leads(struct cr_train *train)
{
    const struct cr_finetune_options *o = &train->options;
    const struct cr_method *method = train->method;
    bool by_text = method->trains_by_text != NULL && method->trains_by_text(o);
    train->looks_whole = method->looks_by_text != NULL && method->looks_by_text(o);
    if (by_text && train->looks_whole) { /* then nothing does that a plan should have room for */
        train->data = cr_dataset_whole(&train->data);
        train->valid_file = cr_dataset_whole(&train->valid_file);
    }
    bool own = o->dropout > 0 || method->flipout || by_text;
    train->seen = own ? cr_dataset_whole(&train->data) : train->data;
}

void cr_train_resolve(struct cr_train *train)
{
    resolve_leads(train);
    train->n_targets = 0;
    for (size_t i = 0; i < train->n_train; i++) {
        train->n_targets += train->data.examples[train->train_pool[i]].n_targets;
    }
    train->n_sets = train->method->n_sets != NULL ? train->method->n_sets(&train->options, train->data.n_tasks) : 1;
    if (train->method->resolve != NULL) {
        train->method->resolve(&train->options, train->n_train, train->n_targets);
    }
}

cr_status cr_train_plan_steps(struct cr_train *train, struct cr_error *err)
{
    const struct cr_finetune_options *o = &train->options;
    train->steps_per_epoch = divide_up(train->n_train, (uint64_t)o->batch_size * o->grad_accumulation_steps);
    if (o->steps > 0) {
        train->n_steps = o->steps;
    } else {
        double steps = o->epochs * (double)train->steps_per_epoch;
        train->n_steps = (uint64_t)steps;
        train->n_steps += (double)train->n_steps < steps;
    }
    if (train->n_steps / train->steps_per_epoch >= UINT32_MAX) {
        return cr_fail(err, CR_E_USAGE, "%" PRIu64 " steps of %" PRIu64 " an epoch: more than 2^32 epochs",
                       train->n_steps, train->steps_per_epoch);
    }
    train->schedule = (struct cr_schedule){.kind = o->lr_schedule,
                                           .lr = o->lr,
                                           .n_steps = train->n_steps,
                                           .n_warmup = cr_schedule_warmup(o->warmup, train->n_steps)};
    if (train->n_valid > 0) {
        train->max_evals = (size_t)divide_up(train->n_steps, cr_train_eval_every(train)); /* the last step has one */
    }
    return CR_OK;
}

/* The start of a prefix is a sequence, too. */
static size_t longest_sequence(const struct cr_train *train, size_t max_seq)
{
    return max_seq > train->prefix_shape.n_rows ? max_seq : train->prefix_shape.n_rows;
}

size_t cr_train_micro_tokens(const struct cr_train *train, size_t max_seq)
{
    size_t rounded = cr_round_up_16(longest_sequence(train, max_seq));
    return rounded > CR_MICRO_TOKENS ? rounded : CR_MICRO_TOKENS;
}

void cr_train_engine_options(const struct cr_train *train, const struct cr_lora *lora, size_t max_seq, bool recompute,
                             struct cr_engine_options *out)
{
    bool prefix = train->prefix_shape.n_rows > 0;
    size_t max_tokens = cr_batch_joint(cr_train_micro_tokens(train, max_seq), train->sets_at_once);
    uint32_t shortest = cr_batch_shortest(&train->data), other = cr_batch_shortest(&train->valid_file);
    uint32_t lead = train->data.n_lead > train->valid_file.n_lead ? train->data.n_lead : train->valid_file.n_lead;
    *out = (struct cr_engine_options){
        .model = train->model,
        .lora = lora,
        .own_rows = train->own_rows,
        .n_members = train->n_sets,
        .parallel = train->workers.parallel,
        .host = train->host,
        .tier = train->workers.tier,
        .max_tokens = max_tokens,
        .max_seq = longest_sequence(train, max_seq),
        .label_ids = train->data.classification ? train->data.label_ids : NULL,
        .n_labels = train->data.classification ? train->n_labels : 0,
        .prefix = !prefix                  ? NULL
                  : train->adapter != NULL ? train->adapter->prefix
                                           : &train->prefix_shape,
        .max_lead = lead,
        .max_prefixes = max_tokens / (shortest < other ? shortest : other),
        .train = true,
        .flipout = train->method->flipout,
        .recompute = recompute,
    };
}

/* The shapes of all sets that the engine will see, and the floats that the adapter will hold. Returns owned slots, or
 * NULL when memory does not suffice. */
static struct cr_lora *shapes(const struct cr_train *train, uint64_t *n_params)
{
    uint32_t n_layers = train->model->config.n_layers;
    size_t n_slots = (size_t)n_layers * CR_N_PROJ;
    uint32_t factor = train->method->rank_factor != NULL ? train->method->rank_factor(&train->options) : 1;
    struct cr_lora *slots = cr_zalloc(train->n_sets * n_slots, sizeof *slots);
    for (size_t i = 0; slots != NULL && i < n_slots; i++) {
        const struct cr_qmat *w = &train->model->layers[i / CR_N_PROJ].proj[i % CR_N_PROJ];
        const struct cr_lora *read = train->adapter != NULL ? &train->adapter->slots[i] : NULL;
        uint32_t rank = read != NULL                                 ? read->rank
                        : (train->targets >> i % CR_N_PROJ & 1) != 0 ? train->options.rank
                                                                     : 0;
        slots[i] = (struct cr_lora){.rank = rank,
                                    .n_in = (uint32_t)w->n_cols,
                                    .n_out = (uint32_t)w->n_rows,
                                    .tensor_id = (uint32_t)i,
                                    .scale = 1};
    }
    uint32_t n_labels = cr_train_owns_rows(train) ? train->n_labels : 0;
    size_t floats = 0, trainable;
    if (slots != NULL &&
        !cr_adapter_floats(slots, n_layers, n_labels, train->model->config.n_embd, &floats, &trainable)) {
        cr_free(slots);
        return NULL;
    }
    *n_params = (uint64_t)floats * train->n_sets;
    for (size_t i = 0; slots != NULL && i < n_slots; i++) {
        slots[i].rank *= factor; /* as the engine sees it */
    }
    for (uint32_t k = 1; slots != NULL && k < train->n_sets; k++) {
        memcpy(slots + k * n_slots, slots, n_slots * sizeof *slots);
    }
    return slots;
}

static void predict(const struct cr_train *train, const struct cr_lora *lora, uint64_t n_params, size_t max_seq,
                    bool recompute, struct cr_train_memory *out)
{
    struct cr_engine_options engine;
    cr_train_engine_options(train, lora, max_seq, recompute, &engine);
    struct cr_train_memory m = {0};
    m.model = cr_gguf_file_bytes(train->model->gguf);
    m.held = cr_memory_held(m.model);
    m.engine = cr_engine_bytes(&engine);
    /* One that was read is held already, unless label rows or more sets are put behind it. */
    bool held = train->adapter != NULL && !cr_train_owns_rows(train) && train->n_sets == 1;
    m.adapter = held ? 0 : 2 * n_params * sizeof(float);
    m.optimiser =
        train->method->state_bytes(&train->options, n_params, (uint64_t)train->model->config.n_layers * CR_N_PROJ) +
        cr_norm2_bytes((size_t)n_params);
    m.best = train->options.keep_best ? train->method->result_bytes(&train->options, n_params) : 0;
    m.batch = (uint64_t)engine.max_tokens * 8 * sizeof(uint32_t) + 2 * train->n_train * sizeof(uint32_t) +
              (train->method->sharing == CR_BY_TASK ? 1 : train->n_sets) *
                  cr_nll_scratch_floats(cr_train_micro_tokens(train, max_seq), engine.n_labels) * sizeof(float) +
              train->max_evals * sizeof(struct cr_train_eval) + cr_train_trial_targets(train) * 2 * sizeof(double);
    m.overhead = cr_memory_overhead(train->workers.parallel->n_workers);
    m.checkpoint = n_params * sizeof(float) + m.optimiser + m.best + CHECKPOINT_BYTES +
                   train->max_evals * sizeof(struct cr_train_eval);
    m.total = m.held + m.model + m.engine + m.adapter + m.optimiser + m.best + m.batch + m.overhead +
              (train->options.resume ? m.checkpoint : 0);
    m.peak = cr_memory_peak(m.total);
    *out = m;
}

/* The part of the prediction that settings and data alone decide. */
static uint64_t by_settings(const struct cr_train_memory *m)
{
    return m->model + m->engine + m->adapter + m->optimiser + m->best + m->batch;
}

/* How many sets share a pass: all that may, or fewer where memory is short. Never changes how a layer is kept. */
static void share_passes(struct cr_train *train, const struct cr_lora *lora, uint64_t n_params, size_t longest,
                         uint64_t budget)
{
    uint32_t given = train->options.members_at_once;
    uint32_t most = given > 0 && given < train->n_sets ? given : train->n_sets;
    size_t micro = cr_train_micro_tokens(train, longest);
    struct cr_train_memory m = train->memory;
    most = train->method->sharing == CR_BY_TASK ? 1 : most;
    for (size_t n = cr_batch_joint_sets(micro, most); n > 1; n--) {
        train->sets_at_once = (uint32_t)n;
        predict(train, lora, n_params, longest, train->recompute, &m);
        if (m.engine <= JOINT_BYTES && m.total <= budget) {
            train->memory = m;
            cr_host_log(train->host, CR_LOG_INFO,
                        "passes: up to %zu tokens of %" PRIu32 " sets of weights, %zu of a set",
                        cr_batch_joint(micro, n), train->n_sets, micro);
            return;
        }
    }
    train->sets_at_once = 1;
}

/* Says what would fit into the budget: recomputing, then shorter sequences. */
static void suggest(const struct cr_train *train, const struct cr_lora *lora, uint64_t n_params, size_t longest,
                    uint64_t budget, char *text, size_t n)
{
    struct cr_train_memory m;
    predict(train, lora, n_params, longest, true, &m);
    if (m.total <= budget && !train->recompute) {
        snprintf(text, n, "--grad-checkpoint yes needs %.0f MiB", (double)m.total / CR_MIB);
        return;
    }
    for (size_t length = longest / 32 * 16; length >= 16; length = length / 32 * 16) {
        predict(train, lora, n_params, length, true, &m);
        if (m.total <= budget) {
            snprintf(text, n, "--grad-checkpoint yes --max-seq-length %zu needs %.0f MiB", length,
                     (double)m.total / CR_MIB);
            return;
        }
    }
    snprintf(text, n, "no sequence length fits; the smallest needs %.0f MiB", (double)m.total / CR_MIB);
}

cr_status cr_train_plan_memory(struct cr_train *train, struct cr_error *err)
{
    uint64_t n_params = 0;
    struct cr_lora *lora = shapes(train, &n_params);
    if (lora == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the shapes of an adapter");
    }
    n_params += train->prefix_shape.n_rows > 0 ? cr_prefix_floats(&train->prefix_shape) : 0;
    size_t longest = train->data.max_ids > train->valid_file.max_ids ? train->data.max_ids : train->valid_file.max_ids;
    if (longest + train->prefix_shape.n_rows > train->model->config.n_ctx) {
        cr_free(lora);
        return cr_fail(err, CR_E_USAGE,
                       "--prefix-length %u before a text of %zu tokens exceeds the context of the model, %u: a smaller "
                       "--max-seq-length cuts the text",
                       train->prefix_shape.n_rows, longest, train->model->config.n_ctx);
    }
    struct cr_train_memory *m = &train->memory;
    uint64_t budget = cr_memory_budget(train->host);
    train->sets_at_once = 1;
    predict(train, lora, n_params, longest, false, m);
    enum cr_tristate choice = train->options.grad_checkpoint;
    train->recompute = choice == CR_YES || (choice == CR_AUTO && by_settings(m) > RECOMPUTE_ABOVE);
    if (train->recompute) {
        predict(train, lora, n_params, longest, true, m);
    }
    share_passes(train, lora, n_params, longest, budget);
    cr_host_log(train->host, CR_LOG_INFO,
                "memory: %.0f MiB predicted: model %.0f, passes %.0f, adapter %.1f, optimiser %.1f, best %.1f, "
                "program, tokenizer and data %.0f%s",
                (double)m->total / CR_MIB, (double)m->model / CR_MIB, (double)m->engine / CR_MIB,
                (double)m->adapter / CR_MIB, (double)m->optimiser / CR_MIB, (double)m->best / CR_MIB,
                (double)(m->held + m->batch + m->overhead) / CR_MIB,
                train->options.resume ? ", with the pages of a checkpoint" : "");
    cr_status status = CR_OK;
    if (m->total > budget) {
        char advice[128];
        suggest(train, lora, n_params, longest, budget, advice, sizeof advice);
        status = cr_fail(err, CR_E_MEMORY,
                         "memory: %.0f MiB predicted (model %.0f, passes %.0f, adapter and optimiser %.0f, program, "
                         "tokenizer and data %.0f), %.0f MiB allowed: %s",
                         (double)m->total / CR_MIB, (double)m->model / CR_MIB, (double)m->engine / CR_MIB,
                         (double)(m->adapter + m->optimiser + m->best) / CR_MIB,
                         (double)(m->held + m->batch + m->overhead) / CR_MIB, (double)budget / CR_MIB, advice);
    }
    cr_free(lora);
    return status;
}
