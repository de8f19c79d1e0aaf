/* attention, private: the products of attention_bf16_tile.h on AMX tiles, sixteen rows at a time.
 *
 * Left operands are rows of pairs: those of TOKENS order are so already, eight pairs of one token block a row; those of
 * FEATURES order are transposed once, by tile_operand, to [16 pairs of features][16 tokens][16 pairs], the last eight
 * pairs to [16 tokens][8 pairs] where the number of pairs is odd in eights. Right operands are lines as they lie.
 *
 *   tiles 0, 1, 2   sums of three blocks of lanes      3, 5   left and right, sixteen pairs a step
 *                                                      4, 6   left and right, eight pairs a step
 */
#ifndef CR_ATTENTION_AMX_TILE_H
#define CR_ATTENTION_AMX_TILE_H

#include <string.h>

#include "kernels/attention/attention_lines.h"
#include "kernels/common/amx_tile.h"

enum { ACC_BYTES = TILE_BLOCKS * AMX_ROW_BYTES, WIDE = 16 /* pairs of a whole step */ };

#define ATTENTION_TILES                                                                                                \
    {                                                                                                                  \
        1, 0, {0}, {64, 64, 64, 64, 32, 64, 64}, {16, 16, 16, 16, 16, 16, 8},                                          \
    }

/* do_it(c) for the blocks of lanes c in [low, high), whose tiles must be literals. */
#define EACH_BLOCK(low, high, do_it)                                                                                   \
    if ((low) <= 0 && (high) > 0) {                                                                                    \
        do_it(0);                                                                                                      \
    }                                                                                                                  \
    if ((low) <= 1 && (high) > 1) {                                                                                    \
        do_it(1);                                                                                                      \
    }                                                                                                                  \
    if ((low) <= 2 && (high) > 2) {                                                                                    \
        do_it(2);                                                                                                      \
    }

/* Sixteen pairs of each row; `b` has sixteen lines. */
CR_INLINE void step_wide(const uint32_t *a, const uint32_t *b, size_t b_stride, const int n_blocks)
{
    amx_load(3, a, 64);
#define STEP(c)                                                                                                        \
    amx_load(5, b + c * b_stride, 64);                                                                                 \
    amx_dp(c, 3, 5)
    EACH_BLOCK(0, n_blocks, STEP)
#undef STEP
}

/* Eight pairs of each row; `b` has eight lines. */
CR_INLINE void step_half(const uint32_t *a, const uint32_t *b, size_t b_stride, const int low, const int high)
{
    amx_load(4, a, 32);
#define STEP(c)                                                                                                        \
    amx_load(6, b + c * b_stride, 64);                                                                                 \
    amx_dp(c, 4, 6)
    EACH_BLOCK(low, high, STEP)
#undef STEP
}

CR_INLINE void sums_out(tile_acc acc, const int n_blocks){
#define STORE(c) amx_store(c, &acc[0][c], ACC_BYTES)
    EACH_BLOCK(0, n_blocks, STORE)
#undef STORE
}

CR_INLINE
    void tile_tokens(tile_acc acc, const struct product *p, size_t begin, size_t end, const int low, const int high)
{
    (void)acc; /* it is in the tiles */
    for (size_t outer = begin; outer < end; outer++) {
        step_half(p->a + outer * p->a_outer, p->b + outer * PAIRS * 16, p->b_stride, low, high);
    }
}

/* Adds the product, in TOKENS order, to acc. order, n_blocks and shape are constants of the caller. */
CR_INLINE void tile_product(tile_acc acc, const struct product *p, enum order order, const int n_blocks,
                            enum shape shape)
{
    (void)order;
#define LOAD(c) amx_load(c, &acc[0][c], ACC_BYTES)
    EACH_BLOCK(0, n_blocks, LOAD)
#undef LOAD
    tile_shape(acc, p, n_blocks, shape);
    sums_out(acc, n_blocks);
}

/* Single numbers have no tiles: vectors, eight rows in registers at a time. */
static void scores_f32(tile_acc acc, const struct product *p, const int n_blocks)
{
    for (size_t row = 0; row < TILE_ROWS; row += STEP_ROWS) {
        step_acc part;
        for (int r = 0; r < STEP_ROWS; r++) {
            part[r][0] = part[r][1] = part[r][2] = _mm512_setzero_ps();
        }
        for (size_t k = 0; k < p->n_steps; k++) {
            tile_step_f32(part, p->a + k * 16 + row, p->b + k * 16, p->b_stride, n_blocks);
        }
        memcpy((void *)(acc + row), part, sizeof part);
    }
}

/* acc = the product, of FEATURES or NUMBERS. */
CR_INLINE void tile_scores(tile_acc acc, const struct product *p, enum order order, const int n_blocks)
{
    if (order == NUMBERS) {
        switch (n_blocks) {
        case 1:
            scores_f32(acc, p, 1);
            break;
        case 2:
            scores_f32(acc, p, 2);
            break;
        default:
            scores_f32(acc, p, 3);
            break;
        }
        return;
    }
#define ZERO(c) amx_zero(c)
    EACH_BLOCK(0, n_blocks, ZERO)
#undef ZERO
    size_t k = 0;
    for (; k + WIDE <= p->n_steps; k += WIDE) {
        step_wide(p->a + k * 16, p->b + k * 16, p->b_stride, n_blocks);
    }
    if (k < p->n_steps) {
        step_half(p->a + k * 16, p->b + k * 16, p->b_stride, 0, n_blocks);
    }
    sums_out(acc, n_blocks);
}

/* Lines of pairs of features, in place, to rows: the left operand of FEATURES. */
static void tile_operand(uint32_t *features, size_t n_pairs)
{
    float lines[CR_LANES * CR_LANES] __attribute__((aligned(64)));
    for (size_t k = 0; k < n_pairs; k += WIDE, features += CR_LANES * WIDE) {
        size_t n = n_pairs - k < WIDE ? n_pairs - k : WIDE;
        memset(lines, 0, sizeof lines);
        memcpy(lines, features, n * 64);
        float rows[CR_LANES * CR_LANES] __attribute__((aligned(64)));
        transpose_tile(lines, rows);
        for (size_t r = 0; r < CR_LANES; r++) {
            memcpy(features + r * n, rows + r * CR_LANES, n * 4);
        }
    }
}

#endif
