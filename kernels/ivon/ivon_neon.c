/* ivon for NEON. */
#ifndef CR_NEON
#error "build with the flags of the neon tier"
#endif

#include "kernels/ivon/ivon_lanes.h"

CR_TIER_VARIANT(ivon, neon)
