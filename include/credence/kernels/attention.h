/* attention: causal, grouped-query, over packed sequences, forward and backward; no T x T matrix is ever held.
 *
 *   S[j][t] = scale * <K_j, Q_t> for keys j <= t of the same sequence, P = softmax over j, O_t = sum_j P[j][t] V_j
 *   lse[t] = log sum_j exp S[j][t]
 *   backward: delta[t] = <dO_t, O_t>, dS = P * (<V_j, dO_t> - delta[t]), dQ_t = scale * sum_j dS K_j,
 *             dK_j = scale * sum_t dS Q_t, dV_j = sum_t P dO_t
 * (Dao et al. 2022, algorithms 1 and 4, in the transposed form of lanes = tokens.)
 *
 *   q, o, dq, do       TL16 f32, n_heads * head_dim features
 *   k, v               TL16 f32, n_kv * head_dim features; head h reads kv head h / (n_heads / n_kv)
 *   dk, dv             TL16 f32, n_heads * head_dim features: one partial a query head; sum_kv adds each group
 *   lse                [n_blocks][n_heads][16] f32, 64-byte aligned
 *   seg                n_seg + 1 token bounds, ascending; sequence s is tokens [seg[s], seg[s+1]). Together they cover
 *                      every token of every block (pad tokens form a last sequence of their own)
 * scale > 0. No aliasing: what a call writes overlaps nothing else that it reads or writes; q, k and v may be features
 * of one buffer, as may dq, dk_sum and dv_sum.
 *
 * Learned prefixes (Li and Liang 2021; optional): rows of keys and values that every token of a sequence sees, before
 * the sequence's own. They carry no position: the kernel rotates nothing. Each sequence names one of several prefixes
 * of n_rows rows, or none; the gradient of a prefix is summed over its sequences in order, and over the query heads of
 * each in order.
 *
 * Items of fwd and bwd: seg index * n_heads + head. Each item copies its head to sequence-aligned scratch, so results
 * do not depend on where a sequence was packed; the bf16 tiers pack K and V once for a run of items of one call that
 * share them. Items write disjoint lanes of shared lines with plain lane stores.
 * Items of sum_kv: token blocks. Items of sum_prefix: prefix * n_kv + kv head. All outputs are written, none is added
 * to, except by sum_prefix, which adds.
 *
 * Tolerance against double: (T + head_dim + 8) * 2^-24 * sum |terms| with exp at 2 ulp. On the avx512_bf16 and amx tiers
 * q, k, v and d_o are rounded to bf16 for the products (q and k not in S with f32_scores), and so are P and dS (2^-8
 * each, relative); sums are f32, the row sum is that of the rounded P, exp is within 2^-18, and delta is formed of d_o
 * and o as they are.
 */
#ifndef CREDENCE_KERNELS_ATTENTION_H
#define CREDENCE_KERNELS_ATTENTION_H

#include <stdbool.h>

#include "credence/cpu.h"
#include "credence/kernels/tl16.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CR_ATTENTION_NO_PREFIX UINT32_MAX

struct cr_attention_prefix {
    const float *k, *v;       /* TL16 f32 of n_rows rows, n_kv * head_dim features, without gaps; lanes past n_rows are
                                 not read. Prefix i at + i * stride */
    float *dk, *dv;           /* sum_prefix adds; the same layout, lanes past n_rows get zero added */
    size_t stride;            /* floats */
    size_t n_rows, n_prefixes;
    const uint32_t *of_seg;   /* [n_seg]: prefix of each sequence, or CR_ATTENTION_NO_PREFIX */
    float *dk_part, *dv_part; /* bwd writes, sum_prefix reads: [n_seg][n_heads][blocks of n_rows][head_dim][16], only
                                 where a sequence has a prefix */
};

struct cr_attention_args {
    const float *q, *k, *v;
    size_t q_stride, kv_stride;   /* floats between token blocks */
    float *o;                     /* fwd writes, bwd reads */
    size_t o_stride;
    float *lse;                   /* fwd writes, bwd reads */
    const float *d_o;             /* bwd */
    float *dq;                    /* bwd; same strides as q */
    float *dk, *dv;               /* bwd: n_heads wide, stride dkv_stride */
    size_t do_stride, dkv_stride;
    float *dk_sum, *dv_sum;       /* sum_kv: n_kv wide, stride kv_stride */
    const uint32_t *seg;
    size_t n_seg;
    size_t n_heads, n_kv, head_dim;
    float scale;                  /* 1/sqrt(head_dim) */
    bool f32_scores;              /* bf16 tiers: q and k keep f32 in S, in both directions alike; others always do */
    const struct cr_attention_prefix *prefix; /* NULL: none */
};

typedef void cr_attention_fn(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch);

struct cr_attention_ops {
    cr_attention_fn *fwd, *bwd, *sum_kv, *sum_prefix;
};

CR_API cr_status cr_attention_ops_init(struct cr_attention_ops *ops, enum cr_tier tier);

/* Scratch of one call on one worker, 64-byte aligned, for sequences of at most max_len tokens and prefixes of n_rows
 * rows (0: none). SIZE_MAX when it does not fit an address space. */
CR_API size_t cr_attention_scratch_bytes(size_t max_len, size_t head_dim, size_t n_rows);

/* Checked entries: the call when the arguments are sound, else CR_E_USAGE, a message and nothing touched. seg and of_seg
 * are read and checked too; end is not checked against the tokens in sum_kv, which needs neither seg nor scratch. */
CR_API cr_status cr_attention_fwd_checked(const struct cr_attention_ops *ops, const struct cr_attention_args *args,
                                          size_t begin, size_t end, void *scratch, size_t scratch_bytes,
                                          struct cr_error *err);
CR_API cr_status cr_attention_bwd_checked(const struct cr_attention_ops *ops, const struct cr_attention_args *args,
                                          size_t begin, size_t end, void *scratch, size_t scratch_bytes,
                                          struct cr_error *err);
CR_API cr_status cr_attention_sum_kv_checked(const struct cr_attention_ops *ops, const struct cr_attention_args *args,
                                             size_t begin, size_t end, struct cr_error *err);
CR_API cr_status cr_attention_sum_prefix_checked(const struct cr_attention_ops *ops,
                                                 const struct cr_attention_args *args, size_t begin, size_t end,
                                                 struct cr_error *err);

#ifdef __cplusplus
}
#endif
#endif
