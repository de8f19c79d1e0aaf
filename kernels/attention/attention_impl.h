/* attention variants, private to the family. Each follows the contract of attention.h. */
#ifndef CR_ATTENTION_IMPL_H
#define CR_ATTENTION_IMPL_H

#include "kernels/attention/attention.h"

void cr_attention_fwd_ref(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch);
void cr_attention_bwd_ref(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch);
void cr_attention_sum_kv_ref(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch);

#endif
