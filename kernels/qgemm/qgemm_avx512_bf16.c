/* qgemm on VDPBF16PS: weights as bf16 pairs, tokens as TL16 bf16 lines, 8 x 48 micro-tile.
 *
 * The instruction adds two exact products to the accumulator one after the other and flushes subnormals.
 */
#ifndef __AVX512BF16__
#error "compile with the flags of the avx512_bf16 tier"
#endif

#include <immintrin.h>

#include "kernels/qgemm/columns.h"
#include "kernels/qgemm/variants.h"
#include "kernels/qgemm/words_k_bf16.h"

static inline __attribute__((always_inline)) __m512 product(__m512 acc, __m512 w, __m512 x)
{
    return _mm512_dpbf16_ps(acc, (__m512bh)x, (__m512bh)w);
}

#include "kernels/qgemm/tile512.h"

typedef __m512i words_fn(const void *row, size_t block);
typedef __m512i run_fn(const void *row, size_t block, size_t run, const struct k_scales *scales);
typedef void scales_fn(const void *row, size_t block, struct k_scales *scales);

/* The rows that the last strip of a panel lacks. */
static void zero_rows(size_t n_out, size_t n_chunks, char *panel, size_t strip_bytes)
{
    for (size_t o = n_out; o % 8 != 0; o++) {
        for (size_t b = 0; b < n_chunks; b++) {
            _mm512_store_si512(panel + o / 8 * strip_bytes + o % 8 * 64 + b * 512, _mm512_setzero_si512());
        }
    }
}

/* Row r of a strip is 64 bytes in every 512: 32 weights as they come. */
INLINE void rows_of(const struct cr_qmat *w, size_t out, size_t n_out, char *panel, size_t strip_bytes,
                    words_fn *const words)
{
    size_t n_chunks = w->n_cols / 32;
    for (size_t o = 0; o < n_out; o++) {
        const char *row = (const char *)w->data + (out + o) * w->row_bytes;
        char *to = panel + o / 8 * strip_bytes + o % 8 * 64;
        for (size_t b = 0; b < n_chunks; b++) {
            _mm512_store_si512(to + b * 512, words(row, b));
        }
    }
    zero_rows(n_out, n_chunks, panel, strip_bytes);
}

INLINE void rows_of_k(const struct cr_qmat *w, size_t out, size_t n_out, char *panel, size_t strip_bytes,
                      scales_fn *const scales, run_fn *const run)
{
    size_t n_blocks = w->n_cols / 256;
    for (size_t o = 0; o < n_out; o++) {
        const char *row = (const char *)w->data + (out + o) * w->row_bytes;
        char *to = panel + o / 8 * strip_bytes + o % 8 * 64;
        for (size_t b = 0; b < n_blocks; b++, to += 8 * 512) {
            struct k_scales s;
            scales(row, b, &s);
#pragma GCC unroll 8
            for (size_t i = 0; i < 8; i++) {
                _mm512_store_si512(to + i * 512, run(row, b, i, &s));
            }
        }
    }
    zero_rows(n_out, w->n_cols / 32, panel, strip_bytes);
}

/* Two rows of 32 columns interleaved are one step: 32 bytes for each of four strips. */
INLINE void put_step(__m512i even, __m512i odd, char *strip, size_t strip_bytes)
{
    const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    /* word 2c from the first register, 2c + 1 from the second */
    const __m512i low = _mm512_or_si512(count, _mm512_slli_epi32(_mm512_add_epi32(count, _mm512_set1_epi32(32)), 16));
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    __m512i pairs0 = _mm512_permutex2var_epi16(even, low, odd);
    __m512i pairs1 = _mm512_permutex2var_epi16(even, high, odd);
    _mm256_store_si256((__m256i *)(void *)strip, _mm512_castsi512_si256(pairs0));
    _mm256_store_si256((__m256i *)(void *)(strip + strip_bytes), _mm512_extracti64x4_epi64(pairs0, 1));
    _mm256_store_si256((__m256i *)(void *)(strip + 2 * strip_bytes), _mm512_castsi512_si256(pairs1));
    _mm256_store_si256((__m256i *)(void *)(strip + 3 * strip_bytes), _mm512_extracti64x4_epi64(pairs1, 1));
}

INLINE void columns_of(const struct cr_qmat *w, size_t out, size_t n_out, char *panel, size_t strip_bytes,
                       words_fn *const words)
{
    const struct cr_qgemm_columns columns = cr_qgemm_columns(w, out, out + n_out);
    for (size_t n = 0; n < w->n_rows; n += 2) {
        const char *even = (const char *)w->data + n * w->row_bytes;
        const char *odd = n + 1 < w->n_rows ? even + w->row_bytes : NULL;
        cr_qgemm_fetch_row(w, n, &columns);
        cr_qgemm_fetch_row(w, n + 1, &columns);
        char *to = panel + n / 2 * 32;
        for (size_t c = 0; c < n_out; c += 32) {
            __m512i a = words(even, (out + c) / 32);
            __m512i b = odd != NULL ? words(odd, (out + c) / 32) : _mm512_setzero_si512();
            put_step(a, b, to + c / 8 * strip_bytes, strip_bytes);
        }
    }
}

INLINE void columns_of_k(const struct cr_qmat *w, size_t out, size_t n_out, char *panel, size_t strip_bytes,
                         scales_fn *const scales, run_fn *const run)
{
    const struct cr_qgemm_columns columns = cr_qgemm_columns(w, out, out + n_out);
    for (size_t n = 0; n < w->n_rows; n += 2) {
        const char *even = (const char *)w->data + n * w->row_bytes;
        const char *odd = n + 1 < w->n_rows ? even + w->row_bytes : NULL;
        cr_qgemm_fetch_row(w, n, &columns);
        cr_qgemm_fetch_row(w, n + 1, &columns);
        char *to = panel + n / 2 * 32;
        struct k_scales s[2];
        for (size_t c = 0; c < n_out; c += 32) {
            size_t block = (out + c) / 256, i = (out + c) / 32 % 8;
            if (c == 0 || i == 0) {
                scales(even, block, &s[0]);
                scales(odd != NULL ? odd : even, block, &s[1]);
            }
            __m512i a = run(even, block, i, &s[0]);
            __m512i b = odd != NULL ? run(odd, block, i, &s[1]) : _mm512_setzero_si512();
            put_step(a, b, to + c / 8 * strip_bytes, strip_bytes);
        }
    }
}

/* Both emissions of one type, as two plain functions. */
#define TYPE(name)                                                                                                     \
    static void rows_##name(const struct cr_qmat *w, size_t out, size_t n_out, char *panel, size_t strip_bytes)        \
    {                                                                                                                  \
        rows_of(w, out, n_out, panel, strip_bytes, words_##name);                                                      \
    }                                                                                                                  \
    static void columns_##name(const struct cr_qmat *w, size_t out, size_t n_out, char *panel, size_t strip_bytes)     \
    {                                                                                                                  \
        columns_of(w, out, n_out, panel, strip_bytes, words_##name);                                                   \
    }

CR_WORDS_TYPES(TYPE)

#define TYPE_K(name)                                                                                                   \
    static void rows_##name(const struct cr_qmat *w, size_t out, size_t n_out, char *panel, size_t strip_bytes)        \
    {                                                                                                                  \
        rows_of_k(w, out, n_out, panel, strip_bytes, scales_##name, run_##name);                                       \
    }                                                                                                                  \
    static void columns_##name(const struct cr_qmat *w, size_t out, size_t n_out, char *panel, size_t strip_bytes)     \
    {                                                                                                                  \
        columns_of_k(w, out, n_out, panel, strip_bytes, scales_##name, run_##name);                                    \
    }

CR_WORDS_K_TYPES(TYPE_K)

typedef void emit_fn(const struct cr_qmat *w, size_t out, size_t n_out, char *panel, size_t strip_bytes);

static const struct {
    emit_fn *rows, *columns;
} emit[] = {
    [CR_Q_F32] = {rows_f32, columns_f32},          [CR_Q_F16] = {rows_f16, columns_f16},
    [CR_Q_BF16] = {rows_bf16, columns_bf16},       [CR_Q_Q4_0] = {rows_q4_0, columns_q4_0},
    [CR_Q_Q4_1] = {rows_q4_1, columns_q4_1},       [CR_Q_Q5_0] = {rows_q5_0, columns_q5_0},
    [CR_Q_Q5_1] = {rows_q5_1, columns_q5_1},       [CR_Q_Q8_0] = {rows_q8_0, columns_q8_0},
    [CR_Q_Q2_K] = {rows_q2_k, columns_q2_k},       [CR_Q_Q3_K] = {rows_q3_k, columns_q3_k},
    [CR_Q_Q4_K] = {rows_q4_k, columns_q4_k},       [CR_Q_Q5_K] = {rows_q5_k, columns_q5_k},
    [CR_Q_Q6_K] = {rows_q6_k, columns_q6_k},       [CR_Q_IQ4_NL] = {rows_iq4_nl, columns_iq4_nl},
    [CR_Q_IQ4_XS] = {rows_iq4_xs, columns_iq4_xs},
};

static void pack_fwd(const struct cr_qmat *w, size_t out, size_t n_out, char *panel, size_t strip_bytes, float *rows)
{
    (void)rows;
    emit[w->type].rows(w, out, n_out, panel, strip_bytes);
}

static void pack_dx(const struct cr_qmat *w, size_t out, size_t n_out, char *panel, size_t strip_bytes, float *rows)
{
    (void)rows;
    emit[w->type].columns(w, out, n_out, panel, strip_bytes);
}

enum { ELEMENT_BYTES = 2, SLAB_MAX = SLAB512_MAX };
#include "kernels/qgemm/drive.h"

void cr_qgemm_fwd_avx512_bf16(const struct cr_qgemm_args *args, size_t begin, size_t end, void *scratch)
{
    drive(args, begin, end, scratch, false);
}

void cr_qgemm_dx_avx512_bf16(const struct cr_qgemm_args *args, size_t begin, size_t end, void *scratch)
{
    drive(args, begin, end, scratch, true);
}
