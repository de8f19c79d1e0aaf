/* rng, avx512: the vector Philox at that width. Skipped where the CPU or the compiler (clang has no such pragma)
 * cannot. */
#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#include "tests/kernels/philox_case.h"
#pragma GCC pop_options

#include "tests/kernels/philox_suite.h"

int main(void)
{
    return run_philox_on("rng_avx512", CR_TIER_AVX512);
}

#else

int main(void)
{
    return 77;
}

#endif
