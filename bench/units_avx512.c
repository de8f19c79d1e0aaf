/* units for AVX-512. */
#include "bench/units_lanes.h"

const struct cr_bench_loops *cr_bench_loops_avx512(void)
{
    return &loops;
}
