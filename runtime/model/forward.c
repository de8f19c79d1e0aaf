/* Forward pass: embedding, layers, and the loss rows of the last one.
 *
 * In the last layer nothing after attention mixes tokens, so only the rows that carry loss go on from there.
 */
#include <string.h>

#include "runtime/model/engine_internal.h"

struct norm_job {
    uint32_t layer;
    const struct token_set *set;
    const float *x;
    const float *w;
    float *rstd;
    const struct layer_state *state;
    const enum cr_proj *projs; /* projections that read the normalised input */
    size_t n_projs;
};

/* u = s A drop(x) of the projections that share the operand x. */
static void reduce_inputs(struct cr_engine *e, uint32_t layer, const enum cr_proj *projs, size_t n_projs, const void *x,
                          size_t n_features, const struct layer_state *state, const struct token_set *set, size_t begin,
                          size_t end, void *scratch)
{
    for (size_t i = 0; i < n_projs; i++) {
        const struct cr_lora *lora = cr_engine_lora(e, layer, projs[i]);
        if (lora == NULL) {
            continue;
        }
        struct cr_lowrank_args args = cr_engine_lowrank(e, lora, set);
        args.p = lora->a;
        args.p_rs = lora->n_in;
        args.p_ks = 1;
        args.x = x;
        args.x_type = e->xt;
        args.x_stride = cr_engine_operand_bytes(e, n_features);
        args.n_features = n_features;
        args.u = state->lora_u[projs[i]];
        e->lowrank.down(&args, begin, end, scratch);
    }
}

static void job_norm(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct norm_job *job = arg;
    cr_engine_normalise(e, job->x, job->w, job->rstd, begin, end);
    reduce_inputs(e, job->layer, job->projs, job->n_projs, e->xn, e->embd, job->state, job->set, begin, end, scratch);
}

/* Rotates q and k, and keeps q, k, v. */
static void job_rope(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    const struct layer_state *state = arg;
    size_t stride = (e->q + 2 * e->kv) * CR_LANES;
    cr_engine_rotate(e, e->qkv32, false, begin, end);
    if (e->keep) {
        memcpy(state->qkv + begin * stride, e->qkv32 + begin * stride, (end - begin) * stride * sizeof(float));
    }
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

struct act_job {
    uint32_t layer;
    const struct layer_state *state;
    const struct token_set *set;
};

static void job_act(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    static const enum cr_proj proj[] = {CR_PROJ_DOWN};
    const struct act_job *job = arg;
    struct cr_act_args args = {.g = e->g32,
                               .u = e->u32,
                               .gu_stride = e->ff * CR_LANES * sizeof(float),
                               .g_type = CR_X_F32,
                               .h = e->h,
                               .h_stride = cr_engine_operand_bytes(e, e->ff),
                               .h_type = e->xt,
                               .n_features = e->ff};
    e->act.swiglu_fwd(&args, begin, end);
    if (e->keep) {
        cr_engine_to_operand(e, e->g32, job->state->g, e->ff, begin, end);
        cr_engine_to_operand(e, e->u32, job->state->u, e->ff, begin, end);
    }
    reduce_inputs(e, job->layer, proj, 1, e->h, e->ff, job->state, job->set, begin, end, scratch);
}

struct residual_job {
    struct cr_qgemm_args gemm; /* y = residual + product */
    const float *residual;
};

static void job_residual_gemm(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct residual_job *job = arg;
    size_t stride = job->gemm.y_stride;
    if (job->residual != job->gemm.y) {
        for (size_t b = 0; b < job->gemm.n_blocks; b++) {
            memcpy(job->gemm.y + b * stride + begin * CR_LANES, job->residual + b * stride + begin * CR_LANES,
                   (end - begin) * CR_LANES * sizeof(float));
        }
    }
    e->qgemm.fwd(&job->gemm, begin, end, scratch);
}

static void run_residual_gemm(struct cr_engine *e, uint32_t layer, enum cr_proj proj, const void *x,
                              const struct layer_state *state, const struct token_set *set, const float *residual,
                              float *y, const char *name)
{
    struct residual_job job = {.gemm = cr_engine_gemm(e, layer, proj, x, state, set), .residual = residual};
    job.gemm.y = y;
    job.gemm.y_stride = e->embd * CR_LANES;
    job.gemm.accumulate = 1;
    cr_phase_add(e, job_residual_gemm, &job, e->embd, e->qgemm.step);
    cr_phase_run(e, name, (int)layer);
}

static void run_norm(struct cr_engine *e, uint32_t layer, const float *x, const float *w, float *rstd,
                     const struct layer_state *state, const struct token_set *set, const enum cr_proj *projs,
                     size_t n_projs)
{
    struct norm_job job = {layer, set, x, w, rstd, state, projs, n_projs};
    cr_phase_add(e, job_norm, &job, set->n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "norm", (int)layer);
}

static void run_qkv(struct cr_engine *e, uint32_t layer, const struct layer_state *state)
{
    struct cr_qgemm_args gemm[3];
    size_t offset = 0;
    for (enum cr_proj proj = CR_PROJ_Q; proj <= CR_PROJ_V; proj++) {
        gemm[proj] = cr_engine_gemm(e, layer, proj, e->xn, state, &e->all);
        gemm[proj].y = e->qkv32 + offset * CR_LANES;
        gemm[proj].y_stride = (e->q + 2 * e->kv) * CR_LANES;
        offset += gemm[proj].w.n_rows;
        cr_phase_add(e, cr_job_gemm_fwd, &gemm[proj], gemm[proj].w.n_rows, e->qgemm.step);
    }
    cr_phase_run(e, "qkv", (int)layer);
}

static void run_attention(struct cr_engine *e, uint32_t layer, const struct layer_state *state)
{
    cr_phase_add(e, job_rope, state, e->all.n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "rope", (int)layer);
    struct cr_attention_args args = cr_engine_attention(e, state);
    cr_phase_add(e, cr_job_attention_fwd, &args, args.n_seg * args.n_heads, 1);
    cr_phase_run(e, "attention", (int)layer);
}

static void run_gate_up(struct cr_engine *e, uint32_t layer, const struct layer_state *state,
                        const struct token_set *set)
{
    struct cr_qgemm_args gate = cr_engine_gemm(e, layer, CR_PROJ_GATE, e->xn, state, set);
    struct cr_qgemm_args up = cr_engine_gemm(e, layer, CR_PROJ_UP, e->xn, state, set);
    gate.y = e->g32;
    up.y = e->u32;
    gate.y_stride = up.y_stride = e->ff * CR_LANES;
    cr_phase_add(e, cr_job_gemm_fwd, &gate, e->ff, e->qgemm.step);
    cr_phase_add(e, cr_job_gemm_fwd, &up, e->ff, e->qgemm.step);
    cr_phase_run(e, "gate_up", (int)layer);
}

/* Copies the loss rows of a TL16 f32 buffer, features [0, n), to a dense one; pad lanes repeat the last row. */
static void gather_rows(const struct cr_engine *e, const float *from, float *to, size_t features)
{
    const struct cr_token_batch *batch = e->batch;
    for (size_t i = 0; i < e->rows.n_blocks * CR_LANES; i++) {
        size_t token = batch->row_token[i < batch->n_rows ? i : batch->n_rows - 1];
        const float *src = from + token / CR_LANES * features * CR_LANES + token % CR_LANES;
        float *dst = to + i / CR_LANES * features * CR_LANES + i % CR_LANES;
        for (size_t k = 0; k < features; k++) {
            dst[k * CR_LANES] = src[k * CR_LANES];
        }
    }
}

void cr_forward_layer(struct cr_engine *e, uint32_t layer)
{
    static const enum cr_proj attention_in[] = {CR_PROJ_Q, CR_PROJ_K, CR_PROJ_V};
    static const enum cr_proj ffn_in[] = {CR_PROJ_GATE, CR_PROJ_UP};
    const struct cr_layer *weights = &e->model->layers[layer];
    const struct layer_state *state = &e->states[layer];
    bool last = layer + 1 == e->model->config.n_layers;

    run_norm(e, layer, e->x[layer], weights->attn_norm, state->rstd1, state, &e->all, attention_in, 3);
    run_qkv(e, layer, state);
    run_attention(e, layer, state);

    const struct token_set *set = &e->all;
    const float *residual = e->x[layer];
    float *o = e->o32;
    if (last) {
        gather_rows(e, e->x[layer], e->x_rows, e->embd);
        gather_rows(e, e->o32, e->o_rows, e->q);
        set = &e->rows;
        residual = e->x_rows;
        o = e->o_rows;
    }
    struct attention_out_job out = {layer, o, state, set};
    cr_phase_add(e, job_attention_out, &out, set->n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "attention_out", (int)layer);
    run_residual_gemm(e, layer, CR_PROJ_O, state->o, state, set, residual, state->x_mid, "o");

    run_norm(e, layer, state->x_mid, weights->ffn_norm, state->rstd2, state, set, ffn_in, 2);
    run_gate_up(e, layer, state, set);
    struct act_job act = {layer, state, set};
    cr_phase_add(e, job_act, &act, set->n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "act", (int)layer);
    run_residual_gemm(e, layer, CR_PROJ_DOWN, e->h, state, set, state->x_mid, last ? e->out_rows : e->x[layer + 1],
                      "down");
}

static void job_embed(struct cr_engine *e, const void *args, size_t begin, size_t end, void *scratch)
{
    e->embed.rows(args, begin, end, scratch);
}

bool cr_forward(struct cr_engine *e)
{
    struct cr_embed_args args = {e->model->token_embd, e->batch->ids, e->x[0], e->embd * CR_LANES};
    cr_phase_add(e, job_embed, &args, e->all.n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "embed", -1);
    for (uint32_t layer = 0; layer < e->model->config.n_layers; layer++) {
        if (cr_host_stopped(e->options.host)) {
            return false;
        }
        cr_forward_layer(e, layer);
    }
    return true;
}
