/* dequant on 128-bit registers: levels become f32, then one multiplication or fused multiply-add (whose product is
 * exact). Q2_K, Q3_K and IQ4_XS stay with the reference. */
#ifndef CR_NEON
#error "build with the flags of the neon tier"
#endif

#include <arm_neon.h>

#include "kernels/common/blocks.h"
#include "kernels/common/half.h"
#include "kernels/dequant/variants.h"

#define INLINE static inline __attribute__((always_inline))

INLINE float32x4_t spread(uint16_t half)
{
    return vdupq_n_f32(cr_f16_to_f32(half));
}

/* Sixteen signed bytes as four vectors of f32. */
INLINE void widen(int8x16_t bytes, float32x4_t q[4])
{
    int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
    q[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
    q[1] = vcvtq_f32_s32(vmovl_high_s16(low));
    q[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
    q[3] = vcvtq_f32_s32(vmovl_high_s16(high));
}

INLINE uint8x16_t nibble(const uint8_t qs[16], int high)
{
    uint8x16_t bytes = vld1q_u8(qs);
    return high ? vshrq_n_u8(bytes, 4) : vandq_u8(bytes, vdupq_n_u8(15));
}

/* 16 where bit i of `bits` is set, i the byte. */
INLINE uint8x16_t fifth(uint32_t bits)
{
    const uint8x8_t which = vcreate_u8(0x8040201008040201u);
    uint8x16_t spread_bits = vcombine_u8(vdup_n_u8((uint8_t)bits), vdup_n_u8((uint8_t)(bits >> 8)));
    return vandq_u8(vtstq_u8(spread_bits, vcombine_u8(which, which)), vdupq_n_u8(16));
}

/* out = d * level */
INLINE void scaled(float32x4_t d, int8x16_t level, float out[16])
{
    float32x4_t q[4];
    widen(level, q);
    for (int i = 0; i < 4; i++) {
        vst1q_f32(out + 4 * i, vmulq_f32(d, q[i]));
    }
}

/* out = d * level + m; levels are below 128 */
INLINE void affine(float32x4_t d, float32x4_t m, uint8x16_t level, float out[16])
{
    float32x4_t q[4];
    widen(vreinterpretq_s8_u8(level), q);
    for (int i = 0; i < 4; i++) {
        vst1q_f32(out + 4 * i, vfmaq_f32(m, d, q[i]));
    }
}

/* level - below, as signed bytes */
INLINE int8x16_t less(uint8x16_t level, uint8_t below)
{
    return vreinterpretq_s8_u8(vsubq_u8(level, vdupq_n_u8(below)));
}

INLINE void q4_0(const struct cr_block_q4_0 *b, size_t sub, float out[32])
{
    (void)sub;
    float32x4_t d = spread(b->d);
    scaled(d, less(nibble(b->qs, 0), 8), out);
    scaled(d, less(nibble(b->qs, 1), 8), out + 16);
}

INLINE void iq4_nl(const struct cr_block_q4_0 *b, size_t sub, float out[32])
{
    static const int8_t values[16] = CR_IQ4_VALUES;
    (void)sub;
    float32x4_t d = spread(b->d);
    int8x16_t table = vld1q_s8(values);
    scaled(d, vqtbl1q_s8(table, nibble(b->qs, 0)), out);
    scaled(d, vqtbl1q_s8(table, nibble(b->qs, 1)), out + 16);
}

INLINE void q4_1(const struct cr_block_q4_1 *b, size_t sub, float out[32])
{
    (void)sub;
    float32x4_t d = spread(b->d), m = spread(b->m);
    affine(d, m, nibble(b->qs, 0), out);
    affine(d, m, nibble(b->qs, 1), out + 16);
}

INLINE void q5_0(const struct cr_block_q5_0 *b, size_t sub, float out[32])
{
    (void)sub;
    float32x4_t d = spread(b->d);
    scaled(d, less(vorrq_u8(nibble(b->qs, 0), fifth(b->qh)), 16), out);
    scaled(d, less(vorrq_u8(nibble(b->qs, 1), fifth(b->qh >> 16)), 16), out + 16);
}

INLINE void q5_1(const struct cr_block_q5_1 *b, size_t sub, float out[32])
{
    (void)sub;
    float32x4_t d = spread(b->d), m = spread(b->m);
    affine(d, m, vorrq_u8(nibble(b->qs, 0), fifth(b->qh)), out);
    affine(d, m, vorrq_u8(nibble(b->qs, 1), fifth(b->qh >> 16)), out + 16);
}

INLINE void q8_0(const struct cr_block_q8_0 *b, size_t sub, float out[32])
{
    (void)sub;
    float32x4_t d = spread(b->d);
    scaled(d, vld1q_s8(b->qs), out);
    scaled(d, vld1q_s8(b->qs + 16), out + 16);
}

/* d * scale and -dmin * minimum of a 32-value sub-block, exact. */
INLINE void k_scales(uint16_t d, uint16_t dmin, const uint8_t scales[12], size_t sub, float32x4_t *scale,
                     float32x4_t *offset)
{
    unsigned s, m;
    cr_k_scale_min(scales, (unsigned)sub, &s, &m);
    *scale = vmulq_n_f32(spread(d), (float)s);
    *offset = vnegq_f32(vmulq_n_f32(spread(dmin), (float)m));
}

INLINE void q4_k(const struct cr_block_q4_k *b, size_t sub, float out[32])
{
    float32x4_t d, m;
    k_scales(b->d, b->dmin, b->scales, sub, &d, &m);
    for (size_t i = 0; i < 32; i += 16) {
        affine(d, m, nibble(b->qs + 32 * (sub / 2) + i, sub & 1), out + i);
    }
}

INLINE void q5_k(const struct cr_block_q5_k *b, size_t sub, float out[32])
{
    float32x4_t d, m;
    k_scales(b->d, b->dmin, b->scales, sub, &d, &m);
    const uint8x16_t bit = vdupq_n_u8((uint8_t)(1u << sub)), sixteen = vdupq_n_u8(16);
    for (size_t i = 0; i < 32; i += 16) {
        uint8x16_t high = vandq_u8(vtstq_u8(vld1q_u8(b->qh + i), bit), sixteen);
        affine(d, m, vorrq_u8(nibble(b->qs + 32 * (sub / 2) + i, sub & 1), high), out + i);
    }
}

INLINE void q6_k(const struct cr_block_q6_k *b, size_t sub, float out[32])
{
    size_t n = sub / 4, k = sub % 4;
    float d = cr_f16_to_f32(b->d);
    const int8x16_t down = vdupq_n_s8((int8_t)(-2 * (int)k));
    for (size_t i = 0; i < 32; i += 16) {
        uint8x16_t low = nibble(b->ql + 64 * n + 32 * (k & 1) + i, (int)(k >> 1));
        uint8x16_t high = vandq_u8(vshlq_u8(vld1q_u8(b->qh + 32 * n + i), down), vdupq_n_u8(3));
        uint8x16_t level = vorrq_u8(low, vshlq_n_u8(high, 4));
        scaled(vdupq_n_f32(d * (float)b->scales[2 * sub + i / 16]), less(level, 32), out + i);
    }
}

CR_DEQUANT_COMMON(CR_DEQUANT_ROW)

static void f16_row(const void *row, size_t first, size_t n, float *out)
{
    const uint8_t *half = (const uint8_t *)row + 2 * first;
    for (size_t i = 0; i < n; i += 8) {
        float16x8_t values = vreinterpretq_f16_u8(vld1q_u8(half + 2 * i));
        vst1q_f32(out + i, vcvt_f32_f16(vget_low_f16(values)));
        vst1q_f32(out + i + 4, vcvt_high_f32_f16(values));
    }
}

static void bf16_row(const void *row, size_t first, size_t n, float *out)
{
    const uint8_t *half = (const uint8_t *)row + 2 * first;
    for (size_t i = 0; i < n; i += 8) {
        uint16x8_t values = vreinterpretq_u16_u8(vld1q_u8(half + 2 * i));
        vst1q_f32(out + i, vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(values), 16)));
        vst1q_f32(out + i + 4, vreinterpretq_f32_u32(vshll_high_n_u16(values, 16)));
    }
}

cr_dequant_fn *const cr_dequant_neon[CR_DEQUANT_TYPES] = {
    [CR_Q_F16] = f16_row, [CR_Q_BF16] = bf16_row, CR_DEQUANT_COMMON(CR_DEQUANT_ENTRY)};
