/* dequant on 256-bit registers: levels become f32, then one multiplication or fused multiply-add (whose product is
 * exact). */
#ifndef __AVX2__
#error "compile with the flags of the avx2 tier"
#endif

#include <immintrin.h>

#include "kernels/common/blocks.h"
#include "kernels/common/half.h"
#include "kernels/dequant/variants.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __m256 spread(uint16_t half)
{
    return _mm256_cvtph_ps(_mm_set1_epi16((short)half));
}

/* Sixteen unsigned or signed bytes as two vectors of f32. */
INLINE void widen_u8(__m128i bytes, __m256 q[2])
{
    q[0] = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
    q[1] = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)));
}

INLINE void widen_s8(__m128i bytes, __m256 q[2])
{
    q[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    q[1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)));
}

INLINE __m128i load16(const void *bytes)
{
    return _mm_loadu_si128((const __m128i *)bytes);
}

INLINE __m128i nibble(__m128i bytes, int high)
{
    return _mm_and_si128(high ? _mm_srli_epi16(bytes, 4) : bytes, _mm_set1_epi8(15));
}

/* 16 where bit i of `bits` is set, i the byte. */
INLINE __m128i fifth(uint32_t bits)
{
    const __m128i which = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m128i mask = _mm_set1_epi64x((long long)0x8040201008040201u);
    __m128i spread_bits = _mm_shuffle_epi8(_mm_cvtsi32_si128((int)bits), which);
    return _mm_and_si128(_mm_cmpeq_epi8(_mm_and_si128(spread_bits, mask), mask), _mm_set1_epi8(16));
}

/* out = d * level */
INLINE void scaled_s8(__m256 d, __m128i level, float out[16])
{
    __m256 q[2];
    widen_s8(level, q);
    _mm256_storeu_ps(out, _mm256_mul_ps(d, q[0]));
    _mm256_storeu_ps(out + 8, _mm256_mul_ps(d, q[1]));
}

/* out = d * level + m */
INLINE void affine_u8(__m256 d, __m256 m, __m128i level, float out[16])
{
    __m256 q[2];
    widen_u8(level, q);
    _mm256_storeu_ps(out, _mm256_fmadd_ps(d, q[0], m));
    _mm256_storeu_ps(out + 8, _mm256_fmadd_ps(d, q[1], m));
}

INLINE void q4_0(const struct cr_block_q4_0 *b, size_t sub, float out[32])
{
    (void)sub;
    __m256 d = spread(b->d);
    __m128i qs = load16(b->qs), eight = _mm_set1_epi8(8);
    scaled_s8(d, _mm_sub_epi8(nibble(qs, 0), eight), out);
    scaled_s8(d, _mm_sub_epi8(nibble(qs, 1), eight), out + 16);
}

INLINE void iq4_nl(const struct cr_block_q4_0 *b, size_t sub, float out[32])
{
    static const int8_t values[16] = CR_IQ4_VALUES;
    (void)sub;
    __m256 d = spread(b->d);
    __m128i qs = load16(b->qs), table = load16(values);
    scaled_s8(d, _mm_shuffle_epi8(table, nibble(qs, 0)), out);
    scaled_s8(d, _mm_shuffle_epi8(table, nibble(qs, 1)), out + 16);
}

INLINE void q4_1(const struct cr_block_q4_1 *b, size_t sub, float out[32])
{
    (void)sub;
    __m256 d = spread(b->d), m = spread(b->m);
    __m128i qs = load16(b->qs);
    affine_u8(d, m, nibble(qs, 0), out);
    affine_u8(d, m, nibble(qs, 1), out + 16);
}

INLINE void q5_0(const struct cr_block_q5_0 *b, size_t sub, float out[32])
{
    (void)sub;
    __m256 d = spread(b->d);
    __m128i qs = load16(b->qs), sixteen = _mm_set1_epi8(16);
    scaled_s8(d, _mm_sub_epi8(_mm_or_si128(nibble(qs, 0), fifth(b->qh)), sixteen), out);
    scaled_s8(d, _mm_sub_epi8(_mm_or_si128(nibble(qs, 1), fifth(b->qh >> 16)), sixteen), out + 16);
}

INLINE void q5_1(const struct cr_block_q5_1 *b, size_t sub, float out[32])
{
    (void)sub;
    __m256 d = spread(b->d), m = spread(b->m);
    __m128i qs = load16(b->qs);
    affine_u8(d, m, _mm_or_si128(nibble(qs, 0), fifth(b->qh)), out);
    affine_u8(d, m, _mm_or_si128(nibble(qs, 1), fifth(b->qh >> 16)), out + 16);
}

INLINE void q8_0(const struct cr_block_q8_0 *b, size_t sub, float out[32])
{
    (void)sub;
    __m256 d = spread(b->d);
    scaled_s8(d, load16(b->qs), out);
    scaled_s8(d, load16(b->qs + 16), out + 16);
}

/* d * scale and -dmin * minimum of a 32-value sub-block, exact. */
INLINE void k_scales(uint16_t d, uint16_t dmin, const uint8_t scales[12], size_t sub, __m256 *scale, __m256 *offset)
{
    unsigned s, m;
    cr_k_scale_min(scales, (unsigned)sub, &s, &m);
    *scale = _mm256_mul_ps(spread(d), _mm256_set1_ps((float)s));
    *offset = _mm256_xor_ps(_mm256_mul_ps(spread(dmin), _mm256_set1_ps((float)m)), _mm256_set1_ps(-0.0f));
}

INLINE void q4_k(const struct cr_block_q4_k *b, size_t sub, float out[32])
{
    __m256 d, m;
    k_scales(b->d, b->dmin, b->scales, sub, &d, &m);
    for (size_t i = 0; i < 32; i += 16) {
        affine_u8(d, m, nibble(load16(b->qs + 32 * (sub / 2) + i), sub & 1), out + i);
    }
}

INLINE void q5_k(const struct cr_block_q5_k *b, size_t sub, float out[32])
{
    __m256 d, m;
    k_scales(b->d, b->dmin, b->scales, sub, &d, &m);
    const __m128i bit = _mm_set1_epi8((char)(1u << sub));
    for (size_t i = 0; i < 32; i += 16) {
        __m128i high = _mm_cmpeq_epi8(_mm_and_si128(load16(b->qh + i), bit), bit);
        __m128i low = nibble(load16(b->qs + 32 * (sub / 2) + i), sub & 1);
        affine_u8(d, m, _mm_or_si128(low, _mm_and_si128(high, _mm_set1_epi8(16))), out + i);
    }
}

INLINE void q6_k(const struct cr_block_q6_k *b, size_t sub, float out[32])
{
    size_t n = sub / 4, k = sub % 4;
    float d = cr_f16_to_f32(b->d);
    __m128i pair = _mm_cvtsi32_si128((int)(2 * k));
    for (size_t i = 0; i < 32; i += 16) {
        __m128i low = nibble(load16(b->ql + 64 * n + 32 * (k & 1) + i), (int)(k >> 1));
        __m128i high = _mm_and_si128(_mm_srl_epi16(load16(b->qh + 32 * n + i), pair), _mm_set1_epi8(3));
        __m128i q = _mm_sub_epi8(_mm_or_si128(low, _mm_slli_epi16(high, 4)), _mm_set1_epi8(32));
        scaled_s8(_mm256_set1_ps(d * (float)b->scales[2 * sub + i / 16]), q, out + i);
    }
}

INLINE void q2_k(const struct cr_block_q2_k *b, size_t sub, float out[32])
{
    __m256 d = spread(b->d), dmin = spread((uint16_t)(b->dmin ^ 0x8000u));
    __m128i pair = _mm_cvtsi32_si128((int)(2 * (sub % 4)));
    for (size_t i = 0; i < 32; i += 16) {
        unsigned s = b->scales[2 * sub + i / 16];
        __m128i q = _mm_and_si128(_mm_srl_epi16(load16(b->qs + 32 * (sub / 4) + i), pair), _mm_set1_epi8(3));
        affine_u8(_mm256_mul_ps(d, _mm256_set1_ps((float)(s & 15u))),
                  _mm256_mul_ps(dmin, _mm256_set1_ps((float)(s >> 4))), q, out + i);
    }
}

INLINE void q3_k(const struct cr_block_q3_k *b, size_t sub, float out[32])
{
    const __m128i bit = _mm_set1_epi8((char)(1u << sub)), four = _mm_set1_epi8(4);
    __m128i pair = _mm_cvtsi32_si128((int)(2 * (sub % 4)));
    float d = cr_f16_to_f32(b->d);
    for (size_t i = 0; i < 32; i += 16) {
        __m128i q = _mm_and_si128(_mm_srl_epi16(load16(b->qs + 32 * (sub / 4) + i), pair), _mm_set1_epi8(3));
        __m128i set = _mm_cmpeq_epi8(_mm_and_si128(load16(b->hmask + i), bit), bit);
        int scale = cr_q3_k_scale(b->scales, (unsigned)(2 * sub + i / 16));
        scaled_s8(_mm256_set1_ps(d * (float)scale), _mm_sub_epi8(q, _mm_andnot_si128(set, four)), out + i);
    }
}

INLINE void iq4_xs(const struct cr_block_iq4_xs *b, size_t sub, float out[32])
{
    static const int8_t values[16] = CR_IQ4_VALUES;
    __m256 d = _mm256_mul_ps(spread(b->d), _mm256_set1_ps((float)cr_iq4_xs_scale(b, (unsigned)sub)));
    __m128i qs = load16(b->qs + 16 * sub), table = load16(values);
    scaled_s8(d, _mm_shuffle_epi8(table, nibble(qs, 0)), out);
    scaled_s8(d, _mm_shuffle_epi8(table, nibble(qs, 1)), out + 16);
}

CR_DEQUANT_BLOCKS(CR_DEQUANT_ROW)

static void f16_row(const void *row, size_t first, size_t n, float *out)
{
    const char *half = (const char *)row + 2 * first;
    for (size_t i = 0; i < n; i += 8) {
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(load16(half + 2 * i)));
    }
}

static void bf16_row(const void *row, size_t first, size_t n, float *out)
{
    const char *half = (const char *)row + 2 * first;
    for (size_t i = 0; i < n; i += 8) {
        __m256i bits = _mm256_slli_epi32(_mm256_cvtepu16_epi32(load16(half + 2 * i)), 16);
        _mm256_storeu_ps(out + i, _mm256_castsi256_ps(bits));
    }
}

cr_dequant_fn *const cr_dequant_avx2[CR_DEQUANT_TYPES] = {
    [CR_Q_F16] = f16_row, [CR_Q_BF16] = bf16_row, CR_DEQUANT_BLOCKS(CR_DEQUANT_ENTRY)};
