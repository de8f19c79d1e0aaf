/* norm: the template of all tiers. One column of tokens at a time, two sweeps over the features of its block. */
#ifndef CR_NORM_LANES_H
#define CR_NORM_LANES_H

#include "kernels/common/lanes.h"
#include "kernels/common/lanes_operand.h"
#include "kernels/common/tiers.h"
#include "credence/kernels/norm.h"

/* Four chains (k mod 4), so that the additions' latency does not set the pace. */
CR_INLINE lanes sum_squares(const float *x, size_t n)
{
    lanes s[4] = {lanes_zero(), lanes_zero(), lanes_zero(), lanes_zero()};
    size_t k = 0;
    for (; k + 4 <= n; k += 4) {
        for (size_t i = 0; i < 4; i++) {
            lanes xi = lanes_load(x + (k + i) * CR_LANES);
            s[i] += xi * xi;
        }
    }
    for (size_t i = 0; i < 3; i++) { /* what is left */
        if (k + i < n) {
            lanes xi = lanes_load(x + (k + i) * CR_LANES);
            s[i] += xi * xi;
        }
    }
    return (s[0] + s[1]) + (s[2] + s[3]);
}

CR_INLINE lanes weighted_dot(const float *x, const float *dy, const float *w, size_t n)
{
    lanes s[4] = {lanes_zero(), lanes_zero(), lanes_zero(), lanes_zero()};
    size_t k = 0;
    for (; k + 4 <= n; k += 4) {
        for (size_t i = 0; i < 4; i++) {
            s[i] += w[k + i] * lanes_load(dy + (k + i) * CR_LANES) * lanes_load(x + (k + i) * CR_LANES);
        }
    }
    for (size_t i = 0; i < 3; i++) {
        if (k + i < n) {
            s[i] += w[k + i] * lanes_load(dy + (k + i) * CR_LANES) * lanes_load(x + (k + i) * CR_LANES);
        }
    }
    return (s[0] + s[1]) + (s[2] + s[3]);
}

CR_INLINE void forward(const struct cr_norm_args *args, size_t begin, size_t end, enum cr_xtype type)
{
    size_t n = args->n_features;
    for (size_t block = begin; block < end; block++) {
        void *y = (char *)args->y + block * args->y_stride;
        for (size_t col = 0; col < CR_LANES; col += LANES_N) {
            const float *x = args->x + block * args->x_stride + col;
            lanes mean = sum_squares(x, n) / (float)n;
            lanes r = 1.0f / lanes_sqrt(mean + args->eps);
            lanes_storeu(args->rstd + block * CR_LANES + col, r);
            size_t k = 0;
            for (; k + 2 <= n; k += 2) {
                lanes even = lanes_load(x + k * CR_LANES) * r * args->w[k];
                lanes odd = lanes_load(x + (k + 1) * CR_LANES) * r * args->w[k + 1];
                operand_store(y, type, k, col, even, odd);
            }
            if (k < n) { /* f32 only */
                lanes_store((float *)y + k * CR_LANES + col, lanes_load(x + k * CR_LANES) * r * args->w[k]);
            }
        }
    }
}

static void rms_fwd(const struct cr_norm_args *args, size_t begin, size_t end)
{
    if (args->y_type == CR_X_BF16) {
        forward(args, begin, end, CR_X_BF16);
    } else {
        forward(args, begin, end, CR_X_F32);
    }
}

static void rms_bwd(const struct cr_norm_args *args, size_t begin, size_t end)
{
    size_t n = args->n_features;
    const float *w = args->w;
    for (size_t block = begin; block < end; block++) {
        for (size_t col = 0; col < CR_LANES; col += LANES_N) {
            const float *x = args->x + block * args->x_stride + col;
            const float *dy = args->dy + block * args->dy_stride + col;
            float *dx = args->dx + block * args->dx_stride + col;
            lanes r = lanes_loadu(args->rstd + block * CR_LANES + col);
            lanes c = r * r * r * (weighted_dot(x, dy, w, n) / (float)n);
            for (size_t k = 0; k < n; k++) {
                lanes own = r * (w[k] * lanes_load(dy + k * CR_LANES));
                lanes shared = lanes_load(x + k * CR_LANES) * c;
                lanes_store(dx + k * CR_LANES, lanes_load(dx + k * CR_LANES) + (own - shared));
            }
        }
    }
}

static void fill(struct cr_norm_ops *ops)
{
    *ops = (struct cr_norm_ops){.rms_fwd = rms_fwd, .rms_bwd = rms_bwd};
}

#endif
