/* philox_lanes: LANES_N Philox4x32-10 blocks at once, one counter a lane and one key for all (Salmon et al. 2011,
 * section 3.3: multipliers and key increments of the 4x32 variant). Same words as cr_philox4x32, lane by lane.
 */
#ifndef CR_RNG_PHILOX_LANES_H
#define CR_RNG_PHILOX_LANES_H

#include "kernels/common/lanes.h"

enum { CR_PHILOX_ROUNDS = 10 };

#define CR_PHILOX_M0 0xd2511f53u
#define CR_PHILOX_M1 0xcd9e8d57u
#define CR_PHILOX_W0 0x9e3779b9u
#define CR_PHILOX_W1 0xbb67ae85u

/* Both halves of the 64-bit products a[lane] * m. */
CR_INLINE void lanes_mul_wide(lanes_u a, uint32_t m, lanes_u *high, lanes_u *low)
{
#if LANES_N == 16
    __m512i by = _mm512_set1_epi64((int64_t)m);
    __m512i even = _mm512_mul_epu32((__m512i)a, by);
    __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)a, 32), by);
    *high = (lanes_u)_mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xaaaa, odd);
    *low = (lanes_u)_mm512_mask_mov_epi32(even, 0xaaaa, _mm512_slli_epi64(odd, 32));
#elif LANES_N == 8
    __m256i by = _mm256_set1_epi64x((int64_t)m);
    __m256i even = _mm256_mul_epu32((__m256i)a, by);
    __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)a, 32), by);
    *high = (lanes_u)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    *low = (lanes_u)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
#else
    for (int i = 0; i < LANES_N; i++) {
        uint64_t product = (uint64_t)a[i] * m;
        (*high)[i] = (uint32_t)(product >> 32);
        (*low)[i] = (uint32_t)product;
    }
#endif
}

/* c: the four counter words of LANES_N blocks, replaced by the blocks' four output words. */
CR_INLINE void lanes_philox(lanes_u c[4], const uint32_t key[2])
{
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < CR_PHILOX_ROUNDS; round++) {
        lanes_u high0, low0, high1, low1;
        lanes_mul_wide(c[0], CR_PHILOX_M0, &high0, &low0);
        lanes_mul_wide(c[2], CR_PHILOX_M1, &high1, &low1);
        c[0] = high1 ^ c[1] ^ k0;
        c[1] = low1;
        c[2] = high0 ^ c[3] ^ k1;
        c[3] = low0;
        k0 += CR_PHILOX_W0;
        k1 += CR_PHILOX_W1;
    }
}

#endif
