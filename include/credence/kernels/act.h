/* act: the gated unit of llama-like layers, forward and backward (Shazeer 2020, SwiGLU).
 *
 *   h = silu(g) * u,   silu(g) = g / (1 + exp(-g))
 *   du = dh * silu(g),   dg = dh * u * s * (1 + g * (1 - s)),   s = 1 / (1 + exp(-g))
 *
 * g, u TL16 f32 (fwd) or saved operands of g_type (bwd); h an operand of h_type; dh, dg, du TL16 f32.
 * No aliasing.
 * Range: token blocks. exp is this library's own (kernels/common/lanes_math.h): 2 ulp. Same bits on every tier.
 */
#ifndef CREDENCE_KERNELS_ACT_H
#define CREDENCE_KERNELS_ACT_H

#include "credence/cpu.h"
#include "credence/kernels/tl16.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cr_act_args {
    const void *g, *u;
    size_t gu_stride;     /* bytes between token blocks of g and of u */
    enum cr_xtype g_type; /* of g and u */
    void *h;              /* fwd */
    size_t h_stride;      /* bytes */
    enum cr_xtype h_type;
    const float *dh;   /* bwd */
    size_t dh_stride;  /* floats */
    float *dg, *du;    /* bwd */
    size_t dgu_stride; /* floats */
    size_t n_features;
};

typedef void cr_act_fn(const struct cr_act_args *args, size_t begin, size_t end);

struct cr_act_ops {
    cr_act_fn *swiglu_fwd, *swiglu_bwd;
};

CR_API cr_status cr_act_ops_init(struct cr_act_ops *ops, enum cr_tier tier);

/* Checked entries: the call when the arguments are sound, else CR_E_USAGE, a message and nothing touched. */
CR_API cr_status cr_act_swiglu_fwd_checked(const struct cr_act_ops *ops, const struct cr_act_args *args, size_t begin,
                                           size_t end, struct cr_error *err);
CR_API cr_status cr_act_swiglu_bwd_checked(const struct cr_act_ops *ops, const struct cr_act_args *args, size_t begin,
                                           size_t end, struct cr_error *err);

#ifdef __cplusplus
}
#endif
#endif
