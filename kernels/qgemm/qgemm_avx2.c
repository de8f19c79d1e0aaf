/* qgemm on 256-bit f32 FMA. Sixteen registers hold a 4 x 24 micro-tile: 12 accumulators, 3 token vectors, 1 weight; a
 * strip of 8 outputs and 48 tokens is four of them. One or two token blocks go as 4 x 16.
 */
#ifndef __AVX2__
#error "compile with the flags of the avx2 tier"
#endif

#include <immintrin.h>

#include "kernels/qgemm/tile.h"
#include "kernels/qgemm/variants.h"

#define INLINE static inline __attribute__((always_inline))

/* The accumulators are twelve named variables: as an array, gcc 12 keeps some of them in memory. Row r and token
 * vector v of the micro-tile is r##v; with WIDE = 0 the third column is absent. */
#define ROWS(F, ...) F(a, 0, __VA_ARGS__) F(b, 1, __VA_ARGS__) F(c, 2, __VA_ARGS__) F(d, 3, __VA_ARGS__)

#define START(r, i, from)                                                                                              \
    __m256 r##0 = t->first ? zero : _mm256_load_ps((from) + (i)*48);                                                   \
    __m256 r##1 = t->first ? zero : _mm256_load_ps((from) + (i)*48 + 8);                                               \
    __m256 r##2 = t->first || !wide ? zero : _mm256_load_ps((from) + (i)*48 + 16);

#define SAVE(r, i, to)                                                                                                 \
    _mm256_store_ps((to) + (i)*48, r##0);                                                                              \
    _mm256_store_ps((to) + (i)*48 + 8, r##1);                                                                          \
    if (wide) {                                                                                                        \
        _mm256_store_ps((to) + (i)*48 + 16, r##2);                                                                     \
    }

/* acc += weight * tokens for one row; weight from `at` */
#define ACCUMULATE(r, i, at)                                                                                           \
    {                                                                                                                  \
        __m256 weight = _mm256_broadcast_ss(at(i));                                                                    \
        r##0 = _mm256_fmadd_ps(weight, tokens0, r##0);                                                                 \
        r##1 = _mm256_fmadd_ps(weight, tokens1, r##1);                                                                 \
        if (wide) {                                                                                                    \
            r##2 = _mm256_fmadd_ps(weight, tokens2, r##2);                                                             \
        }                                                                                                              \
    }

#define FLOATS(p) ((const float *)(const void *)(p))

#define STEP(s)                                                                                                        \
    {                                                                                                                  \
        __m256 tokens0 = _mm256_load_ps(FLOATS(x0 + 64 * (s)));                                                        \
        __m256 tokens1 = _mm256_load_ps(FLOATS(x1 + 64 * (s)));                                                        \
        __m256 tokens2 = wide ? _mm256_load_ps(FLOATS(x2 + 64 * (s))) : tokens1;                                       \
        __asm__("" : "+x"(tokens2));                                                                                   \
        ROWS(ACCUMULATE, PANEL_##s)                                                                                    \
    }
#define PANEL(i, s) FLOATS(w + (i)*row + (s)*next)
#define PANEL_0(i) PANEL(i, 0)
#define PANEL_1(i) PANEL(i, 1)
#define PANEL_2(i) PANEL(i, 2)
#define PANEL_3(i) PANEL(i, 3)
#define LOWRANK(i) (lowrank + (i))

/* One finished line of 8 tokens. */
INLINE void put(const struct tile *t, size_t out, int vector, __m256 sum)
{
    if (out >= t->n_rows) {
        return;
    }
    float *y = t->y[vector / 2] + 16 * out + vector % 2 * 8;
    if (t->bias != NULL) {
        sum = _mm256_add_ps(sum, _mm256_broadcast_ss(t->bias + out));
    }
    if (t->accumulate) {
        sum = _mm256_add_ps(_mm256_load_ps(y), sum);
    }
    _mm256_store_ps(y, sum);
}

#define PUT(r, i, first)                                                                                               \
    put(t, first_row + (i), (first), r##0);                                                                            \
    put(t, first_row + (i), (first) + 1, r##1);                                                                        \
    if (wide) {                                                                                                        \
        put(t, first_row + (i), (first) + 2, r##2);                                                                    \
    }

/* Outputs first_row ... first_row + 3 of the strip, two or three (wide) token vectors from `first` on: vector v is half
 * v % 2 of token block v / 2. */
INLINE void tile(const struct tile *t, const size_t first_row, const int first, const bool wide, const bool dx)
{
    const size_t row = CR_TILE_ROW(dx), next = CR_TILE_STEP(dx);
    const __m256 zero = _mm256_setzero_ps();
    const int second = first + 1, third = wide ? first + 2 : first;
    float *partial = t->partial + first_row * 48 + first * 8;
    ROWS(START, partial)
    const char *w = t->panel + first_row * row;
    const char *x0 = t->x[first / 2] + first % 2 * 32;
    const char *x1 = t->x[second / 2] + second % 2 * 32;
    const char *x2 = t->x[third / 2] + third % 2 * 32;
    size_t n_steps = t->n_steps, ahead = 0;
    for (; n_steps >= 16; n_steps -= 16) {
        if (first_row == 0 && first == 0) { /* one of the four bodies of a strip */
            fetch_ahead(t, &ahead);
        }
        for (int quarter = 0; quarter < 4; quarter++) {
            STEP(0)
            STEP(1)
            STEP(2)
            STEP(3)
            w += 4 * next;
            x0 += 256;
            x1 += 256;
            x2 += 256;
        }
        w += 512 - 16 * next;
    }
    for (; n_steps > 0; n_steps--) {
        STEP(0)
        w += next;
        x0 += 64;
        x1 += 64;
        x2 += 64;
    }
    if (!t->last) {
        ROWS(SAVE, partial)
        return;
    }
    const float *lowrank = t->lowrank + first_row;
    for (size_t i = 0; i < t->rank; i++, lowrank += 8) {
        __m256 tokens0 = _mm256_load_ps(t->u[first / 2] + i * 16 + first % 2 * 8);
        __m256 tokens1 = _mm256_load_ps(t->u[second / 2] + i * 16 + second % 2 * 8);
        __m256 tokens2 = wide ? _mm256_load_ps(t->u[third / 2] + i * 16 + third % 2 * 8) : tokens1;
        ROWS(ACCUMULATE, LOWRANK)
    }
    ROWS(PUT, first)
}

/* The bodies with constant shapes: row 0 or 4 of the strip, vectors 0-2, 3-5 of three blocks or 0-1, 2-3 of fewer. */
#define BODY(name, first_row, first, wide, dx)                                                                         \
    static void name(const struct tile *t)                                                                             \
    {                                                                                                                  \
        tile(t, first_row, first, wide, dx);                                                                           \
    }

BODY(fwd_0_012, 0, 0, true, false)
BODY(fwd_4_012, 4, 0, true, false)
BODY(fwd_0_345, 0, 3, true, false)
BODY(fwd_4_345, 4, 3, true, false)
BODY(fwd_0_01, 0, 0, false, false)
BODY(fwd_4_01, 4, 0, false, false)
BODY(fwd_0_23, 0, 2, false, false)
BODY(fwd_4_23, 4, 2, false, false)
BODY(dx_0_012, 0, 0, true, true)
BODY(dx_4_012, 4, 0, true, true)
BODY(dx_0_345, 0, 3, true, true)
BODY(dx_4_345, 4, 3, true, true)
BODY(dx_0_01, 0, 0, false, true)
BODY(dx_4_01, 4, 0, false, true)
BODY(dx_0_23, 0, 2, false, true)
BODY(dx_4_23, 4, 2, false, true)

static void tile_run(const struct tile *t, int nb, bool dx)
{
    /* [dx][three blocks][half of the tokens][half of the rows] */
    static void (*const bodies[2][2][2][2])(const struct tile *t) = {
        {{{fwd_0_01, fwd_4_01}, {fwd_0_23, fwd_4_23}}, {{fwd_0_012, fwd_4_012}, {fwd_0_345, fwd_4_345}}},
        {{{dx_0_01, dx_4_01}, {dx_0_23, dx_4_23}}, {{dx_0_012, dx_4_012}, {dx_0_345, dx_4_345}}},
    };
    for (int half = 0; half < (nb == 1 ? 1 : 2); half++) {
        bodies[dx][nb == 3][half][0](t);
        if (t->n_rows > 4) {
            bodies[dx][nb == 3][half][1](t);
        }
    }
}

#define DEQUANT_TIER CR_TIER_AVX2
#include "kernels/qgemm/pack_f32.h"

/* Every token vector is loaded four times a strip: 24 KiB of them stay in the first level. */
enum { ELEMENT_BYTES = 4, SLAB_MAX = 128 };
#include "kernels/qgemm/drive.h"

void cr_qgemm_fwd_avx2(const struct cr_qgemm_args *args, size_t begin, size_t end, void *scratch)
{
    drive(args, begin, end, scratch, false);
}

void cr_qgemm_dx_avx2(const struct cr_qgemm_args *args, size_t begin, size_t end, void *scratch)
{
    drive(args, begin, end, scratch, true);
}
