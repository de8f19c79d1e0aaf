/* tile_neon: the 8 x 12 micro-tile on 128-bit registers, what its tiers share. A strip of 8 outputs and 48 tokens is
 * four of them; one or two token blocks go as 12 and 8 tokens. A tier includes this and then defines
 *
 *   tile(t, first, n)    token vectors [first, first + n) of the strip: vector v is part v % 4 of token block v / 4
 */
#ifndef CR_QGEMM_TILE_NEON_H
#define CR_QGEMM_TILE_NEON_H

#include <arm_neon.h>

#include "kernels/qgemm/tile.h"

#define INLINE static inline __attribute__((always_inline))

/* Token vectors of the micro-tile; a line of sixteen tokens is four. */
enum { TILE_VECTORS = 3, LINE_VECTORS = CR_LANES / 4 };

INLINE void tile(const struct tile *t, const int first, const int n);

INLINE const float *floats(const char *p)
{
    return (const float *)(const void *)p;
}

/* All rows of a step of f32 against n token vectors, 2 or 3; the weight is a lane operand of the product. */
#define TILE_ROWS(weights0, weights1)                                                                                  \
    TILE_ROW(0, weights0, 0)                                                                                           \
    TILE_ROW(1, weights0, 1)                                                                                           \
    TILE_ROW(2, weights0, 2)                                                                                           \
    TILE_ROW(3, weights0, 3)                                                                                           \
    TILE_ROW(4, weights1, 0)                                                                                           \
    TILE_ROW(5, weights1, 1)                                                                                           \
    TILE_ROW(6, weights1, 2)                                                                                           \
    TILE_ROW(7, weights1, 3)
#define TILE_ROW(r, weights, lane)                                                                                     \
    acc[r][0] = vfmaq_laneq_f32(acc[r][0], tokens[0], weights, lane);                                                  \
    acc[r][1] = vfmaq_laneq_f32(acc[r][1], tokens[1], weights, lane);                                                  \
    if (n == 3) {                                                                                                      \
        acc[r][2] = vfmaq_laneq_f32(acc[r][2], tokens[2], weights, lane);                                              \
    }

/* The low-rank term, always f32, then out to y. */
INLINE void finish(float32x4_t acc[8][TILE_VECTORS], const struct tile *t, const int first, const int n)
{
    for (size_t i = 0; i < t->rank; i++) {
        float32x4_t weights0 = vld1q_f32(t->lowrank + i * 8), weights1 = vld1q_f32(t->lowrank + i * 8 + 4);
        float32x4_t tokens[TILE_VECTORS];
        for (int j = 0; j < n; j++) {
            int v = first + j;
            tokens[j] = vld1q_f32(t->u[v / LINE_VECTORS] + i * CR_LANES + v % LINE_VECTORS * 4);
        }
        TILE_ROWS(weights0, weights1)
    }
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++) {
        if ((size_t)r >= t->n_rows) {
            break;
        }
        for (int j = 0; j < n; j++) {
            int v = first + j;
            float *y = t->y[v / LINE_VECTORS] + r * CR_LANES + v % LINE_VECTORS * 4;
            float32x4_t sum = acc[r][j];
            if (t->bias != NULL) {
                sum = vaddq_f32(sum, vdupq_n_f32(t->bias[r]));
            }
            if (t->accumulate) {
                sum = vaddq_f32(vld1q_f32(y), sum);
            }
            vst1q_f32(y, sum);
        }
    }
}

static void tile_two(const struct tile *t, int first)
{
    tile(t, first, 2);
}

static void tile_three(const struct tile *t, int first)
{
    tile(t, first, 3);
}

static void tile_run(const struct tile *t, int nb, bool dx)
{
    (void)dx;
    int first = 0, left = nb * LINE_VECTORS;
    while (left > 0) { /* 4 = 2 + 2, 8 = 3 + 3 + 2, 12 = 4 x 3 */
        if (left == 4 || left == 2) {
            tile_two(t, first);
            first += 2;
            left -= 2;
        } else {
            tile_three(t, first);
            first += 3;
            left -= 3;
        }
    }
}

#endif
