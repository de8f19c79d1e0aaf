#include "credence/kernels/embed.h"

#include <assert.h>

#include "credence/kernels/dequant.h"
#include "kernels/common/tiers.h"

static void rows(const struct cr_embed_args *a, size_t begin, size_t end, void *scratch, enum cr_tier tier)
{
    cr_dequant_fn *dequant = cr_dequant_fn_for(a->table.type, tier);
    float *row = scratch;
    for (size_t i = begin * CR_LANES; i < end * CR_LANES; i++) {
        assert(a->ids[i] >= 0 && (size_t)a->ids[i] < a->table.n_rows);
        dequant((const char *)a->table.data + (size_t)a->ids[i] * a->table.row_bytes, 0, a->table.n_cols, row);
        float *lane = a->x + i / CR_LANES * a->x_stride + i % CR_LANES;
        for (size_t k = 0; k < a->table.n_cols; k++) {
            lane[k * CR_LANES] = row[k];
        }
    }
}

static void rows_ref(const struct cr_embed_args *args, size_t begin, size_t end, void *scratch)
{
    rows(args, begin, end, scratch, CR_TIER_SCALAR);
}

#if CR_HAVE_X86
static void rows_avx2(const struct cr_embed_args *args, size_t begin, size_t end, void *scratch)
{
    rows(args, begin, end, scratch, CR_TIER_AVX2);
}

static void rows_avx512(const struct cr_embed_args *args, size_t begin, size_t end, void *scratch)
{
    rows(args, begin, end, scratch, CR_TIER_AVX512);
}
#elif CR_HAVE_NEON
static void rows_neon(const struct cr_embed_args *args, size_t begin, size_t end, void *scratch)
{
    rows(args, begin, end, scratch, CR_TIER_NEON);
}
#endif

/* The work is in dequant; only its tier differs. */
cr_status cr_embed_ops_init(struct cr_embed_ops *ops, enum cr_tier tier)
{
    if (!cr_tier_accepts(ops, tier)) {
        return CR_E_USAGE;
    }
    ops->rows = rows_ref;
#if CR_HAVE_X86
    if (tier >= CR_TIER_AVX2 && tier < CR_TIER_NEON) {
        ops->rows = tier >= CR_TIER_AVX512 ? rows_avx512 : rows_avx2;
    }
#elif CR_HAVE_NEON
    if (tier >= CR_TIER_NEON) {
        ops->rows = rows_neon;
    }
#endif
    return CR_OK;
}
