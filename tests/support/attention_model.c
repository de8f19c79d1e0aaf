/* Built with the flags of the avx512_bf16 tier on x86; elsewhere never called. */
#include "tests/support/attention_model.h"

#if defined(__AVX512BF16__)
#define CR_AMX_MODEL 1
#define cr_attention_fill_amx cr_attention_fill_model
#include "kernels/attention/attention_amx.c"
#else
void cr_attention_fill_model(struct cr_attention_ops *ops)
{
    *ops = (struct cr_attention_ops){NULL, NULL, NULL, NULL};
}
#endif
