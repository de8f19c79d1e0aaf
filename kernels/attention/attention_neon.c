/* attention for NEON. */
#ifndef CR_NEON
#error "build with the flags of the neon tier"
#endif

#include "kernels/attention/attention_lanes.h"

CR_TIER_VARIANT(attention, neon)
