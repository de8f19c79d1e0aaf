/* words_bf16: 32 consecutive weights as bf16 words in one register, straight from the blocks (AVX-512 BF16).
 *
 * Value = f32 value of kernels/dequant, rounded once more to nearest even. Types of at most 32 levels a block build the
 * table of all their values and look up with one word permute; the permute reads 5 index bits, so a table of 16 stands
 * twice in the register and nibbles need no mask. Types with blocks of 256: words_k_bf16.h.
 */
#ifndef CR_QGEMM_WORDS_BF16_H
#define CR_QGEMM_WORDS_BF16_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/common/blocks.h"
#include "kernels/common/half.h"
#include "kernels/common/levels_avx512.h"

#define WORDS static inline __attribute__((always_inline)) __m512i

/* Sixteen values as a table for the word permute. */
WORDS table16(__m512 values)
{
    return _mm512_broadcast_i64x4((__m256i)_mm512_cvtneps_pbh(values));
}

/* 32 values: low half from `low`. */
WORDS table32(__m512 low, __m512 high)
{
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* Word i < 16 starts with the low nibble of qs[i], word 16 + i with the high one; bits above are junk. */
WORDS nibbles(const uint8_t qs[16])
{
    const __m512i shift = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
    __m256i bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)qs));
    return _mm512_srlv_epi16(_mm512_cvtepu8_epi16(bytes), shift);
}

/* Clean 5-bit indices: nibbles plus 16 where `fifth` is set. */
WORDS five_bits(__m512i words, uint32_t fifth)
{
    words = _mm512_and_si512(words, _mm512_set1_epi16(15));
    return _mm512_mask_add_epi16(words, fifth, words, _mm512_set1_epi16(16));
}

WORDS words_q4_0(const void *row, size_t b)
{
    const struct cr_block_q4_0 *block = (const struct cr_block_q4_0 *)row + b;
    __m512i table = table16(_mm512_mul_ps(spread(block->d), levels(-8)));
    return _mm512_permutexvar_epi16(nibbles(block->qs), table);
}

WORDS words_iq4_nl(const void *row, size_t b)
{
    const struct cr_block_q4_0 *block = (const struct cr_block_q4_0 *)row + b;
    __m512i table = table16(_mm512_mul_ps(spread(block->d), iq4_levels()));
    return _mm512_permutexvar_epi16(nibbles(block->qs), table);
}

WORDS words_q4_1(const void *row, size_t b)
{
    const struct cr_block_q4_1 *block = (const struct cr_block_q4_1 *)row + b;
    __m512i table = table16(_mm512_fmadd_ps(spread(block->d), levels(0), spread(block->m)));
    return _mm512_permutexvar_epi16(nibbles(block->qs), table);
}

WORDS words_q5_0(const void *row, size_t b)
{
    const struct cr_block_q5_0 *block = (const struct cr_block_q5_0 *)row + b;
    __m512 d = spread(block->d);
    __m512i table = table32(_mm512_mul_ps(d, levels(-16)), _mm512_mul_ps(d, levels(0)));
    return _mm512_permutexvar_epi16(five_bits(nibbles(block->qs), block->qh), table);
}

WORDS words_q5_1(const void *row, size_t b)
{
    const struct cr_block_q5_1 *block = (const struct cr_block_q5_1 *)row + b;
    __m512 d = spread(block->d), m = spread(block->m);
    __m512i table = table32(_mm512_fmadd_ps(d, levels(0), m), _mm512_fmadd_ps(d, levels(16), m));
    return _mm512_permutexvar_epi16(five_bits(nibbles(block->qs), block->qh), table);
}

WORDS words_q8_0(const void *row, size_t b)
{
    const struct cr_block_q8_0 *block = (const struct cr_block_q8_0 *)row + b;
    const __m128i *qs = (const __m128i *)(const void *)block->qs;
    __m512 d = spread(block->d);
    __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(qs)));
    __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(qs + 1)));
    return table32(_mm512_mul_ps(d, low), _mm512_mul_ps(d, high));
}

WORDS words_f16(const void *row, size_t b)
{
    const __m256i *half = (const __m256i *)row + 2 * b;
    return table32(_mm512_cvtph_ps(_mm256_loadu_si256(half)), _mm512_cvtph_ps(_mm256_loadu_si256(half + 1)));
}

WORDS words_bf16(const void *row, size_t b)
{
    return _mm512_loadu_si512((const char *)row + 64 * b);
}

WORDS words_f32(const void *row, size_t b)
{
    const float *values = (const float *)row + 32 * b;
    return table32(_mm512_loadu_ps(values), _mm512_loadu_ps(values + 16));
}

#endif
