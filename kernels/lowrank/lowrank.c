/* lowrank: the variant of each tier. */
#include "kernels/lowrank/lowrank_scratch.h"

#include "kernels/common/contract.h"
#include "kernels/common/tiers.h"

CR_TIER_DECLARE(lowrank)
#ifdef CR_HAVE_AMX
void cr_lowrank_fill_amx(struct cr_lowrank_ops *ops);
#endif

cr_status cr_lowrank_ops_init(struct cr_lowrank_ops *ops, enum cr_tier tier)
{
    if (!cr_tier_accepts(ops, tier)) {
        return CR_E_USAGE;
    }
    CR_TIER_CLIMB(lowrank, ops, tier);
#ifdef CR_HAVE_AMX
    if (tier == CR_TIER_AMX) {
        cr_lowrank_fill_amx(ops);
    }
#endif
    return CR_OK;
}

size_t cr_lowrank_scratch_bytes(size_t n_features, size_t rank)
{
    if (n_features > CR_DIMENSION_MAX || rank > CR_RANK_MAX) {
        return SIZE_MAX;
    }
    size_t line_bytes = CR_LANES * sizeof(float);
    size_t panel = CR_LOWRANK_PANEL_BLOCKS * CR_LOWRANK_PANEL * line_bytes;
    size_t grad = (rank + CR_LOWRANK_SLAB_BLOCKS) * CR_LOWRANK_STEP * line_bytes;
    size_t lanes = panel > grad ? panel : grad, tiles = cr_lowrank_amx_plan(rank).bytes;
    return lanes > tiles ? lanes : tiles;
}
