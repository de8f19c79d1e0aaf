/* math: exp, log, sin, cos and pow in double, and exp in f32, for tables, schedules and metrics.
 *
 * No libm apart from fma and the rounding of the processor, so the numbers do not change with the C library.
 * Infinities, NaN and denormals behave as IEEE 754 recommends unless said below.
 */
#ifndef CREDENCE_KERNELS_MATH_H
#define CREDENCE_KERNELS_MATH_H

#include "credence/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Relative error below 2^-51 (results below 2^-1022: of the denormal spacing). */
CR_API double cr_exp(double x);

/* Natural logarithm (cr_log is the logger), relative error below 2^-51. -inf at 0, NaN below. */
CR_API double cr_ln(double x);

/* Angle in radians, error below 2^-51 absolute. NaN where |x| > 1e8: the reduction is exact only up to there. */
CR_API double cr_sin(double x);
CR_API double cr_cos(double x);

/* base^y for base >= 0, relative error below 2^-50. NaN for a negative base; 0^0 is 1. */
CR_API double cr_pow(double base, double y);

/* The exp of kernels/common/lanes_math.h for one number, the same bits. */
CR_API float cr_expf(float x);

#ifdef __cplusplus
}
#endif
#endif
