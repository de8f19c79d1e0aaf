/* Built with the flags of the avx512 tier on x86; elsewhere never called. */
#include "tests/support/lowrank_model.h"

#if defined(__AVX512BW__)
#define CR_AMX_MODEL 1
#define cr_lowrank_fill_amx cr_lowrank_fill_model
#include "kernels/lowrank/lowrank_amx.c"
#else
void cr_lowrank_fill_model(struct cr_lowrank_ops *ops)
{
    *ops = (struct cr_lowrank_ops){NULL, NULL, NULL};
}
#endif
