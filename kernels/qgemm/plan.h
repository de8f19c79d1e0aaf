/* plan: how one qgemm call cuts its range and its scratch. A function of the reduced length, the rank and the size of a
 * panel element only, so that results never depend on the number of tokens or of workers.
 *
 * A block of `n_block` output features is dequantised into a panel, then all tokens pass by. Inside, outputs go in
 * strips of 8 (the rows of a micro-tile) and the reduced dimension in slabs of `slab_steps`; a step is one TL16 line:
 * one feature in f32, a pair in bf16.
 *
 *   panel      dX: [strip][step][8 outputs], forward: [strip][step / 16][8 outputs][16 steps], elements of one step;
 *              both take 512 bytes for 16 steps
 *   lowrank    [strip][rank][8 outputs] f32
 *   rows       dequantised values on their way into the panel, f32
 *   tile       accumulators between slabs, [strip][8][48] f32
 *   tokens     a slab of tokens as the micro-tile wants it, on Arm
 */
#ifndef CR_QGEMM_PLAN_H
#define CR_QGEMM_PLAN_H

#include <stddef.h>
#include <stdint.h>

enum {
    CR_QGEMM_STEP = 32,  /* grain of output features: one quantised block of columns in the dX direction */
    CR_QGEMM_STRIP = 8,  /* outputs of a micro-tile */
    CR_QGEMM_GROUP = 3,  /* token blocks of a micro-tile */
    CR_QGEMM_ROWS = 256, /* values of one trip through `rows`, a multiple of every block's size or a divisor */
    CR_QGEMM_PANEL_WEIGHTS = 128 * 1024, /* a quarter (bf16) or half (f32) of 1 MiB of L2, beside two slabs of tokens */
    CR_QGEMM_BLOCK_MAX = 256,
    CR_QGEMM_PACKED_STEPS = 128 /* most lines of a slab of packed tokens */
};

struct cr_qgemm_plan {
    size_t n_steps;                                 /* lines of the reduced dimension */
    size_t strip_bytes;                             /* of the panel */
    size_t n_block;                                 /* outputs of a panel */
    size_t lowrank_at, rows_at, tile_at, tokens_at; /* offsets in scratch */
    size_t bytes;
};

/* n_reduce up to CR_DIMENSION_MAX, rank up to CR_RANK_MAX. */
static inline struct cr_qgemm_plan cr_qgemm_plan_make(size_t n_reduce, size_t rank, size_t element_bytes)
{
    struct cr_qgemm_plan plan;
    plan.n_steps = element_bytes == 4 ? n_reduce : (n_reduce + 1) / 2;
    size_t strip_bytes = plan.n_steps > 0 ? (plan.n_steps + 15) / 16 * 512 : 512;
    size_t panel_bytes = CR_QGEMM_PANEL_WEIGHTS * element_bytes;
    size_t n = panel_bytes / (strip_bytes * (CR_QGEMM_STEP / CR_QGEMM_STRIP)) * CR_QGEMM_STEP;
    /* an odd number of lines: the strips of a panel, written side by side, must not share cache sets */
    plan.strip_bytes = strip_bytes + 64;
    n = n < CR_QGEMM_STEP ? CR_QGEMM_STEP : n;
    plan.n_block = n > CR_QGEMM_BLOCK_MAX ? CR_QGEMM_BLOCK_MAX : n;
    size_t n_strips = plan.n_block / CR_QGEMM_STRIP;
    plan.lowrank_at = n_strips * plan.strip_bytes;
    plan.rows_at = plan.lowrank_at + n_strips * rank * CR_QGEMM_STRIP * sizeof(float);
    plan.tile_at = plan.rows_at + 2 * CR_QGEMM_ROWS * sizeof(float);
    plan.tokens_at = plan.tile_at + n_strips * CR_QGEMM_STRIP * CR_QGEMM_GROUP * 16 * sizeof(float);
    plan.bytes = plan.tokens_at + (CR_HAVE_NEON ? CR_QGEMM_GROUP * CR_QGEMM_PACKED_STEPS * 64 : 0);
    return plan;
}

/* Steps of a slab, a multiple of 16: slabs of nearly the same size, at most `most` (itself a multiple of 16). */
static inline size_t cr_qgemm_slab_steps(size_t n_steps, size_t most)
{
    size_t n_slabs = n_steps > most ? (n_steps + most - 1) / most : 1;
    return ((n_steps + n_slabs - 1) / n_slabs + 15) / 16 * 16;
}

#endif
