/* attention for AVX-512. */
#if !defined(__AVX512F__)
#error "build with the flags of the avx512 tier"
#endif

#include "kernels/attention/attention_lanes.h"

CR_TIER_VARIANT(attention, avx512)
