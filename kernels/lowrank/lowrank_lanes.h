/* lowrank over lines of sixteen tokens; included once by each x86 tier.
 *
 * down and up are products of lanes_tile.h. The operand of down is read in panels of features: in place when it is
 * plain f32, else expanded (bf16, dropout) into scratch once for all ranks. up with dropout makes its sum in scratch
 * and adds it under the mask. grad keeps a tile of ranks x features in registers over the token blocks; lane sums are
 * folded a vector of them at a time, less than three operations a sum.
 */
#ifndef CR_LOWRANK_LANES_H
#define CR_LOWRANK_LANES_H

#include "kernels/common/lanes_tile.h"
#include "kernels/common/tiers.h"
#include "kernels/lowrank/lowrank_scratch.h"
#include "kernels/rng/philox_lanes.h"

#include <string.h>

/* A panel of three blocks is 48 KiB: it stays in the second-level cache while the ranks pass over it. */
enum { PANEL = CR_LOWRANK_PANEL, PANEL_LINES = PANEL * CR_LANES };
enum { SLAB = CR_LOWRANK_STEP, SLAB_FLOATS = SLAB * CR_LANES, SLAB_BLOCKS = CR_LOWRANK_SLAB_BLOCKS };

static inline size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline int dropping(const struct cr_lowrank_args *args)
{
    return args->dropout.keep16 < 65536;
}

static inline int expanding(const struct cr_lowrank_args *args)
{
    return dropping(args) || args->x_type != CR_X_F32;
}

/* Masks of features [8 group, 8 group + 8) of the tokens from `token` on, one a lane. */
CR_INLINE void masks(const struct cr_dropout *dropout, size_t token, size_t group, lanes mask[8])
{
    lanes_u kept = lanes_bits(lanes_splat(65536.0f / (float)dropout->keep16));
    lanes_i bound = lanes_splat_i((int32_t)dropout->keep16);
    lanes_u word[4] = {
        lanes_splat_u((uint32_t)group),
        lanes_loadu_u(dropout->position + token),
        lanes_loadu_u(dropout->example + token),
        lanes_splat_u(dropout->step),
    };
    lanes_philox(word, dropout->key);
    for (int i = 0; i < 4; i++) {
        mask[2 * i] = lanes_from_bits(kept & (lanes_u)lanes_greater_i(bound, (lanes_i)(word[i] & 0xffffu)));
        mask[2 * i + 1] = lanes_from_bits(kept & (lanes_u)lanes_greater_i(bound, (lanes_i)(word[i] >> 16)));
    }
}

/* line[f] *= mask of feature first + f, f in [0, n), for one token block. */
static void drop(const struct cr_dropout *dropout, size_t block, size_t first, size_t n, float *line)
{
    for (size_t f = 0; f < n; f += 8) {
        for (size_t col = 0; col < CR_LANES; col += LANES_N) {
            lanes mask[8];
            masks(dropout, block * CR_LANES + col, (first + f) / 8, mask);
            for (size_t i = 0; i < least(8, n - f); i++) {
                float *at = line + (f + i) * CR_LANES + col;
                lanes_store(at, lanes_load(at) * mask[i]);
            }
        }
    }
}

/* out[f] = m X[first + f] of one token block as f32, f in [0, n); first is a multiple of eight. */
static void expand(const struct cr_lowrank_args *args, size_t block, size_t first, size_t n, float *out)
{
    const char *x = (const char *)args->x + block * args->x_stride;
    if (args->x_type == CR_X_F32) {
        memcpy(out, x + first * CR_LANES * sizeof(float), n * CR_LANES * sizeof(float));
    } else {
        const uint32_t *in = (const uint32_t *)(const void *)x + first / 2 * CR_LANES;
        for (size_t f = 0; f < n; f += 2) {
            for (size_t col = 0; col < CR_LANES; col += LANES_N) {
                lanes_u pair = lanes_load_u(in + f / 2 * CR_LANES + col);
                lanes_store(out + f * CR_LANES + col, lanes_bf16_even(pair));
                lanes_store(out + (f + 1) * CR_LANES + col, lanes_bf16_odd(pair));
            }
        }
    }
    if (dropping(args)) {
        drop(&args->dropout, block, first, n, out);
    }
}

static void lowrank_down(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    for (size_t block = begin; block < end; block += CR_TILE_BLOCKS) {
        struct tile_product t = {
            .a_rs = args->p_rs,
            .a_ks = args->p_ks,
            .n_outer = 1,
            .c = args->u + block * args->u_stride,
            .c_stride = args->u_stride,
            .n_rows = args->rank,
            .n_blocks = least(CR_TILE_BLOCKS, end - block),
            .alpha = args->scale,
        };
        for (size_t first = 0; first < args->n_features; first += PANEL) {
            t.n_inner = least(PANEL, args->n_features - first);
            t.a = args->p + first * args->p_ks;
            t.b = (const float *)args->x + block * (args->x_stride / sizeof(float)) + first * CR_LANES;
            t.b_stride = args->x_stride / sizeof(float);
            t.add = first > 0;
            if (expanding(args)) {
                for (size_t i = 0; i < t.n_blocks; i++) {
                    expand(args, block + i, first, t.n_inner, (float *)scratch + i * PANEL_LINES);
                }
                t.b = scratch;
                t.b_stride = PANEL_LINES;
            }
            tile_product(&t);
        }
    }
}

/* y += m * sum for n features from `first` of one token block; sum is lost. */
static void add_masked(const struct cr_lowrank_args *args, size_t block, size_t first, size_t n, float *sum)
{
    float *y = args->y + block * args->y_stride + first * CR_LANES;
    drop(&args->dropout, block, first, n, sum);
    for (size_t i = 0; i < n * CR_LANES; i += LANES_N) {
        lanes_store(y + i, lanes_load(y + i) + lanes_load(sum + i));
    }
}

static void lowrank_up(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    for (size_t block = begin; block < end; block += CR_TILE_BLOCKS) {
        struct tile_product t = {
            .a_rs = args->p_ks,
            .a_ks = args->p_rs,
            .n_inner = args->rank,
            .n_outer = 1,
            .b = args->u + block * args->u_stride,
            .b_stride = args->u_stride,
            .n_blocks = least(CR_TILE_BLOCKS, end - block),
            .alpha = 1,
        };
        for (size_t first = 0; first < args->n_features; first += PANEL) {
            t.n_rows = least(PANEL, args->n_features - first);
            t.a = args->p + first * args->p_ks;
            t.c = dropping(args) ? scratch : args->y + block * args->y_stride + first * CR_LANES;
            t.c_stride = dropping(args) ? PANEL_LINES : args->y_stride;
            t.add = !dropping(args);
            tile_product(&t);
            for (size_t i = 0; dropping(args) && i < t.n_blocks; i++) {
                add_masked(args, block + i, first, t.n_rows, t.c + i * PANEL_LINES);
            }
        }
    }
}

/* Token blocks [0, n) of one slab of features: x and u at their first block. */
struct grad_part {
    const float *x, *u;
    size_t x_stride, u_stride, n;
    float *sum; /* [rank][SLAB][16] */
    int add;
};

#if LANES_N == 16
enum { GRAD_ROWS = 8, GRAD_COLUMNS = 3 };
#else
enum { GRAD_ROWS = 4, GRAD_COLUMNS = 3 };
#endif

/* Lane products of `rows` ranks from i and `columns` features from k; the vector width takes a part of the lanes. */
CR_INLINE void grad_step(const struct grad_part *g, size_t i, size_t k, int rows, int columns)
{
    for (int part = 0; part < CR_TILE_PARTS; part++) {
        const float *x = g->x + k * CR_LANES + part * LANES_N;
        const float *u = g->u + i * CR_LANES + part * LANES_N;
        float *sum = g->sum + i * SLAB_FLOATS + k * CR_LANES + part * LANES_N;
        lanes acc[GRAD_ROWS][GRAD_COLUMNS];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
#pragma GCC unroll 8
            for (int c = 0; c < columns; c++) {
                acc[r][c] = g->add ? lanes_load(sum + r * SLAB_FLOATS + c * CR_LANES) : lanes_zero();
            }
        }
        for (size_t block = 0; block < g->n; block++) {
            lanes line[GRAD_COLUMNS];
#pragma GCC unroll 8
            for (int c = 0; c < columns; c++) {
                line[c] = lanes_load(x + c * CR_LANES);
            }
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                lanes w = lanes_load(u + r * CR_LANES);
#pragma GCC unroll 8
                for (int c = 0; c < columns; c++) {
                    acc[r][c] = lanes_fma(w, line[c], acc[r][c]);
                }
            }
            x += g->x_stride;
            u += g->u_stride;
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
#pragma GCC unroll 8
            for (int c = 0; c < columns; c++) {
                lanes_store(sum + r * SLAB_FLOATS + c * CR_LANES, acc[r][c]);
            }
        }
    }
}

CR_INLINE void grad_columns(const struct grad_part *g, size_t rank, size_t k, int columns)
{
    size_t i = 0;
    for (; i + GRAD_ROWS <= rank; i += GRAD_ROWS) {
        grad_step(g, i, k, GRAD_ROWS, columns);
    }
#if LANES_N == 16
    if (rank - i >= 4) {
        grad_step(g, i, k, 4, columns);
        i += 4;
    }
#endif
    if (rank - i >= 2) {
        grad_step(g, i, k, 2, columns);
        i += 2;
    }
    if (rank - i == 1) {
        grad_step(g, i, k, 1, columns);
    }
}

static void grad_slab(const struct grad_part *g, size_t rank, size_t n_features)
{
    size_t k = 0;
    for (; k + GRAD_COLUMNS <= n_features; k += GRAD_COLUMNS) {
        grad_columns(g, rank, k, GRAD_COLUMNS);
    }
    if (n_features - k == 2) {
        grad_columns(g, rank, k, 2);
    } else if (n_features - k == 1) {
        grad_columns(g, rank, k, 1);
    }
}

/* In each group of lanes of two vectors, the low half plus the high half: the groups of a, then those of b. */
#if LANES_N == 16
#define LOW_8 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define HIGH_8 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define LOW_4 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27
#define HIGH_4 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31
#define LOW_2 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29
#define HIGH_2 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31
#define LOW_1 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define HIGH_1 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#else
#define LOW_4 0, 1, 2, 3, 8, 9, 10, 11
#define HIGH_4 4, 5, 6, 7, 12, 13, 14, 15
#define LOW_2 0, 1, 4, 5, 8, 9, 12, 13
#define HIGH_2 2, 3, 6, 7, 10, 11, 14, 15
#define LOW_1 0, 2, 4, 6, 8, 10, 12, 14
#define HIGH_1 1, 3, 5, 7, 9, 11, 13, 15
#endif
#define HALVES(a, b, low, high) (__builtin_shufflevector(a, b, low) + __builtin_shufflevector(a, b, high))

/* The lane sums of LANES_N lines as one vector, each folding lane i with i + 8, then + 4, + 2, + 1. */
CR_INLINE lanes fold(const float *line)
{
    lanes v[LANES_N];
#if LANES_N == 16
    for (int i = 0; i < 8; i++) {
        lanes a = lanes_load(line + 2 * i * CR_LANES), b = lanes_load(line + (2 * i + 1) * CR_LANES);
        v[i] = HALVES(a, b, LOW_8, HIGH_8);
    }
    for (int i = 0; i < 4; i++) {
        v[i] = HALVES(v[2 * i], v[2 * i + 1], LOW_4, HIGH_4);
    }
    v[0] = HALVES(v[0], v[1], LOW_2, HIGH_2);
    v[1] = HALVES(v[2], v[3], LOW_2, HIGH_2);
#else
    for (int i = 0; i < 8; i++) {
        v[i] = lanes_load(line + i * CR_LANES) + lanes_load(line + i * CR_LANES + 8);
    }
    for (int i = 0; i < 4; i++) {
        v[i] = HALVES(v[2 * i], v[2 * i + 1], LOW_4, HIGH_4);
    }
    v[0] = HALVES(v[0], v[1], LOW_2, HIGH_2);
    v[1] = HALVES(v[2], v[3], LOW_2, HIGH_2);
#endif
    return HALVES(v[0], v[1], LOW_1, HIGH_1);
}

static void add_sums(const struct cr_lowrank_args *args, const float *sum, size_t first, size_t n)
{
    for (size_t i = 0; i < args->rank; i++) {
        float total[SLAB];
        for (size_t k = 0; k < n; k += LANES_N) { /* lines past n hold nothing of use, nor do their sums */
            lanes_storeu(total + k, fold(sum + i * SLAB_FLOATS + k * CR_LANES));
        }
        float *g = args->g + i * args->g_rs + first * args->g_ks;
        for (size_t k = 0; k < n; k++) {
            g[k * args->g_ks] += total[k];
        }
    }
}

/* Token blocks read in place before the sums are put away. Zen 4, r = 16, K = 1536, 64 blocks: 8 give 58 % of peak,
 * 16 give 66, 32 and all of them 70, and with 32 less depends on what else uses the cache. */
enum { DIRECT_BLOCKS = 32 };

static void lowrank_grad(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    float *sum = scratch;
    float *expanded = sum + args->rank * SLAB_FLOATS;
    /* Blocks of a multiple of 4 KiB meet in few sets of the first-level cache. The narrow tile reads every line twice
     * as often and gains from a compact copy (Zen 4, K = 576, r = 16: 41 -> 54 % of peak); the wide one does not. */
    int copy = expanding(args) || LANES_N == 8;
    size_t step = copy ? SLAB_BLOCKS : DIRECT_BLOCKS;
    for (size_t first = begin; first < end; first += SLAB) {
        size_t n = least(SLAB, end - first);
        struct grad_part g = {.u_stride = args->u_stride, .sum = sum};
        for (size_t block = 0; block < args->n_blocks; block += step) {
            g.n = least(step, args->n_blocks - block);
            g.u = args->u + block * args->u_stride;
            g.x_stride = args->x_stride / sizeof(float);
            g.x = (const float *)args->x + block * g.x_stride + first * CR_LANES;
            g.add = block > 0;
            if (copy) {
                for (size_t i = 0; i < g.n; i++) {
                    expand(args, block + i, first, n, expanded + i * SLAB_FLOATS);
                }
                g.x = expanded;
                g.x_stride = SLAB_FLOATS;
            }
            grad_slab(&g, args->rank, n);
        }
        if (args->n_blocks > 0) {
            add_sums(args, sum, first, n);
        }
    }
}

static void fill(struct cr_lowrank_ops *ops)
{
    *ops = (struct cr_lowrank_ops){lowrank_down, lowrank_up, lowrank_grad};
}

#endif
