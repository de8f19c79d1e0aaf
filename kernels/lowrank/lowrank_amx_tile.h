/* lowrank, private: what down and grad on tiles share.
 *
 * A factor of f32 (P, U) meets X as its three bf16 parts: exact products, and sums in f32. Parts stand one after
 * another on the side of the tile that does not reduce: place part * rank + i has that part of rank i, so that three
 * ranks of five take one tile and sixteen take three. Each part of each rank so has sums of its own, small ones are not
 * rounded to the size of large ones, and the three are added last, smallest first. Places past 3 * rank hold anything:
 * what they give is never read.
 */
#ifndef CR_LOWRANK_AMX_TILE_H
#define CR_LOWRANK_AMX_TILE_H

#include <immintrin.h>

#include "kernels/common/amx_tile.h"
#include "kernels/common/lanes_split.h"
#include "kernels/common/lanes_transpose.h"
#include "kernels/lowrank/lowrank_lines.h"

enum {
    STEP_LENGTH = 32, /* features (down) or tokens (grad) of one product */
    RUN_LENGTH = CR_LOWRANK_AMX_STEPS * STEP_LENGTH,
    SQUARE = 16,   /* ranks and features that are turned at once */
    LINE_GROUP = 4 /* lines of X whose masks come from one block of draws */
};

/* Up to three tiles of parts by up to two of X, over two runs of steps, each with its own X. Strides in bytes. */
struct product {
    const char *parts;
    size_t parts_tile, parts_row, parts_step;
    struct {
        const char *x[2];
        size_t n;
    } run[2];
    size_t x_step;
    char *sums; /* tile g of parts with tile j of X: + g * sums_tile + j * sums_x */
    size_t sums_tile, sums_x, sums_row;
    size_t n_parts, n_x;
};

/* Tiles 0 to 2 are sums with the first tile of X, 3 to 5 with the second, 6 holds parts, 7 X. The last tile of parts
 * serves the second X before it goes: seven loads for six products. parts_left: parts are the rows of the sums, X their
 * columns and token lines that pass once; else the other way round. */
CR_INLINE void product_steps(const struct product *p, const char *parts, const char *x0, const char *x1, size_t n,
                             const int n_parts, const int n_x, const bool parts_left)
{
#define DP(c)                                                                                                          \
    if (parts_left) {                                                                                                  \
        amx_dp(c, 6, 7);                                                                                               \
    } else {                                                                                                           \
        amx_dp(c, 7, 6);                                                                                               \
    }
#define LOAD_X(x)                                                                                                      \
    if (parts_left) {                                                                                                  \
        amx_load_once(7, x, 64);                                                                                       \
    } else {                                                                                                           \
        amx_load(7, x, 64);                                                                                            \
    }
    for (; n > 0; n--, parts += p->parts_step, x0 += p->x_step, x1 += p->x_step) {
        LOAD_X(x0)
        amx_load(6, parts, p->parts_row);
        DP(0)
        if (n_parts > 1) {
            amx_load(6, parts + p->parts_tile, p->parts_row);
            DP(1)
        }
        if (n_parts > 2) {
            amx_load(6, parts + 2 * p->parts_tile, p->parts_row);
            DP(2)
        }
        if (n_x > 1) {
            LOAD_X(x1)
            if (n_parts > 2) {
                DP(5)
                amx_load(6, parts + p->parts_tile, p->parts_row);
            }
            if (n_parts > 1) {
                DP(4)
                amx_load(6, parts, p->parts_row);
            }
            DP(3)
        }
    }
#undef DP
#undef LOAD_X
}

CR_INLINE void product_body(const struct product *p, const int n_parts, const int n_x, const bool parts_left)
{
#define FOR_EACH_SUM(do_it) do_it(0, 0, 0) do_it(1, 1, 0) do_it(2, 2, 0) do_it(3, 0, 1) do_it(4, 1, 1) do_it(5, 2, 1)
#define ZERO(c, g, j)                                                                                                  \
    if (g < n_parts && j < n_x) {                                                                                      \
        amx_zero(c);                                                                                                   \
    }
#define STORE(c, g, j)                                                                                                 \
    if (g < n_parts && j < n_x) {                                                                                      \
        amx_store(c, p->sums + g * p->sums_tile + j * p->sums_x, p->sums_row);                                         \
    }
    FOR_EACH_SUM(ZERO)
    product_steps(p, p->parts, p->run[0].x[0], p->run[0].x[1], p->run[0].n, n_parts, n_x, parts_left);
    product_steps(p, p->parts + p->run[0].n * p->parts_step, p->run[1].x[0], p->run[1].x[1], p->run[1].n, n_parts, n_x,
                  parts_left);
    FOR_EACH_SUM(STORE)
#undef FOR_EACH_SUM
#undef ZERO
#undef STORE
}

CR_INLINE void product_run(const struct product *p, const bool parts_left)
{
    switch (2 * p->n_parts + p->n_x) {
    case 3:
        product_body(p, 1, 1, parts_left);
        break;
    case 4:
        product_body(p, 1, 2, parts_left);
        break;
    case 5:
        product_body(p, 2, 1, parts_left);
        break;
    case 6:
        product_body(p, 2, 2, parts_left);
        break;
    case 7:
        product_body(p, 3, 1, parts_left);
        break;
    default:
        product_body(p, 3, 2, parts_left);
        break;
    }
}

/* All n tiles of parts, of which `p` describes the first, three at a time. */
CR_INLINE void product_all(struct product *p, size_t n, const bool parts_left)
{
    for (size_t g = 0; g < n; g += 3) {
        p->n_parts = least(3, n - g);
        product_run(p, parts_left);
        p->parts += 3 * p->parts_tile;
        p->sums += 3 * p->sums_tile;
    }
}

static inline __mmask16 first_lanes(size_t n)
{
    return (__mmask16)((1u << n) - 1);
}

/* n <= 16 numbers, `stride` floats apart; other lanes are zero. */
static inline lanes load_row(const float *p, size_t stride, size_t n)
{
    if (stride == 1) {
        return (lanes)_mm512_maskz_loadu_ps(first_lanes(n), p);
    }
    float row[CR_LANES] __attribute__((aligned(64))) = {0};
    for (size_t i = 0; i < n; i++) {
        row[i] = p[i * stride];
    }
    return lanes_load(row);
}

/* The same places += factor * x, each with one rounding. */
static inline void add_row(float *p, size_t stride, size_t n, float factor, lanes x)
{
    if (stride == 1) {
        __mmask16 own = first_lanes(n);
        lanes sum = lanes_fma(lanes_splat(factor), x, (lanes)_mm512_maskz_loadu_ps(own, p));
        _mm512_mask_storeu_ps(p, own, (__m512)sum);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        p[i * stride] = __builtin_fmaf(factor, x[i], p[i * stride]);
    }
}

/* Lines [line, line + n) of bf16 pairs of one token block under the mask, n <= LINE_GROUP; further ones are zero. line
 * is a multiple of LINE_GROUP. What a kept number is multiplied by is left to the sums. */
CR_INLINE void masked_lines(const struct cr_lowrank_args *args, size_t block, size_t line, size_t n,
                            lanes_u out[LINE_GROUP])
{
    const uint32_t *x = (const uint32_t *)(const void *)((const char *)args->x + block * args->x_stride);
    for (size_t i = 0; i < LINE_GROUP; i++) {
        out[i] = i < n ? lanes_load_u(x + (line + i) * CR_LANES) : (lanes_u)lanes_zero();
    }
    if (dropping(args)) {
        __m512i bound = _mm512_set1_epi16((short)args->dropout.keep16);
        lanes_u word[LINE_GROUP];
        draws(&args->dropout, block * CR_LANES, line / LINE_GROUP, word);
        for (size_t i = 0; i < LINE_GROUP; i++) {
            __mmask32 kept = _mm512_cmplt_epu16_mask((__m512i)word[i], bound);
            out[i] = (lanes_u)_mm512_maskz_mov_epi16(kept, (__m512i)out[i]);
        }
    }
}

static inline float mask_factor(const struct cr_lowrank_args *args)
{
    return dropping(args) ? kept_factor(&args->dropout) : 1;
}

#endif
