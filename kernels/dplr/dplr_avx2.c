/* dplr for AVX2. */
#if !defined(__AVX2__) || defined(__AVX512F__)
#error "build with the flags of the avx2 tier"
#endif

#include "kernels/dplr/dplr_lanes.h"

CR_TIER_VARIANT(dplr, avx2)
