/* act: the variant of each tier. */
#include "credence/kernels/act.h"

#include "kernels/common/tiers.h"

CR_TIER_OPS_INIT(act)
