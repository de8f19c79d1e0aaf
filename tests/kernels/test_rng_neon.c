/* rng, neon: the vector Philox at that width. Skipped on other architectures. */
#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__aarch64__)

#ifndef CR_NEON
#define CR_NEON 1 /* part of the architecture: the compiler needs no flag */
#endif
#include "tests/kernels/philox_case.h"
#include "tests/kernels/philox_suite.h"

int main(void)
{
    return run_philox("rng_neon");
}

#else

int main(void)
{
    return 77;
}

#endif
