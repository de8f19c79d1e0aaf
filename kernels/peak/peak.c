/* peak: the loops of each tier. */
#include "credence/kernels/peak.h"

#include "kernels/peak/variants.h"
#include "kernels/common/tiers.h"

CR_TIER_DECLARE(peak)

cr_status cr_peak_ops_init(struct cr_peak_ops *ops, enum cr_tier tier)
{
    if (!cr_tier_accepts(ops, tier)) {
        return CR_E_USAGE;
    }
    CR_TIER_CLIMB(peak, ops, tier);
#if CR_HAVE_X86
    if (tier >= CR_TIER_AVX512_BF16 && tier <= CR_TIER_AMX) {
        ops->dot = cr_peak_dot_avx512_bf16;
    }
#ifdef CR_HAVE_AMX
    if (tier == CR_TIER_AMX) {
        ops->tile = cr_peak_tile_amx;
    }
#endif
#endif
    return CR_OK;
}
