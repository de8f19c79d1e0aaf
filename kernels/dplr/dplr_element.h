/* dplr: one element of a draw and of a collection, for the reference and the tails of the vector tiers; the layout of a
 * chunk's sums. */
#ifndef CR_DPLR_ELEMENT_H
#define CR_DPLR_ELEMENT_H

#include "credence/kernels/dplr.h"
#include "credence/kernels/math.h"
#include "kernels/common/half.h"

enum { DPLR_CHAINS = 16, DPLR_ROWS_MAX = 1 << 16 };

static inline float dplr_fused(float a, float b, float c)
{
    return __builtin_fmaf(a, b, c);
}

static inline float dplr_var(const struct cr_dplr_args *a, size_t e)
{
    float floor = (float)a->var_floor;
    return a->var[e] > floor ? a->var[e] : floor;
}

static inline float dplr_row(const struct cr_dplr_args *a, size_t k, size_t e)
{
    return cr_bf16_to_f32(a->rows[k * a->row_stride + e]);
}

static inline float dplr_draw(const struct cr_dplr_args *a, size_t s, size_t e)
{
    struct cr_noise noise = a->noise;
    noise.sample += (uint32_t)s;
    float sum = 0, eps = a->eps != NULL ? a->eps[s * a->eps_stride + e] : cr_normal_at(&noise, e);
    for (size_t k = 0; k < a->n_rows; k++) {
        sum = dplr_fused(a->coef[k * a->n_samples + s], dplr_row(a, k, e), sum);
    }
    return a->mean[e] + dplr_fused(__builtin_sqrtf((float)a->var_scale * dplr_var(a, e)), eps, sum);
}

/* 1 / (n + 1) and n / (n + 1) */
struct dplr_weights {
    float step, keep;
};

static inline struct dplr_weights dplr_weights_of(uint64_t n)
{
    double count = (double)n;
    return (struct dplr_weights){(float)(1 / (count + 1)), (float)(count / (count + 1))};
}

static inline void dplr_collect(const struct cr_dplr_collect_args *a, struct dplr_weights c, size_t e)
{
    float mean = a->mean[e], delta = (a->w[e] - mean) - a->mean_low[e];
    float step = delta * c.step, sum = mean + step, part = sum - mean;
    float low = a->mean_low[e] + ((mean - (sum - part)) + (step - part)); /* what the sum lost (Knuth) */
    float dev = delta * c.keep, high = sum + low;
    a->mean[e] = high;
    a->mean_low[e] = low - (high - sum);
    a->m2[e] = dplr_fused(delta, dev, a->m2[e]);
    a->row[e] = cr_f32_to_bf16(dev);
}

/* Chain of an element of the sums: neighbours share one, as the pairs of a bf16 word do. */
static inline size_t dplr_chain(size_t e)
{
    return e / 2 % DPLR_CHAINS;
}

static inline double dplr_join(const float chain[DPLR_CHAINS])
{
    double sum = 0;
    for (size_t i = 0; i < DPLR_CHAINS; i++) {
        sum += (double)chain[i];
    }
    return sum;
}

/* The mantissa of a positive number, 1 to below 2; its exponent is added to *exponents. */
static inline double dplr_mantissa(float v, int64_t *exponents)
{
    uint32_t bits;
    float m;
    memcpy(&bits, &v, sizeof bits);
    *exponents += (int64_t)(bits >> 23) - 127;
    bits = (bits & 0x7fffffu) | 0x3f800000u;
    memcpy(&m, &bits, sizeof m);
    return (double)m;
}

/* Product of the mantissas of a chunk in 16 chains (element mod 16), below 2^256, and the sum of the exponents. */
static inline double dplr_join_logs(const double mantissa[DPLR_CHAINS], int64_t exponents)
{
    double sum = 0x1.62e42fefa39efp-1 * (double)exponents; /* ln 2 */
    for (size_t i = 0; i < DPLR_CHAINS; i++) {
        sum += cr_ln(mantissa[i]);
    }
    return sum;
}

/* Where a chunk's sums are: u[k], then g[k][j]. */
static inline size_t dplr_u(size_t k)
{
    return 2 + k;
}

static inline size_t dplr_g(size_t n_rows, size_t k, size_t j)
{
    return 2 + n_rows + k * (k + 1) / 2 + j;
}

#endif
