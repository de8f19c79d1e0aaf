/* attention on AMX tiles: the passes of the bf16 variant with the products of attention_amx_tile.h.
 *
 * With CR_AMX_MODEL the same source runs on a model of the tiles in memory (kernels/common/amx_tile.h).
 */
#if !defined(__AVX512BF16__) || !(defined(CR_AMX_MODEL) || defined(__AMX_BF16__) || defined(__AMXBF16__))
#error "build with the flags of the amx tier"
#endif

#define CR_ATTENTION_AMX 1

#include "kernels/attention/attention_bf16_bwd.h"
#include "kernels/attention/attention_sum.h"
#include "kernels/common/tiers.h"

static const struct amx_config attention_tiles = ATTENTION_TILES;

static void fwd_on_tiles(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch)
{
    amx_config(&attention_tiles);
    attention_fwd(args, begin, end, scratch);
    amx_release();
}

static void bwd_on_tiles(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch)
{
    amx_config(&attention_tiles);
    attention_bwd(args, begin, end, scratch);
    amx_release();
}

static void fill(struct cr_attention_ops *ops)
{
    *ops = (struct cr_attention_ops){fwd_on_tiles, bwd_on_tiles, attention_sum_kv, attention_sum_prefix};
}

CR_TIER_VARIANT(attention, amx)
