/* cast for NEON. */
#ifndef CR_NEON
#error "build with the flags of the neon tier"
#endif

#include "kernels/cast/cast_lanes.h"

CR_TIER_VARIANT(cast, neon)
