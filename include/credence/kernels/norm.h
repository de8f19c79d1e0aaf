/* norm: RMSNorm over features, forward and backward (Zhang and Sennrich 2019, eq. 4).
 *
 *   rms_fwd     r[t] = 1 / sqrt(mean_k x[k][t]^2 + eps),   y = x * r * w
 *   rms_apply   y = x * r * w                              r as given: the forward pass again, from a kept x
 *   rms_bwd     dx += r * (w * dy) - x * r^3 / K * sum_k (w * dy * x)
 *
 * x an operand of x_type, y of y_type (K even for bf16), K features; dy, dx TL16 f32; w [K] f32; rstd [n_blocks][16],
 * any alignment. x, when rounded to bf16, stands for the input it was rounded from: rstd stays that of the input.
 * No aliasing: y is not made in place of x, nor dx in place of dy.
 * Range: token blocks. Sums over k are in f32: chain i takes k = i mod 4 in order, then (0 + 1) + (2 + 3); error
 * (K / 4 + 4) * 2^-24 of the sum of |terms|. Same bits on every tier.
 */
#ifndef CREDENCE_KERNELS_NORM_H
#define CREDENCE_KERNELS_NORM_H

#include "credence/cpu.h"
#include "credence/kernels/tl16.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cr_norm_args {
    const void *x;
    size_t x_stride; /* bytes between token blocks; rms_fwd takes f32 only */
    enum cr_xtype x_type;
    const float *w;
    float eps;
    size_t n_features;
    void *y;         /* fwd, apply */
    size_t y_stride; /* bytes */
    enum cr_xtype y_type;
    float *rstd;     /* fwd writes, the others read */
    const float *dy; /* bwd */
    size_t dy_stride; /* floats */
    float *dx; /* bwd, added to */
    size_t dx_stride;
};

typedef void cr_norm_fn(const struct cr_norm_args *args, size_t begin, size_t end);

struct cr_norm_ops {
    cr_norm_fn *rms_fwd, *rms_apply, *rms_bwd;
};

CR_API cr_status cr_norm_ops_init(struct cr_norm_ops *ops, enum cr_tier tier);

/* Checked entries: the call when the arguments are sound, else CR_E_USAGE, a message and nothing touched. */
CR_API cr_status cr_norm_rms_fwd_checked(const struct cr_norm_ops *ops, const struct cr_norm_args *args, size_t begin,
                                         size_t end, struct cr_error *err);
CR_API cr_status cr_norm_rms_apply_checked(const struct cr_norm_ops *ops, const struct cr_norm_args *args, size_t begin,
                                           size_t end, struct cr_error *err);
CR_API cr_status cr_norm_rms_bwd_checked(const struct cr_norm_ops *ops, const struct cr_norm_args *args, size_t begin,
                                         size_t end, struct cr_error *err);

#ifdef __cplusplus
}
#endif
#endif
