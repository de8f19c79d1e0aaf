/* attention, private: what the bf16 variant reads and writes around its products. Conversion of f32 lines to pairs, the
 * way back of results, and 2^x.
 *
 * Features are padded to a multiple of sixteen with zeros; a pair of features or tokens is two bf16 in 32 bits, the
 * first in the low half.
 */
#ifndef CR_ATTENTION_BF16_LINES_H
#define CR_ATTENTION_BF16_LINES_H

#include <immintrin.h>

#include "kernels/attention/attention_lines.h"

#include <stdbool.h>

#define LOG2E 0x1.715476p0f
#define LN2 0x1.62e43p-1f

static inline size_t padded(size_t head_dim)
{
    return (head_dim + CR_LANES - 1) / CR_LANES * CR_LANES;
}

/* ---- pairs ---- */

/* Both lines rounded to bf16: words of `even` in the low half of the register, of `odd` in the high half. */
CR_INLINE __m512i two_lines(__m512 even, __m512 odd)
{
    return (__m512i)_mm512_cvtne2ps_pbh(odd, even);
}

/* Lanes of the two lines side by side: sixteen pairs. */
CR_INLINE __m512i side_by_side(__m512i two)
{
    __m512i lane = (__m512i)lanes_iota();
    __m512i index = _mm512_or_si512(lane, _mm512_slli_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(16)), 16));
    return _mm512_permutexvar_epi16(index, two);
}

/* A head as operands: any may be NULL.
 *   features  [block][padded / 2][16 tokens]   pairs of features
 *   tokens    [block][padded][8]               pairs of tokens
 *   numbers   [block][padded][16 tokens]       f32 */
struct packed {
    uint32_t *features, *tokens;
    float *numbers;
};

static void pack(const struct item *item, size_t block, size_t n, const float *from, size_t stride, struct packed to)
{
    size_t dim = padded(item->dim);
    for (; n > 0; n--, block++) {
        struct window w = item_window(item, block);
        const float *in = from + (item->first / CR_LANES + block) * stride;
        for (size_t f = 0; f < dim; f += 2, in += 2 * CR_LANES) {
            __m512 even = f < item->dim ? window_line(&w, in, in + stride) : _mm512_setzero_ps();
            __m512 odd = f + 1 < item->dim ? window_line(&w, in + CR_LANES, in + stride + CR_LANES) : even;
            if (f + 1 >= item->dim) {
                odd = _mm512_setzero_ps();
            }
            __m512i two = two_lines(even, odd);
            if (to.numbers != NULL) {
                _mm512_store_ps(to.numbers, even);
                _mm512_store_ps(to.numbers + CR_LANES, odd);
                to.numbers += 2 * CR_LANES;
            }
            if (to.tokens != NULL) {
                _mm512_store_si512(to.tokens, two);
                to.tokens += CR_LANES;
            }
            if (to.features != NULL) {
                _mm512_store_si512(to.features, side_by_side(two));
                to.features += CR_LANES;
            }
        }
    }
}

/* The operand of the scores in a stretch of dwords: bf16 pairs or f32 numbers, and how far its blocks are apart. */
static inline struct packed score_operand(uint32_t *at, bool f32)
{
    return (struct packed){.features = f32 ? NULL : at, .numbers = f32 ? (float *)(void *)at : NULL};
}

static inline size_t score_block(size_t dim, bool f32)
{
    return dim * (f32 ? CR_LANES : CR_LANES / 2);
}

#define EXCHANGE_HALVES(h, low, high)                                                                                  \
    for (int i = 0; i < 8; i++) {                                                                                      \
        if ((i & (h)) == 0) {                                                                                          \
            lanes a = v[i], b = v[i + (h)];                                                                            \
            v[i] = __builtin_shufflevector(a, b, low);                                                                 \
            v[i + (h)] = __builtin_shufflevector(a, b, high);                                                          \
        }                                                                                                              \
    }

/* Sixteen rows of eight pairs to eight lines of sixteen: out[k][row] = in[row][k]. Rows i and i + 8 share a register,
 * so that two squares of eight are transposed at once. */
static void transpose_pairs(const uint32_t *in, uint32_t *out)
{
    lanes v[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        __m512i low = _mm512_castsi256_si512(_mm256_load_si256((const __m256i *)(const void *)(in + i * 8)));
        __m256i high = _mm256_load_si256((const __m256i *)(const void *)(in + (i + 8) * 8));
        v[i] = (lanes)_mm512_inserti64x4(low, high, 1);
    }
#pragma GCC unroll 8
    EXCHANGE_HALVES(4, CR_LOW_4, CR_HIGH_4)
#pragma GCC unroll 8
    EXCHANGE_HALVES(2, CR_LOW_2, CR_HIGH_2)
#pragma GCC unroll 8
    EXCHANGE_HALVES(1, CR_LOW_1, CR_HIGH_1)
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        lanes_store((float *)(void *)(out + i * CR_LANES), v[i]);
    }
}

/* ---- results ---- */

/* Lines of one aligned block, times a factor a lane, to the packed buffer. */
static void put(const struct item *item, size_t block, const float *aligned, __m512 factor, float *packed,
                size_t stride)
{
    struct window w = item_window(item, block);
    float *out = packed + (item->first / CR_LANES + block) * stride;
    for (size_t f = 0; f < item->dim; f++) {
        __m512 line = _mm512_mul_ps(_mm512_load_ps(aligned + f * CR_LANES), factor);
        window_store_line(&w, out + f * CR_LANES, out + stride + f * CR_LANES, line);
    }
}

/* ---- 2^x ---- */

/* Within 2^-18 of 2^x, relative; 0 below -149 and at -inf, NaN at NaN. x = floor + r; 2^r by the quartic that is best
 * relative to 2^r on [0, 1] (own Remez run, error 2^-18.6). */
CR_INLINE __m512 exp2_of(__m512 x)
{
    __m512 r = _mm512_reduce_ps(x, 0x01); /* x - floor(x), 0 for -inf */
    __m512 p = _mm512_set1_ps(0x1.bb7cd4p-7f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.aa13fp-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.ee798ap-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62d166p-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.00002cp+0f));
    return _mm512_scalef_ps(p, x); /* times 2^floor(x) */
}

/* ln x for normal x > 0, within 3 units of 2^-24 of |ln x| and of ln 2: x = 2^e m, m in [0.75, 1.5);
 * ln m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 1/5, whose series is cut at s^9 (error 2^-26.7 relative). Gives
 * (more + e) ln 2 + ln m: `more` counts in base 2. */
CR_INLINE __m512 ln_of(__m512 x, __m512 more)
{
    __m512 one = _mm512_set1_ps(1), m = _mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
    __m512 e = _mm512_add_ps(_mm512_getexp_ps(x), more);
    e = _mm512_mask_add_ps(e, _mm512_cmp_ps_mask(m, one, _CMP_LT_OQ), e, one);
    __m512 s = _mm512_div_ps(_mm512_sub_ps(m, one), _mm512_add_ps(m, one)), s2 = _mm512_mul_ps(s, s);
    __m512 p = _mm512_set1_ps(1.0f / 9);
    p = _mm512_fmadd_ps(p, s2, _mm512_set1_ps(1.0f / 7));
    p = _mm512_fmadd_ps(p, s2, _mm512_set1_ps(1.0f / 5));
    p = _mm512_fmadd_ps(p, s2, _mm512_set1_ps(1.0f / 3));
    p = _mm512_fmadd_ps(p, s2, one);
    return _mm512_fmadd_ps(e, _mm512_set1_ps(LN2), _mm512_mul_ps(_mm512_add_ps(s, s), p));
}

#endif
