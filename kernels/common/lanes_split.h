/* lanes_split: a float as the exact sum of three bf16 numbers: high and middle part rounded, low part the rest (8 + 8 +
 * 8 bits). Products of the parts with bf16 numbers are exact in f32, so units for bf16 keep what f32 has.
 *
 * Of |x| < 2^-103 parts may be subnormal, which such units take for zero: together less than 3 * 2^-126 is lost. Of an
 * x that is not finite, or rounds to infinity as bf16, the parts add up to NaN.
 */
#ifndef CR_COMMON_LANES_SPLIT_H
#define CR_COMMON_LANES_SPLIT_H

#include "kernels/common/lanes.h"

/* The parts as floats whose low halves are zero. Rounding is half away from zero: the rest fits either way. */
CR_INLINE void split3(lanes x, lanes_u part[3])
{
    part[0] = (lanes_bits(x) + 0x8000u) & 0xffff0000u;
    lanes rest = x - lanes_from_bits(part[0]);
    part[1] = (lanes_bits(rest) + 0x8000u) & 0xffff0000u;
    part[2] = lanes_bits(rest - lanes_from_bits(part[1])) & 0xffff0000u;
}

#endif
