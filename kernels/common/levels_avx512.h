/* levels_avx512: tables of the values that the integers of a block stand for, sixteen lanes wide. */
#ifndef CR_KERNELS_COMMON_LEVELS_AVX512_H
#define CR_KERNELS_COMMON_LEVELS_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#include "kernels/common/blocks.h"

#define LEVELS static inline __attribute__((always_inline)) __m512

/* A half in every lane. */
LEVELS spread(uint16_t half)
{
    return _mm512_cvtph_ps(_mm256_set1_epi16((short)half));
}

/* 0 ... 15, plus `from`. */
LEVELS levels(float from)
{
    const __m512 count = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_add_ps(count, _mm512_set1_ps(from));
}

LEVELS iq4_levels(void)
{
    static const int8_t values[16] = CR_IQ4_VALUES;
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)values)));
}

/* 0 ... n - 1 over and over, plus `from`, n a power of two: a table for indices of which only log2(n) low bits count. */
LEVELS repeated_levels(int n, float from)
{
    const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512 level = _mm512_cvtepi32_ps(_mm512_and_si512(count, _mm512_set1_epi32(n - 1)));
    return _mm512_add_ps(level, _mm512_set1_ps(from));
}

#undef LEVELS

#endif
