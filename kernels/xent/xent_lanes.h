/* xent: the template of all tiers. */
#ifndef CR_XENT_LANES_H
#define CR_XENT_LANES_H

#include "kernels/common/lanes_math.h"
#include "kernels/common/lanes_operand.h"
#include "kernels/common/tiers.h"
#include "credence/kernels/xent.h"

/* The larger of *start and every row. */
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

static void fill(struct cr_xent_ops *ops)
{
    *ops = (struct cr_xent_ops){.stats = stats, .grad = grad};
}

#endif
