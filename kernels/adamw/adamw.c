/* adamw: the variant of each tier. */
#include "kernels/adamw/adamw.h"

#include "kernels/common/tiers.h"

CR_TIER_DECLARE(adamw)

void cr_adamw_ops_init(struct cr_adamw_ops *ops, enum cr_tier tier)
{
    CR_TIER_CLIMB(adamw, ops, tier);
}
