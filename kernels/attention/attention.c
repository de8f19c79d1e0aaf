/* attention: the variant of each tier. */
#include "kernels/attention/attention_scratch.h"

#include "kernels/common/tiers.h"

CR_TIER_DECLARE(attention)

cr_status cr_attention_ops_init(struct cr_attention_ops *ops, enum cr_tier tier)
{
    if (!cr_tier_accepts(ops, tier)) {
        return CR_E_USAGE;
    }
    CR_TIER_CLIMB(attention, ops, tier);
    return CR_OK;
}

size_t cr_attention_scratch_bytes(size_t max_len, size_t head_dim)
{
    size_t len = cr_tl16_blocks(max_len) * CR_LANES;
    size_t rows = CR_ATTENTION_GROUP * CR_LANES;
    size_t fwd = (3 * head_dim + 1 + rows) * len; /* q k v, lse, scores */
    size_t bwd = (5 * head_dim + 2) * len;        /* q k v do dq, lse delta */
    bwd += 3 * rows * rows + 2 * rows * head_dim; /* p ds ds_t, dk dv */
    return (fwd > bwd ? fwd : bwd) * sizeof(float);
}
