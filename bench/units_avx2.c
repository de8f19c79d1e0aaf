/* units for AVX2 with FMA. */
#include "bench/units_lanes.h"

const struct cr_bench_loops *cr_bench_loops_avx2(void)
{
    return &loops;
}
