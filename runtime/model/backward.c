/* Backward pass: gradients of the adapters, and of the residual stream down to the first adapted layer.
 *
 * Notation as in kernels/lowrank: V = s B^T dY, dX = W^T dY + mask * (A^T V), dA = V X^T, dB^T = U dY^T.
 */
#include <string.h>

#include "runtime/model/ffn.h"

/* A gradient that fills a buffer of its own: `features` wide in f32 and as operand, or (dy NULL) as operand only. */
static struct grad_in dense_gradient(const struct cr_engine *e, uint32_t layer, enum cr_proj proj, const float *dy,
                                     const void *op, size_t features, const void *x, const struct token_set *set)
{
    return (struct grad_in){.layer = layer,
                            .proj = proj,
                            .dy = dy,
                            .dy_stride = features * CR_LANES,
                            .dy_op = dy != NULL ? cr_projection_operand(e, dy, op) : op,
                            .dy_op_stride = cr_engine_operand_bytes(e, features),
                            .x = x,
                            .state = &e->states[layer],
                            .set = set};
}

static struct grad_in gradient_down(const struct cr_engine *e, uint32_t layer, const float *dx,
                                    const struct token_set *set)
{
    return dense_gradient(e, layer, CR_PROJ_DOWN, dx, e->dop, e->embd, e->h, set);
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
    cr_engine_to_operand(e, job->dy, job->op, job->features, begin, end);
    cr_projection_reduce(e, job->in, begin, end, scratch);
}

struct ffn_job {
    uint32_t layer;
    const struct layer_state *state;
    const struct token_set *set;
    const struct grad_in *down, *gate, *up;
    float *dx;                   /* residual gradient, [E] */
    const struct out_job *after; /* what dx enters next; NULL: nothing */
};

/* xn again from what was kept of x, for dA. */
static void normalise_again(struct cr_engine *e, const void *x, const float *w, float *rstd, size_t begin, size_t end)
{
    struct cr_norm_args args = cr_engine_norm(e, x, e->xt, w, rstd);
    e->norm.rms_apply(&args, begin, end);
}

/* The adapter's share of dh where a mask stands before it. */
static void job_down_masked(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct ffn_job *job = arg;
    cr_projection_add_masked(e, job->down, e->dh, e->ff * CR_LANES, begin, end, scratch);
}

/* V of gate and up, and their input for dA again. */
static void job_gate_up_enter(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct ffn_job *job = arg;
    cr_projection_reduce(e, job->gate, begin, end, scratch);
    cr_projection_reduce(e, job->up, begin, end, scratch);
    normalise_again(e, job->state->x2, e->model->layers[job->layer].ffn_norm, job->state->rstd2, begin, end);
}

static void norm_backward(struct cr_engine *e, const void *x, const float *w, float *rstd, float *dx, size_t begin,
                          size_t end)
{
    struct cr_norm_args args = cr_engine_norm(e, x, e->xt, w, rstd);
    args.dy = e->dn;
    args.dy_stride = e->embd * CR_LANES;
    args.dx = dx;
    args.dx_stride = e->embd * CR_LANES;
    e->norm.rms_bwd(&args, begin, end);
}

static void job_ffn_norm(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct ffn_job *job = arg;
    cr_projection_add_masked(e, job->gate, e->dn, e->embd * CR_LANES, begin, end, scratch);
    cr_projection_add_masked(e, job->up, e->dn, e->embd * CR_LANES, begin, end, scratch);
    norm_backward(e, job->state->x2, e->model->layers[job->layer].ffn_norm, job->state->rstd2, job->dx, begin, end);
    if (job->after != NULL) {
        job_enter(e, job->after, begin, end, scratch);
    }
}

static bool adapts(const struct cr_engine *e, uint32_t layer, enum cr_proj first, enum cr_proj last)
{
    for (enum cr_proj proj = first; proj <= last; proj++) {
        if (cr_engine_rank(e, layer, proj) > 0) {
            return true;
        }
    }
    return false;
}

/* dg and du, with all gradients of adapters that dh, dg, du and h again are needed for. */
static void backward_down(struct cr_engine *e, const struct ffn_job *job)
{
    struct grad_pair down;
    struct down_dx_job dh = {.ready = cr_projection_drops(e),
                             .state = job->state,
                             .set = job->set,
                             .down_a = {job->down, false},
                             .gate_b = {job->gate, true},
                             .up_b = {job->up, true},
                             .adapts = cr_engine_rank(e, job->layer, CR_PROJ_DOWN) > 0};
    cr_observe_gradients(e, job->down, 1);
    cr_projection_add_dx(e, &dh.dh, job->down, e->dh, e->ff * CR_LANES);
    if (dh.ready) {
        cr_phase_add(e, cr_job_dx, &dh.dh, e->ff, e->qgemm.step);
        cr_phase_run(e, "down_dx", (int)job->layer);
        cr_phase_add(e, job_down_masked, job, job->set->n_blocks, CR_BLOCK_STEP);
        cr_phase_run(e, "down_masked", (int)job->layer);
    }
    cr_phase_add(e, cr_job_down_dx, &dh, e->ff, e->qgemm.step);
    cr_projection_add_grad_b(e, job->down, &down);
    cr_phase_run(e, dh.ready ? "act_bwd" : "down_dx", (int)job->layer);
}

/* Gradient through the feed-forward half: dx is that of the layer's output, which has entered, then that of its middle,
 * which enters `after`. */
static void backward_ffn(struct cr_engine *e, uint32_t layer, const struct layer_state *state,
                         const struct token_set *set, float *dx, const struct out_job *after)
{
    struct grad_in down = gradient_down(e, layer, dx, set);
    struct grad_in gate = dense_gradient(e, layer, CR_PROJ_GATE, NULL, e->dg_op, e->ff, e->xn, set);
    struct grad_in up = dense_gradient(e, layer, CR_PROJ_UP, NULL, e->du_op, e->ff, e->xn, set);
    struct ffn_job job = {layer, state, set, &down, &gate, &up, dx, after};
    backward_down(e, &job);
    if (adapts(e, layer, CR_PROJ_GATE, CR_PROJ_UP)) {
        cr_phase_add(e, job_gate_up_enter, &job, set->n_blocks, CR_BLOCK_STEP);
        cr_phase_run(e, "gate_up_enter", (int)layer);
        cr_observe_gradients(e, (const struct grad_in[]){gate, up}, 2);
    }

    struct grad_pair pairs[2];
    struct dx_job dn = {.n = 0};
    cr_projection_add_dx(e, &dn, &gate, e->dn, e->embd * CR_LANES);
    cr_projection_add_dx(e, &dn, &up, e->dn, e->embd * CR_LANES);
    cr_phase_add(e, cr_job_dx, &dn, e->embd, e->qgemm.step);
    cr_projection_add_grad_a(e, &gate, &pairs[0]);
    cr_projection_add_grad_a(e, &up, &pairs[1]);
    cr_phase_run(e, "gate_up_dx", (int)layer);

    cr_phase_add(e, job_ffn_norm, &job, set->n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "norm_bwd", (int)layer);
}

/* Spreads dense row gradients [features] over the tokens of the batch; other tokens get zero. */
static void scatter_rows(const struct cr_engine *e, const float *from, float *to, size_t features)
{
    memset(to, 0, e->all.n_blocks * features * CR_LANES * sizeof(float));
    for (size_t i = 0; i < e->rows.n_blocks * CR_LANES; i++) {
        if (e->row_of[i] == CR_NO_ROW) {
            continue;
        }
        size_t token = e->batch->row_token[e->row_of[i]];
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
    cr_projection_add_masked(e, job->o, job->d_o, e->q * CR_LANES, begin, end, scratch);
}

/* The attention output as attention's backward reads it. */
static void job_expand_o(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    const struct layer_state *state = arg;
    cr_engine_from_operand(e, state->o, e->o32, e->q, begin, end);
}

struct qkv_job {
    uint32_t layer;
    const struct layer_state *state;
    const struct cr_attention_args *attention;
    const struct grad_in *in;    /* q, k, v */
    const struct out_job *after; /* what dx enters next */
};

/* Group sums of dk, dv, rotation back, operands, V of q, k and v, and the normalised input for dA. */
static void job_qkv_enter(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct qkv_job *job = arg;
    size_t features = e->q + 2 * e->kv;
    e->attention.sum_kv(job->attention, begin, end, scratch);
    cr_lead_pass_back(e, begin, end);
    cr_engine_rotate(e, e->dqkv, true, begin, end);
    cr_engine_to_operand(e, e->dqkv, e->dop, features, begin, end);
    for (size_t i = 0; i < 3; i++) {
        cr_projection_reduce(e, &job->in[i], begin, end, scratch);
    }
    if (adapts(e, job->layer, CR_PROJ_Q, CR_PROJ_V)) {
        normalise_again(e, job->state->x1, e->model->layers[job->layer].attn_norm, job->state->rstd1, begin, end);
    }
}

static void job_attn_norm(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct qkv_job *job = arg;
    for (size_t i = 0; i < 3; i++) {
        cr_projection_add_masked(e, &job->in[i], e->dn, e->embd * CR_LANES, begin, end, scratch);
    }
    norm_backward(e, job->state->x1, e->model->layers[job->layer].attn_norm, job->state->rstd1, e->dx, begin, end);
    job_enter(e, job->after, begin, end, scratch);
}

/* Gradient of o_proj's input into `d_o`, dense over the set, from what has entered. */
static void backward_o(struct cr_engine *e, uint32_t layer, const struct layer_state *state,
                       const struct token_set *set, const struct grad_in *o, float *d_o)
{
    struct grad_pair pair;
    struct dx_job job = {.n = 0};
    cr_observe_gradients(e, o, 1);
    cr_projection_add_dx(e, &job, o, d_o, e->q * CR_LANES);
    cr_phase_add(e, cr_job_dx, &job, e->q, e->qgemm.step);
    cr_projection_add_grads(e, o, &pair);
    if (set == &e->all) {
        cr_phase_add(e, job_expand_o, state, e->all.n_blocks, CR_BLOCK_STEP);
    }
    struct prefix_layer prefix = {layer, NULL};
    cr_prefix_add_mix(e, &prefix);
    cr_phase_run(e, "o_dx", (int)layer);

    if (cr_projection_drops(e)) {
        struct after_o_job after = {o, d_o};
        cr_phase_add(e, job_after_o, &after, set->n_blocks, CR_BLOCK_STEP);
        cr_phase_run(e, "o_masked", (int)layer);
    }
}

static void fill_grad_in_qkv(const struct cr_engine *e, uint32_t layer, struct grad_in in[3])
{
    size_t features = e->q + 2 * e->kv;
    size_t first[3] = {0, e->q, e->q + e->kv};
    for (int i = 0; i < 3; i++) {
        const float *dy = e->dqkv + first[i] * CR_LANES;
        const char *op = e->dop != NULL ? (const char *)e->dop + cr_engine_operand_bytes(e, first[i]) : NULL;
        in[i] = dense_gradient(e, layer, (enum cr_proj)(CR_PROJ_Q + i), dy, op, features, e->xn, &e->all);
    }
}

/* From e->d_o and e->dx (gradient of the layer's middle) to e->dx as gradient of the layer's input, which enters the
 * layer below. */
static void backward_qkv(struct cr_engine *e, uint32_t layer, const struct layer_state *state)
{
    cr_lead_keep(e, state);
    struct cr_attention_args args = cr_engine_attention(e, state);
    args.d_o = e->d_o;
    args.do_stride = e->q * CR_LANES;
    args.dq = e->dqkv;
    args.dk = e->dk;
    args.dv = e->dv;
    args.dkv_stride = e->q * CR_LANES;
    args.dk_sum = e->dqkv + e->q * CR_LANES;
    args.dv_sum = e->dqkv + (e->q + e->kv) * CR_LANES;
    cr_phase_add(e, cr_job_attention_bwd, &args, args.n_seg * args.n_heads, 1);
    cr_phase_run(e, "attention_bwd", (int)layer);
    cr_lead_sum(e, layer, &args);

    bool further = layer > e->first_layer;
    struct grad_in in[3];
    fill_grad_in_qkv(e, layer, in);
    struct qkv_job job = {layer, state, &args, in, NULL};
    struct prefix_layer prefix = {layer, &args};
    cr_prefix_add_grads(e, &prefix);
    if (further || adapts(e, layer, CR_PROJ_Q, CR_PROJ_V)) {
        cr_phase_add(e, job_qkv_enter, &job, e->all.n_blocks, CR_BLOCK_STEP);
    }
    cr_phase_run(e, "qkv_enter", (int)layer);
    cr_observe_gradients(e, in, 3);

    struct dx_job dn = {.n = 0};
    struct grad_pair pairs[3];
    for (size_t i = 0; i < 3; i++) {
        if (further) {
            cr_projection_add_dx(e, &dn, &in[i], e->dn, e->embd * CR_LANES);
        }
        cr_projection_add_grads(e, &in[i], &pairs[i]);
    }
    if (further) {
        cr_phase_add(e, cr_job_dx, &dn, e->embd, e->qgemm.step);
    }
    cr_phase_run(e, "qkv_dx", (int)layer);
    if (further) {
        struct grad_in down = gradient_down(e, layer - 1, e->dx, &e->all);
        struct out_job after = {&down, e->dx, e->dop, e->embd};
        job.after = &after;
        cr_phase_add(e, job_attn_norm, &job, e->all.n_blocks, CR_BLOCK_STEP);
        cr_phase_run(e, "norm_bwd", (int)layer);
    }
}

static void backward_layer(struct cr_engine *e, uint32_t layer)
{
    const struct layer_state *state = &e->states[layer];
    bool last = layer + 1 == e->model->config.n_layers;
    const struct token_set *set = last ? &e->rows : &e->all;
    float *dx = last ? e->dx_rows : e->dx;

    struct grad_in o = dense_gradient(e, layer, CR_PROJ_O, dx, e->dop, e->embd, state->o, set);
    struct out_job enter_o = {&o, dx, e->dop, e->embd};
    bool further = layer > e->first_layer || e->options.prefix != NULL || adapts(e, layer, CR_PROJ_Q, CR_PROJ_O);
    if (last) {
        struct grad_in down = gradient_down(e, layer, dx, set);
        struct out_job enter = {&down, dx, e->dop, e->embd};
        cr_phase_add(e, job_enter, &enter, set->n_blocks, CR_BLOCK_STEP);
        cr_phase_run(e, "down_enter", (int)layer);
    }
    backward_ffn(e, layer, state, set, dx, further ? &enter_o : NULL);
    if (!further) {
        return;
    }
    backward_o(e, layer, state, set, &o, last ? e->d_o_rows : e->d_o);
    if (last) {
        /* o32 still holds the whole layer's attention output: the last layer ran last (or was run again last). */
        scatter_rows(e, e->dx_rows, e->dx, e->embd);
        scatter_rows(e, e->d_o_rows, e->d_o, e->q);
    }
    backward_qkv(e, layer, state);
}

bool cr_backward(struct cr_engine *e)
{
    for (uint32_t layer = e->model->config.n_layers; layer-- > e->first_layer;) {
        if (cr_host_stopped(e->options.host)) {
            return false;
        }
        if (e->options.recompute && layer + 1 < e->model->config.n_layers) {
            cr_forward_again(e, layer);
        }
        backward_layer(e, layer);
    }
    return true;
}
