/* One projection on the way back: reductions, gradients of A and B, and its share of dX. */
#include "runtime/model/projection.h"

static void set_dy(const struct cr_engine *e, const struct grad_in *in, struct cr_lowrank_args *args)
{
    args->x = in->dy != NULL ? in->dy : in->dy_op;
    args->x_type = in->dy != NULL ? CR_X_F32 : e->xt;
    args->x_stride = in->dy != NULL ? in->dy_stride * sizeof(float) : in->dy_op_stride;
}

void cr_projection_reduce(struct cr_engine *e, const struct grad_in *in, size_t begin, size_t end, void *scratch)
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
    set_dy(e, in, &args);
    args.n_features = lora->n_out;
    args.u = e->lora_v[in->proj];
    e->lowrank.down(&args, begin, end, scratch);
}

bool cr_projection_grads(struct cr_engine *e, const struct grad_in *in, struct grad_pair *pair)
{
    const struct cr_lora *lora = cr_engine_lora(e, in->layer, in->proj);
    if (lora == NULL) {
        return false;
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

    pair->b = cr_engine_lowrank(e, lora, in->set);
    pair->b.dropout.keep16 = 65536;
    pair->b.g = lora->grad_b;
    pair->b.g_rs = 1;
    pair->b.g_ks = lora->rank;
    set_dy(e, in, &pair->b);
    pair->b.n_features = lora->n_out;
    pair->b.u = in->state->lora_u[in->proj];
    return true;
}

void cr_projection_add_grad_a(struct cr_engine *e, const struct grad_in *in, struct grad_pair *pair)
{
    if (cr_projection_grads(e, in, pair)) {
        cr_phase_add(e, cr_job_grad, &pair->a, pair->a.n_features, 4 * CR_LOWRANK_STEP);
    }
}

void cr_projection_add_grads(struct cr_engine *e, const struct grad_in *in, struct grad_pair *pair)
{
    if (cr_projection_grads(e, in, pair)) {
        cr_phase_add(e, cr_job_grad, &pair->a, pair->a.n_features, 4 * CR_LOWRANK_STEP);
        cr_phase_add(e, cr_job_grad, &pair->b, pair->b.n_features, 4 * CR_LOWRANK_STEP);
    }
}

bool cr_projection_drops(const struct cr_engine *e)
{
    return e->noise.dropout > 0;
}

void cr_job_dx(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct dx_job *job = arg;
    for (size_t i = 0; i < job->n; i++) {
        e->qgemm.dx(&job->gemm[i], begin, end, scratch);
    }
}

void cr_projection_add_dx(struct cr_engine *e, struct dx_job *job, const struct grad_in *in, float *y, size_t y_stride)
{
    const struct cr_lora *lora = cr_engine_lora(e, in->layer, in->proj);
    struct cr_qgemm_args args = {.w = e->model->layers[in->layer].proj[in->proj],
                                 .x = in->dy_op,
                                 .x_stride = in->dy_op_stride,
                                 .y = y,
                                 .y_stride = y_stride,
                                 .n_blocks = in->set->n_blocks,
                                 .accumulate = job->n > 0};
    if (lora != NULL && !cr_projection_drops(e)) {
        args.p = lora->a;
        args.p_os = 1;
        args.p_rs = lora->n_in;
        args.u = e->lora_v[in->proj];
        args.u_stride = (size_t)lora->rank * CR_LANES;
        args.rank = lora->rank;
    }
    job->gemm[job->n++] = args;
}

void cr_projection_add_masked(struct cr_engine *e, const struct grad_in *in, float *y, size_t y_stride, size_t begin,
                              size_t end, void *scratch)
{
    const struct cr_lora *lora = cr_engine_lora(e, in->layer, in->proj);
    if (lora == NULL || !cr_projection_drops(e)) {
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

const void *cr_projection_operand(const struct cr_engine *e, const float *x, const void *op)
{
    return e->xt == CR_X_BF16 ? op : (const void *)x;
}
