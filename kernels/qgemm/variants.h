/* variants: the tier files of qgemm. */
#ifndef CR_QGEMM_VARIANTS_H
#define CR_QGEMM_VARIANTS_H

#include "credence/kernels/qgemm.h"

cr_qgemm_fn cr_qgemm_fwd_ref, cr_qgemm_dx_ref;
cr_qgemm_fn cr_qgemm_fwd_avx2, cr_qgemm_dx_avx2;
cr_qgemm_fn cr_qgemm_fwd_avx512, cr_qgemm_dx_avx512;
cr_qgemm_fn cr_qgemm_fwd_avx512_bf16, cr_qgemm_dx_avx512_bf16;
cr_qgemm_fn cr_qgemm_fwd_amx, cr_qgemm_dx_amx;
cr_qgemm_fn cr_qgemm_fwd_neon, cr_qgemm_dx_neon;
cr_qgemm_fn cr_qgemm_fwd_neon_bf16, cr_qgemm_dx_neon_bf16;

#endif
