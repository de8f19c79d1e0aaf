/* norm: the variant of each tier. */
#include "kernels/norm/norm.h"

#include "kernels/common/tiers.h"

CR_TIER_DECLARE(norm)

void cr_norm_ops_init(struct cr_norm_ops *ops, enum cr_tier tier)
{
    CR_TIER_CLIMB(norm, ops, tier);
}
