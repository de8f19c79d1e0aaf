/* lowrank, private: grad for one vector width.
 *
 * A tile of ranks x features stays in registers over the token blocks; lane sums are folded a vector of them at a time,
 * less than three operations a sum.
 */
#ifndef CR_LOWRANK_GRAD_H
#define CR_LOWRANK_GRAD_H

#include "kernels/common/lanes_tile.h"
#include "kernels/lowrank/lowrank_lines.h"

enum { SLAB = CR_LOWRANK_STEP, SLAB_FLOATS = SLAB * CR_LANES, SLAB_BLOCKS = CR_LOWRANK_SLAB_BLOCKS };

/* Token blocks [0, n) of one slab of features: x and u at their first block. */
struct grad_part {
    const float *x, *u; /* x: lines of f32, or of bf16 pairs */
    size_t x_stride, u_stride, n;
    float *sum; /* [rank][SLAB][16] */
    int add;
};

/* 4 x 6 sums: seven loads (bf16) or ten for 24 products. Narrow vectors have half the registers and take a part of the
 * lanes at a time. */
#if LANES_N == 16
enum { GRAD_ROWS = 4, GRAD_COLUMNS = 6 };
#else
enum { GRAD_ROWS = 4, GRAD_COLUMNS = 3 };
#endif

/* Lane products of `rows` ranks from i and `columns` features from k. */
CR_INLINE void grad_step(const struct grad_part *g, size_t i, size_t k, int rows, int columns, int pairs)
{
    for (int part = 0; part < CR_TILE_PARTS; part++) {
        const float *x = g->x + (pairs ? k / 2 : k) * CR_LANES + part * LANES_N;
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
            lanes line[GRAD_ROWS];
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                line[r] = lanes_load(u + r * CR_LANES);
            }
#pragma GCC unroll 8
            for (int c = 0; c < columns; c++) {
                lanes value = lanes_load(x + (pairs ? c / 2 : c) * CR_LANES);
                if (pairs) {
                    value = c % 2 ? lanes_bf16_odd(lanes_bits(value)) : lanes_bf16_even(lanes_bits(value));
                }
#pragma GCC unroll 8
                for (int r = 0; r < rows; r++) {
                    acc[r][c] = lanes_fma(line[r], value, acc[r][c]);
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

CR_INLINE void grad_columns(const struct grad_part *g, size_t rank, size_t k, int columns, int pairs)
{
    size_t i = 0;
    for (; i + GRAD_ROWS <= rank; i += GRAD_ROWS) {
        grad_step(g, i, k, GRAD_ROWS, columns, pairs);
    }
    if (rank - i >= 2) {
        grad_step(g, i, k, 2, columns, pairs);
        i += 2;
    }
    if (rank - i == 1) {
        grad_step(g, i, k, 1, columns, pairs);
    }
}

CR_INLINE void grad_slab(const struct grad_part *g, size_t rank, size_t n_features, int pairs)
{
    size_t k = 0;
    for (; k + GRAD_COLUMNS <= n_features; k += GRAD_COLUMNS) {
        grad_columns(g, rank, k, GRAD_COLUMNS, pairs);
    }
    for (; k + 2 <= n_features; k += 2) {
        grad_columns(g, rank, k, 2, pairs);
    }
    if (k < n_features) {
        grad_columns(g, rank, k, 1, pairs);
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
#elif LANES_N == 8
#define LOW_4 0, 1, 2, 3, 8, 9, 10, 11
#define HIGH_4 4, 5, 6, 7, 12, 13, 14, 15
#define LOW_2 0, 1, 4, 5, 8, 9, 12, 13
#define HIGH_2 2, 3, 6, 7, 10, 11, 14, 15
#define LOW_1 0, 2, 4, 6, 8, 10, 12, 14
#define HIGH_1 1, 3, 5, 7, 9, 11, 13, 15
#else
#define LOW_2 0, 1, 4, 5
#define HIGH_2 2, 3, 6, 7
#define LOW_1 0, 2, 4, 6
#define HIGH_1 1, 3, 5, 7
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
#elif LANES_N == 8
    for (int i = 0; i < 8; i++) {
        v[i] = lanes_load(line + i * CR_LANES) + lanes_load(line + i * CR_LANES + 8);
    }
    for (int i = 0; i < 4; i++) {
        v[i] = HALVES(v[2 * i], v[2 * i + 1], LOW_4, HIGH_4);
    }
    v[0] = HALVES(v[0], v[1], LOW_2, HIGH_2);
    v[1] = HALVES(v[2], v[3], LOW_2, HIGH_2);
#else
    for (int i = 0; i < 4; i++, line += CR_LANES) {
        v[i] = (lanes_load(line) + lanes_load(line + 8)) + (lanes_load(line + 4) + lanes_load(line + 12));
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

/* How the lines of a slab are read. The narrow tile reads every line twice as often and gains from a compact copy that
 * stays in the first-level cache (Zen 4, K = 576, r = 16: 41 -> 54 % of peak). The wide one reads in place, but lines
 * whose distance is a multiple of 32 KiB share so few sets of the second-level cache that each rank fetches them anew
 * (K = 2048: 66 % of peak, 86 for others): those are copied first, too. */
enum grad_way { IN_PLACE, COPIED, EXPANDED };

static enum grad_way grad_way(const struct cr_lowrank_args *args)
{
    if (dropping(args) || LANES_N == 8 || (LANES_N < 8 && args->x_type != CR_X_F32)) {
        return EXPANDED;
    }
    return LANES_N == 16 && args->x_stride % 32768 == 0 && args->n_blocks > 8 ? COPIED : IN_PLACE;
}

static size_t blocks_at_once(const struct cr_lowrank_args *args, enum grad_way way)
{
    enum { NARROW_BLOCKS = 8 };
    switch (way) {
    case COPIED:
        return args->x_type == CR_X_F32 ? SLAB_BLOCKS : 2 * SLAB_BLOCKS;
    case EXPANDED:
        return LANES_N == 16 ? SLAB_BLOCKS : NARROW_BLOCKS;
    default:
        return args->n_blocks > 0 ? args->n_blocks : 1;
    }
}

/* Vector by vector: a string instruction, which memcpy becomes here, took half the time of grad (Zen 4, K = 2048). The
 * lines of a later block, pages away, are fetched on the way: a tenth more (2026-11-22; 1, 2 and 4 blocks alike). */
enum { COPY_AHEAD = 4 };

CR_INLINE void copy_lines(const float *from, size_t n_lines, const char *later, float *to)
{
    for (size_t i = 0; i < n_lines * CR_LANES; i += LANES_N) {
        __builtin_prefetch(later + i * sizeof(float), 0, 2);
        lanes_store(to + i, lanes_load(from + i));
    }
}

/* Features [first, first + n) of g->n blocks from `block` on, where g->x says afterwards; `copy` holds them if need be.
 */
static void grad_lines(const struct cr_lowrank_args *args, struct grad_part *g, enum grad_way way, size_t block,
                       size_t first, size_t n, float *copy)
{
    size_t line_at = args->x_type == CR_X_F32 ? first : first / 2, n_lines = args->x_type == CR_X_F32 ? n : (n + 1) / 2;
    const char *x = (const char *)args->x + block * args->x_stride + line_at * 64;
    if (way == IN_PLACE) {
        g->x = (const float *)(const void *)x;
        g->x_stride = args->x_stride / sizeof(float);
        return;
    }
    g->x = copy;
    g->x_stride = way == EXPANDED ? SLAB_FLOATS : n_lines * CR_LANES;
    for (size_t i = 0; i < g->n; i++) {
        if (way == EXPANDED) {
            expand(args, block + i, first, n, copy + i * g->x_stride);
        } else {
            size_t fetched = block + i + COPY_AHEAD < args->n_blocks ? i + COPY_AHEAD : i;
            copy_lines((const float *)(const void *)(x + i * args->x_stride), n_lines, x + fetched * args->x_stride,
                       copy + i * g->x_stride);
        }
    }
}

static void lowrank_grad(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    float *sum = scratch;
    float *copy = sum + args->rank * SLAB_FLOATS;
    enum grad_way way = grad_way(args);
    size_t step = blocks_at_once(args, way);
    for (size_t first = begin; first < end; first += SLAB) {
        size_t n = least(SLAB, end - first);
        struct grad_part g = {.u_stride = args->u_stride, .sum = sum};
        for (size_t block = 0; block < args->n_blocks; block += step) {
            g.n = least(step, args->n_blocks - block);
            g.u = args->u + block * args->u_stride;
            g.add = block > 0;
            grad_lines(args, &g, way, block, first, n, copy);
            if (way == EXPANDED || args->x_type == CR_X_F32) {
                grad_slab(&g, args->rank, n, 0);
            } else {
                grad_slab(&g, args->rank, n, 1);
            }
        }
        if (args->n_blocks > 0) {
            add_sums(args, sum, first, n);
        }
    }
}

#endif
