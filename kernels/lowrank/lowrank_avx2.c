/* lowrank for AVX2 and FMA. */
#if !defined(__AVX2__) || !defined(__FMA__)
#error "build with the flags of the avx2 tier"
#endif

#include "kernels/lowrank/lowrank_lanes.h"

void cr_lowrank_down_avx2(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    lowrank_down(args, begin, end, scratch);
}

void cr_lowrank_up_avx2(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    lowrank_up(args, begin, end, scratch);
}

void cr_lowrank_grad_avx2(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    lowrank_grad(args, begin, end, scratch);
}
