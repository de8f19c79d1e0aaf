/* lanes_math: exp and the logistic function on f32 lanes. No libm, same bits on every tier.
 *
 * lanes_exp: within 2 ulp of e^x for every finite x (denormal results: of the denormal spacing); +inf above
 * 88.7228, 0 below -103.98, exactly 1 at 0; NaN gives NaN, -inf gives 0, +inf gives +inf.
 *
 * Method: n = nearest integer of x log2(e); r = x - n ln2 in two parts, the high part of ln2 cut to 16 bits so that
 * its product with n (8 bits) and the difference are exact; e^r = 1 + r + r^2 q(r), q the minimax quartic of
 * (e^r - 1 - r) / r^2 for the error relative to e^r on |r| <= 0.5005 ln2 (own Remez run, error 0.052 * 2^-24); then
 * a scale by 2^n that rounds once. Error: r carries 2^-26, the quartic 2^-25, the last sum half an ulp: below 1 ulp.
 */
#ifndef CR_COMMON_LANES_MATH_H
#define CR_COMMON_LANES_MATH_H

#include "kernels/common/lanes.h"

/* 1.5 * 2^23: adding it leaves the nearest integer in the low bits of the sum. */
#define CR_EXP_MAGIC 0x1.8p23f
#define CR_EXP_LOG2E 0x1.715476p0f
#define CR_EXP_LN2_HI 0x1.62e4p-1f
#define CR_EXP_LN2_LO 0x1.7f7d1cp-20f
/* Beyond these the result is +inf or 0 for good: 2^128 and below half of the least denormal. */
#define CR_EXP_MAX 89.0f
#define CR_EXP_MIN (-105.0f)
#define CR_EXP_Q0 0x1.fffffcp-2f
#define CR_EXP_Q1 0x1.555492p-3f
#define CR_EXP_Q2 0x1.5558f2p-5f
#define CR_EXP_Q3 0x1.123a2p-7f
#define CR_EXP_Q4 0x1.6a23dp-10f

/* p * 2^n, n as the integer left in `biased` by the magic sum and its value in `n`; rounds once (|n| <= 152). */
CR_INLINE lanes lanes_exp_scale(lanes p, lanes n, lanes biased)
{
#if LANES_N == 16
    (void)biased;
    return (lanes)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    (void)n;
    lanes_i k = (lanes_i)biased - (lanes_i)lanes_splat(CR_EXP_MAGIC);
    lanes_i half = k >> 1;
    lanes_u first = (lanes_u)(half + 127) << 23;
    lanes_u second = (lanes_u)(k - half + 127) << 23;
    return (p * (lanes)first) * (lanes)second; /* the first product is exact */
#endif
}

CR_INLINE lanes lanes_exp(lanes x)
{
    /* The constant stands first: where x is NaN, both keep it. */
    x = lanes_min(lanes_splat(CR_EXP_MAX), x);
    x = lanes_max(lanes_splat(CR_EXP_MIN), x);
    lanes biased = x * CR_EXP_LOG2E + CR_EXP_MAGIC;
    lanes n = biased - CR_EXP_MAGIC;
    lanes r = (x - n * CR_EXP_LN2_HI) - n * CR_EXP_LN2_LO;
    lanes r2 = r * r;
    lanes low = CR_EXP_Q1 * r + CR_EXP_Q0;
    lanes high = CR_EXP_Q3 * r + CR_EXP_Q2;
    lanes q = (CR_EXP_Q4 * r2 + high) * r2 + low;
    lanes p = 1.0f + (r + r2 * q);
    return lanes_exp_scale(p, n, biased);
}

/* 1 / (1 + e^-x): within 3 ulp down to x = -88; below, 0 (absolute error under 2^-126). NaN gives NaN. */
CR_INLINE lanes lanes_sigmoid(lanes x)
{
    return 1.0f / (1.0f + lanes_exp(-x));
}

#endif
