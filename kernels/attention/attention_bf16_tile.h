/* attention, private: the matrix product of the bf16 variants, eight rows (on tiles, sixteen) by up to three blocks of
 * sixteen lanes.
 *
 *   C[row][lane] = sum over pairs of A(row, pair) B[pair][lane]      a pair is two numbers side by side in 32 bits
 *
 * B is lines of sixteen pairs: line k of block j is at b + j * b_stride + k * 16. A is read one pair at a time, in one
 * of these orders (on tiles: sixteen at a time, attention_amx_tile.h):
 *   FEATURES  rows are tokens, pairs are features: a TL16 bf16 buffer as it is (row distance 1, pair distance 16)
 *   NUMBERS   the same for TL16 f32: single f32 numbers in the place of pairs
 *   TOKENS    rows are features (or the tokens of the other side), pairs are tokens: eight pairs in a row, rows eight
 *             apart, `a_outer` from one block of sixteen tokens to the next
 *
 * At the diagonal not every block of lanes takes part in every step; accumulators stay in registers through it:
 *   LATER     the steps of the last n_blocks - 1 token blocks leave out one more leading block of lanes each
 *   EARLIER   the steps of the first n_blocks - 1 token blocks leave out trailing blocks of lanes, one less each
 *
 * Every element is one chain in pair order, whatever the tile it falls in.
 *
 * attention_amx.c defines CR_ATTENTION_AMX: accumulators are then in memory, and the products are those of tiles.
 */
#ifndef CR_ATTENTION_BF16_TILE_H
#define CR_ATTENTION_BF16_TILE_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/common/lanes.h"

#ifdef CR_ATTENTION_AMX
enum { TILE_ROWS = 16 };
#else
enum { TILE_ROWS = 8 };
#endif
enum { STEP_ROWS = 8 /* of a vector step */, TILE_BLOCKS = 3, PAIRS = 8 /* of one token block */ };
enum order { FEATURES, NUMBERS, TOKENS };
enum shape { WHOLE, LATER, EARLIER };

struct product {
    const uint32_t *a;
    size_t a_outer;
    const uint32_t *b;
    size_t b_stride;
    size_t n_steps; /* FEATURES: pairs; NUMBERS: features */
    size_t n_outer; /* TOKENS: token blocks */
};

typedef __m512 tile_acc[TILE_ROWS][TILE_BLOCKS], step_acc[STEP_ROWS][TILE_BLOCKS];

CR_INLINE void tile_clear(tile_acc acc, const int n_blocks)
{
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; r++) {
#pragma GCC unroll 3
        for (int j = 0; j < n_blocks; j++) {
            acc[r][j] = _mm512_setzero_ps();
        }
    }
}

/* Rows of f32 lines: row r of block j at c + j * c_stride + r * 16. */
CR_INLINE void tile_load(tile_acc acc, const float *c, size_t c_stride, const int n_blocks)
{
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; r++) {
#pragma GCC unroll 3
        for (int j = 0; j < n_blocks; j++) {
            acc[r][j] = _mm512_load_ps(c + (size_t)j * c_stride + r * 16);
        }
    }
}

CR_INLINE void tile_store(tile_acc acc, float *c, size_t c_stride, const int n_blocks)
{
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; r++) {
#pragma GCC unroll 3
        for (int j = 0; j < n_blocks; j++) {
            _mm512_store_ps(c + (size_t)j * c_stride + r * 16, acc[r][j]);
        }
    }
}

/* One number of each row against all blocks of lanes. */
CR_INLINE void tile_step_f32(step_acc acc, const uint32_t *a, const uint32_t *b, size_t b_stride, const int n_blocks)
{
    __m512 line[TILE_BLOCKS];
#pragma GCC unroll 3
    for (int j = 0; j < n_blocks; j++) {
        line[j] = _mm512_load_ps((const float *)(const void *)(b + (size_t)j * b_stride));
    }
#pragma GCC unroll 8
    for (int r = 0; r < STEP_ROWS; r++) {
        __m512 number = _mm512_castsi512_ps(_mm512_set1_epi32((int)a[r]));
#pragma GCC unroll 3
        for (int j = 0; j < n_blocks; j++) {
            acc[r][j] = _mm512_fmadd_ps(line[j], number, acc[r][j]);
        }
    }
}

/* Token blocks [begin, end) of a product in TOKENS order, into blocks [low, high) of lanes. */
CR_INLINE void tile_tokens(tile_acc acc, const struct product *p, size_t begin, size_t end, const int low,
                           const int high);

/* The steps of TOKENS order in the given shape. */
CR_INLINE void tile_shape(tile_acc acc, const struct product *p, const int n_blocks, enum shape shape)
{
    size_t n = p->n_outer;
    if (shape == WHOLE || n_blocks == 1) {
        tile_tokens(acc, p, 0, n, 0, n_blocks);
    } else if (shape == LATER) {
        tile_tokens(acc, p, 0, n - (size_t)n_blocks + 1, 0, n_blocks);
        if (n_blocks == 3) {
            tile_tokens(acc, p, n - 2, n - 1, 1, 3);
        }
        tile_tokens(acc, p, n - 1, n, n_blocks - 1, n_blocks);
    } else {
        tile_tokens(acc, p, 0, 1, 0, 1);
        if (n_blocks == 3) {
            tile_tokens(acc, p, 1, 2, 0, 2);
        }
        tile_tokens(acc, p, (size_t)n_blocks - 1, n, 0, n_blocks);
    }
}

#ifdef CR_ATTENTION_AMX
#include "kernels/attention/attention_amx_tile.h"
#else

/* One pair of each row against blocks [low, high) of lanes. */
CR_INLINE void tile_step(step_acc acc, const uint32_t *a, const size_t row, const uint32_t *b, size_t b_stride,
                         const int low, const int high)
{
    __m512bh line[TILE_BLOCKS];
#pragma GCC unroll 3
    for (int j = low; j < high; j++) {
        line[j] = (__m512bh)_mm512_load_si512(b + (size_t)j * b_stride);
    }
#pragma GCC unroll 8
    for (int r = 0; r < STEP_ROWS; r++) {
        __m512bh pair = (__m512bh)_mm512_set1_epi32((int)a[(size_t)r * row]);
#pragma GCC unroll 3
        for (int j = low; j < high; j++) {
            acc[r][j] = _mm512_dpbf16_ps(acc[r][j], line[j], pair);
        }
    }
}

CR_INLINE void tile_tokens(tile_acc acc, const struct product *p, size_t begin, size_t end, const int low,
                           const int high)
{
    const uint32_t *b = p->b + begin * PAIRS * 16;
    for (size_t outer = begin; outer < end; outer++) {
        const uint32_t *a = p->a + outer * p->a_outer;
#pragma GCC unroll 4
        for (size_t k = 0; k < PAIRS; k++) {
            tile_step(acc, a + k, PAIRS, b + k * 16, p->b_stride, low, high);
        }
        b += PAIRS * 16;
    }
}

/* Adds the product to acc. order, n_blocks and shape are constants of the caller. */
CR_INLINE void tile_product(tile_acc acc, const struct product *p, enum order order, const int n_blocks,
                            enum shape shape)
{
    if (order == TOKENS) {
        tile_shape(acc, p, n_blocks, shape);
        return;
    }
    const uint32_t *a = p->a, *b = p->b;
#pragma GCC unroll 2
    for (size_t k = 0; k < p->n_steps; k++) {
        if (order == FEATURES) {
            tile_step(acc, a + k * 16, 1, b + k * 16, p->b_stride, 0, n_blocks);
        } else {
            tile_step_f32(acc, a + k * 16, b + k * 16, p->b_stride, n_blocks);
        }
    }
}

/* acc = the product, of FEATURES or NUMBERS. */
CR_INLINE void tile_scores(tile_acc acc, const struct product *p, enum order order, const int n_blocks)
{
    tile_clear(acc, n_blocks);
    tile_product(acc, p, order, n_blocks, WHOLE);
}

/* Pairs of features of a token block as the left operand of FEATURES: as they are. */
CR_INLINE void tile_operand(uint32_t *features, size_t n_pairs)
{
    (void)features, (void)n_pairs;
}

#endif

#endif
