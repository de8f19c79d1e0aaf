/* peak for AVX2. */
#if !defined(__AVX2__) || defined(__AVX512F__)
#error "build with the flags of the avx2 tier"
#endif

#include "kernels/peak/peak_lanes.h"

CR_TIER_VARIANT(peak, avx2)
