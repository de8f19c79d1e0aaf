/* xent: the per-lane parts of softmax cross-entropy over a vocabulary that is walked in chunks of rows.
 *
 *   stats    running maximum m[t] and sum s[t] = sum_v exp(z[v][t] - m[t]) over the rows seen, and the label's logit
 *   merge    combines two (m, s, label) triples: order fixed by the caller
 *   grad     dz[v][t] = (exp(z[v][t] - lse[t]) - [v == target[t]]) * weight[t]
 *
 * z TL16 f32 with n_rows features = vocabulary rows [first_row, first_row + n_rows); dz an operand of dz_type.
 * m, s, label, lse, weight, target: [n_blocks * 16], any alignment; start values m = -inf, s = 0, label = 0. target < 0: no label.
 * Range: token blocks. exp at 2 ulp; sums in f32, n_rows * 2^-24 relative. Same bits on every tier.
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
    float *m, *s, *label;      /* stats: in and out */
    const float *lse, *weight; /* grad */
    void *dz;
    size_t dz_stride; /* bytes */
    enum cr_xtype dz_type;
};

typedef void cr_xent_fn(const struct cr_xent_args *args, size_t begin, size_t end);

struct cr_xent_ops {
    cr_xent_fn *stats, *grad;
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

#ifdef __cplusplus
}
#endif
#endif
