/* half: the two 16-bit float formats as plain functions of their bits.
 *
 * f16   IEEE binary16, exact to f32 including subnormals
 * bf16  upper half of an f32; the way back rounds to nearest even
 * NaN comes out as a quiet NaN with the top payload bits kept (bf16 to f32 is a plain shift). No operation here depends
 * on the flush modes of the control register.
 */
#ifndef CR_COMMON_HALF_H
#define CR_COMMON_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t cr_f32_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float cr_f32_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float cr_f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t rest = half & 0x7fffu;
    if (rest >= 0x7c00u) {
        uint32_t quiet = rest > 0x7c00u ? 0x400000u : 0;
        return cr_f32_from_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13 | quiet);
    }
    if (rest >= 0x400u) {
        return cr_f32_from_bits(sign | ((rest << 13) + (112u << 23)));
    }
    /* subnormal: 2^-14 * (1 + rest / 1024) - 2^-14 without touching an f32 subnormal */
    float magnitude = cr_f32_from_bits(113u << 23 | rest << 13) - cr_f32_from_bits(113u << 23);
    return cr_f32_from_bits(sign | cr_f32_bits(magnitude));
}

static inline uint16_t cr_f32_to_f16(float value)
{
    uint32_t bits = cr_f32_bits(value);
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00u | (rest >> 13 & 0x3ffu));
    }
    if (rest >= 0x477ff000u) { /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    }
    if (rest >= 0x38800000u) { /* 2^-14: normal result */
        uint32_t rounded = rest + 0xfffu + (rest >> 13 & 1u);
        return (uint16_t)(sign | (rounded - (112u << 23)) >> 13);
    }
    if (rest < 0x33000000u) { /* below 2^-25 */
        return (uint16_t)sign;
    }
    uint32_t shift = 126u - (rest >> 23); /* 14 to 24: units of 2^-24 */
    uint32_t mantissa = (rest & 0x7fffffu) | 0x800000u;
    uint32_t kept = mantissa >> shift;
    uint32_t lost = mantissa & ((1u << shift) - 1u);
    uint32_t half_way = 1u << (shift - 1);
    kept += lost > half_way || (lost == half_way && (kept & 1u));
    return (uint16_t)(sign | kept);
}

static inline float cr_bf16_to_f32(uint16_t value)
{
    return cr_f32_from_bits((uint32_t)value << 16);
}

static inline uint16_t cr_f32_to_bf16(float value)
{
    uint32_t bits = cr_f32_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 0x40u);
    }
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

#endif
