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

/* sum_k w dy x, feature by feature in the same chains. */
CR_INLINE lanes weighted_dot(const void *x, enum cr_xtype type, size_t col, const float *dy, const float *w, size_t n)
{
    lanes s[4] = {lanes_zero(), lanes_zero(), lanes_zero(), lanes_zero()};
    size_t k = 0;
    for (; k + 2 <= n; k += 2) {
        lanes even, odd;
        operand_load(x, type, k, col, &even, &odd);
        s[k % 4] += w[k] * lanes_load(dy + k * CR_LANES) * even;
        s[k % 4 + 1] += w[k + 1] * lanes_load(dy + (k + 1) * CR_LANES) * odd;
    }
    if (k < n) { /* f32 only */
        s[k % 4] += w[k] * lanes_load(dy + k * CR_LANES) * lanes_load((const float *)x + k * CR_LANES + col);
    }
    return (s[0] + s[1]) + (s[2] + s[3]);
}

/* y = x r w of one column. */
CR_INLINE void scale_column(const struct cr_norm_args *args, const void *x, enum cr_xtype x_type, void *y,
                            enum cr_xtype y_type, size_t col, lanes r)
{
    size_t n = args->n_features;
    size_t k = 0;
    for (; k + 2 <= n; k += 2) {
        lanes even, odd;
        operand_load(x, x_type, k, col, &even, &odd);
        operand_store(y, y_type, k, col, even * r * args->w[k], odd * r * args->w[k + 1]);
    }
    if (k < n) { /* f32 only */
        lanes xk = lanes_load((const float *)x + k * CR_LANES + col);
        lanes_store((float *)y + k * CR_LANES + col, xk * r * args->w[k]);
    }
}

CR_INLINE void forward(const struct cr_norm_args *args, size_t begin, size_t end, enum cr_xtype y_type)
{
    size_t n = args->n_features;
    for (size_t block = begin; block < end; block++) {
        const float *x = (const float *)((const char *)args->x + block * args->x_stride);
        for (size_t col = 0; col < CR_LANES; col += LANES_N) {
            lanes mean = sum_squares(x + col, n) / (float)n;
            lanes r = 1.0f / lanes_sqrt(mean + args->eps);
            lanes_storeu(args->rstd + block * CR_LANES + col, r);
            scale_column(args, x, CR_X_F32, (char *)args->y + block * args->y_stride, y_type, col, r);
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

CR_INLINE void apply(const struct cr_norm_args *args, size_t begin, size_t end, enum cr_xtype x_type,
                     enum cr_xtype y_type)
{
    for (size_t block = begin; block < end; block++) {
        const void *x = (const char *)args->x + block * args->x_stride;
        void *y = (char *)args->y + block * args->y_stride;
        for (size_t col = 0; col < CR_LANES; col += LANES_N) {
            lanes r = lanes_loadu(args->rstd + block * CR_LANES + col);
            scale_column(args, x, x_type, y, y_type, col, r);
        }
    }
}

static void rms_apply(const struct cr_norm_args *args, size_t begin, size_t end)
{
    if (args->x_type == CR_X_BF16 && args->y_type == CR_X_BF16) {
        apply(args, begin, end, CR_X_BF16, CR_X_BF16);
    } else {
        apply(args, begin, end, args->x_type, args->y_type);
    }
}

CR_INLINE void backward_column(const struct cr_norm_args *args, size_t block, size_t col, enum cr_xtype x_type)
{
    size_t n = args->n_features;
    const float *w = args->w;
    const void *x = (const char *)args->x + block * args->x_stride;
    const float *dy = args->dy + block * args->dy_stride + col;
    float *dx = args->dx + block * args->dx_stride + col;
    lanes r = lanes_loadu(args->rstd + block * CR_LANES + col);
    lanes c = r * r * r * (weighted_dot(x, x_type, col, dy, w, n) / (float)n);
    size_t k = 0;
    for (; k + 2 <= n; k += 2) {
        lanes even, odd;
        operand_load(x, x_type, k, col, &even, &odd);
        lanes own = r * (w[k] * lanes_load(dy + k * CR_LANES));
        lanes_store(dx + k * CR_LANES, lanes_load(dx + k * CR_LANES) + (own - even * c));
        own = r * (w[k + 1] * lanes_load(dy + (k + 1) * CR_LANES));
        lanes_store(dx + (k + 1) * CR_LANES, lanes_load(dx + (k + 1) * CR_LANES) + (own - odd * c));
    }
    if (k < n) { /* f32 only */
        lanes own = r * (w[k] * lanes_load(dy + k * CR_LANES));
        lanes shared = lanes_load((const float *)x + k * CR_LANES + col) * c;
        lanes_store(dx + k * CR_LANES, lanes_load(dx + k * CR_LANES) + (own - shared));
    }
}

static void rms_bwd(const struct cr_norm_args *args, size_t begin, size_t end)
{
    for (size_t block = begin; block < end; block++) {
        for (size_t col = 0; col < CR_LANES; col += LANES_N) {
            if (args->x_type == CR_X_BF16) {
                backward_column(args, block, col, CR_X_BF16);
            } else {
                backward_column(args, block, col, CR_X_F32);
            }
        }
    }
}

static void fill(struct cr_norm_ops *ops)
{
    static const struct cr_norm_ops table = {.rms_fwd = rms_fwd, .rms_apply = rms_apply, .rms_bwd = rms_bwd};
    *ops = table;
}

#endif
