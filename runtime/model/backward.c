/* Backward pass: gradients of the adapters, and of the residual stream down to the first adapted layer.
 *
 * Notation as in kernels/lowrank: V = s B^T dY, dX = W^T dY + mask * (A^T V), dA = V X^T, dB^T = U dY^T.
 */
#include <string.h>

#include "runtime/model/engine_internal.h"

/* One projection on the way back. */
struct grad_in {
    uint32_t layer;
    enum cr_proj proj;
    const float *dy;      /* f32 [n_out] */
    size_t dy_stride;     /* floats */
    const void *dy_op;    /* the same as operand */
    size_t dy_op_stride;  /* bytes */
    const void *x;        /* operand [n_in] that the forward pass multiplied */
    const struct layer_state *state;
    const struct token_set *set;
};

/* Phase part 1, by token blocks: V from dY. */
static void reduce_gradient(struct cr_engine *e, const struct grad_in *in, size_t begin, size_t end, void *scratch)
{
    const struct cr_lora *lora = cr_engine_lora(e, in->layer, in->proj);
    if (lora == NULL) {
        return;
    }
    struct cr_lowrank_args args = cr_engine_lowrank(e, lora, in->set);
    args.dropout.keep16 = 65536; /* the mask belongs to X, not to dY */
    args.p = lora->b;
    args.p_rs = 1;
    args.p_ks = lora->rank;
    args.x = in->dy;
    args.x_type = CR_X_F32;
    args.x_stride = in->dy_stride * sizeof(float);
    args.n_features = lora->n_out;
    args.u = e->lora_v[in->proj];
    e->lowrank.down(&args, begin, end, scratch);
}

/* Arguments of dA and dB. */
struct grad_pair {
    struct cr_lowrank_args a, b;
};

/* Phase part 2: adds the jobs of dA and dB. `pair` must live until the phase has run. */
static void add_grads(struct cr_engine *e, const struct grad_in *in, struct grad_pair *pair)
{
    const struct cr_lora *lora = cr_engine_lora(e, in->layer, in->proj);
    if (lora == NULL) {
        return;
    }
    pair->a = cr_engine_lowrank(e, lora, in->set);
    pair->a.g = lora->grad_a;
    pair->a.g_rs = lora->n_in;
    pair->a.g_ks = 1;
    pair->a.x = in->x;
    pair->a.x_type = e->xt;
    pair->a.x_stride = cr_engine_operand_bytes(e, lora->n_in);
    pair->a.n_features = lora->n_in;
    pair->a.u = e->lora_v[in->proj];
    cr_phase_add(e, cr_job_grad, &pair->a, lora->n_in, 4 * CR_LOWRANK_STEP);

    pair->b = cr_engine_lowrank(e, lora, in->set);
    pair->b.dropout.keep16 = 65536;
    pair->b.g = lora->grad_b;
    pair->b.g_rs = 1;
    pair->b.g_ks = lora->rank;
    pair->b.x = in->dy;
    pair->b.x_type = CR_X_F32;
    pair->b.x_stride = in->dy_stride * sizeof(float);
    pair->b.n_features = lora->n_out;
    pair->b.u = in->state->lora_u[in->proj];
    cr_phase_add(e, cr_job_grad, &pair->b, lora->n_out, 4 * CR_LOWRANK_STEP);
}

static bool drops(const struct cr_engine *e)
{
    return e->noise.dropout > 0;
}

/* Sum of up to three products dX += W^T dY into one output. */
struct dx_job {
    struct cr_qgemm_args gemm[3];
    size_t n;
};

static void job_dx(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct dx_job *job = arg;
    for (size_t i = 0; i < job->n; i++) {
        e->qgemm.dx(&job->gemm[i], begin, end, scratch);
    }
}

/* Appends W^T dY (+ A^T V unless a mask stands between) to the sum. */
static void add_dx(struct cr_engine *e, struct dx_job *job, const struct grad_in *in, float *y, size_t y_stride)
{
    const struct cr_lora *lora = cr_engine_lora(e, in->layer, in->proj);
    struct cr_qgemm_args args = {.w = e->model->layers[in->layer].proj[in->proj],
                                 .x = in->dy_op,
                                 .x_stride = in->dy_op_stride,
                                 .y = y,
                                 .y_stride = y_stride,
                                 .n_blocks = in->set->n_blocks,
                                 .accumulate = job->n > 0};
    if (lora != NULL && !drops(e)) {
        args.p = lora->a;
        args.p_os = 1;
        args.p_rs = lora->n_in;
        args.u = e->lora_v[in->proj];
        args.u_stride = (size_t)lora->rank * CR_LANES;
        args.rank = lora->rank;
    }
    job->gemm[job->n++] = args;
}

/* With dropout: dX += mask * (A^T V), by token blocks. */
static void add_masked(struct cr_engine *e, const struct grad_in *in, float *y, size_t y_stride, size_t begin,
                       size_t end, void *scratch)
{
    const struct cr_lora *lora = cr_engine_lora(e, in->layer, in->proj);
    if (lora == NULL || !drops(e)) {
        return;
    }
    struct cr_lowrank_args args = cr_engine_lowrank(e, lora, in->set);
    args.p = lora->a;
    args.p_rs = lora->n_in;
    args.p_ks = 1;
    args.y = y;
    args.y_stride = y_stride;
    args.n_features = lora->n_in;
    args.u = e->lora_v[in->proj];
    e->lowrank.up(&args, begin, end, scratch);
}

static void to_operand(struct cr_engine *e, float *x, size_t x_stride, void *op, size_t features, size_t begin,
                       size_t end)
{
    if (e->xt == CR_X_BF16) {
        struct cr_cast_args cast = {.f32 = x,
                                    .f32_stride = x_stride,
                                    .bf16 = op,
                                    .bf16_stride = cr_engine_operand_bytes(e, features),
                                    .n_features = features};
        e->cast.to_bf16(&cast, begin, end);
    }
}

static void from_operand(struct cr_engine *e, void *op, float *x, size_t features, size_t begin, size_t end)
{
    size_t stride = features * CR_LANES;
    if (e->xt == CR_X_BF16) {
        struct cr_cast_args cast = {.f32 = x,
                                    .f32_stride = stride,
                                    .bf16 = op,
                                    .bf16_stride = cr_engine_operand_bytes(e, features),
                                    .n_features = features};
        e->cast.from_bf16(&cast, begin, end);
    } else {
        memcpy(x + begin * stride, (const float *)op + begin * stride, (end - begin) * stride * sizeof(float));
    }
}

/* The operand of an f32 gradient: itself on f32 tiers. */
static const void *operand_of(const struct cr_engine *e, const float *x, const void *op)
{
    return e->xt == CR_X_BF16 ? op : (const void *)x;
}

struct out_job {
    const struct grad_in *in;
    float *dy;
    void *op;
    size_t features;
};

/* Operand and V of the gradient that arrives at o_proj or down_proj. */
static void job_enter(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct out_job *job = arg;
    to_operand(e, job->dy, job->features * CR_LANES, job->op, job->features, begin, end);
    reduce_gradient(e, job->in, begin, end, scratch);
}

struct ffn_job {
    uint32_t layer;
    const struct layer_state *state;
    const struct token_set *set;
    const struct grad_in *down, *gate, *up;
    float *dx; /* residual gradient, [E] */
};

static void normalise_again(struct cr_engine *e, const float *x, const float *w, float *rstd, size_t begin, size_t end)
{
    struct cr_norm_args args = {.x = x,
                                .x_stride = e->embd * CR_LANES,
                                .w = w,
                                .eps = e->model->config.norm_eps,
                                .n_features = e->embd,
                                .y = e->xn,
                                .y_stride = cr_engine_operand_bytes(e, e->embd),
                                .y_type = e->xt,
                                .rstd = rstd};
    e->norm.rms_fwd(&args, begin, end);
}

/* The gated unit backward: dh -> dg, du (in g32, u32), their operands and V; and the inputs of dA again. */
static void job_ffn_middle(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct ffn_job *job = arg;
    add_masked(e, job->down, e->dh, e->ff * CR_LANES, begin, end, scratch);
    struct cr_act_args act = {.g = job->state->g,
                              .u = job->state->u,
                              .gu_stride = cr_engine_operand_bytes(e, e->ff),
                              .g_type = e->xt,
                              .dh = e->dh,
                              .dh_stride = e->ff * CR_LANES,
                              .dg = e->g32,
                              .du = e->u32,
                              .dgu_stride = e->ff * CR_LANES,
                              .n_features = e->ff};
    e->act.swiglu_bwd(&act, begin, end);
    to_operand(e, e->g32, e->ff * CR_LANES, e->dg_op, e->ff, begin, end);
    to_operand(e, e->u32, e->ff * CR_LANES, e->du_op, e->ff, begin, end);
    reduce_gradient(e, job->gate, begin, end, scratch);
    reduce_gradient(e, job->up, begin, end, scratch);
    if (cr_engine_lora(e, job->layer, CR_PROJ_GATE) != NULL || cr_engine_lora(e, job->layer, CR_PROJ_UP) != NULL) {
        normalise_again(e, job->state->x_mid, e->model->layers[job->layer].ffn_norm, job->state->rstd2, begin, end);
    }
}

/* h = silu(g) u again, for dA of down_proj. */
static void job_act_again(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    const struct ffn_job *job = arg;
    struct cr_act_args act = {.g = job->state->g,
                              .u = job->state->u,
                              .gu_stride = cr_engine_operand_bytes(e, e->ff),
                              .g_type = e->xt,
                              .h = e->h,
                              .h_stride = cr_engine_operand_bytes(e, e->ff),
                              .h_type = e->xt,
                              .n_features = e->ff};
    e->act.swiglu_fwd(&act, begin, end);
}

static void norm_backward(struct cr_engine *e, const float *x, const float *w, float *rstd, float *dx, size_t begin,
                          size_t end)
{
    struct cr_norm_args args = {.x = x,
                                .x_stride = e->embd * CR_LANES,
                                .w = w,
                                .eps = e->model->config.norm_eps,
                                .n_features = e->embd,
                                .rstd = rstd,
                                .dy = e->dn,
                                .dy_stride = e->embd * CR_LANES,
                                .dx = dx,
                                .dx_stride = e->embd * CR_LANES};
    e->norm.rms_bwd(&args, begin, end);
}

static void job_ffn_norm(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct ffn_job *job = arg;
    add_masked(e, job->gate, e->dn, e->embd * CR_LANES, begin, end, scratch);
    add_masked(e, job->up, e->dn, e->embd * CR_LANES, begin, end, scratch);
    norm_backward(e, job->state->x_mid, e->model->layers[job->layer].ffn_norm, job->state->rstd2, job->dx, begin, end);
}

/* Gradient through the feed-forward half: dx is that of the layer's output, then that of x_mid. */
static void backward_ffn(struct cr_engine *e, uint32_t layer, const struct layer_state *state,
                         const struct token_set *set, float *dx)
{
    struct grad_in down = {layer, CR_PROJ_DOWN, dx, e->embd * CR_LANES, operand_of(e, dx, e->dop),
                           cr_engine_operand_bytes(e, e->embd), e->h, state, set};
    struct grad_in gate = {layer, CR_PROJ_GATE, e->g32, e->ff * CR_LANES, operand_of(e, e->g32, e->dg_op),
                           cr_engine_operand_bytes(e, e->ff), e->xn, state, set};
    struct grad_in up = gate;
    up.proj = CR_PROJ_UP;
    up.dy = e->u32;
    up.dy_op = operand_of(e, e->u32, e->du_op);
    struct ffn_job job = {layer, state, set, &down, &gate, &up, dx};

    struct out_job enter = {&down, dx, e->dop, e->embd};
    cr_phase_add(e, job_enter, &enter, set->n_blocks, CR_BLOCK_STEP);
    if (cr_engine_lora(e, layer, CR_PROJ_DOWN) != NULL) {
        cr_phase_add(e, job_act_again, &job, set->n_blocks, CR_BLOCK_STEP);
    }
    cr_phase_run(e, "down_enter", (int)layer);

    struct grad_pair pairs[2];
    struct dx_job dh = {.n = 0};
    add_dx(e, &dh, &down, e->dh, e->ff * CR_LANES);
    cr_phase_add(e, job_dx, &dh, e->ff, e->qgemm.step);
    add_grads(e, &down, &pairs[0]);
    cr_phase_run(e, "down_dx", (int)layer);

    cr_phase_add(e, job_ffn_middle, &job, set->n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "act_bwd", (int)layer);

    struct dx_job dn = {.n = 0};
    add_dx(e, &dn, &gate, e->dn, e->embd * CR_LANES);
    add_dx(e, &dn, &up, e->dn, e->embd * CR_LANES);
    cr_phase_add(e, job_dx, &dn, e->embd, e->qgemm.step);
    add_grads(e, &gate, &pairs[0]);
    add_grads(e, &up, &pairs[1]);
    cr_phase_run(e, "gate_up_dx", (int)layer);

    cr_phase_add(e, job_ffn_norm, &job, set->n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "norm_bwd", (int)layer);
}

/* Spreads dense row gradients [features] over the tokens of the batch; other tokens get zero. */
static void scatter_rows(const struct cr_engine *e, const float *from, float *to, size_t features)
{
    memset(to, 0, e->all.n_blocks * features * CR_LANES * sizeof(float));
    for (size_t i = 0; i < e->batch->n_rows; i++) {
        size_t token = e->batch->row_token[i];
        const float *src = from + i / CR_LANES * features * CR_LANES + i % CR_LANES;
        float *dst = to + token / CR_LANES * features * CR_LANES + token % CR_LANES;
        for (size_t k = 0; k < features; k++) {
            dst[k * CR_LANES] = src[k * CR_LANES];
        }
    }
}

struct after_o_job {
    const struct grad_in *o;
    float *d_o;
};

static void job_after_o(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct after_o_job *job = arg;
    add_masked(e, job->o, job->d_o, e->q * CR_LANES, begin, end, scratch);
}

/* Expands what attention's backward reads. */
static void job_expand(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    const struct layer_state *state = arg;
    size_t stride = (e->q + 2 * e->kv) * CR_LANES;
    memcpy(e->qkv32 + begin * stride, state->qkv + begin * stride, (end - begin) * stride * sizeof(float));
}

static void job_expand_o(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    const struct layer_state *state = arg;
    from_operand(e, state->o, e->o32, e->q, begin, end);
}

struct qkv_job {
    uint32_t layer;
    const struct layer_state *state;
    const struct cr_attention_args *attention;
    const struct grad_in *in; /* q, k, v */
};

static void rotate_back(struct cr_engine *e, float *x, size_t n_heads, size_t begin, size_t end)
{
    const struct cr_model_config *config = &e->model->config;
    struct cr_rope_args args = {.x = x,
                                .x_stride = (e->q + 2 * e->kv) * CR_LANES,
                                .n_heads = n_heads,
                                .head_dim = config->head_dim,
                                .n_rot = config->n_rot,
                                .style = config->rope_style,
                                .pos = e->batch->pos,
                                .table = e->rope_table,
                                .inverse = 1};
    e->rope.apply(&args, begin, end);
}

/* Group sums of dk, dv, rotation back, operands, V of q, k and v, and the normalised input for dA. */
static void job_qkv_enter(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct qkv_job *job = arg;
    size_t features = e->q + 2 * e->kv;
    e->attention.sum_kv(job->attention, begin, end, scratch);
    rotate_back(e, e->dqkv, e->model->config.n_heads, begin, end);
    rotate_back(e, e->dqkv + e->q * CR_LANES, e->model->config.n_kv, begin, end);
    to_operand(e, e->dqkv, features * CR_LANES, e->dop, features, begin, end);
    for (size_t i = 0; i < 3; i++) {
        reduce_gradient(e, &job->in[i], begin, end, scratch);
    }
    normalise_again(e, e->x[job->layer], e->model->layers[job->layer].attn_norm, job->state->rstd1, begin, end);
}

static void job_attn_norm(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct qkv_job *job = arg;
    for (size_t i = 0; i < 3; i++) {
        add_masked(e, &job->in[i], e->dn, e->embd * CR_LANES, begin, end, scratch);
    }
    norm_backward(e, e->x[job->layer], e->model->layers[job->layer].attn_norm, job->state->rstd1, e->dx, begin, end);
}

/* Gradient of o_proj's input into `d_o`, dense over the set. */
static void backward_o(struct cr_engine *e, uint32_t layer, const struct layer_state *state,
                       const struct token_set *set, float *dx, float *d_o)
{
    struct grad_in o = {layer, CR_PROJ_O, dx, e->embd * CR_LANES, operand_of(e, dx, e->dop),
                        cr_engine_operand_bytes(e, e->embd), state->o, state, set};
    struct out_job enter = {&o, dx, e->dop, e->embd};
    cr_phase_add(e, job_enter, &enter, set->n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "o_enter", (int)layer);

    struct grad_pair pair;
    struct dx_job job = {.n = 0};
    add_dx(e, &job, &o, d_o, e->q * CR_LANES);
    cr_phase_add(e, job_dx, &job, e->q, e->qgemm.step);
    add_grads(e, &o, &pair);
    cr_phase_run(e, "o_dx", (int)layer);

    struct after_o_job after = {&o, d_o};
    cr_phase_add(e, job_after_o, &after, set->n_blocks, CR_BLOCK_STEP);
    cr_phase_add(e, job_expand, state, e->all.n_blocks, CR_BLOCK_STEP);
    if (set == &e->all) {
        cr_phase_add(e, job_expand_o, state, e->all.n_blocks, CR_BLOCK_STEP);
    }
    cr_phase_run(e, "expand", (int)layer);
}

static void fill_grad_in_qkv(const struct cr_engine *e, uint32_t layer, const struct layer_state *state,
                             struct grad_in in[3])
{
    size_t features = e->q + 2 * e->kv;
    size_t first[3] = {0, e->q, e->q + e->kv};
    for (int i = 0; i < 3; i++) {
        const float *dy = e->dqkv + first[i] * CR_LANES;
        const char *op = (const char *)e->dop + cr_engine_operand_bytes(e, first[i]);
        in[i] = (struct grad_in){layer, (enum cr_proj)(CR_PROJ_Q + i), dy, features * CR_LANES,
                                 operand_of(e, dy, op), cr_engine_operand_bytes(e, features), e->xn, state, &e->all};
    }
}

/* From e->d_o and e->dx (gradient of x_mid) to e->dx as gradient of the layer's input. */
static void backward_qkv(struct cr_engine *e, uint32_t layer, const struct layer_state *state)
{
    const struct cr_model_config *config = &e->model->config;
    size_t stride = (e->q + 2 * e->kv) * CR_LANES;
    struct cr_attention_args args = {.q = e->qkv32,
                                     .k = e->qkv32 + e->q * CR_LANES,
                                     .v = e->qkv32 + (e->q + e->kv) * CR_LANES,
                                     .q_stride = stride,
                                     .kv_stride = stride,
                                     .o = e->o32,
                                     .o_stride = e->q * CR_LANES,
                                     .lse = state->lse,
                                     .d_o = e->d_o,
                                     .do_stride = e->q * CR_LANES,
                                     .dq = e->dqkv,
                                     .dk = e->dk,
                                     .dv = e->dv,
                                     .dkv_stride = e->q * CR_LANES,
                                     .dk_sum = e->dqkv + e->q * CR_LANES,
                                     .dv_sum = e->dqkv + (e->q + e->kv) * CR_LANES,
                                     .seg = e->batch->seg,
                                     .n_seg = e->batch->n_seg,
                                     .n_heads = config->n_heads,
                                     .n_kv = config->n_kv,
                                     .head_dim = config->head_dim,
                                     .scale = 1.0f / __builtin_sqrtf((float)config->head_dim)};
    cr_phase_add(e, cr_job_attention_bwd, &args, args.n_seg * args.n_heads, 1);
    cr_phase_run(e, "attention_bwd", (int)layer);

    struct grad_in in[3];
    fill_grad_in_qkv(e, layer, state, in);
    struct qkv_job job = {layer, state, &args, in};
    cr_phase_add(e, job_qkv_enter, &job, e->all.n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "qkv_enter", (int)layer);

    bool further = layer > e->first_layer;
    struct dx_job dn = {.n = 0};
    struct grad_pair pairs[3];
    for (size_t i = 0; i < 3; i++) {
        if (further) {
            add_dx(e, &dn, &in[i], e->dn, e->embd * CR_LANES);
        }
        add_grads(e, &in[i], &pairs[i]);
    }
    if (further) {
        cr_phase_add(e, job_dx, &dn, e->embd, e->qgemm.step);
    }
    cr_phase_run(e, "qkv_dx", (int)layer);
    if (further) {
        cr_phase_add(e, job_attn_norm, &job, e->all.n_blocks, CR_BLOCK_STEP);
        cr_phase_run(e, "norm_bwd", (int)layer);
    }
}

static bool adapts_attention(const struct cr_engine *e, uint32_t layer)
{
    for (enum cr_proj proj = CR_PROJ_Q; proj <= CR_PROJ_O; proj++) {
        if (cr_engine_lora(e, layer, proj) != NULL) {
            return true;
        }
    }
    return false;
}

static void backward_layer(struct cr_engine *e, uint32_t layer)
{
    const struct layer_state *state = &e->states[layer];
    bool last = layer + 1 == e->model->config.n_layers;
    const struct token_set *set = last ? &e->rows : &e->all;
    float *dx = last ? e->dx_rows : e->dx;

    backward_ffn(e, layer, state, set, dx);
    if (layer == e->first_layer && !adapts_attention(e, layer)) {
        return;
    }
    backward_o(e, layer, state, set, dx, last ? e->d_o_rows : e->d_o);
    if (last) {
        /* o32 still holds the whole layer's attention output: the last layer ran last (or was run again last). */
        scatter_rows(e, e->dx_rows, e->dx, e->embd);
        scatter_rows(e, e->d_o_rows, e->d_o, e->q);
    }
    backward_qkv(e, layer, state);
}

void cr_backward(struct cr_engine *e)
{
    for (uint32_t layer = e->model->config.n_layers; layer-- > e->first_layer;) {
        if (e->options.recompute && layer + 1 < e->model->config.n_layers) {
            cr_forward_layer(e, layer);
        }
        backward_layer(e, layer);
    }
}
