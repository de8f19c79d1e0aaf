/* lanes: the widest vector of the tier being built, LANES_N f32 or 32-bit integers: 16 with AVX-512, 8 with AVX2, 4 with
 * NEON (the tier: CR_NEON) and in portable code. A line of a TL16 block (16 tokens of a feature) is 16 / LANES_N of them.
 *
 * One source per kernel family is compiled for every tier. Because lanes never mix, walking the columns
 *     for (size_t col = 0; col < CR_LANES; col += LANES_N)
 * gives the same bits for every width, contraction being off. Vectors wider than the machine's are avoided on
 * purpose: gcc 12 keeps those in memory across loop iterations.
 *
 * Operators + - * / & | ^ << >> are the language's own, also with a scalar on one side; comparisons are functions
 * that give lanes_i, all ones where true. Intrinsics appear where the compiler has no operator, and compute exactly
 * what the portable form does. Bits of NaN results (sign, payload) are the one thing that may differ between tiers.
 */
#ifndef CR_COMMON_LANES_H
#define CR_COMMON_LANES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(CR_NEON)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define LANES_N 16
#elif defined(__AVX2__)
#define LANES_N 8
#else
#define LANES_N 4
#endif

#define CR_INLINE static inline __attribute__((always_inline))

typedef float lanes __attribute__((vector_size(4 * LANES_N), may_alias));
typedef int32_t lanes_i __attribute__((vector_size(4 * LANES_N), may_alias));
typedef uint32_t lanes_u __attribute__((vector_size(4 * LANES_N), may_alias));
typedef double lanes_d __attribute__((vector_size(4 * LANES_N), may_alias)); /* LANES_N / 2 of them */

typedef float lanes_unaligned __attribute__((vector_size(4 * LANES_N), may_alias, aligned(4)));
typedef int32_t lanes_i_unaligned __attribute__((vector_size(4 * LANES_N), may_alias, aligned(4)));
typedef uint32_t lanes_u_unaligned __attribute__((vector_size(4 * LANES_N), may_alias, aligned(4)));

/* Aligned to the vector: p is a 64-byte aligned line plus a column that is a multiple of LANES_N. */
CR_INLINE lanes lanes_load(const float *p)
{
    return *(const lanes *)p;
}

CR_INLINE void lanes_store(float *p, lanes x)
{
    *(lanes *)p = x;
}

/* Any address of a float. */
CR_INLINE lanes lanes_loadu(const float *p)
{
    return *(const lanes_unaligned *)p;
}

CR_INLINE void lanes_storeu(float *p, lanes x)
{
    *(lanes_unaligned *)p = x;
}

/* Words, aligned: bf16 pairs, counters, integers. */
CR_INLINE lanes_u lanes_load_u(const uint32_t *p)
{
    return *(const lanes_u *)p;
}

CR_INLINE void lanes_store_u(uint32_t *p, lanes_u x)
{
    *(lanes_u *)p = x;
}

CR_INLINE lanes_u lanes_loadu_u(const uint32_t *p)
{
    return *(const lanes_u_unaligned *)p;
}

CR_INLINE void lanes_storeu_u(uint32_t *p, lanes_u x)
{
    *(lanes_u_unaligned *)p = x;
}

CR_INLINE lanes_i lanes_loadu_i(const int32_t *p)
{
    return *(const lanes_i_unaligned *)p;
}

CR_INLINE lanes lanes_splat(float x)
{
    return x - (lanes){0}; /* minus: keeps the sign of a zero */
}

CR_INLINE lanes_i lanes_splat_i(int32_t x)
{
    return x - (lanes_i){0};
}

CR_INLINE lanes_u lanes_splat_u(uint32_t x)
{
    return x - (lanes_u){0};
}

CR_INLINE lanes lanes_zero(void)
{
    return (lanes){0};
}

/* 0, 1, ... LANES_N - 1 */
CR_INLINE lanes_u lanes_iota(void)
{
#if LANES_N == 16
    return (lanes_u){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif LANES_N == 8
    return (lanes_u){0, 1, 2, 3, 4, 5, 6, 7};
#else
    return (lanes_u){0, 1, 2, 3};
#endif
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

/* Values converted to the nearest f32, ties to even. */
CR_INLINE lanes lanes_from_i(lanes_i x)
{
    return __builtin_convertvector(x, lanes);
}

/* a > b, false where either is NaN. For <, swap. */
CR_INLINE lanes_i lanes_greater(lanes a, lanes b)
{
    return a > b;
}

CR_INLINE lanes_i lanes_equal_i(lanes_i a, lanes_i b)
{
    return a == b;
}

/* Signed. For unsigned order, flip the top bit of both. */
CR_INLINE lanes_i lanes_greater_i(lanes_i a, lanes_i b)
{
    return a > b;
}

/* mask is all ones or all zeros in every lane: a where set, else b. */
CR_INLINE lanes lanes_select(lanes_i mask, lanes a, lanes b)
{
    return (lanes)(((lanes_i)a & mask) | ((lanes_i)b & ~mask));
}

CR_INLINE lanes_u lanes_select_u(lanes_i mask, lanes_u a, lanes_u b)
{
    return (a & (lanes_u)mask) | (b & ~(lanes_u)mask);
}

/* a > b ? a : b, so b wherever either is NaN or both are zero; the rule of the x86 instruction. */
CR_INLINE lanes lanes_max(lanes a, lanes b)
{
#if LANES_N == 16
    return (lanes)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES_N == 8
    return (lanes)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(CR_NEON) /* FMAX has another rule for NaN and zeros */
    return (lanes)vbslq_f32(vcgtq_f32((float32x4_t)a, (float32x4_t)b), (float32x4_t)a, (float32x4_t)b);
#else
    return lanes_select(lanes_greater(a, b), a, b);
#endif
}

/* a < b ? a : b, so b wherever either is NaN or both are zero. */
CR_INLINE lanes lanes_min(lanes a, lanes b)
{
#if LANES_N == 16
    return (lanes)_mm512_min_ps((__m512)a, (__m512)b);
#elif LANES_N == 8
    return (lanes)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(CR_NEON)
    return (lanes)vbslq_f32(vcltq_f32((float32x4_t)a, (float32x4_t)b), (float32x4_t)a, (float32x4_t)b);
#else
    return lanes_select(lanes_greater(b, a), a, b);
#endif
}

CR_INLINE lanes lanes_abs(lanes x)
{
    return (lanes)((lanes_u)x & 0x7fffffffu);
}

/* Correctly rounded. */
CR_INLINE lanes lanes_sqrt(lanes x)
{
#if LANES_N == 16
    return (lanes)_mm512_sqrt_ps((__m512)x);
#elif LANES_N == 8
    return (lanes)_mm256_sqrt_ps((__m256)x);
#elif defined(CR_NEON)
    return (lanes)vsqrtq_f32((float32x4_t)x);
#else
    return (lanes){__builtin_sqrtf(x[0]), __builtin_sqrtf(x[1]), __builtin_sqrtf(x[2]), __builtin_sqrtf(x[3])};
#endif
}

/* a * b + c, fused where the target has the instruction and not elsewhere: only for families whose contract is a
 * tolerance. The bit-identical families write a * b + c. */
CR_INLINE lanes lanes_fma(lanes a, lanes b, lanes c)
{
#if LANES_N == 16
    return (lanes)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif LANES_N == 8 && defined(__FMA__)
    return (lanes)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(CR_NEON)
    return (lanes)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

/* a * b + c rounded once, on every tier: for families whose bits are the same everywhere. Without the instruction it is
 * the library's fmaf, lane by lane. */
CR_INLINE lanes lanes_fused(lanes a, lanes b, lanes c)
{
#if LANES_N == 16 || (LANES_N == 8 && defined(__FMA__)) || defined(CR_NEON)
    return lanes_fma(a, b, c);
#else
    lanes out;
    for (int i = 0; i < LANES_N; i++) {
        out[i] = __builtin_fmaf(a[i], b[i], c[i]);
    }
    return out;
#endif
}

/* The first and second half of the lanes as doubles. */
CR_INLINE lanes_d lanes_low_d(lanes x)
{
#if LANES_N == 16
    return (lanes_d)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)x));
#elif LANES_N == 8
    return (lanes_d)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)x));
#elif defined(CR_NEON)
    return (lanes_d)vcvt_f64_f32(vget_low_f32((float32x4_t)x));
#else
    return (lanes_d){(double)x[0], (double)x[1]};
#endif
}

CR_INLINE lanes_d lanes_high_d(lanes x)
{
#if LANES_N == 16
    return (lanes_d)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)x, 1));
#elif LANES_N == 8
    return (lanes_d)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)x, 1));
#elif defined(CR_NEON)
    return (lanes_d)vcvt_high_f64_f32((float32x4_t)x);
#else
    return (lanes_d){(double)x[2], (double)x[3]};
#endif
}

/* Even and odd numbered elements of the row (a, b): splits LANES_N pairs. */
CR_INLINE lanes lanes_even(lanes a, lanes b)
{
#if LANES_N == 16
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
#elif LANES_N == 8
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
#else
    return __builtin_shufflevector(a, b, 0, 2, 4, 6);
#endif
}

CR_INLINE lanes lanes_odd(lanes a, lanes b)
{
#if LANES_N == 16
    return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif LANES_N == 8
    return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
    return __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}

/* bf16 of each lane in the low half of its word: nearest even, denormals kept, NaN made quiet. */
CR_INLINE lanes_u lanes_to_bf16(lanes x)
{
    lanes_u u = (lanes_u)x;
    lanes_u rounded = u + 0x7fffu + ((u >> 16) & 1u);
    lanes_u quiet = u | 0x400000u;
    lanes_i nan = lanes_greater_i((lanes_i)(u & 0x7fffffffu), lanes_splat_i(0x7f800000));
    return lanes_select_u(nan, quiet, rounded) >> 16;
}

/* Words of the bf16 operand layout: even feature in the low half of the lane's word, odd in the high half. */
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
    return (lanes)(pair & 0xffff0000u);
}

/* The low halves of the words. */
CR_INLINE void lanes_store_low(uint16_t *out, lanes_u words)
{
#if LANES_N == 16
    _mm256_storeu_si256((__m256i *)(void *)out, _mm512_cvtepi32_epi16((__m512i)words));
#else
    typedef uint16_t half_lanes __attribute__((vector_size(2 * LANES_N)));
    half_lanes narrow = __builtin_convertvector(words, half_lanes);
    memcpy(out, &narrow, sizeof narrow);
#endif
}

#endif
