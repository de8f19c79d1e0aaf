/* lowrank, private: down on tiles, X in bf16. P is packed for a panel of features once a call; token blocks pass it in
 * pairs, their lines as they lie.
 */
#ifndef CR_LOWRANK_AMX_DOWN_H
#define CR_LOWRANK_AMX_DOWN_H

#include "kernels/lowrank/lowrank_amx_tile.h"

/* P(i, k) of up to sixteen ranks and features from p on, a line of features a rank; the rest is zero. */
static void load_square(const float *p, size_t rs, size_t ks, size_t n_ranks, size_t n_features, float *square)
{
    float turned[SQUARE * CR_LANES] __attribute__((aligned(64)));
    for (size_t j = 0; j < SQUARE; j++) {
        if (rs == 1) {
            lanes_store(turned + j * CR_LANES, j < n_features ? load_row(p + j * ks, 1, n_ranks) : lanes_zero());
        } else {
            lanes_store(square + j * CR_LANES, j < n_ranks ? load_row(p + j * rs, ks, n_features) : lanes_zero());
        }
    }
    if (rs == 1) {
        transpose_tile(turned, square);
    }
}

/* The parts of 32 features of a rank, a line of 32 words each. */
CR_INLINE void split_words(lanes first, lanes second, lanes_u words[3])
{
    static const uint16_t high_halves[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                             33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
    __m512i index = _mm512_loadu_si512(high_halves);
    lanes_u low[3], high[3];
    split3(first, low);
    split3(second, high);
    for (int k = 0; k < 3; k++) {
        words[k] = (lanes_u)_mm512_permutex2var_epi16((__m512i)low[k], index, (__m512i)high[k]);
    }
}

/* Features [first, first + n) as [step][place][32 features]. */
static void pack_p(const struct cr_lowrank_args *args, size_t first, size_t n, size_t step_bytes, char *to)
{
    float square[2][SQUARE * CR_LANES] __attribute__((aligned(64)));
    for (size_t k = 0; k < n; k += STEP_LENGTH, to += step_bytes) {
        size_t left = n - k < SQUARE ? 0 : least(SQUARE, n - k - SQUARE);
        for (size_t i = 0; i < args->rank; i += SQUARE) {
            size_t n_ranks = least(SQUARE, args->rank - i);
            const float *p = args->p + i * args->p_rs + (first + k) * args->p_ks;
            load_square(p, args->p_rs, args->p_ks, n_ranks, least(SQUARE, n - k), square[0]);
            load_square(left > 0 ? p + SQUARE * args->p_ks : p, args->p_rs, args->p_ks, n_ranks, left, square[1]);
            for (size_t r = 0; r < n_ranks; r++) {
                lanes_u words[3];
                split_words(lanes_load(square[0] + r * CR_LANES), lanes_load(square[1] + r * CR_LANES), words);
                for (size_t part = 0; part < 3; part++) {
                    lanes_store_u((uint32_t *)(void *)(to + (part * args->rank + i + r) * 64), words[part]);
                }
            }
        }
    }
}

/* Features [first, first + n) of one token block under the mask, zeros up to whole steps. */
static void copy_tokens(const struct cr_lowrank_args *args, size_t block, size_t first, size_t n, uint32_t *to)
{
    size_t n_lines = (n + 1) / 2, n_padded = (n + STEP_LENGTH - 1) / STEP_LENGTH * STEP_LENGTH / 2;
    for (size_t i = 0; i < n_padded; i += LINE_GROUP) {
        lanes_u line[LINE_GROUP];
        masked_lines(args, block, first / 2 + i, i < n_lines ? least(LINE_GROUP, n_lines - i) : 0, line);
        for (size_t j = 0; j < LINE_GROUP; j++) {
            lanes_store_u(to + (i + j) * CR_LANES, line[j]);
        }
    }
    if (n % 2 != 0) { /* beside an odd last feature anything may stand */
        uint32_t *last = to + n / 2 * CR_LANES;
        lanes_store_u(last, lanes_load_u(last) & 0xffffu);
    }
}

/* U (+)= factor * the sums of one token block, of all ranks. */
static void add_parts(const struct cr_lowrank_args *args, const float *sums, float factor, int add, float *u)
{
    size_t part = args->rank * CR_LANES;
    for (size_t i = 0; i < part; i += LANES_N) {
        lanes low = lanes_load(sums + 2 * part + i), middle = lanes_load(sums + part + i);
        lanes old = add ? lanes_load(u + i) : lanes_zero();
        lanes_store(u + i, lanes_fma(lanes_splat(factor), lanes_load(sums + i) + (middle + low), old));
    }
}

/* One panel of features for one or two token blocks. */
static void down_blocks(const struct cr_lowrank_args *args, size_t first, size_t n, size_t block, size_t n_blocks,
                        const struct cr_lowrank_amx_plan *plan, char *scratch)
{
    size_t place = dropping(args) ? 0 : n / STEP_LENGTH; /* steps that are read where they lie */
    size_t n_copied = n - place * STEP_LENGTH;
    struct product p = {.parts = scratch + plan->parts_at,
                        .parts_tile = AMX_TILE_BYTES,
                        .parts_row = 64,
                        .parts_step = plan->n_parts * AMX_TILE_BYTES,
                        .x_step = AMX_TILE_BYTES,
                        .sums = scratch + plan->sums_at,
                        .sums_tile = AMX_TILE_BYTES,
                        .sums_x = plan->n_parts * AMX_TILE_BYTES,
                        .sums_row = 64,
                        .n_x = n_blocks};
    p.run[0].n = place;
    p.run[1].n = (n_copied + STEP_LENGTH - 1) / STEP_LENGTH;
    for (size_t j = 0; j < 2; j++) {
        size_t of = j < n_blocks ? j : 0; /* the second X of one block is not loaded */
        char *copy = scratch + plan->x_at + of * CR_LOWRANK_AMX_STEPS * AMX_TILE_BYTES;
        p.run[0].x[j] = (const char *)args->x + (block + of) * args->x_stride + first / 2 * 64;
        p.run[1].x[j] = copy;
        if (j < n_blocks) {
            copy_tokens(args, block + j, first + place * STEP_LENGTH, n_copied, (uint32_t *)(void *)copy);
        }
    }
    product_all(&p, plan->n_parts, true);
    for (size_t j = 0; j < n_blocks; j++) {
        const float *sums = (const float *)(void *)(scratch + plan->sums_at + j * plan->n_parts * AMX_TILE_BYTES);
        add_parts(args, sums, args->scale * mask_factor(args), first > 0, args->u + (block + j) * args->u_stride);
    }
}

static void down_on_tiles(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    struct cr_lowrank_amx_plan plan = cr_lowrank_amx_plan(args->rank);
    for (size_t first = 0; first < args->n_features; first += RUN_LENGTH) {
        size_t n = least(RUN_LENGTH, args->n_features - first);
        pack_p(args, first, n, plan.n_parts * AMX_TILE_BYTES, (char *)scratch + plan.parts_at);
        for (size_t block = begin; block < end; block += 2) {
            down_blocks(args, first, n, block, least(2, end - block), &plan, scratch);
        }
    }
}

#endif
