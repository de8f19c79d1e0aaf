/* Forward pass: embedding, layers, and the loss rows of the last one. The residual stream is one buffer that both
 * halves of a layer add to; a layer that will be differentiated keeps a copy of it as operand, at each norm.
 *
 * In the last layer nothing after attention mixes tokens, so only the rows that carry loss go on from there.
 */
#include <string.h>

#include "runtime/model/ffn.h"
#include "runtime/model/flipout.h"

struct norm_job {
    uint32_t layer;
    const struct token_set *set;
    float *x;
    void *copy; /* operand: what the backward pass reads of x */
    const float *w;
    float *rstd;
    const struct layer_state *state;
    const enum cr_proj *projs; /* projections that read the normalised input */
    size_t n_projs;
};

/* u = s A drop(x) of one projection, member by member. */
static void reduce_input(struct cr_engine *e, uint32_t layer, enum cr_proj proj, const void *x, size_t n_features,
                         const struct layer_state *state, const struct token_set *set, size_t begin, size_t end,
                         void *scratch)
{
    for (size_t i = 0; i < set->n_parts; i++) {
        const struct token_part *part = &set->parts[i];
        const struct cr_lora *lora = cr_engine_lora(e, part->member, layer, proj);
        size_t from = begin > part->begin ? begin : part->begin, to = end < part->end ? end : part->end;
        if (lora == NULL || from >= to) {
            continue;
        }
        struct cr_lowrank_args args = cr_engine_lowrank(e, part->member, layer, proj, set);
        args.p = lora->a;
        args.p_rs = lora->n_in;
        args.p_ks = 1;
        args.x = x;
        args.x_type = e->xt;
        args.x_stride = cr_engine_operand_bytes(e, n_features);
        args.n_features = n_features;
        args.u = state->lora_u[proj];
        e->lowrank.down(&args, from, to, scratch);
        if (cr_flipout_acts(e, part->member, lora)) {
            cr_flipout_down(e, lora, &args, from, to, scratch);
        }
    }
}

/* The same of all projections that share the operand x. */
static void reduce_inputs(struct cr_engine *e, uint32_t layer, const enum cr_proj *projs, size_t n_projs, const void *x,
                          size_t n_features, const struct layer_state *state, const struct token_set *set, size_t begin,
                          size_t end, void *scratch)
{
    for (size_t i = 0; i < n_projs; i++) {
        reduce_input(e, layer, projs[i], x, n_features, state, set, begin, end, scratch);
    }
}

static void job_norm(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct norm_job *job = arg;
    struct cr_norm_args args = cr_engine_norm(e, job->x, CR_X_F32, job->w, job->rstd);
    e->norm.rms_fwd(&args, begin, end);
    if (e->keep) {
        cr_engine_to_operand(e, job->x, job->copy, e->embd, begin, end);
    }
    reduce_inputs(e, job->layer, job->projs, job->n_projs, e->xn, e->embd, job->state, job->set, begin, end, scratch);
}

static void job_rope(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    const struct layer_state *state = arg;
    cr_engine_rotate(e, state->qkv, false, begin, end);
}

struct attention_out_job {
    uint32_t layer;
    float *o; /* [Q] f32 */
    const struct layer_state *state;
    const struct token_set *set;
};

static void job_attention_out(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    static const enum cr_proj proj[] = {CR_PROJ_O};
    const struct attention_out_job *job = arg;
    cr_engine_to_operand(e, job->o, job->state->o, e->q, begin, end);
    reduce_inputs(e, job->layer, proj, 1, job->state->o, e->q, job->state, job->set, begin, end, scratch);
}

struct down_job {
    uint32_t layer;
    const struct layer_state *state;
    const struct token_set *set;
};

/* U of down_proj. */
static void job_down_enter(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    static const enum cr_proj proj[] = {CR_PROJ_DOWN};
    const struct down_job *job = arg;
    reduce_inputs(e, job->layer, proj, 1, e->h, e->ff, job->state, job->set, begin, end, scratch);
}

/* x += product: the end of either half of a layer. */
static void run_residual_gemm(struct cr_engine *e, uint32_t layer, enum cr_proj proj, const void *operand,
                              const struct layer_state *state, const struct token_set *set, float *x, const char *name)
{
    struct cr_qgemm_args gemm = cr_engine_gemm(e, layer, proj, operand, state, set);
    gemm.y = x;
    gemm.y_stride = e->embd * CR_LANES;
    gemm.accumulate = 1;
    cr_phase_add(e, cr_job_gemm_fwd, &gemm, e->embd, e->qgemm.step);
    cr_phase_run(e, name, (int)layer);
}

static void run_norm(struct cr_engine *e, const struct norm_job *job)
{
    cr_phase_add(e, job_norm, job, job->set->n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "norm", (int)job->layer);
}

static void run_qkv(struct cr_engine *e, uint32_t layer, const struct layer_state *state)
{
    struct cr_qgemm_args gemm[3];
    size_t offset = 0;
    for (enum cr_proj proj = CR_PROJ_Q; proj <= CR_PROJ_V; proj++) {
        gemm[proj] = cr_engine_gemm(e, layer, proj, e->xn, state, &e->all);
        gemm[proj].y = state->qkv + offset * CR_LANES;
        gemm[proj].y_stride = (e->q + 2 * e->kv) * CR_LANES;
        offset += gemm[proj].w.n_rows;
        cr_phase_add(e, cr_job_gemm_fwd, &gemm[proj], gemm[proj].w.n_rows, e->qgemm.step);
    }
    cr_phase_run(e, "qkv", (int)layer);
}

static void run_attention(struct cr_engine *e, uint32_t layer, const struct layer_state *state)
{
    struct prefix_layer prefix = {layer, NULL};
    cr_phase_add(e, job_rope, state, e->all.n_blocks, CR_BLOCK_STEP);
    cr_prefix_add_mix(e, &prefix);
    cr_phase_run(e, "rope", (int)layer);
    if (e->prefix.filling) {
        cr_prefix_keep(e, layer, state);
    }
    cr_lead_keep(e, state);
    struct cr_attention_args args = cr_engine_attention(e, state);
    cr_phase_add(e, cr_job_attention_fwd, &args, args.n_seg * args.n_heads, 1);
    cr_phase_run(e, "attention", (int)layer);
}

static void run_gate_up(struct cr_engine *e, uint32_t layer, const struct layer_state *state,
                        const struct token_set *set)
{
    struct gate_up_job job = {cr_engine_gemm(e, layer, CR_PROJ_GATE, e->xn, state, set),
                              cr_engine_gemm(e, layer, CR_PROJ_UP, e->xn, state, set), state, set};
    cr_phase_add(e, cr_job_gate_up, &job, e->ff, e->qgemm.step);
    cr_phase_run(e, "gate_up", (int)layer);
}

/* Copies the loss rows of a TL16 f32 buffer, features [0, n), to a dense one; pad lanes repeat the row before. */
static void gather_rows(const struct cr_engine *e, const float *from, float *to, size_t features)
{
    size_t row = 0;
    for (size_t i = 0; i < e->rows.n_blocks * CR_LANES; i++) {
        row = e->row_of[i] != CR_NO_ROW ? e->row_of[i] : row;
        size_t token = e->batch->row_token[row];
        const float *src = from + token / CR_LANES * features * CR_LANES + token % CR_LANES;
        float *dst = to + i / CR_LANES * features * CR_LANES + i % CR_LANES;
        for (size_t k = 0; k < features; k++) {
            dst[k * CR_LANES] = src[k * CR_LANES];
        }
    }
}

static void attention_half(struct cr_engine *e, uint32_t layer, const struct layer_state *state,
                           const struct token_set *set, float *x)
{
    static const enum cr_proj readers[] = {CR_PROJ_Q, CR_PROJ_K, CR_PROJ_V};
    struct norm_job norm = {layer,        &e->all, e->x,    state->x1, e->model->layers[layer].attn_norm,
                            state->rstd1, state,   readers, 3};
    run_norm(e, &norm);
    cr_observe_inputs(e, layer, readers, 3, e->xn, e->embd, state, &e->all);
    run_qkv(e, layer, state);
    run_attention(e, layer, state);
    float *o = e->o32;
    if (set == &e->rows) {
        gather_rows(e, e->x, x, e->embd);
        gather_rows(e, e->o32, e->o_rows, e->q);
        o = e->o_rows;
    }
    struct attention_out_job out = {layer, o, state, set};
    cr_phase_add(e, job_attention_out, &out, set->n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "attention_out", (int)layer);
    cr_observe_inputs(e, layer, (const enum cr_proj[]){CR_PROJ_O}, 1, state->o, e->q, state, set);
    run_residual_gemm(e, layer, CR_PROJ_O, state->o, state, set, x, "o");
}

static void ffn_half(struct cr_engine *e, uint32_t layer, const struct layer_state *state, const struct token_set *set,
                     float *x)
{
    static const enum cr_proj readers[] = {CR_PROJ_GATE, CR_PROJ_UP};
    struct norm_job norm = {layer,        set,   x,       state->x2, e->model->layers[layer].ffn_norm,
                            state->rstd2, state, readers, 2};
    run_norm(e, &norm);
    cr_observe_inputs(e, layer, readers, 2, e->xn, e->embd, state, set);
    run_gate_up(e, layer, state, set);
    struct down_job enter = {layer, state, set};
    if (cr_engine_rank(e, layer, CR_PROJ_DOWN) > 0) {
        cr_phase_add(e, job_down_enter, &enter, set->n_blocks, CR_BLOCK_STEP);
        cr_phase_run(e, "down_enter", (int)layer);
        cr_observe_inputs(e, layer, (const enum cr_proj[]){CR_PROJ_DOWN}, 1, e->h, e->ff, state, set);
    }
    run_residual_gemm(e, layer, CR_PROJ_DOWN, e->h, state, set, x, "down");
}

static void forward_layer(struct cr_engine *e, uint32_t layer)
{
    bool last = layer + 1 == e->model->config.n_layers;
    const struct token_set *set = last ? &e->rows : &e->all;
    float *x = last ? e->x_rows : e->x;
    attention_half(e, layer, &e->states[layer], set, x);
    ffn_half(e, layer, &e->states[layer], set, x);
}

static size_t stream_bytes(const struct cr_engine *e)
{
    return e->all.n_blocks * e->embd * CR_LANES * sizeof(float);
}

void cr_forward_again(struct cr_engine *e, uint32_t layer)
{
    memcpy(e->x, e->x_in[layer], stream_bytes(e));
    e->keep = true;
    forward_layer(e, layer);
}

static void job_embed(struct cr_engine *e, const void *args, size_t begin, size_t end, void *scratch)
{
    e->embed.rows(args, begin, end, scratch);
}

bool cr_forward(struct cr_engine *e)
{
    struct cr_embed_args args = {e->model->token_embd, e->batch->ids, e->x, e->embd * CR_LANES};
    cr_phase_add(e, job_embed, &args, e->all.n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "embed", -1);
    for (uint32_t layer = 0; layer < e->model->config.n_layers; layer++) {
        if (cr_host_stopped(e->options.host)) {
            return false;
        }
        bool again = e->train && e->x_in[layer] != NULL;
        if (again) {
            memcpy(e->x_in[layer], e->x, stream_bytes(e));
        }
        e->keep = e->train && layer >= e->first_layer && !again;
        forward_layer(e, layer);
    }
    return true;
}
