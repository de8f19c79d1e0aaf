/* act: the variant of each tier. */
#include "credence/kernels/act.h"

#include "kernels/common/tiers.h"

CR_TIER_DECLARE(act)

cr_status cr_act_ops_init(struct cr_act_ops *ops, enum cr_tier tier)
{
    if (!cr_tier_accepts(ops, tier)) {
        return CR_E_USAGE;
    }
    CR_TIER_CLIMB(act, ops, tier);
    return CR_OK;
}
