/* xent for NEON. */
#ifndef CR_NEON
#error "build with the flags of the neon tier"
#endif

#include "kernels/xent/xent_lanes.h"

CR_TIER_VARIANT(xent, neon)
