/* lowrank on AMX tiles: down and grad with X in bf16. X in f32, and up, are those of the avx512 tier.
 *
 * With CR_AMX_MODEL the same source runs on a model of the tiles in memory (kernels/common/amx_tile.h).
 */
#if !defined(__AVX512BW__) || !(defined(CR_AMX_MODEL) || defined(__AMX_BF16__) || defined(__AMXBF16__))
#error "build with the flags of the amx tier"
#endif

#include "kernels/common/tiers.h"
#include "kernels/lowrank/lowrank_amx_down.h"
#include "kernels/lowrank/lowrank_amx_grad.h"
#include "kernels/lowrank/lowrank_down_up.h"
#include "kernels/lowrank/lowrank_grad.h"

static const struct amx_config full = AMX_CONFIG_FULL;

static void amx_down(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    if (args->x_type == CR_X_F32) {
        lowrank_down(args, begin, end, scratch);
        return;
    }
    amx_config(&full);
    down_on_tiles(args, begin, end, scratch);
    amx_release();
}

static void amx_grad(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    if (args->x_type == CR_X_F32) {
        lowrank_grad(args, begin, end, scratch);
        return;
    }
    amx_config(&full);
    grad_on_tiles(args, begin, end, scratch);
    amx_release();
}

static void fill(struct cr_lowrank_ops *ops)
{
    *ops = (struct cr_lowrank_ops){amx_down, lowrank_up, amx_grad};
}

CR_TIER_VARIANT(lowrank, amx)
