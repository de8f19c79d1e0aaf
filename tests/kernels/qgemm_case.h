/* qgemm_case: one product with everything it needs, and its check against a double product. */
#ifndef CR_TESTS_QGEMM_CASE_H
#define CR_TESTS_QGEMM_CASE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/common/half.h"
#include "credence/kernels/dequant.h"
#include "credence/kernels/qgemm.h"
#include "tests/support/halves_test.h"
#include "tests/support/kernel_test.h"
#include "tests/support/qgemm_tables.h"

static const int served[] = {CR_Q_F32,  CR_Q_F16,  CR_Q_BF16, CR_Q_Q4_0, CR_Q_Q4_1, CR_Q_Q5_0,   CR_Q_Q5_1,  CR_Q_Q8_0,
                             CR_Q_Q2_K, CR_Q_Q3_K, CR_Q_Q4_K, CR_Q_Q5_K, CR_Q_Q6_K, CR_Q_IQ4_NL, CR_Q_IQ4_XS};
enum { N_SERVED = sizeof served / sizeof served[0] };

/* ---- one product with everything it needs ---- */

struct problem {
    struct cr_qgemm_ops ops;
    struct cr_qgemm_args args;
    const char *name;
    bool dx;
    size_t n_out, n_reduce;
    float *x32, *w32; /* operands as the tier sees them: [blocks][reduce][16], [N][K] */
    void *weights, *scratch;
};

enum { BIAS = 1, LOWRANK = 2, ACCUMULATE = 4, P_TRANSPOSED = 8 };

static float as_operand(const struct problem *p, float value)
{
    return p->ops.x_type == CR_X_BF16 ? cr_bf16_to_f32(cr_f32_to_bf16(value)) : value;
}

/* Bytes that make finite, moderate weights: random codes, halves in +-2^-6. */
static void fill_weights(struct cr_rng *rng, int type, unsigned char *data, size_t n_values)
{
    const struct cr_qtype_info *info = cr_qtype_info(type);
    size_t n_blocks = n_values / info->block_values;
    cr_fill_bytes(rng, data, n_blocks * info->block_bytes);
    for (size_t b = 0; b < n_blocks; b++) {
        unsigned char *block = data + b * info->block_bytes;
        float value = cr_rng_uniform(rng, -1, 1);
        uint16_t halves[2] = {cr_f32_to_f16(cr_rng_uniform(rng, -0x1p-6f, 0x1p-6f)),
                              cr_f32_to_f16(cr_rng_uniform(rng, -0x1p-6f, 0x1p-6f))};
        uint16_t half = type == CR_Q_F16 ? cr_f32_to_f16(value) : cr_f32_to_bf16(value);
        if (type == CR_Q_F32) {
            memcpy(block, &value, 4);
        } else if (info->block_values == 1) {
            memcpy(block, &half, 2);
        } else {
            cr_put_halves(type, block, halves);
        }
    }
}

static void make_operand(struct problem *p, struct cr_rng *rng, enum cr_guard_side side)
{
    size_t lines = p->ops.x_type == CR_X_BF16 ? (p->n_reduce + 1) / 2 : p->n_reduce;
    size_t n_blocks = p->args.n_blocks;
    p->args.x_stride = lines * 64 + 64; /* a gap that is never read: it keeps its NaN */
    void *x = cr_guard_alloc(p->args.x_stride * n_blocks - 64, 64, side);
    p->x32 = malloc(n_blocks * p->n_reduce * 64);
    for (size_t b = 0; b < n_blocks; b++) {
        char *base = (char *)x + b * p->args.x_stride;
        memset(base, 0, lines * 64);
        for (size_t k = 0; k < p->n_reduce; k++) {
            for (size_t t = 0; t < 16; t++) {
                float value = as_operand(p, cr_rng_uniform(rng, -1, 1));
                p->x32[(b * p->n_reduce + k) * 16 + t] = value;
                if (p->ops.x_type == CR_X_BF16) {
                    ((uint16_t *)(void *)base)[cr_tl16_bf16(k, t)] = cr_f32_to_bf16(value);
                } else {
                    ((float *)(void *)base)[cr_tl16_f32(k, t)] = value;
                }
            }
        }
    }
    cr_guard_protect(x, true);
    p->args.x = x;
}

static struct problem make(unsigned tier, int type, bool dx, size_t n, size_t k, size_t n_blocks, size_t rank,
                           unsigned flags, struct cr_rng *rng)
{
    struct problem p = {.dx = dx, .name = cr_qgemm_table_name(tier)};
    enum cr_guard_side side = cr_rng_below(rng, 2) ? CR_AT_END : CR_AT_START;
    cr_qgemm_table(&p.ops, tier);
    const struct cr_qtype_info *info = cr_qtype_info(type);
    p.n_out = dx ? k : n;
    p.n_reduce = dx ? n : k;
    size_t row_bytes = k / info->block_values * info->block_bytes;
    p.weights = cr_guard_alloc(row_bytes * n, 2, side);
    fill_weights(rng, type, p.weights, n * k);
    cr_guard_protect(p.weights, true);
    p.args = (struct cr_qgemm_args){.w = {p.weights, row_bytes, n, k, type}, .n_blocks = n_blocks};
    p.w32 = malloc(n * k * 4);
    for (size_t row = 0; row < n; row++) {
        cr_dequant_fn_for(type, CR_TIER_SCALAR)((char *)p.weights + row * row_bytes, 0, k, p.w32 + row * k);
    }
    for (size_t i = 0; i < n * k; i++) {
        p.w32[i] = as_operand(&p, p.w32[i]);
    }
    make_operand(&p, rng, side);
    p.args.y_stride = p.n_out * 16 + 16;
    p.args.y = cr_guard_alloc((p.args.y_stride * n_blocks - 16) * 4, 64, side);
    if (flags & BIAS) {
        float *bias = cr_guard_alloc(n * 4, 4, side);
        cr_fill_f32(rng, bias, n, -1, 1);
        cr_guard_protect(bias, true);
        p.args.bias = bias;
    }
    if (flags & LOWRANK) {
        float *lowrank = cr_guard_alloc(p.n_out * rank * 4, 4, side);
        cr_fill_f32(rng, lowrank, p.n_out * rank, -1, 1);
        cr_guard_protect(lowrank, true);
        p.args.p = lowrank;
        p.args.p_os = flags & P_TRANSPOSED ? 1 : rank;
        p.args.p_rs = flags & P_TRANSPOSED ? p.n_out : 1;
        p.args.u_stride = rank * 16;
        float *u = cr_guard_alloc(rank * 64 * n_blocks, 64, side);
        cr_fill_f32(rng, u, rank * 16 * n_blocks, -1, 1);
        cr_guard_protect(u, true);
        p.args.u = u;
        p.args.rank = rank;
    }
    p.args.accumulate = (flags & ACCUMULATE) != 0;
    p.scratch = cr_guard_alloc(cr_qgemm_scratch_bytes(&p.ops, p.n_reduce, rank), 64, side);
    return p;
}

static void run_range(const struct problem *p, const struct cr_qgemm_args *args, size_t begin, size_t end)
{
    (p->dx ? p->ops.dx : p->ops.fwd)(args, begin, end, p->scratch);
}

static void drop(struct problem *p)
{
    free(p->x32);
    free(p->w32);
    cr_guard_free_all();
}

static float weight(const struct problem *p, size_t o, size_t k)
{
    return p->dx ? p->w32[k * p->args.w.n_cols + o] : p->w32[o * p->args.w.n_cols + k];
}

/* Double product of output feature o and token block b, with the bound of qgemm.h. */
static void want_line(const struct problem *p, size_t o, size_t b, const float *y_before, double want[16],
                      double bound[16])
{
    const struct cr_qgemm_args *a = &p->args;
    double sum[16] = {0}, total[16] = {0};
    for (size_t k = 0; k < p->n_reduce; k++) {
        double w = weight(p, o, k);
        for (size_t t = 0; t < 16; t++) {
            double term = w * p->x32[(b * p->n_reduce + k) * 16 + t];
            sum[t] += term;
            total[t] += fabs(term);
        }
    }
    for (size_t i = 0; i < a->rank; i++) {
        for (size_t t = 0; t < 16; t++) {
            double term = (double)a->p[o * a->p_os + i * a->p_rs] * a->u[b * a->u_stride + i * 16 + t];
            sum[t] += term;
            total[t] += fabs(term);
        }
    }
    for (size_t t = 0; t < 16; t++) {
        double bias = a->bias != NULL ? a->bias[o] : 0, before = a->accumulate ? y_before[t] : 0;
        want[t] = sum[t] + bias + before;
        bound[t] = (double)(p->n_reduce + a->rank + 2) * 0x1p-24 * (total[t] + fabs(bias) + fabs(before));
    }
}

static void check(struct problem *p, struct cr_rng *rng)
{
    const struct cr_qgemm_args *a = &p->args;
    size_t n_y = a->y_stride * a->n_blocks - 16;
    float *before = malloc(n_y * 4);
    if (a->accumulate) {
        cr_fill_f32(rng, a->y, n_y, -1, 1);
    }
    memcpy(before, a->y, n_y * 4);
    run_range(p, a, 0, p->n_out);
    char what[160];
    for (size_t b = 0; b < a->n_blocks; b++) {
        for (size_t o = 0; o < p->n_out; o += cr_test_every(5)) {
            size_t at = b * a->y_stride + o * 16;
            double want[16], bound[16];
            want_line(p, o, b, before + at, want, bound);
            snprintf(what, sizeof what, "%s %s %s N=%zu K=%zu r=%zu blocks=%zu feature %zu block %zu", p->name,
                     p->dx ? "dx" : "fwd", cr_qtype_info(a->w.type)->name, a->w.n_rows, a->w.n_cols, a->rank,
                     a->n_blocks, o, b);
            cr_expect_within(what, a->y + at, want, bound, 16);
        }
        if (b + 1 < a->n_blocks) { /* the gap between blocks is untouched */
            size_t gap = b * a->y_stride + p->n_out * 16;
            cr_expect_bytes("gap", a->y + gap, before + gap, 64);
        }
    }
    free(before);
}

#endif
