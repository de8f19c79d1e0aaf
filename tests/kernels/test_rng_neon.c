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
    Suite *suite = suite_create("rng_neon");
    TCase *tc = tcase_create("rng_neon");
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
