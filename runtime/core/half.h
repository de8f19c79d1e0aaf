/* IEEE half and bfloat16 by integer arithmetic: portable, exact, independent of the rounding mode.
 * f32 -> half and bf16 round to nearest even; NaN stays a quiet NaN. */
#ifndef CR_CORE_HALF_H
#define CR_CORE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t cr_f32_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float cr_bits_f32(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint16_t cr_f32_to_bf16(float value)
{
    uint32_t bits = cr_f32_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 0x40);
    }
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static inline float cr_bf16_to_f32(uint16_t half)
{
    return cr_bits_f32((uint32_t)half << 16);
}

static inline uint16_t cr_f32_to_f16(float value)
{
    uint32_t bits = cr_f32_bits(value);
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude >= 0x7f800000u) {
        return (uint16_t)(sign | 0x7c00u | (magnitude > 0x7f800000u ? 0x200u | (magnitude >> 13 & 0x3ffu) : 0));
    }
    if (magnitude >= 0x477ff000u) { /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    }
    if (magnitude >= 0x38800000u) { /* normal half: rebias the exponent by 112, round the 13 bits that go */
        uint32_t rounded = magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1);
        return (uint16_t)(sign | rounded >> 13);
    }
    uint32_t exponent = magnitude >> 23;
    if (exponent < 102) { /* below half of the smallest subnormal, 2^-25 */
        return (uint16_t)sign;
    }
    uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    uint32_t shift = 126 - exponent; /* 14 ... 24 */
    uint32_t kept = mantissa >> shift;
    uint32_t rest = mantissa & ((1u << shift) - 1);
    uint32_t tie = 1u << (shift - 1);
    kept += rest > tie || (rest == tie && (kept & 1) != 0);
    return (uint16_t)(sign | kept);
}

static inline float cr_f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = half >> 10 & 0x1f;
    uint32_t mantissa = half & 0x3ff;
    if (exponent == 31) {
        return cr_bits_f32(sign | 0x7f800000u | (mantissa != 0 ? 0x400000u : 0) | mantissa << 13);
    }
    if (exponent == 0) { /* mantissa * 2^-24 is exact */
        float value = (float)mantissa * 0x1p-24f;
        return sign != 0 ? -value : value;
    }
    return cr_bits_f32(sign | (exponent + 112) << 23 | mantissa << 13);
}

#endif
