/* tile512: the 8 x 48 micro-tile on 512-bit registers: 24 accumulators, per step 3 loads of tokens and 8 broadcasts of
 * weights. Included by the avx512 tiers after they have defined
 *
 *   static inline __m512 product(__m512 acc, __m512 w, __m512 x)    acc plus the product of one step, 16 tokens
 */
#ifndef CR_QGEMM_TILE512_H
#define CR_QGEMM_TILE512_H

#include <immintrin.h>

#include "kernels/qgemm/tile.h"

#define INLINE static inline __attribute__((always_inline))

/* A slab of three token blocks and the next one, 480 KiB at most, stay in L2 beside the panel. Each slab but the first
 * costs 24 accumulators a tile through memory: Zen 4, bf16, K = 2048, slabs of 128, 256, 512 and 1024 steps reach 85,
 * 92, 98 and 99 % of peak (bench/parts_qgemm, 2026-11-22). Asking for tokens one chunk ahead in L1 gains nothing. */
enum { SLAB512_MAX = 1280 };

/* One step: nb token vectors against 8 broadcast weights at w, w + row, ... */
INLINE void step(__m512 acc[8][3], const char *w, size_t row, const char *const x[3], size_t at, const int nb)
{
    __m512 tokens[3];
    for (int j = 0; j < nb; j++) {
        tokens[j] = _mm512_load_ps(x[j] + at);
    }
#define CR_ROW(r)                                                                                                      \
    {                                                                                                                  \
        __m512 weight = _mm512_set1_ps(*(const float *)(const void *)(w + (r)*row));                                   \
        for (int j = 0; j < nb; j++) {                                                                                 \
            acc[r][j] = product(acc[r][j], weight, tokens[j]);                                                         \
        }                                                                                                              \
    }
    CR_ROW(0)
    CR_ROW(1)
    CR_ROW(2)
    CR_ROW(3)
    CR_ROW(4)
    CR_ROW(5)
    CR_ROW(6)
    CR_ROW(7)
#undef CR_ROW
}

INLINE void finish(__m512 acc[8][3], const struct tile *t, const int nb)
{
    for (size_t i = 0; i < t->rank; i++) {
        for (int j = 0; j < nb; j++) {
            __m512 u = _mm512_load_ps(t->u[j] + i * 16);
            for (int r = 0; r < 8; r++) {
                acc[r][j] = _mm512_fmadd_ps(_mm512_set1_ps(t->lowrank[i * 8 + (size_t)r]), u, acc[r][j]);
            }
        }
    }
    for (int r = 0; r < 8; r++) {
        if ((size_t)r >= t->n_rows) {
            break;
        }
        for (int j = 0; j < nb; j++) {
            float *y = t->y[j] + 16 * r;
            __m512 sum = acc[r][j];
            if (t->bias != NULL) {
                sum = _mm512_add_ps(sum, _mm512_set1_ps(t->bias[r]));
            }
            if (t->accumulate) {
                sum = _mm512_add_ps(_mm512_load_ps(y), sum);
            }
            _mm512_store_ps(y, sum);
        }
    }
}

INLINE void tile(const struct tile *t, const int nb, const bool dx)
{
    const size_t row = CR_TILE_ROW(dx), next = CR_TILE_STEP(dx);
    __m512 acc[8][3];
    for (int r = 0; r < 8; r++) {
        for (int j = 0; j < nb; j++) {
            acc[r][j] = t->first ? _mm512_setzero_ps() : _mm512_load_ps(t->partial + (r * 3 + j) * 16);
        }
    }
    const char *w = t->panel;
    const char *x[3] = {t->x[0], nb > 1 ? t->x[1] : NULL, nb > 2 ? t->x[2] : NULL};
    size_t n_steps = t->n_steps, ahead = 0, line = t->last ? 0 : 24;
    for (; n_steps >= 16; n_steps -= 16) {
        fetch_ahead(t, &ahead);
        fetch_outputs(t, &line, nb);
        for (size_t s = 0; s < 16; s += 4) {
            step(acc, w + (s + 0) * next, row, x, 64 * (s + 0), nb);
            step(acc, w + (s + 1) * next, row, x, 64 * (s + 1), nb);
            step(acc, w + (s + 2) * next, row, x, 64 * (s + 2), nb);
            step(acc, w + (s + 3) * next, row, x, 64 * (s + 3), nb);
        }
        w += 512;
        for (int j = 0; j < nb; j++) {
            x[j] += 1024;
        }
    }
    for (size_t s = 0; s < n_steps; s++) {
        step(acc, w + s * next, row, x, 64 * s, nb);
    }
    if (t->last) {
        finish(acc, t, nb);
        return;
    }
    for (int r = 0; r < 8; r++) {
        for (int j = 0; j < nb; j++) {
            _mm512_store_ps(t->partial + (r * 3 + j) * 16, acc[r][j]);
        }
    }
}

/* Six bodies with constant shapes. */
static void tile_run(const struct tile *t, int nb, bool dx)
{
    switch (nb * 2 + dx) {
    case 2:
        tile(t, 1, false);
        break;
    case 3:
        tile(t, 1, true);
        break;
    case 4:
        tile(t, 2, false);
        break;
    case 5:
        tile(t, 2, true);
        break;
    case 6:
        tile(t, 3, false);
        break;
    default:
        tile(t, 3, true);
        break;
    }
}

#endif
