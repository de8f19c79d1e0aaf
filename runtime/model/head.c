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

/* Label rows: z = E_labels h, a product of at most 26 rows, in f32 on every tier. */
static struct cr_lowrank_args label_args(struct cr_engine *e)
{
    return (struct cr_lowrank_args){.p = e->label_rows,
                                    .p_rs = e->embd,
                                    .p_ks = 1,
                                    .rank = e->options.n_labels,
                                    .n_features = e->embd,
                                    .n_blocks = e->rows.n_blocks,
                                    .u_stride = (size_t)e->options.n_labels * CR_LANES,
                                    .scale = 1.0f,
                                    .dropout = {.keep16 = 65536}};
}

static void job_label_down(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    e->lowrank.down(arg, begin, end, scratch);
}

void cr_head_label_logits(struct cr_engine *e)
{
    struct cr_lowrank_args args = label_args(e);
    args.x = e->head_x;
    args.x_type = CR_X_F32;
    args.x_stride = e->embd * CR_LANES * sizeof(float);
    args.u = e->head_z;
    cr_phase_add(e, job_label_down, &args, e->rows.n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "labels", -1);
}

static void job_label_up(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    size_t stride = e->embd * CR_LANES;
    memset(e->dn + begin * stride, 0, (end - begin) * stride * sizeof(float));
    e->lowrank.up(arg, begin, end, scratch);
}

double cr_head_label_loss(struct cr_engine *e)
{
    const struct cr_token_batch *batch = e->batch;
    size_t n_labels = e->options.n_labels;
    float *dz = e->head_dz;
    double loss = 0;
    cr_head_label_logits(e);
    memset(dz, 0, e->rows.n_blocks * n_labels * CR_LANES * sizeof(float));
    for (size_t row = 0; row < batch->n_rows; row++) {
        size_t at = row / CR_LANES * n_labels * CR_LANES + row % CR_LANES;
        size_t n = batch->row_choices[row];
        size_t answer = (size_t)batch->row_target[row];
        double max = -HUGE_VAL, sum = 0;
        for (size_t c = 0; c < n; c++) {
            double z = (double)e->head_z[at + c * CR_LANES];
            max = z > max ? z : max;
        }
        for (size_t c = 0; c < n; c++) {
            sum += cr_exp((double)e->head_z[at + c * CR_LANES] - max);
        }
        double lse = max + cr_ln(sum);
        double weight = (double)batch->row_weight[row];
        loss += weight * (lse - (double)e->head_z[at + answer * CR_LANES]);
        for (size_t c = 0; c < n; c++) {
            double p = cr_exp((double)e->head_z[at + c * CR_LANES] - lse);
            dz[at + c * CR_LANES] = (float)(weight * (p - (c == answer)));
        }
    }
    struct cr_lowrank_args args = label_args(e);
    args.y = e->dn;
    args.y_stride = e->embd * CR_LANES;
    args.u = dz;
    cr_phase_add(e, job_label_up, &args, e->rows.n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "labels_bwd", -1);
    cr_head_norm_bwd(e);
    return loss;
}
