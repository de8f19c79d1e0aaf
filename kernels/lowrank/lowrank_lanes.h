/* lowrank over lines of sixteen tokens; included once by each x86 tier.
 *
 * down and up are products of lanes_tile.h, down in panels of features. bf16 lines are taken apart in registers; with
 * dropout a panel is expanded into scratch once for all ranks. up with dropout makes its sum in scratch and adds it
 * under the mask. grad keeps a tile of ranks x features in registers over the token blocks; lane sums are folded a
 * vector of them at a time, less than three operations a sum.
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

enum { TILE_VECS = CR_TILE_BLOCKS * CR_TILE_PARTS };

/* One feature, a half of the pairs at x. */
CR_INLINE void down_half(lanes acc[CR_TILE_ROWS][TILE_VECS], const uint32_t *x, size_t stride, const float *p,
                         size_t p_rs, int rows, int blocks, int odd)
{
    lanes line[TILE_VECS];
#pragma GCC unroll 8
    for (int v = 0; v < blocks * CR_TILE_PARTS; v++) {
        lanes_u pair = lanes_load_u(x + (size_t)(v / CR_TILE_PARTS) * stride + v % CR_TILE_PARTS * LANES_N);
        line[v] = odd ? lanes_bf16_odd(pair) : lanes_bf16_even(pair);
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        lanes w = lanes_splat(p[(size_t)r * p_rs]);
#pragma GCC unroll 8
        for (int v = 0; v < blocks * CR_TILE_PARTS; v++) {
            acc[r][v] = lanes_fma(w, line[v], acc[r][v]);
        }
    }
}

/* Ranks [i, i + rows) of a panel of n features of `blocks` token blocks, from bf16 lines as they are: even and odd
 * feature of a pair in turn, so that an element is the same chain as from f32. */
CR_INLINE void down_pairs(const struct cr_lowrank_args *args, size_t first, size_t n, size_t i, size_t block, int rows,
                          int blocks)
{
    lanes acc[CR_TILE_ROWS][TILE_VECS];
    const uint32_t *x = (const uint32_t *)((const char *)args->x + block * args->x_stride) + first / 2 * CR_LANES;
    size_t stride = args->x_stride / sizeof *x, p_rs = args->p_rs, p_ks = args->p_ks;
    const float *p = args->p + i * p_rs + first * p_ks;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 8
        for (int v = 0; v < blocks * CR_TILE_PARTS; v++) {
            acc[r][v] = lanes_zero();
        }
    }
    for (size_t k = 0; k + 2 <= n; k += 2) {
        down_half(acc, x, stride, p, p_rs, rows, blocks, 0);
        down_half(acc, x, stride, p + p_ks, p_rs, rows, blocks, 1);
        p += 2 * p_ks;
        x += CR_LANES;
    }
    if (n % 2 != 0) {
        down_half(acc, x, stride, p, p_rs, rows, blocks, 0);
    }
    lanes scale = lanes_splat(args->scale);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 8
        for (int v = 0; v < blocks * CR_TILE_PARTS; v++) {
            float *u = args->u + (block + (size_t)(v / CR_TILE_PARTS)) * args->u_stride + (i + (size_t)r) * CR_LANES +
                       v % CR_TILE_PARTS * LANES_N;
            lanes old = first > 0 ? lanes_load(u) : lanes_zero();
            lanes_store(u, lanes_fma(scale, acc[r][v], old));
        }
    }
}

CR_INLINE void down_pair_rows(const struct cr_lowrank_args *args, size_t first, size_t n, size_t block, int blocks)
{
    size_t i = 0;
    for (; i + CR_TILE_ROWS <= args->rank; i += CR_TILE_ROWS) {
        down_pairs(args, first, n, i, block, CR_TILE_ROWS, blocks);
    }
    for (; i + 4 <= args->rank; i += 4) {
        down_pairs(args, first, n, i, block, 4, blocks);
    }
    for (; i < args->rank; i++) {
        down_pairs(args, first, n, i, block, 1, blocks);
    }
}

/* A panel of at most three token blocks, expanded where it is masked. */
static void down_panel(const struct cr_lowrank_args *args, size_t first, size_t n, size_t block, size_t n_blocks,
                       float *scratch)
{
    if (args->x_type != CR_X_F32 && !dropping(args)) {
        switch (n_blocks) {
#if LANES_N == 16
        case 3:
            down_pair_rows(args, first, n, block, 3);
            break;
        case 2:
            down_pair_rows(args, first, n, block, 2);
            break;
#endif
        default:
            down_pair_rows(args, first, n, block, 1);
            break;
        }
        return;
    }
    size_t stride = args->x_stride / sizeof(float);
    struct tile_product t = {
        .a = args->p + first * args->p_ks,
        .a_rs = args->p_rs,
        .a_ks = args->p_ks,
        .n_inner = n,
        .n_outer = 1,
        .b = (const float *)args->x + block * stride + first * CR_LANES,
        .b_stride = stride,
        .c = args->u + block * args->u_stride,
        .c_stride = args->u_stride,
        .n_rows = args->rank,
        .n_blocks = n_blocks,
        .alpha = args->scale,
        .add = first > 0,
    };
    if (dropping(args)) {
        for (size_t i = 0; i < n_blocks; i++) {
            expand(args, block + i, first, n, scratch + i * PANEL_LINES);
        }
        t.b = scratch;
        t.b_stride = PANEL_LINES;
    }
    tile_product(&t);
}

static void lowrank_down(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    for (size_t block = begin; block < end; block += CR_TILE_BLOCKS) {
        for (size_t first = 0; first < args->n_features; first += PANEL) {
            down_panel(args, first, least(PANEL, args->n_features - first), block, least(CR_TILE_BLOCKS, end - block),
                       scratch);
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

static void fill(struct cr_lowrank_ops *ops)
{
    static const struct cr_lowrank_ops table = {lowrank_down, lowrank_up, lowrank_grad};
    *ops = table;
}

#endif
