/* attention: the variant of each tier. */
#include "kernels/attention/attention_scratch.h"

#include "kernels/common/contract.h"
#include "kernels/common/tiers.h"

CR_TIER_DECLARE(attention)
#if CR_HAVE_X86
void cr_attention_fill_avx512_bf16(struct cr_attention_ops *ops);
void cr_attention_fill_amx(struct cr_attention_ops *ops);
#endif

cr_status cr_attention_ops_init(struct cr_attention_ops *ops, enum cr_tier tier)
{
    if (!cr_tier_accepts(ops, tier)) {
        return CR_E_USAGE;
    }
    CR_TIER_CLIMB(attention, ops, tier);
#if CR_HAVE_X86
    if (tier == CR_TIER_AVX512_BF16) {
        cr_attention_fill_avx512_bf16(ops);
    }
#ifdef CR_HAVE_AMX
    if (tier == CR_TIER_AMX) {
        cr_attention_fill_amx(ops);
    }
#endif
#endif
    return CR_OK;
}

/* f32 variants, in floats. */
static size_t lines_scratch(size_t len, size_t prefix, size_t head_dim)
{
    size_t rows = CR_ATTENTION_GROUP * CR_LANES, keys = len + prefix;
    size_t fwd = (head_dim + 1) * len + (2 * head_dim + rows) * keys; /* q, lse; k v, scores */
    size_t bwd = (3 * head_dim + 2) * len + 2 * head_dim * keys;      /* q do dq, lse delta; k v */
    bwd += 3 * rows * rows + 2 * rows * head_dim;                     /* p ds ds_t, dk dv */
    return fwd > bwd ? fwd : bwd;
}

/* The bf16 variants with f32 scores, which take more, in 32-bit words. */
static size_t pairs_scratch(size_t len, size_t prefix, size_t head_dim)
{
    size_t dim = (head_dim + CR_LANES - 1) / CR_LANES * CR_LANES;
    size_t rows = CR_ATTENTION_GROUP * CR_LANES, keys = len + prefix;
    size_t fwd = keys * dim * 3 / 2 + rows * (2 * dim + CR_ATTENTION_KEYS + 3); /* k v, q o s, max sum alpha */
    size_t bwd = keys * dim * 2 + len * dim / 2 * 7 + 2 * len;                  /* k k v, q q do do dq, lse delta */
    bwd += rows * (3 * CR_ATTENTION_QUERIES / 2 + 2 * dim + CR_LANES);          /* p ds ds, dk dv, tile */
    return fwd > bwd ? fwd : bwd;
}

size_t cr_attention_scratch_bytes(size_t max_len, size_t head_dim, size_t n_rows)
{
    if (max_len > CR_DIMENSION_MAX || head_dim > CR_DIMENSION_MAX || n_rows > CR_DIMENSION_MAX) {
        return SIZE_MAX;
    }
    size_t len = cr_tl16_blocks(max_len) * CR_LANES, prefix = cr_tl16_blocks(n_rows) * CR_LANES, area;
    /* Either sum stays below 8 (head_dim + 64) (len + prefix + 160) floats, at each of its steps. */
    if (__builtin_mul_overflow(head_dim + 64, len + prefix + 160, &area) || area > PTRDIFF_MAX / 8 / sizeof(float)) {
        return SIZE_MAX;
    }
    size_t lines = lines_scratch(len, prefix, head_dim), pairs = pairs_scratch(len, prefix, head_dim);
    return (lines > pairs ? lines : pairs) * sizeof(float);
}
