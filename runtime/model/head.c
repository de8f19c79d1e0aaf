/* The end of the model: final norm, and the logits, loss and gradient of label rows. The whole vocabulary is in
 * head_text.c. */
#include <math.h>
#include <string.h>

#include "credence/kernels/math.h"
#include "runtime/model/engine_internal.h"

static bool has_labels(const struct cr_engine *e)
{
    return e->options.label_ids != NULL;
}

size_t cr_head_stride_bytes(const struct cr_engine *e)
{
    return has_labels(e) ? e->embd * CR_LANES * sizeof(float) : cr_engine_operand_bytes(e, e->embd);
}

static void job_head_norm(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    (void)arg;
    (void)scratch;
    struct cr_norm_args args = cr_engine_norm(e, e->x_rows, CR_X_F32, e->model->output_norm, e->rstd_out);
    args.y = e->head_x;
    args.y_stride = cr_head_stride_bytes(e);
    args.y_type = has_labels(e) ? CR_X_F32 : e->xt;
    e->norm.rms_fwd(&args, begin, end);
}

void cr_head_norm(struct cr_engine *e)
{
    cr_phase_add(e, job_head_norm, NULL, e->rows.n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "norm", -1);
}

static void job_head_norm_bwd(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    (void)arg;
    (void)scratch;
    size_t stride = e->embd * CR_LANES;
    memset(e->dx_rows + begin * stride, 0, (end - begin) * stride * sizeof(float));
    struct cr_norm_args args = cr_engine_norm(e, e->x_rows, CR_X_F32, e->model->output_norm, e->rstd_out);
    args.dy = e->dn;
    args.dy_stride = stride;
    args.dx = e->dx_rows;
    args.dx_stride = stride;
    e->norm.rms_bwd(&args, begin, end);
}

void cr_head_norm_bwd(struct cr_engine *e)
{
    cr_phase_add(e, job_head_norm_bwd, NULL, e->rows.n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "norm_bwd", -1);
}

/* Label rows: z = E_labels h, a product of at most 26 rows, in f32 on every tier; or of the rows of every vertex. */
static struct cr_lowrank_args label_args(struct cr_engine *e)
{
    const struct cr_prefix *own = cr_prefix_own_head(e) ? e->options.prefix : NULL;
    size_t rank = own != NULL ? (size_t)own->n_vertices * own->n_labels : e->options.n_labels;
    return (struct cr_lowrank_args){.p = own != NULL ? own->params + cr_prefix_rows_floats(own) : e->label_rows,
                                    .p_rs = e->embd,
                                    .p_ks = 1,
                                    .rank = rank,
                                    .n_features = e->embd,
                                    .n_blocks = e->rows.n_blocks,
                                    .u = own != NULL ? e->prefix.logits : NULL,
                                    .u_stride = rank * CR_LANES,
                                    .scale = 1.0f,
                                    .dropout = {.keep16 = 65536}};
}

static void job_label_down(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    e->lowrank.down(arg, begin, end, scratch);
}

/* With x as the rows after the final norm. */
static struct cr_lowrank_args label_args_of_x(struct cr_engine *e)
{
    struct cr_lowrank_args args = label_args(e);
    args.x = e->head_x;
    args.x_type = CR_X_F32;
    args.x_stride = e->embd * CR_LANES * sizeof(float);
    return args;
}

/* A product of label rows that are a member's own, part by part. Where nothing is said of a gradient there is none. */
static void run_parts(struct cr_engine *e, const struct cr_lowrank_args *all, bool gradient,
                      void (*job)(struct cr_engine *, const void *, size_t, size_t, void *), const char *name)
{
    for (size_t i = 0; i < e->rows.n_parts; i++) {
        const struct token_part *part = &e->rows.parts[i];
        const struct cr_label_rows *own = &e->options.own_rows[part->member];
        struct cr_lowrank_args args = *all;
        args.p = own->rows != NULL ? own->rows : e->label_rows;
        args.g = own->grads;
        args.n_blocks = part->end - part->begin;
        args.x = args.x != NULL ? (const char *)args.x + part->begin * args.x_stride : NULL;
        args.u += part->begin * args.u_stride;
        args.y = args.y != NULL ? args.y + part->begin * args.y_stride : NULL;
        if (!gradient || own->rows != NULL) {
            cr_phase_add(e, job, &args, gradient ? e->embd : args.n_blocks,
                         gradient ? 4 * CR_LOWRANK_STEP : CR_BLOCK_STEP);
            cr_phase_run(e, name, -1);
        }
    }
}

void cr_head_label_logits(struct cr_engine *e)
{
    struct cr_lowrank_args args = label_args_of_x(e);
    args.u = args.u != NULL ? args.u : e->head_z;
    if (e->options.own_rows != NULL) {
        run_parts(e, &args, false, job_label_down, "labels");
        return;
    }
    cr_phase_add(e, job_label_down, &args, e->rows.n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "labels", -1);
    if (cr_prefix_own_head(e)) {
        cr_prefix_mix_logits(e);
    }
}

static void job_label_up(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct cr_lowrank_args *args = arg;
    memset(args->y + begin * args->y_stride, 0, (end - begin) * args->y_stride * sizeof(float));
    e->lowrank.up(arg, begin, end, scratch);
}

static void job_label_grad(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    e->lowrank.grad(arg, begin, end, scratch);
}

/* Loss of the row in a slot, and the gradient of its logits. */
static double label_row_loss(struct cr_engine *e, size_t slot)
{
    const struct cr_token_batch *batch = e->batch;
    size_t row = e->row_of[slot], n = batch->row_choices[row], answer = (size_t)batch->row_target[row];
    size_t at = slot / CR_LANES * e->options.n_labels * CR_LANES + slot % CR_LANES;
    const float *logits = e->head_z + at;
    float *dz = (float *)e->head_dz + at;
    double max = -HUGE_VAL, sum = 0;
    for (size_t c = 0; c < n; c++) {
        double z = (double)logits[c * CR_LANES];
        max = z > max ? z : max;
    }
    for (size_t c = 0; c < n; c++) {
        sum += cr_exp((double)logits[c * CR_LANES] - max);
    }
    double lse = max + cr_ln(sum);
    double weight = (double)batch->row_weight[row];
    for (size_t c = 0; c < n; c++) {
        double p = cr_exp((double)logits[c * CR_LANES] - lse);
        dz[c * CR_LANES] = (float)(weight * (p - (c == answer)));
    }
    return weight * (lse - (double)logits[answer * CR_LANES]);
}

void cr_head_label_loss(struct cr_engine *e, double *loss)
{
    cr_head_label_logits(e);
    memset(e->head_dz, 0, e->rows.n_blocks * e->options.n_labels * CR_LANES * sizeof(float));
    for (size_t i = 0; i < e->rows.n_parts; i++) {
        const struct token_part *part = &e->rows.parts[i];
        double sum = 0;
        for (size_t slot = part->begin * CR_LANES; slot < part->end * CR_LANES; slot++) {
            sum += e->row_of[slot] != CR_NO_ROW ? label_row_loss(e, slot) : 0;
        }
        loss[part->member] += sum;
    }
    struct cr_lowrank_args args = label_args(e), grad = label_args_of_x(e);
    args.y = e->dn;
    args.y_stride = e->embd * CR_LANES;
    args.u = args.u != NULL ? args.u : e->head_dz;
    if (e->options.own_rows != NULL) {
        grad.u = e->head_dz;
        grad.g_rs = e->embd;
        grad.g_ks = 1;
        run_parts(e, &args, false, job_label_up, "labels_bwd");
        run_parts(e, &grad, true, job_label_grad, "labels_bwd");
        cr_head_norm_bwd(e);
        return;
    }
    cr_phase_add(e, job_label_up, &args, e->rows.n_blocks, CR_BLOCK_STEP);
    if (cr_prefix_own_head(e)) {
        cr_prefix_spread_logits(e);
        grad.g = e->options.prefix->grads + cr_prefix_rows_floats(e->options.prefix);
        grad.g_rs = e->embd;
        grad.g_ks = 1;
        cr_phase_add(e, job_label_grad, &grad, e->embd, 4 * CR_LOWRANK_STEP);
    }
    cr_phase_run(e, "labels_bwd", -1);
    cr_head_norm_bwd(e);
}
