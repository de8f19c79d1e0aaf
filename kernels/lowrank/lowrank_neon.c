/* lowrank for NEON. */
#ifndef CR_NEON
#error "build with the flags of the neon tier"
#endif

#include "kernels/lowrank/lowrank_lanes.h"

CR_TIER_VARIANT(lowrank, neon)
