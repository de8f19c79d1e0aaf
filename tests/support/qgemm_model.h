/* qgemm_model: the source of the amx tier of qgemm, built on the model of the tiles. */
#ifndef CR_TESTS_QGEMM_MODEL_H
#define CR_TESTS_QGEMM_MODEL_H

#include "credence/kernels/qgemm.h"

/* Portable dequantisation, runs everywhere; dequantisation of the avx512_bf16 tier, as in the library. */
cr_qgemm_fn cr_qgemm_fwd_model, cr_qgemm_dx_model;
cr_qgemm_fn cr_qgemm_fwd_model_words, cr_qgemm_dx_model_words;

#endif
