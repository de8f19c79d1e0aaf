/* lowrank_model: the source of the amx tier of lowrank, built on the model of the tiles. */
#ifndef CR_TESTS_LOWRANK_MODEL_H
#define CR_TESTS_LOWRANK_MODEL_H

#include "credence/kernels/lowrank.h"

/* Needs a processor with avx512. */
void cr_lowrank_fill_model(struct cr_lowrank_ops *ops);

#endif
