/* scalar_math: exp, log, sin, cos and pow in double, and exp in f32, for tables, schedules and metrics.
 *
 * No libm apart from fma and the rounding of the processor, so the numbers do not change with the C library.
 * Infinities, NaN and denormals behave as IEEE 754 recommends unless said below.
 */
#ifndef CR_COMMON_SCALAR_MATH_H
#define CR_COMMON_SCALAR_MATH_H

/* Relative error below 2^-51 (results below 2^-1022: of the denormal spacing). */
double cr_exp(double x);

/* Natural logarithm (cr_log is the logger), relative error below 2^-51. -inf at 0, NaN below. */
double cr_ln(double x);

/* Angle in radians, error below 2^-51 absolute. NaN where |x| > 1e8: the reduction is exact only up to there. */
double cr_sin(double x);
double cr_cos(double x);

/* base^y for base >= 0, relative error below 2^-50. NaN for a negative base; 0^0 is 1. */
double cr_pow(double base, double y);

/* The exp of kernels/common/lanes_math.h for one number, the same bits. */
float cr_expf(float x);

#endif
