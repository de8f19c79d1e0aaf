/* lanes_tile: the f32 matrix product of the families whose columns are tokens.
 *
 *   C[row][token] = alpha * sum_k A(row, k) B[k][token]      (+ C when `add`)
 *
 * B and C are TL16 f32: line k (row) of token block i is at b + i * b_stride + k * 16 (c + i * c_stride + row * 16).
 * A is read one number at a time, so it may lie in any order: A(row, k) with k = outer * n_inner + inner is
 * a[row * a_rs + outer * a_os + inner * a_ks]. A TL16 buffer thus serves as A both ways round: features as rows
 * (rs 16, ks 1, os the block distance) and tokens as rows (rs 1, ks 16).
 *
 * Register tile: rows x blocks accumulators, one broadcast a row and one load a block for each k. With 32 vectors of
 * sixteen, 8 x 3 (24 chains, 11 loads for 24 products); with 16 vectors of eight, 4 x 1 block (8 chains, which is
 * what four cycles of latency times two units need).
 *
 * Every element is one chain in k order, so its bits depend neither on the tile it falls in nor on its neighbours.
 * Fused multiply-add where the target has it: for families whose contract is a tolerance.
 */
#ifndef CR_COMMON_LANES_TILE_H
#define CR_COMMON_LANES_TILE_H

#include "kernels/common/lanes.h"
#include "credence/kernels/tl16.h"

#if LANES_N == 16
enum { CR_TILE_ROWS = 8, CR_TILE_BLOCKS = 3 };
#else
enum { CR_TILE_ROWS = 4, CR_TILE_BLOCKS = 1 };
#endif

/* Vectors of a line. */
enum { CR_TILE_PARTS = CR_LANES / LANES_N };

struct tile_product {
    const float *a;
    size_t a_rs, a_ks, a_os;
    size_t n_inner, n_outer;
    const float *b;
    size_t b_stride;
    float *c;
    size_t c_stride;
    size_t n_rows, n_blocks;
    float alpha;
    int add;
};

/* One register tile; rows and blocks are constants of the caller. */
CR_INLINE void tile_step(const struct tile_product *t, const float *a, const float *b, float *c, int rows, int blocks)
{
    enum { ROWS = CR_TILE_ROWS, VECS = CR_TILE_BLOCKS * CR_TILE_PARTS };
    lanes acc[ROWS][VECS];
    size_t a_rs = t->a_rs, a_ks = t->a_ks, b_stride = t->b_stride, n_inner = t->n_inner;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 8
        for (int v = 0; v < blocks * CR_TILE_PARTS; v++) {
            acc[r][v] = lanes_zero();
        }
    }
    for (size_t outer = 0; outer < t->n_outer; outer++) {
        const float *at = a + outer * t->a_os;
        for (size_t k = 0; k < n_inner; k++) {
            lanes line[VECS];
#pragma GCC unroll 8
            for (int v = 0; v < blocks * CR_TILE_PARTS; v++) {
                line[v] = lanes_load(b + (size_t)(v / CR_TILE_PARTS) * b_stride + v % CR_TILE_PARTS * LANES_N);
            }
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                lanes x = lanes_splat(at[(size_t)r * a_rs]);
#pragma GCC unroll 8
                for (int v = 0; v < blocks * CR_TILE_PARTS; v++) {
                    acc[r][v] = lanes_fma(x, line[v], acc[r][v]);
                }
            }
            at += a_ks;
            b += CR_LANES;
        }
    }
    lanes alpha = lanes_splat(t->alpha);
    size_t c_stride = t->c_stride;
    int add = t->add;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 8
        for (int v = 0; v < blocks * CR_TILE_PARTS; v++) {
            float *out = c + (size_t)(v / CR_TILE_PARTS) * c_stride + r * CR_LANES + v % CR_TILE_PARTS * LANES_N;
            lanes old = add ? lanes_load(out) : lanes_zero();
            lanes_store(out, lanes_fma(alpha, acc[r][v], old));
        }
    }
}

/* All rows of a group of `blocks` token blocks. */
CR_INLINE void tile_rows(const struct tile_product *t, const float *b, float *c, int blocks)
{
    size_t row = 0;
    for (; row + CR_TILE_ROWS <= t->n_rows; row += CR_TILE_ROWS) {
        tile_step(t, t->a + row * t->a_rs, b, c + row * CR_LANES, CR_TILE_ROWS, blocks);
    }
    const float *a = t->a + row * t->a_rs;
    c += row * CR_LANES;
    switch (t->n_rows - row) {
#if LANES_N == 16
    case 7:
        tile_step(t, a, b, c, 7, blocks);
        break;
    case 6:
        tile_step(t, a, b, c, 6, blocks);
        break;
    case 5:
        tile_step(t, a, b, c, 5, blocks);
        break;
    case 4:
        tile_step(t, a, b, c, 4, blocks);
        break;
#endif
    case 3:
        tile_step(t, a, b, c, 3, blocks);
        break;
    case 2:
        tile_step(t, a, b, c, 2, blocks);
        break;
    case 1:
        tile_step(t, a, b, c, 1, blocks);
        break;
    default:
        break;
    }
}

static void tile_product(const struct tile_product *t)
{
    size_t block = 0;
    for (; block + CR_TILE_BLOCKS <= t->n_blocks; block += CR_TILE_BLOCKS) {
        tile_rows(t, t->b + block * t->b_stride, t->c + block * t->c_stride, CR_TILE_BLOCKS);
    }
#if LANES_N == 16
    const float *b = t->b + block * t->b_stride;
    float *c = t->c + block * t->c_stride;
    if (t->n_blocks - block == 2) {
        tile_rows(t, b, c, 2);
    } else if (t->n_blocks - block == 1) {
        tile_rows(t, b, c, 1);
    }
#endif
}

#endif
