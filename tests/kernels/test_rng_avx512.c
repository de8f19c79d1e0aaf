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
    struct cr_cpu cpu;
    cr_cpu_detect(&cpu);
    if (!(cpu.features >> CR_TIER_AVX512 & 1u)) {
        return 77;
    }
    Suite *suite = suite_create("rng_avx512");
    TCase *tc = tcase_create("rng_avx512");
    tcase_add_test(tc, lanes_are_blocks);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}

#else

int main(void)
{
    return 77;
}

#endif
