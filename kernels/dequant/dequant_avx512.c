/* dequant on 512-bit registers. Types of at most 16 levels a block look their values up in a table of the block: the
 * dword permute reads four index bits only, so nibbles need no mask. */
#ifndef __AVX512VL__
#error "compile with the flags of the avx512 tier"
#endif

#include <immintrin.h>

#include "kernels/common/blocks.h"
#include "kernels/common/half.h"
#include "kernels/common/levels_avx512.h"
#include "kernels/dequant/variants.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __m512i bytes16(const uint8_t *qs)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)qs));
}

/* Low nibbles give the first sixteen values, high ones the rest. */
INLINE void look_up(__m512 table, const uint8_t qs[16], float out[32])
{
    __m512i q = bytes16(qs);
    _mm512_storeu_ps(out, _mm512_permutexvar_ps(q, table));
    _mm512_storeu_ps(out + 16, _mm512_permutexvar_ps(_mm512_srli_epi32(q, 4), table));
}

/* K types: 32 bytes, one nibble of each. */
INLINE void look_up_k(__m512 table, const uint8_t qs[32], size_t half, float out[32])
{
    __m128i shift = _mm_cvtsi32_si128((int)(4 * half));
    _mm512_storeu_ps(out, _mm512_permutexvar_ps(_mm512_srl_epi32(bytes16(qs), shift), table));
    _mm512_storeu_ps(out + 16, _mm512_permutexvar_ps(_mm512_srl_epi32(bytes16(qs + 16), shift), table));
}

INLINE void q4_0(const struct cr_block_q4_0 *b, size_t sub, float out[32])
{
    (void)sub;
    look_up(_mm512_mul_ps(spread(b->d), levels(-8)), b->qs, out);
}

INLINE void iq4_nl(const struct cr_block_q4_0 *b, size_t sub, float out[32])
{
    (void)sub;
    look_up(_mm512_mul_ps(spread(b->d), iq4_levels()), b->qs, out);
}

INLINE void q4_1(const struct cr_block_q4_1 *b, size_t sub, float out[32])
{
    (void)sub;
    look_up(_mm512_fmadd_ps(spread(b->d), levels(0), spread(b->m)), b->qs, out);
}

/* Table of 32 values in two registers; bit 4 of an index comes from qh. */
INLINE void look_up5(__m512 low, __m512 high, const uint8_t qs[16], uint32_t qh, float out[32])
{
    const __m512i nibble = _mm512_set1_epi32(15), fifth = _mm512_set1_epi32(16);
    __m512i q = bytes16(qs);
    __m512i first = _mm512_and_si512(q, nibble), second = _mm512_srli_epi32(q, 4);
    first = _mm512_mask_or_epi32(first, (__mmask16)qh, first, fifth);
    second = _mm512_mask_or_epi32(second, (__mmask16)(qh >> 16), second, fifth);
    _mm512_storeu_ps(out, _mm512_permutex2var_ps(low, first, high));
    _mm512_storeu_ps(out + 16, _mm512_permutex2var_ps(low, second, high));
}

INLINE void q5_0(const struct cr_block_q5_0 *b, size_t sub, float out[32])
{
    (void)sub;
    __m512 d = spread(b->d);
    look_up5(_mm512_mul_ps(d, levels(-16)), _mm512_mul_ps(d, levels(0)), b->qs, b->qh, out);
}

INLINE void q5_1(const struct cr_block_q5_1 *b, size_t sub, float out[32])
{
    (void)sub;
    __m512 d = spread(b->d), m = spread(b->m);
    look_up5(_mm512_fmadd_ps(d, levels(0), m), _mm512_fmadd_ps(d, levels(16), m), b->qs, b->qh, out);
}

INLINE void q8_0(const struct cr_block_q8_0 *b, size_t sub, float out[32])
{
    (void)sub;
    __m512 d = spread(b->d);
    for (int i = 0; i < 32; i += 16) {
        __m512i q = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(b->qs + i)));
        _mm512_storeu_ps(out + i, _mm512_mul_ps(d, _mm512_cvtepi32_ps(q)));
    }
}

INLINE void q2_k(const struct cr_block_q2_k *b, size_t sub, float out[32])
{
    __m512 d = spread(b->d), dmin = spread(b->dmin);
    __m128i pair = _mm_cvtsi32_si128((int)(2 * (sub % 4)));
    for (size_t i = 0; i < 32; i += 16) {
        unsigned s = b->scales[2 * sub + i / 16];
        __m512 m = _mm512_mul_ps(dmin, _mm512_set1_ps((float)(s >> 4)));
        __m512 table = _mm512_fmsub_ps(_mm512_mul_ps(d, _mm512_set1_ps((float)(s & 15u))), repeated_levels(4, 0), m);
        __m512i q = _mm512_srl_epi32(bytes16(b->qs + 32 * (sub / 4) + i), pair);
        _mm512_storeu_ps(out + i, _mm512_permutexvar_ps(q, table));
    }
}

INLINE void q3_k(const struct cr_block_q3_k *b, size_t sub, float out[32])
{
    __m128i pair = _mm_cvtsi32_si128((int)(2 * (sub % 4)));
    const __m512i low = _mm512_set1_epi32(3), high = _mm512_set1_epi32(4), bit = _mm512_set1_epi32(1 << sub);
    float d = cr_f16_to_f32(b->d);
    for (size_t i = 0; i < 32; i += 16) {
        float scale = d * (float)cr_q3_k_scale(b->scales, (unsigned)(2 * sub + i / 16));
        __m512 table = _mm512_mul_ps(_mm512_set1_ps(scale), repeated_levels(8, -4));
        __m512i q = _mm512_and_si512(_mm512_srl_epi32(bytes16(b->qs + 32 * (sub / 4) + i), pair), low);
        __mmask16 set = _mm512_test_epi32_mask(bytes16(b->hmask + i), bit);
        _mm512_storeu_ps(out + i, _mm512_permutexvar_ps(_mm512_mask_or_epi32(q, set, q, high), table));
    }
}

INLINE void q4_k(const struct cr_block_q4_k *b, size_t sub, float out[32])
{
    unsigned scale, minimum;
    cr_k_scale_min(b->scales, (unsigned)sub, &scale, &minimum);
    __m512 d = _mm512_mul_ps(spread(b->d), _mm512_set1_ps((float)scale));
    __m512 m = _mm512_mul_ps(spread(b->dmin), _mm512_set1_ps((float)minimum));
    look_up_k(_mm512_fmsub_ps(d, levels(0), m), b->qs + 32 * (sub / 2), sub & 1, out);
}

INLINE void q5_k(const struct cr_block_q5_k *b, size_t sub, float out[32])
{
    unsigned scale, minimum;
    cr_k_scale_min(b->scales, (unsigned)sub, &scale, &minimum);
    __m512 d = _mm512_mul_ps(spread(b->d), _mm512_set1_ps((float)scale));
    __m512 m = _mm512_mul_ps(spread(b->dmin), _mm512_set1_ps((float)minimum));
    __m512 low = _mm512_fmsub_ps(d, levels(0), m), high = _mm512_fmsub_ps(d, levels(16), m);
    __m128i shift = _mm_cvtsi32_si128((int)(4 * (sub & 1))), bit = _mm_cvtsi32_si128((int)sub);
    const __m512i nibble = _mm512_set1_epi32(15), fifth = _mm512_set1_epi32(16);
    for (size_t i = 0; i < 32; i += 16) {
        __m512i q = _mm512_and_si512(_mm512_srl_epi32(bytes16(b->qs + 32 * (sub / 2) + i), shift), nibble);
        __m512i h = _mm512_and_si512(_mm512_slli_epi32(_mm512_srl_epi32(bytes16(b->qh + i), bit), 4), fifth);
        _mm512_storeu_ps(out + i, _mm512_permutex2var_ps(low, _mm512_or_si512(q, h), high));
    }
}

INLINE void q6_k(const struct cr_block_q6_k *b, size_t sub, float out[32])
{
    size_t n = sub / 4, k = sub % 4;
    float d = cr_f16_to_f32(b->d);
    __m128i shift = _mm_cvtsi32_si128((int)(4 * (k >> 1))), pair = _mm_cvtsi32_si128((int)(2 * k));
    for (size_t i = 0; i < 32; i += 16) {
        __m512i low = _mm512_and_si512(_mm512_srl_epi32(bytes16(b->ql + 64 * n + 32 * (k & 1) + i), shift),
                                       _mm512_set1_epi32(15));
        __m512i high = _mm512_and_si512(_mm512_srl_epi32(bytes16(b->qh + 32 * n + i), pair), _mm512_set1_epi32(3));
        __m512i q = _mm512_sub_epi32(_mm512_or_si512(low, _mm512_slli_epi32(high, 4)), _mm512_set1_epi32(32));
        __m512 scale = _mm512_set1_ps(d * (float)b->scales[2 * sub + i / 16]);
        _mm512_storeu_ps(out + i, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(q)));
    }
}

INLINE void iq4_xs(const struct cr_block_iq4_xs *b, size_t sub, float out[32])
{
    __m512 d = _mm512_mul_ps(spread(b->d), _mm512_set1_ps((float)cr_iq4_xs_scale(b, (unsigned)sub)));
    look_up(_mm512_mul_ps(d, iq4_levels()), b->qs + 16 * sub, out);
}

CR_DEQUANT_BLOCKS(CR_DEQUANT_ROW)

static void f16_row(const void *row, size_t first, size_t n, float *out)
{
    const char *half = (const char *)row + 2 * first;
    for (size_t i = 0; i < n; i += 16) {
        _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(half + 2 * i))));
    }
}

static void bf16_row(const void *row, size_t first, size_t n, float *out)
{
    const char *half = (const char *)row + 2 * first;
    for (size_t i = 0; i < n; i += 16) {
        __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(half + 2 * i)));
        _mm512_storeu_si512(out + i, _mm512_slli_epi32(bits, 16));
    }
}

cr_dequant_fn *const cr_dequant_avx512[CR_DEQUANT_TYPES] = {
    [CR_Q_F16] = f16_row, [CR_Q_BF16] = bf16_row, CR_DEQUANT_BLOCKS(CR_DEQUANT_ENTRY)};
