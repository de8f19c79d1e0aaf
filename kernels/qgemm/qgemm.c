#include "credence/kernels/qgemm.h"

#include "credence/kernels/lowrank.h"
#include "kernels/common/contract.h"
#include "kernels/common/tiers.h"
#include "kernels/qgemm/amx_plan.h"
#include "kernels/qgemm/plan.h"
#include "kernels/qgemm/variants.h"

#define TABLE(name, x_type, tier)                                                                                      \
    static const struct cr_qgemm_ops name = {cr_qgemm_fwd_##name, cr_qgemm_dx_##name, CR_QGEMM_STEP, x_type, tier};

TABLE(ref, CR_X_F32, CR_TIER_SCALAR)
#if CR_HAVE_X86
TABLE(avx2, CR_X_F32, CR_TIER_AVX2)
TABLE(avx512, CR_X_F32, CR_TIER_AVX512)
TABLE(avx512_bf16, CR_X_BF16, CR_TIER_AVX512_BF16)
#ifdef CR_HAVE_AMX
TABLE(amx, CR_X_BF16, CR_TIER_AMX)
#endif
#elif CR_HAVE_NEON
TABLE(neon, CR_X_F32, CR_TIER_NEON)
TABLE(neon_bf16, CR_X_BF16, CR_TIER_NEON_BF16)
#endif

cr_status cr_qgemm_ops_init(struct cr_qgemm_ops *ops, enum cr_tier tier)
{
    if (!cr_tier_accepts(ops, tier)) {
        return CR_E_USAGE;
    }
    *ops = ref;
#if CR_HAVE_X86
    if (tier >= CR_TIER_NEON) {
        return CR_OK;
    }
    if (tier >= CR_TIER_AVX2) {
        *ops = avx2;
    }
    if (tier >= CR_TIER_AVX512) {
        *ops = avx512;
    }
    if (tier == CR_TIER_AVX512_BF16) { /* not below amx: where there are tiles, VDPBF16PS is slower than f32 */
        *ops = avx512_bf16;
    }
#ifdef CR_HAVE_AMX
    if (tier == CR_TIER_AMX) {
        *ops = amx;
    }
#endif
#elif CR_HAVE_NEON
    if (tier >= CR_TIER_NEON) {
        *ops = neon;
    }
    if (tier == CR_TIER_NEON_BF16) {
        *ops = neon_bf16;
    }
#endif
    return CR_OK;
}

size_t cr_qgemm_scratch_bytes(const struct cr_qgemm_ops *ops, size_t n_reduce, size_t rank)
{
    if (n_reduce > CR_DIMENSION_MAX || rank > CR_RANK_MAX) {
        return SIZE_MAX;
    }
    if (ops->tier == CR_TIER_AMX) {
        return amx_plan_make(n_reduce, rank).bytes;
    }
    /* one bound for all others: the f32 panel is the largest */
    struct cr_qgemm_plan plan = cr_qgemm_plan_make(n_reduce, rank, sizeof(float));
    size_t f32 = plan.bytes;
    plan = cr_qgemm_plan_make(n_reduce, rank, sizeof(uint16_t));
    return f32 > plan.bytes ? f32 : plan.bytes;
}
