/* norm for NEON. */
#ifndef CR_NEON
#error "build with the flags of the neon tier"
#endif

#include "kernels/norm/norm_lanes.h"

CR_TIER_VARIANT(norm, neon)
