/* peak for TDPBF16PS: four sums, two tiles of either side, as in a product. */
#if !defined(__AMX_BF16__) && !defined(__AMXBF16__)
#error "build with the flags of the amx tier"
#endif

#include "kernels/peak/variants.h"
#include "kernels/common/amx_tile.h"

double cr_peak_tile_amx(size_t n)
{
    static const struct amx_config config = AMX_CONFIG_FULL;
    amx_config(&config);
    for (size_t k = 0; k < n; k++) {
        amx_dp(0, 4, 6);
        amx_dp(1, 5, 6);
        amx_dp(2, 4, 7);
        amx_dp(3, 5, 7);
    }
    amx_release();
    return (double)n * 4 * 2 * 16 * 16 * 32;
}
