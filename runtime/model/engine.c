/* engine: memory plan, creation, and the entry points of a pass. */
#include "runtime/model/engine.h"

#include <string.h>

#include "kernels/dequant/dequant.h"
#include "runtime/core/alloc.h"
#include "runtime/model/engine_internal.h"

const struct cr_lora *cr_engine_lora(const struct cr_engine *e, uint32_t layer, enum cr_proj proj)
{
    if (e->options.lora == NULL) {
        return NULL;
    }
    const struct cr_lora *lora = &e->options.lora[layer * CR_N_PROJ + (uint32_t)proj];
    return lora->rank > 0 ? lora : NULL;
}

size_t cr_engine_operand_bytes(const struct cr_engine *e, size_t features)
{
    return cr_tl16_bytes(e->xt, features);
}

struct cr_lowrank_args cr_engine_lowrank(const struct cr_engine *e, const struct cr_lora *lora,
                                         const struct token_set *set)
{
    double keep = 65536.0 * (1.0 - e->noise.dropout);
    struct cr_lowrank_args args = {.rank = lora->rank,
                                   .u_stride = (size_t)lora->rank * CR_LANES,
                                   .n_blocks = set->n_blocks,
                                   .scale = lora->scale};
    args.dropout = (struct cr_dropout){.keep16 = e->noise.dropout > 0 ? (uint32_t)(keep + 0.5) : 65536,
                                       .key = {(uint32_t)e->noise.seed, lora->tensor_id},
                                       .step = e->noise.step,
                                       .position = set->pos,
                                       .example = set->example};
    if (args.dropout.keep16 == 0) {
        args.dropout.keep16 = 1;
    }
    return args;
}

struct cr_qgemm_args cr_engine_gemm(const struct cr_engine *e, uint32_t layer, enum cr_proj proj, const void *x,
                                    const struct layer_state *state, const struct token_set *set)
{
    const struct cr_layer *weights = &e->model->layers[layer];
    const struct cr_lora *lora = cr_engine_lora(e, layer, proj);
    struct cr_qgemm_args args = {.w = weights->proj[proj],
                                 .x = x,
                                 .x_stride = cr_engine_operand_bytes(e, weights->proj[proj].n_cols),
                                 .n_blocks = set->n_blocks,
                                 .bias = weights->bias[proj]};
    if (lora != NULL) {
        args.p = lora->b;
        args.p_os = lora->rank;
        args.p_rs = 1;
        args.u = state->lora_u[proj];
        args.u_stride = (size_t)lora->rank * CR_LANES;
        args.rank = lora->rank;
    }
    return args;
}

/* Walks the arena: with base NULL it only counts. */
struct cursor {
    char *base;
    size_t used;
};

static void *take(struct cursor *c, size_t bytes)
{
    void *p = c->base != NULL ? c->base + c->used : NULL;
    c->used += (bytes + 63) / 64 * 64;
    return p;
}

static float *take_f32(struct cursor *c, const struct cr_engine *e, size_t features)
{
    return take(c, e->max_blocks * features * CR_LANES * sizeof(float));
}

static void *take_operand(struct cursor *c, const struct cr_engine *e, size_t features)
{
    return take(c, e->max_blocks * cr_engine_operand_bytes(e, features));
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t max_rank(const struct cr_engine *e, enum cr_proj proj)
{
    size_t rank = 0;
    for (uint32_t layer = 0; layer < e->model->config.n_layers; layer++) {
        const struct cr_lora *lora = cr_engine_lora(e, layer, proj);
        rank = lora != NULL ? max_size(rank, lora->rank) : rank;
    }
    return rank;
}

/* layer = ANY_LAYER: room for any layer. */
#define ANY_LAYER UINT32_MAX

static void plan_state(struct cursor *c, const struct cr_engine *e, uint32_t layer, struct layer_state *state)
{
    state->x_mid = take_f32(c, e, e->embd);
    state->rstd1 = take_f32(c, e, 1);
    state->rstd2 = take_f32(c, e, 1);
    state->qkv = take_f32(c, e, e->q + 2 * e->kv);
    state->o = take_operand(c, e, e->q);
    state->lse = take_f32(c, e, e->model->config.n_heads);
    if (e->options.train) {
        state->g = take_operand(c, e, e->ff);
        state->u = take_operand(c, e, e->ff);
    }
    for (enum cr_proj proj = 0; proj < CR_N_PROJ; proj++) {
        const struct cr_lora *lora = layer == ANY_LAYER ? NULL : cr_engine_lora(e, layer, proj);
        size_t rank = layer == ANY_LAYER ? max_rank(e, proj) : lora != NULL ? lora->rank : 0;
        state->lora_u[proj] = rank > 0 ? take_f32(c, e, rank) : NULL;
    }
}

static bool keeps_layers(const struct cr_engine *e)
{
    return e->options.train && !e->options.recompute;
}

/* Layers from the first adapted one up keep their state; below it nothing is needed later, so one set serves. */
static void plan_layers(struct cursor *c, struct cr_engine *e)
{
    uint32_t n_layers = e->model->config.n_layers;
    float *shared_x = take_f32(c, e, e->embd);
    struct layer_state shared = {0};
    bool have_shared = false;
    for (uint32_t layer = 0; layer < n_layers; layer++) {
        bool below = layer < e->first_layer;
        float *x = layer == 0 || below || !e->options.train ? shared_x : take_f32(c, e, e->embd);
        struct layer_state state;
        if (keeps_layers(e) && !below) {
            memset(&state, 0, sizeof state);
            plan_state(c, e, layer, &state);
        } else {
            if (!have_shared) {
                plan_state(c, e, ANY_LAYER, &shared);
                have_shared = true;
            }
            state = shared;
        }
        if (c->base != NULL) {
            e->x[layer] = x;
            e->states[layer] = state;
        }
    }
}

static void plan_head(struct cursor *c, struct cr_engine *e)
{
    bool labels = e->options.label_ids != NULL;
    size_t items = CR_HEAD_CHUNK / CR_HEAD_ROWS;
    size_t rows = labels ? e->options.n_labels : CR_HEAD_CHUNK;
    e->x_rows = take_f32(c, e, e->embd);
    e->out_rows = take_f32(c, e, e->embd);
    e->o_rows = take_f32(c, e, e->q);
    e->head_x = take_f32(c, e, e->embd);
    e->rstd_out = take_f32(c, e, 1);
    e->row_pos = take(c, e->max_blocks * CR_LANES * sizeof(uint32_t));
    e->row_example = take(c, e->max_blocks * CR_LANES * sizeof(uint32_t));
    e->row_target = take(c, e->max_blocks * CR_LANES * sizeof(int32_t));
    e->row_weight = take_f32(c, e, 1);
    e->row_m = take_f32(c, e, 1);
    e->row_s = take_f32(c, e, 1);
    e->row_label = take_f32(c, e, 1);
    e->row_lse = take_f32(c, e, 1);
    e->head_z = take_f32(c, e, rows);
    e->head_dz = labels || e->options.train ? take_f32(c, e, rows) : NULL;
    e->head_m = labels ? NULL : take_f32(c, e, items);
    e->head_s = labels ? NULL : take_f32(c, e, items);
    e->head_label = labels ? NULL : take_f32(c, e, items);
    e->label_rows = labels ? take(c, rows * e->embd * sizeof(float)) : NULL;
}

static void plan_backward(struct cursor *c, struct cr_engine *e)
{
    if (!e->options.train) {
        return;
    }
    e->dx = take_f32(c, e, e->embd);
    e->dx_rows = take_f32(c, e, e->embd);
    e->dn = take_f32(c, e, e->embd);
    e->dop = take_operand(c, e, max_size(e->embd, e->q + 2 * e->kv));
    e->d_o = take_f32(c, e, e->q);
    e->d_o_rows = take_f32(c, e, e->q);
    e->dqkv = take_f32(c, e, e->q + 2 * e->kv);
    e->dk = take_f32(c, e, e->q);
    e->dv = take_f32(c, e, e->q);
    e->dh = take_f32(c, e, e->ff);
    e->dg_op = e->xt == CR_X_BF16 ? take_operand(c, e, e->ff) : NULL;
    e->du_op = e->xt == CR_X_BF16 ? take_operand(c, e, e->ff) : NULL;
    for (enum cr_proj proj = 0; proj < CR_N_PROJ; proj++) {
        size_t rank = max_rank(e, proj);
        e->lora_v[proj] = rank > 0 ? take_f32(c, e, rank) : NULL;
    }
}

static size_t jobs_needed(const struct cr_engine *e)
{
    size_t widest = max_size(max_size(e->ff, e->q + 2 * e->kv), max_size(e->embd, CR_HEAD_CHUNK));
    size_t grads = 6 * (widest / CR_LOWRANK_STEP + 1);
    size_t items = (e->max_blocks * CR_LANES + 1) * e->model->config.n_heads;
    return 2 * (widest / e->qgemm.step + 1) + grads + 3 * e->max_blocks + items;
}

static size_t worker_scratch(const struct cr_engine *e)
{
    size_t widest = max_size(max_size(e->ff, e->q + 2 * e->kv), max_size(e->embd, CR_HEAD_CHUNK));
    size_t bytes = cr_qgemm_scratch_bytes(&e->qgemm, widest, CR_RANK_MAX);
    bytes = max_size(bytes, cr_lowrank_scratch_bytes(widest, CR_RANK_MAX));
    bytes = max_size(bytes, cr_attention_scratch_bytes(e->options.max_seq, e->model->config.head_dim));
    bytes = max_size(bytes, e->embd * sizeof(float));
    return (bytes + 4095) / 4096 * 4096;
}

static void plan(struct cursor *c, struct cr_engine *e)
{
    const struct cr_model_config *config = &e->model->config;
    e->rope_table = take(c, e->options.max_seq * config->n_rot * sizeof(float));
    plan_layers(c, e);
    e->xn = take_operand(c, e, e->embd);
    e->qkv32 = take_f32(c, e, e->q + 2 * e->kv);
    e->o32 = take_f32(c, e, e->q);
    e->g32 = take_f32(c, e, e->ff);
    e->u32 = take_f32(c, e, e->ff);
    e->h = take_operand(c, e, e->ff);
    plan_head(c, e);
    plan_backward(c, e);
    e->max_jobs = jobs_needed(e);
    e->jobs = take(c, e->max_jobs * sizeof(struct job));
    e->scratch_bytes = worker_scratch(e);
    e->scratch = take(c, (size_t)e->options.parallel->n_workers * e->scratch_bytes);
}

static uint32_t first_adapted(const struct cr_engine *e)
{
    uint32_t n_layers = e->model->config.n_layers;
    for (uint32_t layer = 0; layer < n_layers; layer++) {
        for (enum cr_proj proj = 0; proj < CR_N_PROJ; proj++) {
            if (cr_engine_lora(e, layer, proj) != NULL) {
                return layer;
            }
        }
    }
    return n_layers;
}

/* Everything that does not need memory. */
static void configure(struct cr_engine *e, const struct cr_engine_options *options)
{
    const struct cr_model_config *config = &options->model->config;
    memset(e, 0, sizeof *e);
    e->options = *options;
    e->options.max_seq = options->max_seq > CR_LANES ? options->max_seq : CR_LANES; /* the pad segment counts too */
    e->model = options->model;
    e->embd = config->n_embd;
    e->q = (size_t)config->n_heads * config->head_dim;
    e->kv = (size_t)config->n_kv * config->head_dim;
    e->ff = config->n_ff;
    e->max_blocks = cr_tl16_blocks(options->max_tokens);
    cr_qgemm_ops_init(&e->qgemm, options->tier);
    cr_lowrank_ops_init(&e->lowrank, options->tier);
    cr_attention_ops_init(&e->attention, options->tier);
    cr_norm_ops_init(&e->norm, options->tier);
    cr_rope_ops_init(&e->rope, options->tier);
    cr_act_ops_init(&e->act, options->tier);
    cr_cast_ops_init(&e->cast, options->tier);
    cr_embed_ops_init(&e->embed, options->tier);
    cr_xent_ops_init(&e->xent, options->tier);
    e->xt = e->qgemm.x_type;
    e->first_layer = first_adapted(e);
}

size_t cr_engine_bytes(const struct cr_engine_options *options)
{
    struct cr_engine e;
    struct cursor c = {NULL, 0};
    configure(&e, options);
    plan(&c, &e);
    return c.used + sizeof e + e.model->config.n_layers * (sizeof *e.states + sizeof *e.x);
}

static void fill_label_rows(struct cr_engine *e)
{
    const struct cr_qmat *head = &e->model->output;
    cr_dequant_fn *dequant = cr_dequant_fn_for(head->type, e->options.tier);
    for (uint32_t i = 0; i < e->options.n_labels; i++) {
        const char *row = (const char *)head->data + (size_t)e->options.label_ids[i] * head->row_bytes;
        dequant(row, 0, e->embd, e->label_rows + i * e->embd);
    }
}

cr_status cr_engine_create(const struct cr_engine_options *options, struct cr_engine **out, struct cr_error *err)
{
    uint32_t n_layers = options->model->config.n_layers;
    struct cursor c = {NULL, 0};
    struct cr_engine *e = cr_zalloc(1, sizeof *e);
    if (e == NULL) {
        return cr_fail(err, CR_E_MEMORY, "engine: no memory for %zu bytes", sizeof *e);
    }
    configure(e, options);
    e->states = cr_zalloc(n_layers, sizeof *e->states);
    e->x = cr_zalloc(n_layers, sizeof *e->x);
    plan(&c, e);
    /* zeroed so that pad lanes are finite numbers before anything has run */
    c.base = cr_zalloc(1, c.used);
    if (e->states == NULL || e->x == NULL || c.base == NULL) {
        cr_free(c.base);
        size_t bytes = c.used;
        cr_engine_destroy(e);
        return cr_fail(err, CR_E_MEMORY, "engine: no memory for %zu bytes of activations", bytes);
    }
    e->arena = c.base;
    c.used = 0;
    plan(&c, e);
    const struct cr_model_config *config = &e->model->config;
    cr_rope_table(e->rope_table, e->options.max_seq, config->n_rot, config->rope_base, config->rope_freq_scale,
                  e->model->rope_factors);
    if (options->label_ids != NULL) {
        fill_label_rows(e);
    }
    *out = e;
    return CR_OK;
}

void cr_engine_destroy(struct cr_engine *engine)
{
    if (engine != NULL) {
        cr_free(engine->arena);
        cr_free(engine->states);
        cr_free(engine->x);
        cr_free(engine);
    }
}

/* Checks a batch against the plan and sets the pass up. */
static cr_status begin(struct cr_engine *e, const struct cr_token_batch *batch, bool labels, struct cr_error *err)
{
    if (batch->n_blocks > e->max_blocks || batch->n_blocks == 0 || batch->n_rows == 0 ||
        batch->n_rows > e->max_blocks * CR_LANES) {
        return cr_fail(err, CR_E_USAGE, "engine: batch of %zu blocks and %zu rows, planned for %zu blocks",
                       batch->n_blocks, batch->n_rows, e->max_blocks);
    }
    if (labels != (e->options.label_ids != NULL)) {
        return cr_fail(err, CR_E_USAGE, "engine: made for %s, asked for %s",
                       e->options.label_ids != NULL ? "label tokens" : "the whole vocabulary",
                       labels ? "label tokens" : "the whole vocabulary");
    }
    for (size_t s = 0; s < batch->n_seg; s++) {
        if (batch->seg[s + 1] - batch->seg[s] > e->options.max_seq) {
            return cr_fail(err, CR_E_USAGE, "engine: sequence of %u tokens, planned for %zu",
                           batch->seg[s + 1] - batch->seg[s], e->options.max_seq);
        }
    }
    e->batch = batch;
    e->all = (struct token_set){batch->n_blocks, batch->pos, batch->example};
    size_t n_row_blocks = cr_tl16_blocks(batch->n_rows);
    for (size_t i = 0; i < n_row_blocks * CR_LANES; i++) {
        uint32_t token = batch->row_token[i < batch->n_rows ? i : batch->n_rows - 1];
        e->row_pos[i] = batch->pos[token];
        e->row_example[i] = batch->example[token];
    }
    e->rows = (struct token_set){n_row_blocks, e->row_pos, e->row_example};
    return CR_OK;
}

cr_status cr_engine_train(struct cr_engine *engine, const struct cr_token_batch *batch,
                          const struct cr_engine_noise *noise, double *loss, struct cr_error *err)
{
    bool labels = engine->options.label_ids != NULL;
    CR_TRY(begin(engine, batch, labels, err));
    engine->noise = *noise;
    engine->keep = true;
    cr_forward(engine);
    cr_head_norm(engine);
    *loss += labels ? cr_head_label_loss(engine) : cr_head_token_loss(engine);
    cr_backward(engine);
    return CR_OK;
}

/* Forward pass without dropout up to the head's input. */
static cr_status forward_only(struct cr_engine *e, const struct cr_token_batch *batch, bool labels,
                              struct cr_error *err)
{
    CR_TRY(begin(e, batch, labels, err));
    e->noise = (struct cr_engine_noise){0};
    e->keep = false;
    cr_forward(e);
    cr_head_norm(e);
    return CR_OK;
}

cr_status cr_engine_label_logits(struct cr_engine *engine, const struct cr_token_batch *batch, float *logits,
                                 struct cr_error *err)
{
    CR_TRY(forward_only(engine, batch, true, err));
    cr_head_label_logits(engine);
    size_t n = engine->options.n_labels;
    for (size_t row = 0; row < batch->n_rows; row++) {
        for (size_t c = 0; c < n; c++) {
            logits[row * n + c] = engine->head_z[(row / CR_LANES * n + c) * CR_LANES + row % CR_LANES];
        }
    }
    return CR_OK;
}

cr_status cr_engine_token_nll(struct cr_engine *engine, const struct cr_token_batch *batch, float *nll,
                              struct cr_error *err)
{
    CR_TRY(forward_only(engine, batch, false, err));
    cr_head_token_stats(engine);
    for (size_t row = 0; row < batch->n_rows; row++) {
        nll[row] = engine->row_lse[row] - engine->row_label[row];
    }
    return CR_OK;
}

cr_status cr_engine_logits(struct cr_engine *engine, const struct cr_token_batch *batch, float *logits,
                           struct cr_error *err)
{
    CR_TRY(forward_only(engine, batch, false, err));
    cr_head_logits(engine, logits);
    return CR_OK;
}
