/* cast: the variant of each tier. */
#include "credence/kernels/cast.h"

#include "kernels/common/tiers.h"

CR_TIER_DECLARE(cast)

cr_status cr_cast_ops_init(struct cr_cast_ops *ops, enum cr_tier tier)
{
    if (!cr_tier_accepts(ops, tier)) {
        return CR_E_USAGE;
    }
    CR_TIER_CLIMB(cast, ops, tier);
    return CR_OK;
}
