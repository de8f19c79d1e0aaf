/* philox_suite: the comparison of blocks_at_once (philox_case.h) with cr_philox4x32, for any width. */
#ifndef CR_TESTS_PHILOX_SUITE_H
#define CR_TESTS_PHILOX_SUITE_H

#include "credence/kernels/rng.h"
#include "tests/support/kernel_test.h"

START_TEST(lanes_are_blocks)
{
    struct cr_rng rng = cr_rng_make(300);
    for (int round = 0; round < 2000; round++) {
        uint32_t in[4 * LANES_N], out[4 * LANES_N], key[2];
        cr_fill_bytes(&rng, in, sizeof in);
        cr_fill_bytes(&rng, key, sizeof key);
        if (round == 0) { /* extremes of the products */
            memset(in, 0xff, sizeof in);
            memset(key, 0xff, sizeof key);
        }
        blocks_at_once(in, out, key);
        for (size_t i = 0; i < LANES_N; i++) {
            uint32_t counter[4] = {in[i], in[LANES_N + i], in[2 * LANES_N + i], in[3 * LANES_N + i]}, want[4];
            cr_philox4x32(counter, key, want);
            for (size_t w = 0; w < 4; w++) {
                ck_assert_uint_eq(out[w * LANES_N + i], want[w]);
            }
        }
    }
}
END_TEST

static int run_philox(const char *name)
{
    Suite *suite = suite_create(name);
    TCase *tc = tcase_create(name);
    tcase_add_test(tc, lanes_are_blocks);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}

/* 77, skipped, on a CPU without the tier. */
static inline int run_philox_on(const char *name, enum cr_tier tier)
{
    struct cr_cpu cpu;
    cr_cpu_detect(&cpu);
    return cpu.features >> tier & 1u ? run_philox(name) : 77;
}

#endif
