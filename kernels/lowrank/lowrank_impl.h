/* lowrank variants, private to the family. Each follows the contract of lowrank.h. */
#ifndef CR_LOWRANK_IMPL_H
#define CR_LOWRANK_IMPL_H

#include "kernels/lowrank/lowrank.h"

void cr_lowrank_down_ref(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch);
void cr_lowrank_up_ref(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch);
void cr_lowrank_grad_ref(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch);

#endif
