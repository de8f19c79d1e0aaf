/* qgemm: products of activations with a frozen matrix that stays in its GGUF blocks, in both directions.
 *
 *   forward   Y[n][t]  (+)= sum_k w(n,k)  X[k][t] + sum_i P[n][i] U[i][t] + bias[n]        n in [begin, end) of N
 *   dX        Y[k][t]  (+)= sum_n w(n,k)  X[n][t] + sum_i P[k][i] U[i][t]                  k in [begin, end) of K
 *
 * The second sum is an optional low-rank term that rides in the same accumulators: forward P = B (N x r),
 * U = s A X; backward P = A^T, U = s B^T dY (both made by kernels/lowrank). It always has the accuracy of f32.
 * Several adapters may share one pass over w: each then has a range of token blocks, its member.
 *
 *   w      N x K matrix of GGUF blocks, row n contiguous (`row_bytes`); K is a multiple of 32 and of the block
 *   X      TL16 operand of ops.x_type: K features forward, N features backward; pad lanes hold finite numbers, as does
 *          the missing odd half of the last bf16 pair when N is odd
 *   Y      TL16 f32, N features forward, K backward
 *   value  w(n,k) is v(block) of kernels/dequant rounded once to f32; bf16 tiers round that once more to nearest
 *          even: one function of the stored block on every tier and in both directions
 *
 * Bias and the addition to what Y holds (a residual, with accumulate) ride in the product. Scales do not: that of an
 * adapter is in U, that of RMSNorm in X. Nor does SwiGLU, since gate and up are two matrices and two calls; a host that
 * makes the same few features and tokens of both and then calls act (credence/kernels/act.h) finds them in its cache.
 *
 * No aliasing between outputs and inputs. begin is a multiple of ops.step; end is one too, or N (K for dX). Each
 * output is one chain of additions whose order depends on the tier and on K (N) only: results are the same bits for
 * any split of the range, any number of token blocks and any position of a token.
 * Tolerance against a double product of the same weights and operands: (K + r + 2) * 2^-24 * sum |terms| for f32,
 * the bf16 tier adds nothing (its products are exact in f32) but flushes denormals.
 * Errors: none here; preconditions are asserted in debug builds.
 */
#ifndef CREDENCE_KERNELS_QGEMM_H
#define CREDENCE_KERNELS_QGEMM_H

#include "credence/cpu.h"
#include "credence/kernels/tl16.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cr_qmat {
    const void *data; /* borrowed, usually the mapped file */
    size_t row_bytes; /* of one row of n_cols values */
    size_t n_rows;    /* N, output features */
    size_t n_cols;    /* K, input features */
    int type;         /* ggml type id, credence/kernels/dequant.h */
};

/* The low-rank term of token blocks [begin, end) of a call; its U is that of the call. */
struct cr_qgemm_member {
    size_t begin, end;
    const float *p; /* as in cr_qgemm_args; NULL = no term */
    size_t p_os, p_rs, rank;
};

struct cr_qgemm_args {
    struct cr_qmat w;
    const void *x;
    size_t x_stride; /* bytes between token blocks */
    float *y;
    size_t y_stride;   /* floats between token blocks */
    size_t n_blocks;   /* token blocks of 16 */
    const float *bias; /* [N] or NULL; forward only */
    const float *p;    /* low-rank matrix, element (output feature o, i) at p[o * p_os + i * p_rs]; NULL = no term */
    size_t p_os, p_rs;
    const float *u;  /* TL16 f32, `rank` features; with members as many as the largest of their ranks */
    size_t u_stride; /* floats between token blocks */
    size_t rank;
    const struct cr_qgemm_member *members; /* [n_members] ascending, apart, within n_blocks; instead of p, p_os, p_rs */
    size_t n_members;                      /* and rank. Token blocks of no member have no term. 0 = p is for all */
    int accumulate; /* 0: y = ..., 1: y += ... (one addition of the finished sum; amx: of each slab's sum) */
};

typedef void cr_qgemm_fn(const struct cr_qgemm_args *args, size_t begin, size_t end, void *scratch);

struct cr_qgemm_ops {
    cr_qgemm_fn *fwd;
    cr_qgemm_fn *dx;
    size_t step;          /* grain of output features, both directions */
    enum cr_xtype x_type; /* of X */
    enum cr_tier tier;    /* that this table computes on */
};

/* Pure function of its arguments: the table for a CPU capped at `tier`. */
CR_API cr_status cr_qgemm_ops_init(struct cr_qgemm_ops *ops, enum cr_tier tier);

/* Scratch of one call on one worker, 64-byte aligned; n_reduce = K forward, N backward, rank the largest of the call.
 * Upper bound over the tiers without tiles; amx has its own, a function of the rank only. n_reduce 0 counts as 1,
 * though there is no such product; SIZE_MAX for a rank above CR_RANK_MAX (lowrank.h) or an n_reduce beyond what the
 * checked entries take. */
CR_API size_t cr_qgemm_scratch_bytes(const struct cr_qgemm_ops *ops, size_t n_reduce, size_t rank);

/* Checked entries: the call when the arguments are sound, else CR_E_USAGE, a message and nothing touched. */
CR_API cr_status cr_qgemm_fwd_checked(const struct cr_qgemm_ops *ops, const struct cr_qgemm_args *args, size_t begin,
                                      size_t end, void *scratch, size_t scratch_bytes, struct cr_error *err);
CR_API cr_status cr_qgemm_dx_checked(const struct cr_qgemm_ops *ops, const struct cr_qgemm_args *args, size_t begin,
                                     size_t end, void *scratch, size_t scratch_bytes, struct cr_error *err);

#ifdef __cplusplus
}
#endif
#endif
