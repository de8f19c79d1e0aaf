/* lowrank, private: grad on tiles, X in bf16. Tokens are reduced in pairs of blocks, lane t of the one beside lane t of
 * the other; then a row of X is a matter of shifts, and only U is turned, once a call and run of 32 token blocks. The
 * sums of a run are added to G when it ends.
 */
#ifndef CR_LOWRANK_AMX_GRAD_H
#define CR_LOWRANK_AMX_GRAD_H

#include "kernels/lowrank/lowrank_amx_tile.h"

enum { RUN_BLOCKS = RUN_LENGTH / CR_LANES, SLAB_FEATURES = CR_LOWRANK_STEP };

/* Up to sixteen ranks of token blocks u and v (NULL: zeros) as the columns from `to` on, a row of `row` words a lane.
 */
static void pack_ranks(const float *u, const float *v, size_t n_ranks, size_t rank, size_t row, uint32_t *to)
{
    float words[3][SQUARE * CR_LANES] __attribute__((aligned(64)));
    float turned[SQUARE * CR_LANES] __attribute__((aligned(64)));
    for (size_t i = 0; i < SQUARE; i++) {
        lanes_u even[3], odd[3];
        split3(i < n_ranks ? lanes_load(u + i * CR_LANES) : lanes_zero(), even);
        split3(i < n_ranks && v != NULL ? lanes_load(v + i * CR_LANES) : lanes_zero(), odd);
        for (int part = 0; part < 3; part++) {
            lanes_store(words[part] + i * CR_LANES, lanes_from_bits(even[part] >> 16 | odd[part]));
        }
    }
    for (size_t part = 0; part < 3; part++) {
        transpose_tile(words[part], turned);
        for (size_t t = 0; t < CR_LANES; t++) {
            _mm512_mask_storeu_ps(to + t * row + part * rank, first_lanes(n_ranks),
                                  (__m512)lanes_load(turned + t * CR_LANES));
        }
    }
}

/* U of n token blocks from `block` on as [pair of blocks][lane][place][2 tokens]. */
static void pack_u(const struct cr_lowrank_args *args, size_t block, size_t n, size_t step_bytes, char *to)
{
    for (size_t j = 0; j < n; j += 2, to += step_bytes) {
        const float *u = args->u + (block + j) * args->u_stride;
        for (size_t i = 0; i < args->rank; i += SQUARE) {
            pack_ranks(u + i * CR_LANES, j + 1 < n ? u + args->u_stride + i * CR_LANES : NULL,
                       least(SQUARE, args->rank - i), args->rank, step_bytes / 64, (uint32_t *)(void *)to + i);
        }
    }
}

/* Features [first, first + n) of n_blocks token blocks as [pair of blocks][32 features][16 lanes][2 tokens]. Of the
 * rows past n nothing is used. */
static void turn_x(const struct cr_lowrank_args *args, size_t block, size_t n_blocks, size_t first, size_t n,
                   uint32_t *to)
{
    size_t n_lines = (n + 1) / 2;
    for (size_t j = 0; j < n_blocks; j += 2, to += SLAB_FEATURES * CR_LANES) {
        for (size_t line = 0; line < n_lines; line += LINE_GROUP) {
            size_t n_group = least(LINE_GROUP, n_lines - line);
            lanes_u x[LINE_GROUP], next[LINE_GROUP] = {0};
            masked_lines(args, block + j, first / 2 + line, n_group, x);
            if (j + 1 < n_blocks) {
                masked_lines(args, block + j + 1, first / 2 + line, n_group, next);
            }
            for (size_t i = 0; i < n_group; i++) {
                uint32_t *rows = to + 2 * (line + i) * CR_LANES;
                lanes_store_u(rows, (x[i] & 0xffffu) | next[i] << 16);
                lanes_store_u(rows + CR_LANES, x[i] >> 16 | (next[i] & 0xffff0000u));
            }
        }
    }
}

/* G += factor * the sums of n features from `first` on. */
static void add_sums_of_parts(const struct cr_lowrank_args *args, const float *sums, size_t row, size_t first, size_t n,
                              float factor)
{
    float square[SQUARE * CR_LANES] __attribute__((aligned(64))),
        turned[SQUARE * CR_LANES] __attribute__((aligned(64)));
    size_t rs = args->g_rs, ks = args->g_ks, rank = args->rank;
    for (size_t k = 0; k < n; k += SQUARE) {
        size_t n_features = least(SQUARE, n - k);
        for (size_t i = 0; i < rank; i += SQUARE) {
            size_t n_ranks = least(SQUARE, rank - i);
            float *g = args->g + i * rs + (first + k) * ks;
            for (size_t f = 0; f < SQUARE; f++) {
                const float *at = sums + (k + f) * row + i;
                lanes low = load_row(at + 2 * rank, 1, n_ranks), middle = load_row(at + rank, 1, n_ranks);
                lanes_store(square + f * CR_LANES, load_row(at, 1, n_ranks) + (middle + low));
            }
            for (size_t f = 0; rs == 1 && f < n_features; f++) {
                add_row(g + f * ks, 1, n_ranks, factor, lanes_load(square + f * CR_LANES));
            }
            if (rs != 1) {
                transpose_tile(square, turned);
            }
            for (size_t r = 0; rs != 1 && r < n_ranks; r++) {
                add_row(g + r * rs, ks, n_features, factor, lanes_load(turned + r * CR_LANES));
            }
        }
    }
}

static void grad_on_tiles(const struct cr_lowrank_args *args, size_t begin, size_t end, char *scratch)
{
    struct cr_lowrank_amx_plan plan = cr_lowrank_amx_plan(args->rank);
    size_t row = plan.n_parts * 64, step_bytes = plan.n_parts * AMX_TILE_BYTES;
    for (size_t block = 0; block < args->n_blocks; block += RUN_BLOCKS) {
        size_t n_blocks = least(RUN_BLOCKS, args->n_blocks - block);
        pack_u(args, block, n_blocks, step_bytes, scratch + plan.parts_at);
        for (size_t first = begin; first < end; first += SLAB_FEATURES) {
            size_t n = least(SLAB_FEATURES, end - first);
            char *x = scratch + plan.x_at;
            turn_x(args, block, n_blocks, first, n, (uint32_t *)(void *)x);
            struct product p = {.parts = scratch + plan.parts_at,
                                .parts_tile = 64,
                                .parts_row = row,
                                .parts_step = step_bytes,
                                .run = {{{x, x + AMX_TILE_BYTES}, (n_blocks + 1) / 2}, {{x, x}, 0}},
                                .x_step = 2 * AMX_TILE_BYTES,
                                .sums = scratch + plan.sums_at,
                                .sums_tile = 64,
                                .sums_x = AMX_ROWS * row,
                                .sums_row = row,
                                .n_x = n > AMX_ROWS ? 2 : 1};
            product_all(&p, plan.n_parts, false);
            add_sums_of_parts(args, (const float *)(void *)(scratch + plan.sums_at), row / sizeof(float), first, n,
                              mask_factor(args));
        }
    }
}

#endif
