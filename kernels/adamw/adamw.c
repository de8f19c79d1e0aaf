/* adamw: the variant of each tier. */
#include "credence/kernels/adamw.h"

#include "kernels/common/tiers.h"

CR_TIER_OPS_INIT(adamw)
