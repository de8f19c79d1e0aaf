/* units for every CPU: the width that the portable flags give. */
#include "bench/units_lanes.h"

const struct cr_bench_loops *cr_bench_loops_scalar(void)
{
    return &loops;
}
