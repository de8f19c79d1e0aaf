/* lowrank variants, private to the family. Each follows the contract of lowrank.h. */
#ifndef CR_LOWRANK_IMPL_H
#define CR_LOWRANK_IMPL_H

#include "kernels/lowrank/lowrank.h"

/* Scratch of the lane variants: down and up, three token blocks of PANEL features; grad, [rank][STEP] lines of lane
 * sums and SLAB_BLOCKS token blocks of STEP features. */
enum { CR_LOWRANK_PANEL = 256, CR_LOWRANK_SLAB_BLOCKS = 8 };

cr_lowrank_fn cr_lowrank_down_ref, cr_lowrank_up_ref, cr_lowrank_grad_ref;
cr_lowrank_fn cr_lowrank_down_avx2, cr_lowrank_up_avx2, cr_lowrank_grad_avx2;
cr_lowrank_fn cr_lowrank_down_avx512, cr_lowrank_up_avx512, cr_lowrank_grad_avx512;

#endif
