/* act: the template of all tiers, one instance for each pair of operand types. */
#ifndef CR_ACT_LANES_H
#define CR_ACT_LANES_H

#include "credence/kernels/act.h"
#include "kernels/common/lanes_math.h"
#include "kernels/common/lanes_operand.h"
#include "kernels/common/tiers.h"

CR_INLINE lanes silu(lanes g)
{
    return g / (1.0f + lanes_exp(-g));
}

CR_INLINE void forward(const struct cr_act_args *args, size_t begin, size_t end, enum cr_xtype g_type,
                       enum cr_xtype h_type)
{
    size_t n = args->n_features, paired = n / 2 * 2;
    for (size_t block = begin; block < end; block++) {
        const char *g = (const char *)args->g + block * args->gu_stride;
        const char *u = (const char *)args->u + block * args->gu_stride;
        char *h = (char *)args->h + block * args->h_stride;
        for (size_t k = 0; k < paired; k += 2) {
            for (size_t col = 0; col < CR_LANES; col += LANES_N) {
                lanes g0, g1, u0, u1;
                operand_load(g, g_type, k, col, &g0, &g1);
                operand_load(u, g_type, k, col, &u0, &u1);
                operand_store(h, h_type, k, col, silu(g0) * u0, silu(g1) * u1);
            }
        }
        for (size_t i = paired * CR_LANES; i < n * CR_LANES; i += LANES_N) { /* an odd last feature: f32 only */
            lanes gate = lanes_load((const float *)(const void *)g + i);
            lanes_store((float *)(void *)h + i, silu(gate) * lanes_load((const float *)(const void *)u + i));
        }
    }
}

/* dg and du of one vector at offset i of their blocks. */
CR_INLINE void backward_at(lanes g, lanes u, const float *dh, float *dg, float *du, size_t i)
{
    lanes s = lanes_sigmoid(g), d = lanes_load(dh + i);
    lanes_store(du + i, d * (g * s));
    lanes_store(dg + i, d * u * (s * (1.0f + g * (1.0f - s))));
}

CR_INLINE void backward(const struct cr_act_args *args, size_t begin, size_t end, enum cr_xtype g_type)
{
    size_t n = args->n_features, paired = n / 2 * 2;
    for (size_t block = begin; block < end; block++) {
        const char *g = (const char *)args->g + block * args->gu_stride;
        const char *u = (const char *)args->u + block * args->gu_stride;
        const float *dh = args->dh + block * args->dh_stride;
        float *dg = args->dg + block * args->dgu_stride, *du = args->du + block * args->dgu_stride;
        for (size_t k = 0; k < paired; k += 2) {
            for (size_t col = 0; col < CR_LANES; col += LANES_N) {
                lanes g0, g1, u0, u1;
                operand_load(g, g_type, k, col, &g0, &g1);
                operand_load(u, g_type, k, col, &u0, &u1);
                backward_at(g0, u0, dh, dg, du, k * CR_LANES + col);
                backward_at(g1, u1, dh, dg, du, (k + 1) * CR_LANES + col);
            }
        }
        for (size_t i = paired * CR_LANES; i < n * CR_LANES; i += LANES_N) {
            lanes gate = lanes_load((const float *)(const void *)g + i);
            backward_at(gate, lanes_load((const float *)(const void *)u + i), dh, dg, du, i);
        }
    }
}

static void swiglu_fwd(const struct cr_act_args *args, size_t begin, size_t end)
{
    if (args->g_type == CR_X_F32) {
        if (args->h_type == CR_X_F32) {
            forward(args, begin, end, CR_X_F32, CR_X_F32);
        } else {
            forward(args, begin, end, CR_X_F32, CR_X_BF16);
        }
    } else if (args->h_type == CR_X_F32) {
        forward(args, begin, end, CR_X_BF16, CR_X_F32);
    } else {
        forward(args, begin, end, CR_X_BF16, CR_X_BF16);
    }
}

static void swiglu_bwd(const struct cr_act_args *args, size_t begin, size_t end)
{
    if (args->g_type == CR_X_BF16) {
        backward(args, begin, end, CR_X_BF16);
    } else {
        backward(args, begin, end, CR_X_F32);
    }
}

static void fill(struct cr_act_ops *ops)
{
    static const struct cr_act_ops table = {.swiglu_fwd = swiglu_fwd, .swiglu_bwd = swiglu_bwd};
    *ops = table;
}

#endif
