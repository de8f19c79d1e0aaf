/* Built with the flags of the amx tier where the compiler has them. */
#include "tests/support/amx_run.h"

#if defined(__AMX_BF16__) || defined(__AMXBF16__)

#include "kernels/common/amx_tile.h"

bool cr_amx_run(const struct amx_config *config, const void *a, const void *b, void *c, size_t stride)
{
    amx_config(config);
    amx_load(0, c, stride);
    amx_load(1, a, stride);
    amx_load_once(2, b, stride);
    amx_dp(0, 1, 2);
    amx_store(0, c, stride);
    amx_release();
    return true;
}

#else

bool cr_amx_run(const struct amx_config *config, const void *a, const void *b, void *c, size_t stride)
{
    (void)config, (void)a, (void)b, (void)c, (void)stride;
    return false;
}

#endif
