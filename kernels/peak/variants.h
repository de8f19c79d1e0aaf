/* variants: the loops of peak that no template makes. */
#ifndef CR_PEAK_VARIANTS_H
#define CR_PEAK_VARIANTS_H

#include "credence/kernels/peak.h"

cr_peak_fn cr_peak_dot_avx512_bf16, cr_peak_tile_amx;

#endif
