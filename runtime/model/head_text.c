/* The whole vocabulary: statistics, and the loss of texts with its gradient.
 *
 * The vocabulary is walked in chunks of CR_HEAD_CHUNK rows. Evaluation keeps a running maximum and sum (kernels/xent:
 * stats, merge). Training walks once: the logits of CR_HEAD_ROWS rows and CR_HEAD_GROUP token blocks live in a worker's
 * scratch until their exponentials, measured from the label's logit and not yet normalised, are operands of the product
 * that adds to dn; label and normalisation enter when all chunks are done (kernels/xent: label, expsum, finish). So the
 * loss takes two products with the vocabulary, and no [tokens x vocabulary] matrix is ever held.
 */
#include <math.h>
#include <string.h>

#include "credence/kernels/math.h"
#include "runtime/model/engine_internal.h"

/* Token blocks whose logits of one job fit a core's cache of the second level: 128 rows of 512 tokens are 256 KiB. */
enum { CR_HEAD_GROUP = 32 };

#define TILE_BYTES (CR_HEAD_GROUP * CR_HEAD_ROWS * CR_LANES * sizeof(float))

/* A sum of one job above this makes the token take a larger reference. The reference is never above the largest logit,
 * so nothing that counts is lost below; above there is room for all of a vocabulary times any weight: 2^128. */
#define SUM_LIMIT 0x1p64f

/* A chunk of the vocabulary: rows [first, first + n). */
struct chunk {
    size_t first, n;
};

static struct chunk chunk_at(const struct cr_engine *e, size_t first)
{
    size_t left = e->model->output.n_rows - first;
    return (struct chunk){first, left < CR_HEAD_CHUNK ? left : CR_HEAD_CHUNK};
}

static struct cr_qmat vocab_rows(const struct cr_engine *e, size_t first, size_t n)
{
    struct cr_qmat w = e->model->output;
    w.data = (const char *)w.data + first * w.row_bytes;
    w.n_rows = n;
    return w;
}

/* Logits of CR_HEAD_ROWS vocabulary rows into head_z, and their statistics. */
static void job_stats(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct chunk *chunk = arg;
    struct cr_qgemm_args gemm = {.w = vocab_rows(e, chunk->first, chunk->n),
                                 .x = e->head_x,
                                 .x_stride = cr_head_stride_bytes(e),
                                 .y = e->head_z,
                                 .y_stride = CR_HEAD_CHUNK * CR_LANES,
                                 .n_blocks = e->rows.n_blocks};
    e->qgemm.fwd(&gemm, begin, end, scratch);
    size_t first = begin / CR_HEAD_ROWS * e->max_blocks * CR_LANES;
    struct cr_xent_args args = {.z = e->head_z + begin * CR_LANES,
                                .z_stride = CR_HEAD_CHUNK * CR_LANES,
                                .first_row = chunk->first + begin,
                                .n_rows = end - begin,
                                .target = e->row_target,
                                .m = e->head_m + first,
                                .s = e->head_s + first,
                                .label = e->head_label + first};
    for (size_t t = 0; t < e->rows.n_blocks * CR_LANES; t++) {
        args.m[t] = -INFINITY;
        args.s[t] = 0;
        args.label[t] = 0;
    }
    e->xent.stats(&args, 0, e->rows.n_blocks);
}

static void run_stats(struct cr_engine *e, const struct chunk *chunk)
{
    cr_phase_add(e, job_stats, chunk, chunk->n, CR_HEAD_ROWS);
    cr_phase_run(e, "head", -1);
}

static void fill_rows(struct cr_engine *e)
{
    const struct cr_token_batch *batch = e->batch;
    for (size_t i = 0; i < e->rows.n_blocks * CR_LANES; i++) {
        uint32_t row = e->row_of[i];
        e->row_target[i] = row != CR_NO_ROW ? batch->row_target[row] : -1;
        e->row_weight[i] = row != CR_NO_ROW ? batch->row_weight[row] : 0;
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
        struct chunk chunk = chunk_at(e, first);
        run_stats(e, &chunk);
        for (size_t item = 0; item * CR_HEAD_ROWS < chunk.n; item++) {
            cr_xent_merge(e->row_m, e->row_s, e->row_label, e->head_m + item * tokens, e->head_s + item * tokens,
                          e->head_label + item * tokens, n);
        }
    }
    for (size_t t = 0; t < n; t++) {
        e->row_lse[t] = (float)((double)e->row_m[t] + cr_ln((double)e->row_s[t]));
    }
}

size_t cr_head_scratch_bytes(const struct cr_engine *e, size_t gemm_bytes)
{
    return e->options.train && e->options.label_ids == NULL ? TILE_BYTES + gemm_bytes : 0;
}

/* The labels' rows of the vocabulary, which stay in dx_rows until the walk is done, and the logits of the labels. */
static struct cr_xent_row_args row_args(struct cr_engine *e)
{
    return (struct cr_xent_row_args){.w = e->dx_rows,
                                     .w_stride = e->embd * CR_LANES,
                                     .h = e->head_x,
                                     .h_stride = cr_head_stride_bytes(e),
                                     .h_type = e->xt,
                                     .m = e->row_label,
                                     .dh = e->dn,
                                     .dh_stride = e->embd * CR_LANES,
                                     .mass = e->row_s,
                                     .scale = e->row_scale,
                                     .n_features = e->embd};
}

static void job_label(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    for (size_t block = begin; block < end; block++) {
        int32_t ids[CR_LANES];
        for (size_t lane = 0; lane < CR_LANES; lane++) {
            int32_t target = e->row_target[block * CR_LANES + lane];
            ids[lane] = target < 0 ? 0 : target;
        }
        size_t stride = e->embd * CR_LANES;
        struct cr_embed_args rows = {e->model->output, ids, e->dx_rows + block * stride, stride};
        e->embed.rows(&rows, 0, 1, scratch);
    }
    e->xent.label(arg, begin, end);
}

/* Exponentials of the logits of CR_HEAD_ROWS vocabulary rows into head_dz, and their sums. */
static void job_exp(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct chunk *chunk = arg;
    size_t part = begin / CR_HEAD_ROWS * e->max_blocks * CR_LANES;
    for (size_t block = 0; block < e->rows.n_blocks; block += CR_HEAD_GROUP) {
        size_t left = e->rows.n_blocks - block, n = left < CR_HEAD_GROUP ? left : CR_HEAD_GROUP;
        size_t token = block * CR_LANES, dz_stride = cr_engine_operand_bytes(e, CR_HEAD_CHUNK);
        struct cr_qgemm_args gemm = {.w = vocab_rows(e, chunk->first + begin, end - begin),
                                     .x = (const char *)e->head_x + block * cr_head_stride_bytes(e),
                                     .x_stride = cr_head_stride_bytes(e),
                                     .y = scratch,
                                     .y_stride = CR_HEAD_ROWS * CR_LANES,
                                     .n_blocks = n};
        e->qgemm.fwd(&gemm, 0, end - begin, (char *)scratch + TILE_BYTES);
        struct cr_xent_args args = {.z = scratch,
                                    .z_stride = gemm.y_stride,
                                    .first_row = chunk->first + begin,
                                    .n_rows = end - begin,
                                    .target = e->row_target + token,
                                    .m = e->row_m + token,
                                    .s = e->head_s + part + token,
                                    .mass = e->head_mass + part + token,
                                    .dz = (char *)e->head_dz + block * dz_stride + cr_engine_operand_bytes(e, begin),
                                    .dz_stride = dz_stride,
                                    .dz_type = e->xt};
        memset(args.s, 0, n * CR_LANES * sizeof *args.s);
        memset(args.mass, 0, n * CR_LANES * sizeof *args.mass);
        e->xent.expsum(&args, 0, n);
    }
}

static void run_exp(struct cr_engine *e, const struct chunk *chunk)
{
    cr_phase_add(e, job_exp, chunk, chunk->n, CR_HEAD_ROWS);
    cr_phase_run(e, "head", -1);
}

/* A sum of this token over the chunk is too large, infinite or NaN. */
static bool exceeds(const struct cr_engine *e, const struct chunk *chunk, size_t t)
{
    for (size_t item = 0; item * CR_HEAD_ROWS < chunk->n && e->row_of[t] != CR_NO_ROW; item++) {
        if (!(e->head_s[item * e->max_blocks * CR_LANES + t] <= SUM_LIMIT)) {
            return true;
        }
    }
    return false;
}

/* Takes the largest logit of the chunk as reference of a token and scales what the chunks before have given. */
static void raise_token(struct cr_engine *e, const struct chunk *chunk, size_t t)
{
    float top = e->row_m[t];
    for (size_t item = 0; item * CR_HEAD_ROWS < chunk->n; item++) {
        float m = e->head_m[item * e->max_blocks * CR_LANES + t];
        top = m > top ? m : top;
    }
    double factor = cr_exp((double)e->row_m[t] - (double)top);
    e->row_m[t] = top;
    e->row_sum[t] *= factor;
    e->row_mass[t] *= factor;
    float *dn = e->dn + t / CR_LANES * e->embd * CR_LANES + t % CR_LANES;
    for (size_t f = 0; f < e->embd && chunk->first > 0; f++) {
        dn[f * CR_LANES] *= (float)factor;
    }
}

/* Exponentials and sums of one chunk. Rarely a token's label is so unlikely that they leave the range of f32: then once
 * more, from a better reference; tokens that keep theirs get the same bits again. */
static void sum_chunk(struct cr_engine *e, const struct chunk *chunk)
{
    size_t n = e->rows.n_blocks * CR_LANES, tokens = e->max_blocks * CR_LANES;
    bool again = false;
    run_exp(e, chunk);
    for (size_t t = 0; t < n; t++) {
        again = again || exceeds(e, chunk, t);
    }
    if (again) {
        float *sums = e->head_s;
        e->head_s = e->head_mass; /* the statistics have sums of their own, which nobody needs */
        run_stats(e, chunk);
        e->head_s = sums;
        for (size_t t = 0; t < n; t++) {
            if (exceeds(e, chunk, t)) {
                raise_token(e, chunk, t);
            }
        }
        run_exp(e, chunk);
    }
    for (size_t item = 0; item * CR_HEAD_ROWS < chunk->n; item++) {
        for (size_t t = 0; t < n; t++) {
            e->row_sum[t] += (double)e->head_s[item * tokens + t];
            e->row_mass[t] += (double)e->head_mass[item * tokens + t];
        }
    }
}

static void job_dx(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    e->qgemm.dx(arg, begin, end, scratch);
}

static void job_finish(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    e->xent.finish(arg, begin, end);
}

/* loss and the two numbers a token that turn dn into the gradient: with l the label and S the sum without it,
 * dH = weight (dn - mass w_l) / (S + exp(z_l - m)). */
static double finish_part(struct cr_engine *e, const struct token_part *part)
{
    double loss = 0;
    for (size_t t = part->begin * CR_LANES; t < part->end * CR_LANES; t++) {
        double weight = (double)e->row_weight[t], z = (double)e->row_label[t], m = (double)e->row_m[t];
        double total = e->row_sum[t] + cr_exp(z - m);
        bool real = e->row_of[t] != CR_NO_ROW;
        loss += real ? weight * (m + cr_ln(total) - z) : 0;
        e->row_s[t] = real ? (float)e->row_mass[t] : 0;
        e->row_scale[t] = real ? (float)(weight / total) : 0;
    }
    return loss;
}

void cr_head_token_loss(struct cr_engine *e, double *loss)
{
    size_t n = e->rows.n_blocks * CR_LANES;
    struct cr_xent_row_args rows = row_args(e);
    fill_rows(e);
    cr_phase_add(e, job_label, &rows, e->rows.n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "head", -1);
    memcpy(e->row_m, e->row_label, n * sizeof *e->row_m);
    memset(e->row_sum, 0, n * sizeof *e->row_sum);
    memset(e->row_mass, 0, n * sizeof *e->row_mass);
    for (size_t first = 0; first < e->model->output.n_rows; first += CR_HEAD_CHUNK) {
        struct chunk chunk = chunk_at(e, first);
        sum_chunk(e, &chunk);
        struct cr_qgemm_args dx = {.w = vocab_rows(e, chunk.first, chunk.n),
                                   .x = e->head_dz,
                                   .x_stride = cr_engine_operand_bytes(e, CR_HEAD_CHUNK),
                                   .y = e->dn,
                                   .y_stride = e->embd * CR_LANES,
                                   .n_blocks = e->rows.n_blocks,
                                   .accumulate = first > 0};
        cr_phase_add(e, job_dx, &dx, e->embd, e->qgemm.step);
        cr_phase_run(e, "head_dx", -1);
    }
    for (size_t i = 0; i < e->rows.n_parts; i++) {
        loss[e->rows.parts[i].member] += finish_part(e, &e->rows.parts[i]);
    }
    cr_phase_add(e, job_finish, &rows, e->rows.n_blocks, CR_BLOCK_STEP);
    cr_phase_run(e, "head", -1);
    cr_head_norm_bwd(e);
}
