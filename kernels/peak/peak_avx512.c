/* peak for AVX-512. */
#if !defined(__AVX512F__) || !defined(__AVX512DQ__)
#error "build with the flags of the avx512 tier"
#endif

#include "kernels/peak/peak_lanes.h"

CR_TIER_VARIANT(peak, avx512)
