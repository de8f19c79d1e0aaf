/* peak for NEON. */
#ifndef CR_NEON
#error "build with the flags of the neon tier"
#endif

#include "kernels/peak/peak_lanes.h"

CR_TIER_VARIANT(peak, neon)
