/* lowrank, private: the block sizes that decide how much scratch the lane variants take.
 *
 * down and up: three token blocks of PANEL features. grad: [rank][STEP] lines of lane sums, then SLAB_BLOCKS token
 * blocks of STEP features.
 */
#ifndef CR_LOWRANK_SCRATCH_H
#define CR_LOWRANK_SCRATCH_H

#include "credence/kernels/lowrank.h"

enum { CR_LOWRANK_PANEL = 256, CR_LOWRANK_PANEL_BLOCKS = 3, CR_LOWRANK_SLAB_BLOCKS = 32 };

#endif
