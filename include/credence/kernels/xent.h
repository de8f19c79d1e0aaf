/* xent: the per-lane parts of softmax cross-entropy over a vocabulary that is walked in chunks of rows.
 *
 *   stats    running maximum m[t] and sum s[t] = sum_v exp(z[v][t] - m[t]) over the rows seen, and the label's logit
 *   merge    combines two (m, s, label) triples: order fixed by the caller
 *   grad     dz[v][t] = (exp(z[v][t] - lse[t]) - [v == target[t]]) * weight[t]
 * (stats and merge: Milakov and Gimelshein 2018, algorithm 3 and section 3.1.)
 *
 * Loss and gradient with respect to the hidden state h, z = W h, in one walk over the vocabulary:
 *
 *   label    m[t] = sum_f w[f][t] h[f][t], the logit of the label's row w of W; w is first rounded to the type of h
 *   expsum   p[v][t] = exp(z[v][t] - m[t]), 0 for the label's row, written to dz; s[t] += sum_v p[v][t],
 *            mass[t] += sum_v of p as dz_type holds it
 *   finish   dh[f][t] = (dh[f][t] - mass[t] w[f][t]) scale[t]
 *
 * With l the label, S the sum of all p and dh = W^T p of all rows, loss = ln(1 + S) and the gradient of weight * loss
 * is (W^T p - S w_l) weight / (1 + S), because the label's own term is p_l - 1 = -S / (1 + S): nothing cancels, however
 * sure the model is. Any other reference m serves as well (then 1 is exp(z_l - m)); where a sum grows beyond 2^64 the
 * caller takes a larger one, scales what it has and calls again. Taking the mass of the rounded p makes the columns of
 * the gradient sum to 0: rounding p to bf16 costs at most 2^-8 sum_v p_v |W_v - W_l| weight / (1 + S).
 *
 * z TL16 f32 with n_rows features = vocabulary rows [first_row, first_row + n_rows); dz an operand of dz_type (expsum:
 * n_rows may be odd in bf16 too, the missing half is 0). m, s, mass, label, lse, weight, scale, target:
 * [n_blocks * 16], any alignment; start values m = -inf, s = 0, label = 0, mass = 0. target < 0: no label (expsum: p =
 * 0). w, dh TL16 f32, h an operand of h_type, n_features each. Range: token blocks. exp at 2 ulp; sums in f32, relative
 * to the sum of magnitudes n_rows * 2^-24 (n_features for label). Same bits on every tier. No aliasing: dz is not made
 * in place of z.
 */
#ifndef CREDENCE_KERNELS_XENT_H
#define CREDENCE_KERNELS_XENT_H

#include "credence/cpu.h"
#include "credence/kernels/tl16.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cr_xent_args {
    const float *z;
    size_t z_stride; /* floats between token blocks */
    size_t first_row, n_rows;
    const int32_t *target;
    float *m, *s, *label;      /* stats: in and out; expsum: m in, s in and out */
    float *mass;               /* expsum: in and out */
    const float *lse, *weight; /* grad */
    void *dz;
    size_t dz_stride; /* bytes */
    enum cr_xtype dz_type;
};

struct cr_xent_row_args {
    float *w; /* the label's row of each token; label: in and out */
    size_t w_stride;
    const void *h;   /* label */
    size_t h_stride; /* bytes */
    enum cr_xtype h_type;
    float *m;  /* label: out */
    float *dh; /* finish: in and out */
    size_t dh_stride;
    const float *mass, *scale; /* finish */
    size_t n_features;
};

typedef void cr_xent_fn(const struct cr_xent_args *args, size_t begin, size_t end);
typedef void cr_xent_row_fn(const struct cr_xent_row_args *args, size_t begin, size_t end);

struct cr_xent_ops {
    cr_xent_fn *stats, *grad, *expsum;
    cr_xent_row_fn *label, *finish;
};

CR_API cr_status cr_xent_ops_init(struct cr_xent_ops *ops, enum cr_tier tier);

/* (m, s) <- (m, s) combined with (m2, s2), label += label2, for n tokens. */
CR_API void cr_xent_merge(float *m, float *s, float *label, const float *m2, const float *s2, const float *label2,
                          size_t n);

/* Checked entries: the call when the arguments are sound, else CR_E_USAGE, a message and nothing touched. */
CR_API cr_status cr_xent_stats_checked(const struct cr_xent_ops *ops, const struct cr_xent_args *args, size_t begin,
                                       size_t end, struct cr_error *err);
CR_API cr_status cr_xent_grad_checked(const struct cr_xent_ops *ops, const struct cr_xent_args *args, size_t begin,
                                      size_t end, struct cr_error *err);
CR_API cr_status cr_xent_expsum_checked(const struct cr_xent_ops *ops, const struct cr_xent_args *args, size_t begin,
                                        size_t end, struct cr_error *err);
CR_API cr_status cr_xent_label_checked(const struct cr_xent_ops *ops, const struct cr_xent_row_args *args, size_t begin,
                                       size_t end, struct cr_error *err);
CR_API cr_status cr_xent_finish_checked(const struct cr_xent_ops *ops, const struct cr_xent_row_args *args,
                                        size_t begin, size_t end, struct cr_error *err);

#ifdef __cplusplus
}
#endif
#endif
