/* xent: the template of all tiers. */
#ifndef CR_XENT_LANES_H
#define CR_XENT_LANES_H

#include "kernels/common/lanes_math.h"
#include "kernels/common/lanes_operand.h"
#include "kernels/common/tiers.h"
#include "credence/kernels/xent.h"

/* The largest of `start` and every row. */
CR_INLINE lanes column_max(const float *z, size_t n_rows, lanes start)
{
    lanes m[4] = {start, start, start, start};
    size_t v = 0;
    for (; v + 4 <= n_rows; v += 4) {
        for (size_t i = 0; i < 4; i++) {
            m[i] = lanes_max(m[i], lanes_load(z + (v + i) * CR_LANES));
        }
    }
    for (; v < n_rows; v++) {
        m[0] = lanes_max(m[0], lanes_load(z + v * CR_LANES));
    }
    return lanes_max(lanes_max(m[0], m[1]), lanes_max(m[2], m[3]));
}

/* sum exp(z - m): chain i takes the rows i mod 2 in order. */
CR_INLINE lanes column_sum(const float *z, size_t n_rows, lanes m)
{
    lanes s0 = lanes_zero(), s1 = s0;
    size_t v = 0;
    for (; v + 2 <= n_rows; v += 2) {
        s0 += lanes_exp(lanes_load(z + v * CR_LANES) - m);
        s1 += lanes_exp(lanes_load(z + (v + 1) * CR_LANES) - m);
    }
    if (v < n_rows) {
        s0 += lanes_exp(lanes_load(z + v * CR_LANES) - m);
    }
    return s0 + s1;
}

static void stats(const struct cr_xent_args *args, size_t begin, size_t end)
{
    for (size_t block = begin; block < end; block++) {
        const float *z = args->z + block * args->z_stride;
        size_t first = block * CR_LANES;
        for (size_t col = 0; col < CR_LANES; col += LANES_N) {
            float *m = args->m + first + col, *s = args->s + first + col;
            lanes before = lanes_loadu(m);
            lanes after = column_max(z + col, args->n_rows, before);
            /* Where every row so far is -inf the differences would be NaN: measure from 0, all terms are 0. */
            lanes_i empty = lanes_equal_i((lanes_i)after, lanes_splat_i((int32_t)0xff800000u));
            lanes from = lanes_select(empty, lanes_zero(), after);
            lanes kept = lanes_loadu(s) * lanes_exp(before - from);
            lanes_storeu(m, after);
            lanes_storeu(s, kept + column_sum(z + col, args->n_rows, from));
        }
        for (size_t t = 0; t < CR_LANES; t++) {
            int64_t row = (int64_t)args->target[first + t] - (int64_t)args->first_row;
            if (args->target[first + t] >= 0 && row >= 0 && row < (int64_t)args->n_rows) {
                args->label[first + t] += z[(size_t)row * CR_LANES + t];
            }
        }
    }
}

/* dz of one row; one is 1.0 in the lanes whose target it is. */
CR_INLINE lanes grad_at(lanes z, lanes lse, lanes weight, lanes_i target, size_t row)
{
    lanes_i hit = lanes_equal_i(target, lanes_splat_i((int32_t)row));
    lanes one = (lanes)((lanes_i)lanes_splat(1.0f) & hit);
    return (lanes_exp(z - lse) - one) * weight;
}

CR_INLINE void gradient(const struct cr_xent_args *args, size_t begin, size_t end, enum cr_xtype type)
{
    size_t n = args->n_rows;
    for (size_t block = begin; block < end; block++) {
        char *dz = (char *)args->dz + block * args->dz_stride;
        for (size_t col = 0; col < CR_LANES; col += LANES_N) {
            const float *z = args->z + block * args->z_stride + col;
            size_t at = block * CR_LANES + col;
            lanes lse = lanes_loadu(args->lse + at), weight = lanes_loadu(args->weight + at);
            lanes_i target = lanes_loadu_i(args->target + at);
            size_t v = 0;
            for (; v + 2 <= n; v += 2) {
                size_t row = args->first_row + v;
                lanes even = grad_at(lanes_load(z + v * CR_LANES), lse, weight, target, row);
                lanes odd = grad_at(lanes_load(z + (v + 1) * CR_LANES), lse, weight, target, row + 1);
                operand_store(dz, type, v, col, even, odd);
            }
            if (v < n) { /* f32 only */
                lanes last = grad_at(lanes_load(z + v * CR_LANES), lse, weight, target, args->first_row + v);
                lanes_store((float *)(void *)dz + v * CR_LANES + col, last);
            }
        }
    }
}

static void grad(const struct cr_xent_args *args, size_t begin, size_t end)
{
    if (args->dz_type == CR_X_BF16) {
        gradient(args, begin, end, CR_X_BF16);
    } else {
        gradient(args, begin, end, CR_X_F32);
    }
}

/* Sums of the even and of the odd rows, exact terms and terms as they are stored. */
struct sums {
    lanes s[2], mass[2];
};

/* exp(z - m) of one row; masked: 0 in the lanes without a label and in those whose label it is. */
CR_INLINE lanes exp_at(lanes z, lanes m, lanes_i target, size_t row, int masked)
{
    lanes p = lanes_exp(z - m);
    if (!masked) {
        return p;
    }
    lanes_i drop = lanes_equal_i(target, lanes_splat_i((int32_t)row)) | lanes_greater_i(lanes_splat_i(0), target);
    return (lanes)((lanes_i)p & ~drop);
}

CR_INLINE void put_exp(void *p, enum cr_xtype type, size_t v, size_t col, lanes even, lanes odd, struct sums *sum)
{
    operand_store(p, type, v, col, even, odd);
    sum->s[0] += even;
    sum->s[1] += odd;
    if (type == CR_X_BF16) {
        sum->mass[0] += lanes_from_bits(lanes_to_bf16(even) << 16);
        sum->mass[1] += lanes_from_bits(lanes_to_bf16(odd) << 16);
    }
}

CR_INLINE void exp_block(const struct cr_xent_args *args, size_t block, enum cr_xtype type, int masked)
{
    char *p = (char *)args->dz + block * args->dz_stride;
    size_t n = args->n_rows, first = args->first_row;
    for (size_t col = 0; col < CR_LANES; col += LANES_N) {
        const float *z = args->z + block * args->z_stride + col;
        size_t at = block * CR_LANES + col, v = 0;
        lanes m = lanes_loadu(args->m + at);
        lanes_i target = lanes_loadu_i(args->target + at);
        struct sums sum = {{lanes_zero(), lanes_zero()}, {lanes_zero(), lanes_zero()}};
        for (; v + 2 <= n; v += 2) {
            lanes even = exp_at(lanes_load(z + v * CR_LANES), m, target, first + v, masked);
            lanes odd = exp_at(lanes_load(z + (v + 1) * CR_LANES), m, target, first + v + 1, masked);
            put_exp(p, type, v, col, even, odd, &sum);
        }
        if (v < n) {
            lanes last = exp_at(lanes_load(z + v * CR_LANES), m, target, first + v, masked);
            if (type == CR_X_BF16) {
                put_exp(p, type, v, col, last, lanes_zero(), &sum);
            } else {
                lanes_store((float *)(void *)p + v * CR_LANES + col, last);
                sum.s[0] += last;
            }
        }
        lanes s = sum.s[0] + sum.s[1], mass = s;
        if (type == CR_X_BF16) {
            mass = sum.mass[0] + sum.mass[1];
        }
        lanes_storeu(args->s + at, lanes_loadu(args->s + at) + s);
        lanes_storeu(args->mass + at, lanes_loadu(args->mass + at) + mass);
    }
}

/* Some token of the block has no label, or has it among these rows. */
static int needs_mask(const struct cr_xent_args *args, size_t block)
{
    for (size_t t = block * CR_LANES; t < (block + 1) * CR_LANES; t++) {
        int64_t row = (int64_t)args->target[t] - (int64_t)args->first_row;
        if (args->target[t] < 0 || (row >= 0 && row < (int64_t)args->n_rows)) {
            return 1;
        }
    }
    return 0;
}

static void expsum(const struct cr_xent_args *args, size_t begin, size_t end)
{
    for (size_t block = begin; block < end; block++) {
        int masked = needs_mask(args, block);
        if (args->dz_type == CR_X_BF16) {
            if (masked) {
                exp_block(args, block, CR_X_BF16, 1);
            } else {
                exp_block(args, block, CR_X_BF16, 0);
            }
        } else {
            exp_block(args, block, CR_X_F32, masked);
        }
    }
}

/* Feature f mod 2 goes to its own chain. */
CR_INLINE void label_block(const struct cr_xent_row_args *args, size_t block, enum cr_xtype type)
{
    const char *h = (const char *)args->h + block * args->h_stride;
    for (size_t col = 0; col < CR_LANES; col += LANES_N) {
        float *w = args->w + block * args->w_stride + col;
        lanes even = lanes_zero(), odd = even;
        size_t f = 0;
        for (; f + 2 <= args->n_features; f += 2) {
            lanes h0, h1, w0 = lanes_load(w + f * CR_LANES), w1 = lanes_load(w + (f + 1) * CR_LANES);
            operand_load(h, type, f, col, &h0, &h1);
            if (type == CR_X_BF16) {
                w0 = lanes_from_bits(lanes_to_bf16(w0) << 16);
                w1 = lanes_from_bits(lanes_to_bf16(w1) << 16);
                lanes_store(w + f * CR_LANES, w0);
                lanes_store(w + (f + 1) * CR_LANES, w1);
            }
            even = w0 * h0 + even;
            odd = w1 * h1 + odd;
        }
        if (f < args->n_features) { /* f32 only */
            even =
                lanes_load(w + f * CR_LANES) * lanes_load((const float *)(const void *)h + f * CR_LANES + col) + even;
        }
        lanes_storeu(args->m + block * CR_LANES + col, even + odd);
    }
}

static void label(const struct cr_xent_row_args *args, size_t begin, size_t end)
{
    for (size_t block = begin; block < end; block++) {
        if (args->h_type == CR_X_BF16) {
            label_block(args, block, CR_X_BF16);
        } else {
            label_block(args, block, CR_X_F32);
        }
    }
}

static void finish(const struct cr_xent_row_args *args, size_t begin, size_t end)
{
    for (size_t block = begin; block < end; block++) {
        for (size_t col = 0; col < CR_LANES; col += LANES_N) {
            const float *w = args->w + block * args->w_stride + col;
            float *dh = args->dh + block * args->dh_stride + col;
            lanes mass = lanes_loadu(args->mass + block * CR_LANES + col);
            lanes scale = lanes_loadu(args->scale + block * CR_LANES + col);
            for (size_t f = 0; f < args->n_features; f++) {
                lanes x = lanes_load(dh + f * CR_LANES) - mass * lanes_load(w + f * CR_LANES);
                lanes_store(dh + f * CR_LANES, x * scale);
            }
        }
    }
}

static void fill(struct cr_xent_ops *ops)
{
    static const struct cr_xent_ops table = {
        .stats = stats, .grad = grad, .expsum = expsum, .label = label, .finish = finish};
    *ops = table;
}

#endif
