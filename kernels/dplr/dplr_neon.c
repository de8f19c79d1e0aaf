/* dplr for NEON. */
#ifndef CR_NEON
#error "build with the flags of the neon tier"
#endif

#include "kernels/dplr/dplr_lanes.h"

CR_TIER_VARIANT(dplr, neon)
