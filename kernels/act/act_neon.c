/* act for NEON. */
#ifndef CR_NEON
#error "build with the flags of the neon tier"
#endif

#include "kernels/act/act_lanes.h"

CR_TIER_VARIANT(act, neon)
