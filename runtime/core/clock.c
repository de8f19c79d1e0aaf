#include "runtime/core/clock.h"

#include <time.h>

uint64_t cr_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

double cr_clock_since(uint64_t start_ns)
{
    return (double)(cr_clock_ns() - start_ns) * 1e-9;
}
