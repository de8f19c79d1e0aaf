/* attention for AVX-512 with bf16 products. */
#if !defined(__AVX512BF16__)
#error "build with the flags of the avx512_bf16 tier"
#endif

#include "kernels/attention/attention_bf16_bwd.h"
#include "kernels/attention/attention_sum.h"
#include "kernels/common/tiers.h"

static void fill(struct cr_attention_ops *ops)
{
    *ops = (struct cr_attention_ops){attention_fwd, attention_bwd, attention_sum_kv, attention_sum_prefix};
}

CR_TIER_VARIANT(attention, avx512_bf16)
