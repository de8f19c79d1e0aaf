/* The end of the model: final norm, label rows or the whole vocabulary in chunks, the loss and its gradient.
 *
 * The vocabulary is walked in chunks of CR_HEAD_CHUNK rows: their logits exist only while the chunk is worked on, once
 * for the log-sum-exp and once more for the gradient. No [tokens x vocabulary] matrix is ever held.
 */
#include <math.h>
#include <string.h>

#include "credence/kernels/math.h"
#include "runtime/model/engine_internal.h"

static bool has_labels(const struct cr_engine *e)
{
    return e->options.label_ids != NULL;
}

static size_t head_stride_bytes(const struct cr_engine *e)
{
    return has_labels(e) ? e->embd * CR_LANES * sizeof(float) : cr_engine_operand_bytes(e, e->embd);
}

static void job_head_norm(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    (void)arg;
    (void)scratch;
    struct cr_norm_args args = cr_engine_norm(e, e->x_rows, CR_X_F32, e->model->output_norm, e->rstd_out);
    args.y = e->head_x;
    args.y_stride = head_stride_bytes(e);
    args.y_type = has_labels(e) ? CR_X_F32 : e->xt;
    e->norm.rms_fwd(&args, begin, end);
}

void cr_head_norm(struct cr_engine *e)
{
    cr_phase_add(e, job_head_norm, NULL, e->rows.n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "norm", -1);
}

/* Gradient of the final norm: dn -> dx_rows. */
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

static void run_head_norm_bwd(struct cr_engine *e)
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
    run_head_norm_bwd(e);
    return loss;
}

/* A chunk of the vocabulary: rows [first, first + n). */
struct chunk {
    struct cr_qgemm_args gemm; /* logits -> head_z */
    size_t first, n;
    bool gradient;
};

static struct chunk make_chunk(struct cr_engine *e, size_t first, bool gradient)
{
    struct cr_qmat w = e->model->output;
    size_t n = w.n_rows - first < CR_HEAD_CHUNK ? w.n_rows - first : CR_HEAD_CHUNK;
    w.data = (const char *)w.data + first * w.row_bytes;
    w.n_rows = n;
    struct chunk chunk = {.gemm = {.w = w,
                                   .x = e->head_x,
                                   .x_stride = head_stride_bytes(e),
                                   .y = e->head_z,
                                   .y_stride = CR_HEAD_CHUNK * CR_LANES,
                                   .n_blocks = e->rows.n_blocks},
                          .first = first,
                          .n = n,
                          .gradient = gradient};
    return chunk;
}

/* Logits of CR_HEAD_ROWS vocabulary rows, then either their statistics or their gradient. */
static void job_chunk_rows(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct chunk *chunk = arg;
    e->qgemm.fwd(&chunk->gemm, begin, end, scratch);
    size_t tokens = e->max_blocks * CR_LANES;
    size_t item = begin / CR_HEAD_ROWS;
    struct cr_xent_args args = {.z = e->head_z + begin * CR_LANES,
                                .z_stride = CR_HEAD_CHUNK * CR_LANES,
                                .first_row = chunk->first + begin,
                                .n_rows = end - begin,
                                .target = e->row_target};
    if (chunk->gradient) {
        args.lse = e->row_lse;
        args.weight = e->row_weight;
        args.dz = (char *)e->head_dz + cr_engine_operand_bytes(e, begin);
        args.dz_stride = cr_engine_operand_bytes(e, CR_HEAD_CHUNK);
        args.dz_type = e->xt;
        e->xent.grad(&args, 0, e->rows.n_blocks);
        return;
    }
    args.m = e->head_m + item * tokens;
    args.s = e->head_s + item * tokens;
    args.label = e->head_label + item * tokens;
    for (size_t t = 0; t < e->rows.n_blocks * CR_LANES; t++) {
        args.m[t] = -INFINITY;
        args.s[t] = 0;
        args.label[t] = 0;
    }
    e->xent.stats(&args, 0, e->rows.n_blocks);
}

static void fill_rows(struct cr_engine *e)
{
    const struct cr_token_batch *batch = e->batch;
    for (size_t i = 0; i < e->rows.n_blocks * CR_LANES; i++) {
        bool real = i < batch->n_rows;
        e->row_target[i] = real ? batch->row_target[i] : -1;
        e->row_weight[i] = real ? batch->row_weight[i] : 0;
    }
}

void cr_head_token_stats(struct cr_engine *e)
{
    size_t n = e->rows.n_blocks * CR_LANES;
    size_t tokens = e->max_blocks * CR_LANES;
    fill_rows(e);
    for (size_t t = 0; t < n; t++) {
        e->row_m[t] = -INFINITY;
        e->row_s[t] = 0;
        e->row_label[t] = 0;
    }
    for (size_t first = 0; first < e->model->output.n_rows; first += CR_HEAD_CHUNK) {
        struct chunk chunk = make_chunk(e, first, false);
        cr_phase_add(e, job_chunk_rows, &chunk, chunk.n, CR_HEAD_ROWS);
        cr_phase_run(e, "head", -1);
        for (size_t item = 0; item * CR_HEAD_ROWS < chunk.n; item++) {
            cr_xent_merge(e->row_m, e->row_s, e->row_label, e->head_m + item * tokens, e->head_s + item * tokens,
                          e->head_label + item * tokens, n);
        }
    }
    for (size_t t = 0; t < n; t++) {
        e->row_lse[t] = (float)((double)e->row_m[t] + cr_ln((double)e->row_s[t]));
    }
}

static void job_chunk_dx(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    e->qgemm.dx(arg, begin, end, scratch);
}

double cr_head_token_loss(struct cr_engine *e)
{
    cr_head_token_stats(e);
    double loss = 0;
    for (size_t i = 0; i < e->batch->n_rows; i++) {
        loss += (double)e->row_weight[i] * ((double)e->row_lse[i] - (double)e->row_label[i]);
    }
    for (size_t first = 0; first < e->model->output.n_rows; first += CR_HEAD_CHUNK) {
        struct chunk chunk = make_chunk(e, first, true);
        cr_phase_add(e, job_chunk_rows, &chunk, chunk.n, CR_HEAD_ROWS);
        cr_phase_run(e, "head", -1);
        struct cr_qgemm_args dx = {.w = chunk.gemm.w,
                                   .x = e->head_dz,
                                   .x_stride = cr_engine_operand_bytes(e, CR_HEAD_CHUNK),
                                   .y = e->dn,
                                   .y_stride = e->embd * CR_LANES,
                                   .n_blocks = e->rows.n_blocks,
                                   .accumulate = first > 0};
        cr_phase_add(e, job_chunk_dx, &dx, e->embd, e->qgemm.step);
        cr_phase_run(e, "head_dx", -1);
    }
    run_head_norm_bwd(e);
    return loss;
}

void cr_head_logits(struct cr_engine *e, float *logits)
{
    size_t n_vocab = e->model->output.n_rows;
    fill_rows(e);
    for (size_t first = 0; first < n_vocab; first += CR_HEAD_CHUNK) {
        struct chunk chunk = make_chunk(e, first, false);
        cr_phase_add(e, job_chunk_rows, &chunk, chunk.n, CR_HEAD_ROWS);
        cr_phase_run(e, "head", -1);
        for (size_t row = 0; row < e->batch->n_rows; row++) {
            const float *z = e->head_z + row / CR_LANES * CR_HEAD_CHUNK * CR_LANES + row % CR_LANES;
            for (size_t v = 0; v < chunk.n; v++) {
                logits[row * n_vocab + first + v] = z[v * CR_LANES];
            }
        }
    }
}
