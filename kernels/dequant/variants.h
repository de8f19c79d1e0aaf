/* variants: the tier files of dequant. Each gives its function for a type, NULL when it has none. */
#ifndef CR_DEQUANT_VARIANTS_H
#define CR_DEQUANT_VARIANTS_H

#include "credence/kernels/dequant.h"

cr_dequant_fn *cr_dequant_ref(int type);
cr_dequant_fn *cr_dequant_avx2(int type);
cr_dequant_fn *cr_dequant_avx512(int type);
cr_dequant_fn *cr_dequant_neon(int type);

#endif
