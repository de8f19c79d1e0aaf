/* lanes: sixteen f32 (or 32-bit integer) lanes as one compiler vector; the row of a TL16 block.
 *
 * Written on vector extensions, so the same source compiles on every tier (sixteen-lane registers, two of eight,
 * four of four) and, with contraction off, gives the same bits on all of them. Intrinsics appear only where the
 * compiler has no operator for an operation or lowers it badly; each computes exactly what the portable form does.
 * The operators + - * / & | ^ << >> are the language's own; comparisons are functions that give lanes_i, all ones
 * where true.
 *
 * Bits of NaN results (sign, payload) are the one thing that may differ between tiers.
 */
#ifndef CR_COMMON_LANES_H
#define CR_COMMON_LANES_H

#include <stddef.h>
#include <stdint.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define CR_INLINE static inline __attribute__((always_inline))

typedef float lanes __attribute__((vector_size(64), may_alias));
typedef int32_t lanes_i __attribute__((vector_size(64), may_alias));
typedef uint32_t lanes_u __attribute__((vector_size(64), may_alias));
typedef double lanes_d8 __attribute__((vector_size(64), may_alias)); /* eight doubles */

typedef float lanes_f8 __attribute__((vector_size(32), may_alias));
typedef float lanes_f4 __attribute__((vector_size(16), may_alias));
typedef int32_t lanes_i4 __attribute__((vector_size(16), may_alias));
typedef float lanes_unaligned __attribute__((vector_size(64), may_alias, aligned(4)));
typedef uint32_t lanes_u_unaligned __attribute__((vector_size(64), may_alias, aligned(4)));

/* One 64-byte aligned line. */
CR_INLINE lanes lanes_load(const float *p)
{
    return *(const lanes *)p;
}

CR_INLINE void lanes_store(float *p, lanes x)
{
    *(lanes *)p = x;
}

CR_INLINE lanes lanes_loadu(const float *p)
{
    return *(const lanes_unaligned *)p;
}

CR_INLINE void lanes_storeu(float *p, lanes x)
{
    *(lanes_unaligned *)p = x;
}

/* Any 64-byte aligned line as words: bf16 pairs, counters, integers. */
CR_INLINE lanes_u lanes_load_u(const void *p)
{
    return *(const lanes_u *)p;
}

CR_INLINE void lanes_store_u(void *p, lanes_u x)
{
    *(lanes_u *)p = x;
}

CR_INLINE lanes lanes_splat(float x)
{
    return (lanes){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

CR_INLINE lanes_i lanes_splat_i(int32_t x)
{
    return (lanes_i){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

CR_INLINE lanes_u lanes_splat_u(uint32_t x)
{
    return (lanes_u){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

CR_INLINE lanes lanes_zero(void)
{
    return (lanes){0};
}

/* 0, 1, ... 15 */
CR_INLINE lanes_u lanes_iota(void)
{
    return (lanes_u){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
}

/* Bits kept. */
CR_INLINE lanes_u lanes_bits(lanes x)
{
    return (lanes_u)x;
}

CR_INLINE lanes lanes_from_bits(lanes_u x)
{
    return (lanes)x;
}

/* Values converted: exact to nearest even; towards zero for the way back (in range only). */
CR_INLINE lanes lanes_from_i(lanes_i x)
{
    return __builtin_convertvector(x, lanes);
}

CR_INLINE lanes_i lanes_to_i(lanes x)
{
    return __builtin_convertvector(x, lanes_i);
}

#if defined(__AVX2__) && !defined(__AVX512F__)
/* The two registers of a vector. gcc 12 lowers comparisons and square roots of vectors wider than the machine's lane
 * by lane, so on this tier those go through here. */
union lanes_halves {
    lanes v;
    __m256 h[2];
};
#endif

/* mask is all ones or all zeros in every lane: a where set, else b. */
CR_INLINE lanes lanes_select(lanes_i mask, lanes a, lanes b)
{
    return (lanes)(((lanes_i)a & mask) | ((lanes_i)b & ~mask));
}

CR_INLINE lanes_u lanes_select_u(lanes_i mask, lanes_u a, lanes_u b)
{
    return (a & (lanes_u)mask) | (b & ~(lanes_u)mask);
}

/* a > b, false where either is NaN. For <, swap. */
CR_INLINE lanes_i lanes_greater(lanes a, lanes b)
{
#if defined(__AVX2__) && !defined(__AVX512F__)
    union lanes_halves ua = {a}, ub = {b};
    ua.h[0] = _mm256_cmp_ps(ua.h[0], ub.h[0], _CMP_GT_OQ);
    ua.h[1] = _mm256_cmp_ps(ua.h[1], ub.h[1], _CMP_GT_OQ);
    return (lanes_i)ua.v;
#else
    return a > b;
#endif
}

/* a == b for integers. */
CR_INLINE lanes_i lanes_equal_i(lanes_i a, lanes_i b)
{
#if defined(__AVX2__) && !defined(__AVX512F__)
    union lanes_halves ua = {(lanes)a}, ub = {(lanes)b};
    ua.h[0] = (__m256)_mm256_cmpeq_epi32((__m256i)ua.h[0], (__m256i)ub.h[0]);
    ua.h[1] = (__m256)_mm256_cmpeq_epi32((__m256i)ua.h[1], (__m256i)ub.h[1]);
    return (lanes_i)ua.v;
#else
    return a == b;
#endif
}

/* a > b for integers. For unsigned order, flip the top bit of both. */
CR_INLINE lanes_i lanes_greater_i(lanes_i a, lanes_i b)
{
#if defined(__AVX2__) && !defined(__AVX512F__)
    union lanes_halves ua = {(lanes)a}, ub = {(lanes)b};
    ua.h[0] = (__m256)_mm256_cmpgt_epi32((__m256i)ua.h[0], (__m256i)ub.h[0]);
    ua.h[1] = (__m256)_mm256_cmpgt_epi32((__m256i)ua.h[1], (__m256i)ub.h[1]);
    return (lanes_i)ua.v;
#else
    return a > b;
#endif
}

/* a > b ? a : b, so b wherever either is NaN or both are zero; the rule of the x86 instruction. */
CR_INLINE lanes lanes_max(lanes a, lanes b)
{
#if defined(__AVX512F__)
    return (lanes)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    union lanes_halves ua = {a}, ub = {b};
    ua.h[0] = _mm256_max_ps(ua.h[0], ub.h[0]);
    ua.h[1] = _mm256_max_ps(ua.h[1], ub.h[1]);
    return ua.v;
#else
    return lanes_select(lanes_greater(a, b), a, b);
#endif
}

/* a < b ? a : b, so b wherever either is NaN or both are zero. */
CR_INLINE lanes lanes_min(lanes a, lanes b)
{
#if defined(__AVX512F__)
    return (lanes)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    union lanes_halves ua = {a}, ub = {b};
    ua.h[0] = _mm256_min_ps(ua.h[0], ub.h[0]);
    ua.h[1] = _mm256_min_ps(ua.h[1], ub.h[1]);
    return ua.v;
#else
    return lanes_select(lanes_greater(b, a), a, b);
#endif
}

CR_INLINE lanes lanes_abs(lanes x)
{
    return (lanes)((lanes_u)x & lanes_splat_u(0x7fffffffu));
}

/* Correctly rounded. */
CR_INLINE lanes lanes_sqrt(lanes x)
{
#if defined(__AVX512F__)
    return (lanes)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
    union lanes_halves u = {x};
    u.h[0] = _mm256_sqrt_ps(u.h[0]);
    u.h[1] = _mm256_sqrt_ps(u.h[1]);
    return u.v;
#else
    lanes out;
    for (int i = 0; i < 16; i++) {
        out[i] = __builtin_sqrtf(x[i]);
    }
    return out;
#endif
}

/* a * b + c, fused where the target has the instruction and not elsewhere: only for families whose contract is a
 * tolerance. The bit-identical families write a * b + c. */
CR_INLINE lanes lanes_fma(lanes a, lanes b, lanes c)
{
#if defined(__AVX512F__)
    return (lanes)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
    union lanes_halves ua = {a}, ub = {b}, uc = {c};
    uc.h[0] = _mm256_fmadd_ps(ua.h[0], ub.h[0], uc.h[0]);
    uc.h[1] = _mm256_fmadd_ps(ua.h[1], ub.h[1], uc.h[1]);
    return uc.v;
#else
    return a * b + c;
#endif
}

/* All lanes in one fixed tree: i with i + 8, then + 4, + 2, + 1. */
CR_INLINE float lanes_sum(lanes x)
{
    lanes_f8 a = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) +
                 __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
    lanes_f4 b = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
    return (b[0] + b[2]) + (b[1] + b[3]);
}

/* Any lane of the mask set. */
CR_INLINE int lanes_any(lanes_i mask)
{
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#else
    lanes_i4 m = (__builtin_shufflevector(mask, mask, 0, 1, 2, 3) | __builtin_shufflevector(mask, mask, 4, 5, 6, 7)) |
                 (__builtin_shufflevector(mask, mask, 8, 9, 10, 11) |
                  __builtin_shufflevector(mask, mask, 12, 13, 14, 15));
    return ((m[0] | m[1]) | (m[2] | m[3])) != 0;
#endif
}

/* bf16 of each lane in the low half of its word: nearest even, denormals kept, NaN made quiet. */
CR_INLINE lanes_u lanes_to_bf16(lanes x)
{
    lanes_u u = (lanes_u)x;
    lanes_u even = (u >> 16) & lanes_splat_u(1);
    lanes_u rounded = u + lanes_splat_u(0x7fff) + even;
    lanes_u quiet = u | lanes_splat_u(0x400000);
    lanes_i nan = lanes_greater_i((lanes_i)(u & lanes_splat_u(0x7fffffff)), lanes_splat_i(0x7f800000));
    return lanes_select_u(nan, quiet, rounded) >> 16;
}

/* One line of the bf16 operand layout: even feature in the low half of the lane's word, odd in the high half. */
CR_INLINE lanes_u lanes_pack_bf16(lanes even, lanes odd)
{
    return lanes_to_bf16(even) | (lanes_to_bf16(odd) << 16);
}

CR_INLINE lanes lanes_bf16_even(lanes_u pair)
{
    return (lanes)(pair << 16);
}

CR_INLINE lanes lanes_bf16_odd(lanes_u pair)
{
    return (lanes)(pair & lanes_splat_u(0xffff0000u));
}

#endif
