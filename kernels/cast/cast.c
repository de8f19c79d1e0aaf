/* cast: the variant of each tier. */
#include "credence/kernels/cast.h"

#include "kernels/common/tiers.h"

CR_TIER_OPS_INIT(cast)
