/* adamw for NEON. */
#ifndef CR_NEON
#error "build with the flags of the neon tier"
#endif

#include "kernels/adamw/adamw_lanes.h"

CR_TIER_VARIANT(adamw, neon)
