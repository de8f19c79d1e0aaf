/* norm: the variant of each tier. */
#include "credence/kernels/norm.h"

#include "kernels/common/tiers.h"

CR_TIER_OPS_INIT(norm)
