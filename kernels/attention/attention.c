/* attention: the variant of each tier. */
#include "kernels/attention/attention.h"

void cr_attention_fill_ref(struct cr_attention_ops *ops);

void cr_attention_ops_init(struct cr_attention_ops *ops, enum cr_tier tier)
{
    (void)tier;
    cr_attention_fill_ref(ops);
}

size_t cr_attention_scratch_bytes(size_t max_len, size_t head_dim)
{
    (void)head_dim;
    return max_len * sizeof(float);
}
