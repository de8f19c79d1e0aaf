/* act: the variant of each tier. */
#include "kernels/act/act.h"

#include "kernels/common/tiers.h"

CR_TIER_DECLARE(act)

void cr_act_ops_init(struct cr_act_ops *ops, enum cr_tier tier)
{
    CR_TIER_CLIMB(act, ops, tier);
}
