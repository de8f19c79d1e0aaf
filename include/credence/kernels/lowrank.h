/* lowrank: the small products of LoRA (Hu et al. 2022, equation 3), and of a few label rows, all in f32 with tokens as
 * lanes.
 *
 *   down   U[i][t]  = s * sum_k P(i,k) X[k][t]          i in [0, rank)   U = s A X,  V = s B^T dY,  z = E_labels h
 *   up     Y[k][t] += m[k][t] * sum_i P(i,k) U[i][t]                     dX += mask * (A^T V),  dH += E_labels^T dz
 *   grad   G(i,k)  += sum_t U[i][t] X[k][t]             k in [begin, end)  dA = V X^T,  dB^T = U dY^T
 *
 * P(i,k) = p[i * p_rs + k * p_ks] and G(i,k) = g[i * g_rs + k * g_ks]: A is (r x K) row-major: rs = K, ks = 1; B is
 * (N x r) row-major: rs = 1, ks = r. 1 <= rank <= 256.
 *
 * Dropout on X (LoRA's adapter input): with dropout.keep16 < 65536 every X[k][t] is multiplied by
 * m = (u16 < keep16) ? 65536 / keep16 : 0, u16 the k-th 16-bit draw of the token's stream:
 *   Philox4x32-10, key = dropout.key, counter = (k / 8, position[t], example[t], step); draw k is the low half of
 *   word (k % 8) / 2 when k is even, the high half when odd. The mask thus depends on who the token is, never on
 *   where it was packed.
 *
 * Ranges: down and up take token blocks [begin, end); grad takes features, begin and end multiples of CR_LOWRANK_STEP
 * or end == K, and walks all token blocks in order. Results are the same bits for any split. X may be an operand of
 * either type (`x_type`). No aliasing between what a call writes and what else it reads.
 *
 * Tolerance: f32 chains, (n + 2) * 2^-24 * sum |terms|, n terms a sum. The amx tier computes down and grad of X in bf16
 * on tiles, from P or U in three exact bf16 parts (kernels/README.md): min(n + 3, n / 512 + 35) * 2^-24 * sum |terms|,
 * and, since tiles take subnormal numbers for zero, 2^-126 * (sum (3 |x| + |f|) + 4 n + 6) more, f being P or U, n
 * features or tokens, times what the sum is multiplied by (s, 65536 / keep16). There a P, U or X that is not finite
 * gives NaN, and so does a P or U that rounds to infinity as bf16.
 *
 * All else is computed in f32 vectors, on every tier. The products that make wide outputs, B U and without dropout
 * A^T V, need no call here: they ride in qgemm.
 */
#ifndef CREDENCE_KERNELS_LOWRANK_H
#define CREDENCE_KERNELS_LOWRANK_H

#include "credence/cpu.h"
#include "credence/kernels/tl16.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CR_LOWRANK_STEP = 32, CR_RANK_MAX = 256 };

struct cr_dropout {
    uint32_t keep16;       /* 65536 = off; else round(65536 * (1 - p)), >= 1 */
    uint32_t key[2];       /* (seed, tensor) */
    uint32_t step;
    const uint32_t *position; /* [n_blocks * 16], place of the token in its example */
    const uint32_t *example;  /* [n_blocks * 16], number of the example in its data set */
};

struct cr_lowrank_args {
    const float *p;        /* down, up */
    size_t p_rs, p_ks;
    float *g;              /* grad */
    size_t g_rs, g_ks;
    const void *x;         /* down, grad: operand of x_type, n_features features */
    enum cr_xtype x_type;
    size_t x_stride;       /* bytes between token blocks */
    float *y;              /* up: TL16 f32, n_features features */
    size_t y_stride;       /* floats */
    float *u;              /* down: written; up, grad: read. TL16 f32, rank features */
    size_t u_stride;       /* floats */
    size_t rank, n_features, n_blocks;
    float scale;           /* s, down only */
    struct cr_dropout dropout; /* keep16 = 65536 when unused */
};

typedef void cr_lowrank_fn(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch);

struct cr_lowrank_ops {
    cr_lowrank_fn *down, *up, *grad;
};

CR_API cr_status cr_lowrank_ops_init(struct cr_lowrank_ops *ops, enum cr_tier tier);

/* Scratch of one call on one worker, 64-byte aligned. SIZE_MAX where the rank is above CR_RANK_MAX or n_features beyond
 * what the checked entries take; a 0 counts as 1. */
CR_API size_t cr_lowrank_scratch_bytes(size_t n_features, size_t rank);

/* Checked entries: the call when the arguments are sound, else CR_E_USAGE, a message and nothing touched. */
CR_API cr_status cr_lowrank_down_checked(const struct cr_lowrank_ops *ops, const struct cr_lowrank_args *args,
                                         size_t begin, size_t end, void *scratch, size_t scratch_bytes,
                                         struct cr_error *err);
CR_API cr_status cr_lowrank_up_checked(const struct cr_lowrank_ops *ops, const struct cr_lowrank_args *args,
                                       size_t begin, size_t end, void *scratch, size_t scratch_bytes,
                                       struct cr_error *err);
CR_API cr_status cr_lowrank_grad_checked(const struct cr_lowrank_ops *ops, const struct cr_lowrank_args *args,
                                         size_t begin, size_t end, void *scratch, size_t scratch_bytes,
                                         struct cr_error *err);

#ifdef __cplusplus
}
#endif
#endif
