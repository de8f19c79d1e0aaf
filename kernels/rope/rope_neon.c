/* rope for NEON. */
#ifndef CR_NEON
#error "build with the flags of the neon tier"
#endif

#include "kernels/rope/rope_lanes.h"

CR_TIER_VARIANT(rope, neon)
