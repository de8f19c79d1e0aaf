/* lowrank for AVX-512. */
#if !defined(__AVX512F__)
#error "build with the flags of the avx512 tier"
#endif

#include "kernels/lowrank/lowrank_lanes.h"

void cr_lowrank_down_avx512(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    lowrank_down(args, begin, end, scratch);
}

void cr_lowrank_up_avx512(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    lowrank_up(args, begin, end, scratch);
}

void cr_lowrank_grad_avx512(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    lowrank_grad(args, begin, end, scratch);
}
