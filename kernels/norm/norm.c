/* norm: the variant of each tier. */
#include "credence/kernels/norm.h"

#include "kernels/common/tiers.h"

CR_TIER_DECLARE(norm)

cr_status cr_norm_ops_init(struct cr_norm_ops *ops, enum cr_tier tier)
{
    if (!cr_tier_accepts(ops, tier)) {
        return CR_E_USAGE;
    }
    CR_TIER_CLIMB(norm, ops, tier);
    return CR_OK;
}
