/* attention: the variant of each tier. */
#include "kernels/attention/attention_impl.h"

void cr_attention_ops_init(struct cr_attention_ops *ops, enum cr_tier tier)
{
    (void)tier;
    ops->fwd = cr_attention_fwd_ref;
    ops->bwd = cr_attention_bwd_ref;
    ops->sum_kv = cr_attention_sum_kv_ref;
}

size_t cr_attention_scratch_bytes(size_t max_len, size_t head_dim)
{
    (void)head_dim;
    return max_len * sizeof(float);
}
