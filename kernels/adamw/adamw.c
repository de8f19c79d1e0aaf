/* adamw: the variant of each tier. */
#include "credence/kernels/adamw.h"

#include "kernels/common/tiers.h"

CR_TIER_DECLARE(adamw)

cr_status cr_adamw_ops_init(struct cr_adamw_ops *ops, enum cr_tier tier)
{
    if (!cr_tier_accepts(ops, tier)) {
        return CR_E_USAGE;
    }
    CR_TIER_CLIMB(adamw, ops, tier);
    return CR_OK;
}
