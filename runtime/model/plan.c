/* Where everything of an engine lies in its one arena. */
#include <string.h>

#include "runtime/model/ffn.h"
#include "runtime/model/flipout.h"

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
        rank = max_size(rank, cr_engine_rank(e, layer, proj));
    }
    return rank;
}

/* layer = ANY_LAYER: room for any layer. */
#define ANY_LAYER UINT32_MAX

static void plan_state(struct cursor *c, const struct cr_engine *e, uint32_t layer, struct layer_state *state)
{
    state->rstd1 = take_f32(c, e, 1);
    state->rstd2 = take_f32(c, e, 1);
    state->o = take_operand(c, e, e->q);
    state->lse = take_f32(c, e, e->model->config.n_heads);
    state->qkv = take_f32(c, e, e->q + 2 * e->kv);
    if (e->options.train) {
        state->x1 = take_operand(c, e, e->embd);
        state->x2 = take_operand(c, e, e->embd);
        state->g = take_operand(c, e, e->ff);
        state->u = take_operand(c, e, e->ff);
    }
    for (enum cr_proj proj = 0; proj < CR_N_PROJ; proj++) {
        size_t rank = layer == ANY_LAYER ? max_rank(e, proj) : cr_engine_rank(e, layer, proj);
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
    e->x = take_f32(c, e, e->embd);
    struct layer_state shared = {0};
    bool have_shared = false;
    for (uint32_t layer = 0; layer < n_layers; layer++) {
        bool below = layer < e->first_layer;
        bool again = e->options.recompute && !below && layer + 1 < n_layers;
        float *x_in = e->options.train && again ? take_f32(c, e, e->embd) : NULL;
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
            e->x_in[layer] = x_in;
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
    e->o_rows = take_f32(c, e, e->q);
    e->head_x = take_f32(c, e, e->embd);
    e->rstd_out = take_f32(c, e, 1);
    e->row_pos = take(c, e->max_blocks * CR_LANES * sizeof(uint32_t));
    e->row_example = take(c, e->max_blocks * CR_LANES * sizeof(uint32_t));
    e->row_of = take(c, e->max_blocks * CR_LANES * sizeof(uint32_t));
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
    bool texts = !labels && e->options.train;
    e->head_mass = texts ? take_f32(c, e, items) : NULL;
    e->row_sum = texts ? take(c, e->max_blocks * CR_LANES * sizeof(double)) : NULL;
    e->row_mass = texts ? take(c, e->max_blocks * CR_LANES * sizeof(double)) : NULL;
    e->row_scale = texts ? take_f32(c, e, 1) : NULL;
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
    bool bf16 = e->xt == CR_X_BF16; /* on f32 tiers a gradient is its own operand */
    e->dop = bf16 ? take_operand(c, e, max_size(e->embd, e->q + 2 * e->kv)) : NULL;
    e->d_o = take_f32(c, e, e->q);
    e->d_o_rows = take_f32(c, e, e->q);
    e->dqkv = take_f32(c, e, e->q + 2 * e->kv);
    e->dk = take_f32(c, e, e->q);
    e->dv = take_f32(c, e, e->q);
    e->dh = take_f32(c, e, e->ff);
    e->dg_op = take_operand(c, e, e->ff);
    e->du_op = take_operand(c, e, e->ff);
    for (enum cr_proj proj = 0; proj < CR_N_PROJ; proj++) {
        size_t rank = max_rank(e, proj);
        e->lora_v[proj] = rank > 0 ? take_f32(c, e, rank) : NULL;
    }
}

/* Mixtures and gradients are of one layer at a time. */
static void plan_prefix(struct cursor *c, struct cr_engine *e)
{
    const struct cr_prefix *prefix = e->options.prefix;
    if (prefix == NULL) {
        return;
    }
    size_t n = e->options.max_prefixes, tensor = cr_prefix_tensor(prefix), parts = cr_engine_max_seg(e);
    struct prefix_pass *p = &e->prefix;
    size_t partials = parts * e->q * cr_tl16_blocks(prefix->n_rows) * CR_LANES;
    p->mixed = take(c, n * 2 * tensor * sizeof(float));
    p->of_seg = take(c, parts * sizeof *p->of_seg);
    p->weights = take(c, n * (prefix->n_layers + 1) * prefix->n_vertices * sizeof *p->weights);
    if (cr_prefix_own_head(e)) {
        p->of_row = take(c, e->max_blocks * CR_LANES * sizeof *p->of_row);
        p->logits = take_f32(c, e, (size_t)prefix->n_vertices * prefix->n_labels);
    }
    p->attention = (struct cr_attention_prefix){.k = p->mixed,
                                                .v = p->mixed != NULL ? p->mixed + tensor : NULL,
                                                .stride = 2 * tensor,
                                                .n_rows = prefix->n_rows,
                                                .of_seg = p->of_seg};
    if (e->options.train) {
        p->attention.dk = take(c, tensor * sizeof(float));
        p->attention.dv = take(c, tensor * sizeof(float));
        p->attention.dk_part = take(c, partials * sizeof(float));
        p->attention.dv_part = take(c, partials * sizeof(float));
    }
}

static void plan_lead(struct cursor *c, struct cr_engine *e)
{
    struct lead_pass *p = &e->lead;
    size_t before = e->options.prefix != NULL ? e->options.prefix->n_rows : 0, parts = cr_engine_max_seg(e);
    size_t blocks = cr_tl16_blocks(before + e->options.max_lead);
    size_t kv = e->n_members * 2 * blocks * e->kv * CR_LANES, partials = parts * e->q * blocks * CR_LANES;
    if (e->options.max_lead == 0) {
        return;
    }
    p->kv = take(c, kv * sizeof(float));
    p->of_seg = take(c, parts * sizeof *p->of_seg);
    if (e->options.train) {
        p->grads = take(c, kv * sizeof(float));
        p->attention.dk_part = take(c, partials * sizeof(float));
        p->attention.dv_part = take(c, partials * sizeof(float));
    }
}

static size_t jobs_needed(const struct cr_engine *e)
{
    size_t widest = max_size(max_size(e->ff, e->q + 2 * e->kv), max_size(e->embd, CR_HEAD_CHUNK));
    size_t grads = 6 * (widest / CR_LOWRANK_STEP + 1);
    size_t items = (e->max_blocks * CR_LANES + 1) * e->model->config.n_heads;
    return 2 * (widest / e->qgemm.step + 1) + grads + 3 * e->max_blocks + items;
}

static size_t kernel_scratch(const struct cr_engine *e)
{
    size_t widest = max_size(max_size(e->ff, e->q + 2 * e->kv), max_size(e->embd, CR_HEAD_CHUNK));
    size_t bytes = cr_qgemm_scratch_bytes(&e->qgemm, widest, CR_RANK_MAX);
    bytes = max_size(bytes, cr_head_scratch_bytes(e, cr_qgemm_scratch_bytes(&e->qgemm, e->embd, 0)));
    bytes = max_size(bytes, cr_lowrank_scratch_bytes(widest, CR_RANK_MAX));
    size_t seen = cr_engine_positions(e) - e->options.max_seq + e->options.max_lead;
    bytes = max_size(bytes, cr_attention_scratch_bytes(e->options.max_seq, e->model->config.head_dim, seen));
    bytes = max_size(bytes, e->embd * sizeof(float));
    return (bytes + 4095) / 4096 * 4096;
}

size_t cr_engine_plan(struct cr_engine *e, void *base)
{
    struct cursor cursor = {base, 0}, *c = &cursor;
    const struct cr_model_config *config = &e->model->config;
    e->rope_table = take(c, cr_engine_positions(e) * config->n_rot * sizeof(float));
    plan_layers(c, e);
    e->xn = take_operand(c, e, e->embd);
    e->o32 = take_f32(c, e, e->q);
    e->h = take_operand(c, e, e->ff);
    plan_head(c, e);
    plan_backward(c, e);
    plan_prefix(c, e);
    plan_lead(c, e);
    e->all_parts = take(c, e->max_blocks * sizeof *e->all_parts);
    e->row_parts = take(c, e->max_blocks * sizeof *e->row_parts);
    e->terms = take(c, CR_N_PROJ * e->max_blocks * sizeof *e->terms);
    e->forward_noise = take(c, e->n_members * sizeof *e->forward_noise);
    e->max_jobs = jobs_needed(e);
    e->jobs = take(c, e->max_jobs * sizeof(struct job));
    e->tiles_at = kernel_scratch(e);
    e->flipout_at = e->tiles_at + cr_ffn_tiles_bytes(e);
    e->scratch_bytes = e->flipout_at + (cr_flipout_scratch_bytes(e) + 4095) / 4096 * 4096;
    e->scratch = take(c, (size_t)e->options.parallel->n_workers * e->scratch_bytes);
    /* last: once it is there, ranks are read from it */
    e->ranks = take(c, (size_t)config->n_layers * CR_N_PROJ * sizeof *e->ranks);
    return cursor.used;
}
