/* cast: the variant of each tier. */
#include "kernels/cast/cast.h"

#include "kernels/common/tiers.h"

CR_TIER_DECLARE(cast)

void cr_cast_ops_init(struct cr_cast_ops *ops, enum cr_tier tier)
{
    CR_TIER_CLIMB(cast, ops, tier);
}
