/* lowrank, private: down and up for one vector width, products of lanes_tile.h with a panel of features.
 *
 * down takes bf16 lines apart in registers; with dropout a panel is expanded into scratch once for all ranks. up with
 * dropout makes its sum in scratch and adds it under the mask.
 */
#ifndef CR_LOWRANK_DOWN_UP_H
#define CR_LOWRANK_DOWN_UP_H

#include "kernels/common/lanes_tile.h"
#include "kernels/lowrank/lowrank_lines.h"

/* A panel of three blocks is 48 KiB: it stays in the second-level cache while the ranks pass over it. */
enum { PANEL = CR_LOWRANK_PANEL, PANEL_LINES = PANEL * CR_LANES };

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

#endif
