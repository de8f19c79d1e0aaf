/* One projection on the way back: reductions, gradients of A and B, and its share of dX. */
#include "runtime/model/projection.h"

#include "runtime/model/flipout.h"

static void set_dy(const struct cr_engine *e, const struct grad_in *in, struct cr_lowrank_args *args)
{
    args->x = in->dy != NULL ? in->dy : in->dy_op;
    args->x_type = in->dy != NULL ? CR_X_F32 : e->xt;
    args->x_stride = in->dy != NULL ? in->dy_stride * sizeof(float) : in->dy_op_stride;
}

/* Members whose token blocks meet [begin, end) of the set. */
static bool meets(const struct token_part *part, size_t *begin, size_t *end)
{
    *begin = *begin > part->begin ? *begin : part->begin;
    *end = *end < part->end ? *end : part->end;
    return *begin < *end;
}

void cr_projection_reduce(struct cr_engine *e, const struct grad_in *in, size_t begin, size_t end, void *scratch)
{
    for (size_t i = 0; i < in->set->n_parts; i++) {
        const struct token_part *part = &in->set->parts[i];
        const struct cr_lora *lora = cr_engine_lora(e, part->member, in->layer, in->proj);
        size_t from = begin, to = end;
        if (lora == NULL || !meets(part, &from, &to)) {
            continue;
        }
        struct cr_lowrank_args args = cr_engine_lowrank(e, part->member, in->layer, in->proj, in->set);
        args.dropout.keep16 = 65536; /* the mask belongs to X, not to dY */
        args.p = lora->b;
        args.p_rs = 1;
        args.p_ks = lora->rank;
        set_dy(e, in, &args);
        args.n_features = lora->n_out;
        args.u = e->lora_v[in->proj];
        e->lowrank.down(&args, from, to, scratch);
    }
}

bool cr_projection_grad(const struct cr_engine *e, const struct grad_job *job, const struct token_part *part,
                        struct cr_lowrank_args *args)
{
    const struct grad_in *in = job->in;
    const struct cr_lora *lora = cr_engine_lora(e, part->member, in->layer, in->proj);
    if (lora == NULL) {
        return false;
    }
    *args = cr_engine_lowrank(e, part->member, in->layer, in->proj, in->set);
    if (job->of_b) {
        args->dropout.keep16 = 65536;
        args->g = lora->grad_b;
        args->g_rs = 1;
        args->g_ks = lora->rank;
        set_dy(e, in, args);
        args->n_features = lora->n_out;
        args->u = in->state->lora_u[in->proj];
    } else {
        args->g = lora->grad_a;
        args->g_rs = lora->n_in;
        args->g_ks = 1;
        args->x = in->x;
        args->x_type = e->xt;
        args->x_stride = cr_engine_operand_bytes(e, lora->n_in);
        args->n_features = lora->n_in;
        args->u = e->lora_v[in->proj];
    }
    args->x = (const char *)args->x + part->begin * args->x_stride;
    args->u += part->begin * args->u_stride;
    args->dropout.position += part->begin * CR_LANES;
    args->dropout.example += part->begin * CR_LANES;
    args->n_blocks = part->end - part->begin;
    return true;
}

void cr_projection_run_grad(struct cr_engine *e, const struct grad_job *job, const struct token_part *part,
                            const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    const struct cr_lora *lora = cr_engine_lora(e, part->member, job->in->layer, job->in->proj);
    e->lowrank.grad(args, begin, end, scratch);
    if (!job->of_b && cr_flipout_acts(e, part->member, lora)) {
        cr_flipout_grad(e, lora, args, begin, end, scratch);
    }
}

void cr_job_grad(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct grad_job *job = arg;
    for (size_t i = 0; i < job->in->set->n_parts; i++) {
        struct cr_lowrank_args args;
        if (cr_projection_grad(e, job, &job->in->set->parts[i], &args)) {
            cr_projection_run_grad(e, job, &job->in->set->parts[i], &args, begin, end, scratch);
        }
    }
}

static void add_grad(struct cr_engine *e, const struct grad_in *in, struct grad_job *job, bool of_b)
{
    const struct cr_qmat *w = &e->model->layers[in->layer].proj[in->proj];
    *job = (struct grad_job){in, of_b};
    if (cr_engine_rank(e, in->layer, in->proj) > 0) {
        cr_phase_add(e, cr_job_grad, job, of_b ? w->n_rows : w->n_cols, 4 * CR_LOWRANK_STEP);
    }
}

void cr_projection_add_grad_a(struct cr_engine *e, const struct grad_in *in, struct grad_pair *pair)
{
    add_grad(e, in, &pair->a, false);
}

void cr_projection_add_grad_b(struct cr_engine *e, const struct grad_in *in, struct grad_pair *pair)
{
    add_grad(e, in, &pair->b, true);
}

void cr_projection_add_grads(struct cr_engine *e, const struct grad_in *in, struct grad_pair *pair)
{
    add_grad(e, in, &pair->a, false);
    add_grad(e, in, &pair->b, true);
}

bool cr_projection_drops(const struct cr_engine *e)
{
    for (size_t i = 0; i < e->all.n_parts; i++) {
        uint32_t member = e->all.parts[i].member;
        if (cr_engine_drops(e, member) || e->noise[member].flipout) {
            return true;
        }
    }
    return false;
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
    struct cr_qgemm_args args = {.w = e->model->layers[in->layer].proj[in->proj],
                                 .x = in->dy_op,
                                 .x_stride = in->dy_op_stride,
                                 .y = y,
                                 .y_stride = y_stride,
                                 .n_blocks = in->set->n_blocks,
                                 .accumulate = job->n > 0};
    cr_engine_terms(e, in->layer, in->proj, true, e->lora_v[in->proj], in->set, &args);
    job->gemm[job->n++] = args;
}

void cr_projection_add_masked(struct cr_engine *e, const struct grad_in *in, float *y, size_t y_stride, size_t begin,
                              size_t end, void *scratch)
{
    for (size_t i = 0; i < in->set->n_parts; i++) {
        const struct token_part *part = &in->set->parts[i];
        const struct cr_lora *lora = cr_engine_lora(e, part->member, in->layer, in->proj);
        size_t from = begin, to = end;
        bool drops = cr_engine_drops(e, part->member);
        if (lora == NULL || !(drops || cr_flipout_acts(e, part->member, lora)) || !meets(part, &from, &to)) {
            continue;
        }
        struct cr_lowrank_args args = cr_engine_lowrank(e, part->member, in->layer, in->proj, in->set);
        args.p = lora->a;
        args.p_rs = lora->n_in;
        args.p_ks = 1;
        args.y = y;
        args.y_stride = y_stride;
        args.n_features = lora->n_in;
        args.u = e->lora_v[in->proj];
        if (drops) {
            e->lowrank.up(&args, from, to, scratch);
        } else {
            cr_flipout_up(e, lora, &args, from, to, scratch);
        }
    }
}

const void *cr_projection_operand(const struct cr_engine *e, const float *x, const void *op)
{
    return e->xt == CR_X_BF16 ? op : (const void *)x;
}
