/* lowrank, private: the block sizes that decide how much scratch the variants take.
 *
 * Lanes. down and up: three token blocks of PANEL features. grad: [rank][STEP] lines of lane sums, then SLAB_BLOCKS
 * token blocks of STEP features.
 * Tiles. A step of 32 features or tokens of the three bf16 parts of all ranks takes n_parts tiles; AMX_STEPS steps of
 * them are kept while X passes by: at rank 16 three tiles, 48 KiB. Beside them stand the same steps of X, two token
 * blocks or 32 features wide, and two tiles of sums for each one of parts. At rank 16 that is less than
 * lanes take, at 256 1.6 times as much.
 */
#ifndef CR_LOWRANK_SCRATCH_H
#define CR_LOWRANK_SCRATCH_H

#include "credence/kernels/lowrank.h"
#include "kernels/common/amx_tile.h"

enum { CR_LOWRANK_PANEL = 256, CR_LOWRANK_PANEL_BLOCKS = 3, CR_LOWRANK_SLAB_BLOCKS = 32, CR_LOWRANK_AMX_STEPS = 16 };

/* Where things lie in the scratch of the variant on tiles, in bytes. */
struct cr_lowrank_amx_plan {
    size_t n_parts; /* tiles of parts */
    size_t parts_at, x_at, sums_at, bytes;
};

static inline struct cr_lowrank_amx_plan cr_lowrank_amx_plan(size_t rank)
{
    struct cr_lowrank_amx_plan plan = {.n_parts = (3 * rank + 15) / 16};
    plan.x_at = plan.parts_at + CR_LOWRANK_AMX_STEPS * plan.n_parts * AMX_TILE_BYTES;
    plan.sums_at = plan.x_at + CR_LOWRANK_AMX_STEPS * 2 * AMX_TILE_BYTES;
    plan.bytes = plan.sums_at + 2 * plan.n_parts * AMX_TILE_BYTES;
    return plan;
}

#endif
