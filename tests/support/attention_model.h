/* attention_model: the source of the amx tier of attention, built on the model of the tiles. */
#ifndef CR_TESTS_ATTENTION_MODEL_H
#define CR_TESTS_ATTENTION_MODEL_H

#include "credence/kernels/attention.h"

/* Needs a processor with avx512_bf16. */
void cr_attention_fill_model(struct cr_attention_ops *ops);

#endif
