/* lowrank: the variant of each tier. */
#include "kernels/lowrank/lowrank_impl.h"

void cr_lowrank_ops_init(struct cr_lowrank_ops *ops, enum cr_tier tier)
{
    *ops = (struct cr_lowrank_ops){cr_lowrank_down_ref, cr_lowrank_up_ref, cr_lowrank_grad_ref};
#ifdef CR_HAVE_X86
    if (tier >= CR_TIER_AVX2 && tier <= CR_TIER_AMX) {
        *ops = (struct cr_lowrank_ops){cr_lowrank_down_avx2, cr_lowrank_up_avx2, cr_lowrank_grad_avx2};
    }
    if (tier >= CR_TIER_AVX512 && tier <= CR_TIER_AMX) {
        *ops = (struct cr_lowrank_ops){cr_lowrank_down_avx512, cr_lowrank_up_avx512, cr_lowrank_grad_avx512};
    }
#else
    (void)tier;
#endif
}

size_t cr_lowrank_scratch_bytes(size_t n_features, size_t rank)
{
    (void)n_features;
    size_t line = CR_LANES * sizeof(float);
    size_t panel = 3 * CR_LOWRANK_PANEL * line;
    size_t grad = (rank + CR_LOWRANK_SLAB_BLOCKS) * CR_LOWRANK_STEP * line;
    return panel > grad ? panel : grad;
}
