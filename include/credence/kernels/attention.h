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
 *   lse                [n_blocks][n_heads][16] f32
 *   seg                n_seg + 1 token bounds, ascending; sequence s is tokens [seg[s], seg[s+1]). Together they cover
 *                      every token of every block (pad tokens form a last sequence of their own)
 * Items of fwd and bwd: seg index * n_heads + head. Each item copies its head to sequence-aligned scratch, so results
 * do not depend on where a sequence was packed. Items write disjoint lanes of shared lines with plain lane stores.
 * Items of sum_kv: token blocks. All outputs are written, none is added to.
 * Tolerance against double: (T + head_dim + 8) * 2^-24 * sum |terms| with exp at 2 ulp.
 */
#ifndef CREDENCE_KERNELS_ATTENTION_H
#define CREDENCE_KERNELS_ATTENTION_H

#include "credence/cpu.h"
#include "credence/kernels/tl16.h"

#ifdef __cplusplus
extern "C" {
#endif

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
};

typedef void cr_attention_fn(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch);

struct cr_attention_ops {
    cr_attention_fn *fwd, *bwd, *sum_kv;
};

CR_API cr_status cr_attention_ops_init(struct cr_attention_ops *ops, enum cr_tier tier);

/* Scratch of one call on one worker, 64-byte aligned, for sequences of at most max_len tokens. */
CR_API size_t cr_attention_scratch_bytes(size_t max_len, size_t head_dim);

#ifdef __cplusplus
}
#endif
#endif
