/* rng for NEON. */
#ifndef CR_NEON
#error "build with the flags of the neon tier"
#endif

#include "kernels/rng/rng_lanes.h"

CR_TIER_VARIANT(rng, neon)
