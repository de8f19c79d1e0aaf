/* words_k_bf16: as words_bf16.h, for the types with blocks of 256 values: the scales of a block are made once, as f32,
 * then its eight runs of 32 values one by one. Every product of scales is exact in f32.
 */
#ifndef CR_QGEMM_WORDS_K_BF16_H
#define CR_QGEMM_WORDS_K_BF16_H

#include <string.h>

#include "kernels/qgemm/words_bf16.h"

/* Scale and minimum of each group of 32 or 16 values. */
struct k_scales {
    _Alignas(64) float d[16], m[16];
};

#define SCALES static inline __attribute__((always_inline)) void

static inline uint32_t dword(const void *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

/* Eight bytes as f32, times a half. */
static inline __m256 times8(uint64_t bytes, uint16_t half)
{
    __m256i values = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)bytes));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(values), _mm512_castps512_ps256(spread(half)));
}

/* Q4_K, Q5_K: eight pairs of 6 bits in 12 bytes; the first four whole, the high bits of the others above those. */
static inline void scales_6_bits(const uint8_t bytes[12], uint16_t d, uint16_t dmin, struct k_scales *s)
{
    uint32_t first = dword(bytes), second = dword(bytes + 4), third = dword(bytes + 8);
    uint32_t scale = (third & 0x0f0f0f0fu) | (first >> 2 & 0x30303030u);
    uint32_t minimum = (third >> 4 & 0x0f0f0f0fu) | (second >> 2 & 0x30303030u);
    _mm256_store_ps(s->d, times8((uint64_t)scale << 32 | (first & 0x3f3f3f3fu), d));
    _mm256_store_ps(s->m, times8((uint64_t)minimum << 32 | (second & 0x3f3f3f3fu), dmin));
}

/* 32 bytes as words. */
WORDS widen(const uint8_t bytes[32])
{
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)bytes));
}

/* words >> count for a count known late; the compiler folds it where it is a constant. */
WORDS shift_right(__m512i words, size_t count)
{
    return _mm512_srl_epi16(words, _mm_cvtsi32_si128((int)count));
}

/* Bit `bit` of each of 32 bytes. */
static inline uint32_t bits_of(const uint8_t bytes[32], size_t bit)
{
    __m256i all = _mm256_loadu_si256((const __m256i *)(const void *)bytes);
    return _mm256_test_epi8_mask(all, _mm256_set1_epi8((char)(1u << bit)));
}

/* Indices of two tables of 16: the low four bits, and 16 more in the second half. */
WORDS halves(__m512i words)
{
    const __m512i upper = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(16), 1);
    return _mm512_ternarylogic_epi32(words, _mm512_set1_epi16(15), upper, 0xea); /* (a & b) | c */
}

SCALES scales_q4_k(const void *row, size_t n, struct k_scales *s)
{
    const struct cr_block_q4_k *block = (const struct cr_block_q4_k *)row + n;
    scales_6_bits(block->scales, block->d, block->dmin, s);
}

WORDS run_q4_k(const void *row, size_t n, size_t run, const struct k_scales *s)
{
    const struct cr_block_q4_k *block = (const struct cr_block_q4_k *)row + n;
    __m512 values = _mm512_fmsub_ps(_mm512_set1_ps(s->d[run]), levels(0), _mm512_set1_ps(s->m[run]));
    return _mm512_permutexvar_epi16(shift_right(widen(block->qs + 32 * (run / 2)), 4 * (run % 2)), table16(values));
}

SCALES scales_q5_k(const void *row, size_t n, struct k_scales *s)
{
    const struct cr_block_q5_k *block = (const struct cr_block_q5_k *)row + n;
    scales_6_bits(block->scales, block->d, block->dmin, s);
}

WORDS run_q5_k(const void *row, size_t n, size_t run, const struct k_scales *s)
{
    const struct cr_block_q5_k *block = (const struct cr_block_q5_k *)row + n;
    __m512 d = _mm512_set1_ps(s->d[run]), m = _mm512_set1_ps(s->m[run]);
    __m512i table = table32(_mm512_fmsub_ps(d, levels(0), m), _mm512_fmsub_ps(d, levels(16), m));
    __m512i low = shift_right(widen(block->qs + 32 * (run / 2)), 4 * (run % 2));
    return _mm512_permutexvar_epi16(five_bits(low, bits_of(block->qh, run)), table);
}

SCALES scales_q6_k(const void *row, size_t n, struct k_scales *s)
{
    const struct cr_block_q6_k *block = (const struct cr_block_q6_k *)row + n;
    __m512i scales = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)block->scales));
    _mm512_store_ps(s->d, _mm512_mul_ps(_mm512_cvtepi32_ps(scales), spread(block->d)));
}

/* 64 levels, two scales: converted rather than looked up. */
WORDS run_q6_k(const void *row, size_t n, size_t run, const struct k_scales *s)
{
    const struct cr_block_q6_k *block = (const struct cr_block_q6_k *)row + n;
    size_t half = run / 4, quarter = run % 4;
    __m256i ql = _mm256_loadu_si256((const __m256i *)(const void *)(block->ql + 64 * half + 32 * (quarter & 1)));
    __m256i qh = _mm256_loadu_si256((const __m256i *)(const void *)(block->qh + 32 * half));
    ql = _mm256_and_si256(_mm256_srl_epi16(ql, _mm_cvtsi32_si128((int)(4 * (quarter >> 1)))), _mm256_set1_epi8(15));
    qh = _mm256_and_si256(_mm256_srl_epi16(qh, _mm_cvtsi32_si128((int)(2 * quarter))), _mm256_set1_epi8(3));
    __m256i q = _mm256_sub_epi8(_mm256_or_si256(ql, _mm256_slli_epi16(qh, 4)), _mm256_set1_epi8(32));
    __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(q)));
    __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(q, 1)));
    return table32(_mm512_mul_ps(_mm512_set1_ps(s->d[2 * run]), low),
                   _mm512_mul_ps(_mm512_set1_ps(s->d[2 * run + 1]), high));
}

SCALES scales_q2_k(const void *row, size_t n, struct k_scales *s)
{
    const struct cr_block_q2_k *block = (const struct cr_block_q2_k *)row + n;
    __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)block->scales));
    __m512 scale = _mm512_cvtepi32_ps(_mm512_and_si512(bytes, _mm512_set1_epi32(15)));
    __m512 minimum = _mm512_cvtepi32_ps(_mm512_srli_epi32(bytes, 4));
    _mm512_store_ps(s->d, _mm512_mul_ps(scale, spread(block->d)));
    _mm512_store_ps(s->m, _mm512_mul_ps(minimum, spread(block->dmin)));
}

WORDS run_q2_k(const void *row, size_t n, size_t run, const struct k_scales *s)
{
    const struct cr_block_q2_k *block = (const struct cr_block_q2_k *)row + n;
    const __m512 level = repeated_levels(4, 0);
    __m512 low = _mm512_fmsub_ps(_mm512_set1_ps(s->d[2 * run]), level, _mm512_set1_ps(s->m[2 * run]));
    __m512 high = _mm512_fmsub_ps(_mm512_set1_ps(s->d[2 * run + 1]), level, _mm512_set1_ps(s->m[2 * run + 1]));
    __m512i q = shift_right(widen(block->qs + 32 * (run / 4)), 2 * (run % 4));
    return _mm512_permutexvar_epi16(halves(q), table32(low, high));
}

/* Sixteen scales of 6 bits: low halves in the nibbles of 8 bytes, high ones in the bit pairs of 4, minus 32. */
SCALES scales_q3_k(const void *row, size_t n, struct k_scales *s)
{
    const struct cr_block_q3_k *block = (const struct cr_block_q3_k *)row + n;
    __m128i low = _mm_loadl_epi64((const __m128i *)(const void *)block->scales);
    low = _mm_and_si128(_mm_unpacklo_epi64(low, _mm_srli_epi16(low, 4)), _mm_set1_epi8(15));
    __m128i high = _mm_srlv_epi32(_mm_set1_epi32((int)dword(block->scales + 8)), _mm_setr_epi32(0, 2, 4, 6));
    high = _mm_slli_epi16(_mm_and_si128(high, _mm_set1_epi8(3)), 4);
    __m128i scales = _mm_sub_epi8(_mm_or_si128(low, high), _mm_set1_epi8(32));
    _mm512_store_ps(s->d, _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scales)), spread(block->d)));
}

WORDS run_q3_k(const void *row, size_t n, size_t run, const struct k_scales *s)
{
    const struct cr_block_q3_k *block = (const struct cr_block_q3_k *)row + n;
    const __m512 level = repeated_levels(8, -4);
    __m512 low = _mm512_mul_ps(_mm512_set1_ps(s->d[2 * run]), level);
    __m512 high = _mm512_mul_ps(_mm512_set1_ps(s->d[2 * run + 1]), level);
    __m512i q = shift_right(widen(block->qs + 32 * (run / 4)), 2 * (run % 4));
    q = _mm512_and_si512(q, _mm512_set1_epi16(3));
    q = _mm512_mask_add_epi16(q, bits_of(block->hmask, run), q, _mm512_set1_epi16(4));
    return _mm512_permutexvar_epi16(halves(q), table32(low, high));
}

/* Eight scales of 6 bits, minus 32: nibbles of 4 bytes below the bit pairs of 2. */
SCALES scales_iq4_xs(const void *row, size_t n, struct k_scales *s)
{
    const struct cr_block_iq4_xs *block = (const struct cr_block_iq4_xs *)row + n;
    const __m256i count = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i low = _mm256_srlv_epi32(_mm256_set1_epi32((int)dword(block->scales_l)), _mm256_slli_epi32(count, 2));
    __m256i high = _mm256_srlv_epi32(_mm256_set1_epi32(block->scales_h), _mm256_slli_epi32(count, 1));
    low = _mm256_and_si256(low, _mm256_set1_epi32(15));
    high = _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4);
    __m256 scales = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32)));
    _mm256_store_ps(s->d, _mm256_mul_ps(scales, _mm512_castps512_ps256(spread(block->d))));
}

WORDS run_iq4_xs(const void *row, size_t n, size_t run, const struct k_scales *s)
{
    const struct cr_block_iq4_xs *block = (const struct cr_block_iq4_xs *)row + n;
    __m512i table = table16(_mm512_mul_ps(_mm512_set1_ps(s->d[run]), iq4_levels()));
    return _mm512_permutexvar_epi16(nibbles(block->qs + 16 * run), table);
}

/* Every type with words_<type>, and with scales_<type> and run_<type>. */
#define CR_WORDS_TYPES(X) X(f32) X(f16) X(bf16) X(q4_0) X(q4_1) X(q5_0) X(q5_1) X(q8_0) X(iq4_nl)
#define CR_WORDS_K_TYPES(X) X(q2_k) X(q3_k) X(q4_k) X(q5_k) X(q6_k) X(iq4_xs)

#endif
