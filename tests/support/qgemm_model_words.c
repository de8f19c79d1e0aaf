/* Built with the flags of the avx512_bf16 tier on x86; elsewhere never called. */
#include "tests/support/qgemm_model.h"

#define CR_AMX_MODEL 1
#define cr_qgemm_fwd_amx cr_qgemm_fwd_model_words
#define cr_qgemm_dx_amx cr_qgemm_dx_model_words
#include "kernels/qgemm/qgemm_amx.c"
