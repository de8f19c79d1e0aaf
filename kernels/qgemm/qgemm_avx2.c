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

/* Token vector v of a group: half v % 2 of block v / 2. */
INLINE void step(__m256 acc[4][3], const char *w, size_t row, const char *const x[3], size_t at, const int nv)
{
    __m256 tokens[3];
    for (int v = 0; v < nv; v++) {
        tokens[v] = _mm256_load_ps((const float *)(const void *)(x[v] + at));
    }
#define CR_ROW(r)                                                                           \
    {                                                                                       \
        __m256 weight = _mm256_broadcast_ss((const float *)(const void *)(w + (r) * row));  \
        for (int v = 0; v < nv; v++) {                                                      \
            acc[r][v] = _mm256_fmadd_ps(weight, tokens[v], acc[r][v]);                      \
        }                                                                                   \
    }
    CR_ROW(0)
    CR_ROW(1)
    CR_ROW(2)
    CR_ROW(3)
#undef CR_ROW
}

INLINE void finish(__m256 acc[4][3], const struct tile *t, size_t first_row, int first, const int nv)
{
    for (size_t i = 0; i < t->rank; i++) {
        for (int v = 0; v < nv; v++) {
            int at = first + v;
            __m256 u = _mm256_load_ps(t->u[at / 2] + i * 16 + at % 2 * 8);
            for (size_t r = 0; r < 4; r++) {
                acc[r][v] = _mm256_fmadd_ps(_mm256_broadcast_ss(t->lowrank + i * 8 + first_row + r), u, acc[r][v]);
            }
        }
    }
    for (size_t r = 0; r < 4; r++) {
        if (first_row + r >= t->n_rows) {
            break;
        }
        for (int v = 0; v < nv; v++) {
            int at = first + v;
            float *y = t->y[at / 2] + 16 * (first_row + r) + at % 2 * 8;
            __m256 sum = acc[r][v];
            if (t->bias != NULL) {
                sum = _mm256_add_ps(sum, _mm256_broadcast_ss(t->bias + first_row + r));
            }
            if (t->accumulate) {
                sum = _mm256_add_ps(_mm256_load_ps(y), sum);
            }
            _mm256_store_ps(y, sum);
        }
    }
}

/* Outputs first_row ... + 3 of the strip, token vectors first ... first + nv - 1. */
INLINE void tile(const struct tile *t, size_t first_row, int first, const int nv, const bool dx)
{
    const size_t row = CR_TILE_ROW(dx), next = CR_TILE_STEP(dx);
    __m256 acc[4][3];
    float *partial = t->partial + first_row * 48 + (size_t)first * 8;
    for (size_t r = 0; r < 4; r++) {
        for (int v = 0; v < nv; v++) {
            acc[r][v] = t->first ? _mm256_setzero_ps() : _mm256_load_ps(partial + r * 48 + (size_t)v * 8);
        }
    }
    const char *w = t->panel + first_row * row;
    const char *x[3];
    for (int v = 0; v < nv; v++) {
        x[v] = t->x[(first + v) / 2] + (first + v) % 2 * 32;
    }
    size_t n_steps = t->n_steps;
    for (; n_steps >= 16; n_steps -= 16) {
        for (size_t s = 0; s < 16; s += 4) {
            step(acc, w + (s + 0) * next, row, x, 64 * (s + 0), nv);
            step(acc, w + (s + 1) * next, row, x, 64 * (s + 1), nv);
            step(acc, w + (s + 2) * next, row, x, 64 * (s + 2), nv);
            step(acc, w + (s + 3) * next, row, x, 64 * (s + 3), nv);
        }
        w += 512;
        for (int v = 0; v < nv; v++) {
            x[v] += 1024;
        }
    }
    for (size_t s = 0; s < n_steps; s++) {
        step(acc, w + s * next, row, x, 64 * s, nv);
    }
    if (t->last) {
        finish(acc, t, first_row, first, nv);
        return;
    }
    for (size_t r = 0; r < 4; r++) {
        for (int v = 0; v < nv; v++) {
            _mm256_store_ps(partial + r * 48 + (size_t)v * 8, acc[r][v]);
        }
    }
}

static void tile3_fwd(const struct tile *t, size_t first_row, int first)
{
    tile(t, first_row, first, 3, false);
}

static void tile3_dx(const struct tile *t, size_t first_row, int first)
{
    tile(t, first_row, first, 3, true);
}

static void tile2_fwd(const struct tile *t, size_t first_row, int first)
{
    tile(t, first_row, first, 2, false);
}

static void tile2_dx(const struct tile *t, size_t first_row, int first)
{
    tile(t, first_row, first, 2, true);
}

static void tile_run(const struct tile *t, int nb, bool dx)
{
    int width = nb == 3 ? 3 : 2;
    for (int first = 0; first < 2 * nb; first += width) {
        for (size_t row = 0; row < t->n_rows; row += 4) {
            if (width == 3) {
                (dx ? tile3_dx : tile3_fwd)(t, row, first);
            } else {
                (dx ? tile2_dx : tile2_fwd)(t, row, first);
            }
        }
    }
}

#define DEQUANT_TIER CR_TIER_AVX2
#include "kernels/qgemm/pack_f32.h"

enum { ELEMENT_BYTES = 4, SLAB_STEPS = 128 };
#include "kernels/qgemm/drive.h"

void cr_qgemm_fwd_avx2(const struct cr_qgemm_args *args, size_t begin, size_t end, void *scratch)
{
    drive(args, begin, end, scratch, false);
}

void cr_qgemm_dx_avx2(const struct cr_qgemm_args *args, size_t begin, size_t end, void *scratch)
{
    drive(args, begin, end, scratch, true);
}
