/* lowrank: the variant of each tier. */
#include "kernels/lowrank/lowrank_impl.h"

void cr_lowrank_ops_init(struct cr_lowrank_ops *ops, enum cr_tier tier)
{
    (void)tier;
    ops->down = cr_lowrank_down_ref;
    ops->up = cr_lowrank_up_ref;
    ops->grad = cr_lowrank_grad_ref;
}

size_t cr_lowrank_scratch_bytes(size_t n_features, size_t rank)
{
    (void)n_features;
    return rank * CR_LANES * sizeof(float);
}
