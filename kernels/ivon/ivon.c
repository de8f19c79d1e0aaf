/* ivon: the variant of each tier. */
#include "credence/kernels/ivon.h"

#include "kernels/common/tiers.h"

CR_TIER_DECLARE(ivon)

cr_status cr_ivon_ops_init(struct cr_ivon_ops *ops, enum cr_tier tier)
{
    if (!cr_tier_accepts(ops, tier)) {
        return CR_E_USAGE;
    }
    CR_TIER_CLIMB(ivon, ops, tier);
    return CR_OK;
}
