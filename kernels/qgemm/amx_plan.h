/* amx_plan: how one call on tiles cuts its range and its scratch.
 *
 * Reduced features go in steps of 32 (one tile of weights by one of tokens) and in slabs of steps, outputs in strips of
 * 32 (two tiles). The slabs decide the order of additions, so they depend on the reduced length only. Panels do not:
 * every output has its own chain, whatever panel it lies in.
 *
 *   panel      [strip][step][2 tiles][16 outputs][32 features] bf16, of one slab
 *   lowrank    [strip][step][2 tiles][16 outputs][32 features] bf16, amx_lowrank.h
 *   u          [step][2 token blocks][16 lines] bf16 pairs, of one pair of token blocks
 *   tail       [2 token blocks][16 lines], the last step of the reduced dimension when it is short
 *   sums       [2][2 token blocks][32 outputs][16] f32: finished tiles on their way to y
 *   square     32 x 32 weights before they are transposed
 *   scales     decoded scales of a block of 256 weights, for 32 rows
 *   row        one row of the low-rank matrix on its way into tiles
 */
#ifndef CR_QGEMM_AMX_PLAN_H
#define CR_QGEMM_AMX_PLAN_H

#include <stddef.h>
#include <stdint.h>

enum {
    AMX_STRIP = 32,
    AMX_STEP = 32,
    AMX_STEP_BYTES = 2048, /* of the panel, of u */
    /* Slabs of 2048 features if more than 2560: a strip of tokens and one of weights take 128 KiB each, beside a
     * panel of 1 MiB in 2 MiB of L2 that a neighbour may share. */
    AMX_SLAB = 64,
    AMX_SLAB_MAX = 80,
    AMX_PANEL_BYTES = 1 << 20,
    AMX_BLOCK_MAX = 512,
    AMX_SCALES_BYTES = 128, /* of a block */
    AMX_PARTS = 6           /* products of parts of a low-rank term */
};

/* Steps of a low-rank term. */
static inline size_t amx_lowrank_steps(size_t rank)
{
    return (AMX_PARTS * ((rank + 1) / 2 * 2) + AMX_STEP - 1) / AMX_STEP;
}

struct amx_plan {
    size_t n_steps, slab, n_slabs; /* slab: steps of each but the last */
    size_t n_block;                /* outputs of the panel area, a multiple of 64 */
    size_t lowrank_at, u_at, tail_at, sums_at, square_at, scales_at,
        row_at; /* in scratch, functions of the rank only */
    size_t bytes;
};

/* n_reduce up to CR_DIMENSION_MAX, rank up to CR_RANK_MAX. */
static inline struct amx_plan amx_plan_make(size_t n_reduce, size_t rank)
{
    struct amx_plan plan;
    plan.n_steps = (n_reduce + AMX_STEP - 1) / AMX_STEP;
    plan.n_slabs = plan.n_steps <= AMX_SLAB_MAX ? 1 : (plan.n_steps + AMX_SLAB - 1) / AMX_SLAB;
    plan.slab = plan.n_steps > 0 ? (plan.n_steps + plan.n_slabs - 1) / plan.n_slabs : 1;
    size_t lowrank_bytes = amx_lowrank_steps(rank) * AMX_STEP_BYTES;
    size_t n = AMX_PANEL_BYTES / (plan.slab * AMX_STEP_BYTES / AMX_STRIP) / 64 * 64;
    plan.n_block = n > AMX_BLOCK_MAX ? AMX_BLOCK_MAX : n;
    plan.lowrank_at = AMX_PANEL_BYTES;
    plan.u_at = plan.lowrank_at + AMX_BLOCK_MAX / AMX_STRIP * lowrank_bytes;
    plan.tail_at = plan.u_at + lowrank_bytes;
    plan.sums_at = plan.tail_at + AMX_STEP_BYTES;
    plan.square_at = plan.sums_at + 8 * 1024;
    plan.scales_at = plan.square_at + 2048;
    plan.row_at = plan.scales_at + AMX_STEP * AMX_SCALES_BYTES;
    /* a row of floats, its three parts and all its products, each padded to whole vectors */
    size_t row_bytes = (rank + 33) * (sizeof(float) + (3 + AMX_PARTS) * sizeof(uint16_t));
    plan.bytes = plan.row_at + (row_bytes + 63) / 64 * 64;
    return plan;
}

#endif
