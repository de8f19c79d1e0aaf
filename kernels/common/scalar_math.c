/* scalar_math: Cody-Waite reduction and power series, each long enough that the first term left out is below 2^-55
 * of the sum. The series are the Taylor ones: their coefficients are 1/k! and 1/(2k+1), checked by eye. */
#include "credence/kernels/math.h"

#include <stdint.h>
#include <string.h>

#include "kernels/common/lanes_math.h"

/* 1.5 * 2^52: adding it leaves the nearest integer in the low bits of the sum. */
#define MAGIC 0x1.8p52
#define LOG2E 0x1.71547652b82fep+0
/* ln 2: 32 bits, so that its product with an exponent (11 bits) is exact, and the rest. */
#define LN2_HI 0x1.62e42feep-1
#define LN2_LO 0x1.a39ef35793c76p-33
#define SQRT2 0x1.6a09e667f3bcdp+0

static const double infinity = __builtin_inf();

static uint64_t bits_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static double from_bits(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static double power_of_two(int64_t n)
{
    return from_bits((uint64_t)(n + 1023) << 52);
}

double cr_exp(double x)
{
    /* 1 / k! from k = 13 down to 2 */
    static const double c[12] = {1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0,
                                 1.0 / 362880.0,     1.0 / 40320.0,     1.0 / 5040.0,     1.0 / 720.0,
                                 1.0 / 120.0,        1.0 / 24.0,        1.0 / 6.0,        0.5};
    if (x != x) {
        return x;
    }
    if (x > 709.8) {
        return infinity;
    }
    if (x < -745.2) {
        return 0;
    }
    double biased = x * LOG2E + MAGIC;
    double n = biased - MAGIC;
    double r = (x - n * LN2_HI) - n * LN2_LO;
    double q = c[0];
    for (int i = 1; i < 12; i++) {
        q = q * r + c[i];
    }
    int64_t k = (int64_t)n, half = k >> 1;
    return (1.0 + (r + r * r * q)) * power_of_two(half) * power_of_two(k - half);
}

/* log(x) for finite x > 0 as the unevaluated sum high + *low, about 2^-62 relative apart from the series' own 2^-57:
 * x = 2^e m with m in [1/sqrt 2, sqrt 2), log m = 2 atanh(s), s = (m - 1) / (m + 1). */
static double log_parts(double x, double *low)
{
    /* 2 / (2k + 1) from k = 11 down to 1 */
    static const double c[11] = {2.0 / 23.0, 2.0 / 21.0, 2.0 / 19.0, 2.0 / 17.0, 2.0 / 15.0, 2.0 / 13.0,
                                 2.0 / 11.0, 2.0 / 9.0,  2.0 / 7.0,  2.0 / 5.0,  2.0 / 3.0};
    int64_t e = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        e = -54;
    }
    e += (int64_t)(bits_of(x) >> 52) - 1023;
    double m = from_bits((bits_of(x) & 0xfffffffffffffu) | 0x3ff0000000000000u);
    if (m >= SQRT2) {
        m *= 0.5;
        e++;
    }
    double above = m - 1.0, sum = m + 1.0;
    double sum_low = m < 1.0 ? m - (sum - 1.0) : 1.0 - (sum - m); /* what rounding took from m + 1 */
    double s = above / sum;
    double s_low = (__builtin_fma(-s, sum, above) - s * sum_low) / sum;
    double z = s * s, series = c[0];
    for (int i = 1; i < 11; i++) {
        series = series * z + c[i];
    }
    double base = (double)e * LN2_HI, high = base + 2.0 * s;
    double lost = e == 0 ? 0 : (base - high) + 2.0 * s; /* |base| is the greater one */
    double rest = lost + ((double)e * LN2_LO + (2.0 * s_low + s * z * series));
    double total = high + rest;
    *low = (high - total) + rest;
    return total;
}

double cr_ln(double x)
{
    double low;
    if (x != x || x == infinity) {
        return x;
    }
    if (x <= 0) {
        return x == 0 ? -infinity : __builtin_nan("");
    }
    return log_parts(x, &low);
}

double cr_pow(double base, double y)
{
    if (y == 0 || base == 1) {
        return 1;
    }
    if (base != base || y != y || base < 0) {
        return __builtin_nan("");
    }
    if (base == 0 || base == infinity || y == infinity || y == -infinity) {
        int grows = base > 1 ? y > 0 : y < 0;
        return grows ? infinity : 0;
    }
    double low, high = log_parts(base, &low);
    double product = y * high;
    if (product > 709.8 || product < -745.2) {
        return product > 0 ? infinity : 0;
    }
    double rest = __builtin_fma(y, high, -product) + y * low;
    double main_part = cr_exp(product);
    return main_part == infinity ? infinity : main_part + main_part * rest;
}

/* x - n pi/2 for the nearest integer n, |result| <= pi/4 and a little; the quadrant n mod 4 goes to *quadrant.
 * pi/2 in three parts of 27 bits, whose products with n (26 bits) are exact, and the rest. */
static double reduce(double x, unsigned *quadrant)
{
    double biased = x * 0x1.45f306dc9c883p-1 + MAGIC;
    double n = biased - MAGIC;
    *quadrant = (unsigned)(int64_t)n & 3u;
    double r = ((x - n * 0x1.921fb54p+0) - n * 0x1.10b461p-30) - n * 0x1.a62633p-58;
    return r - n * 0x1.45c06e0e68948p-86;
}

static double sin_near(double r)
{
    static const double c[8] = {1.0 / 355687428096000.0, -1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0,
                                1.0 / 362880.0,          -1.0 / 5040.0,          1.0 / 120.0,        -1.0 / 6.0};
    double z = r * r, q = c[0];
    for (int i = 1; i < 8; i++) {
        q = q * z + c[i];
    }
    return r + r * z * q;
}

static double cos_near(double r)
{
    static const double c[8] = {1.0 / 20922789888000.0, -1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0,
                                1.0 / 40320.0,          -1.0 / 720.0,         1.0 / 24.0,        -0.5};
    double z = r * r, q = c[0];
    for (int i = 1; i < 8; i++) {
        q = q * z + c[i];
    }
    return 1.0 + z * q;
}

/* sin(x + shift pi/2) */
static double sin_shifted(double x, unsigned shift)
{
    if (!(x >= -1e8 && x <= 1e8)) {
        return __builtin_nan("");
    }
    unsigned quadrant;
    double r = reduce(x, &quadrant);
    quadrant += shift;
    double value = quadrant & 1u ? cos_near(r) : sin_near(r);
    return quadrant & 2u ? -value : value;
}

double cr_sin(double x)
{
    return sin_shifted(x, 0);
}

double cr_cos(double x)
{
    return sin_shifted(x, 1);
}

float cr_expf(float x)
{
    return lanes_exp(lanes_splat(x))[0];
}
