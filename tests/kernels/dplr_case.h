/* dplr_case: the tables of a tier and of the best one. */
#ifndef CR_TESTS_DPLR_CASE_H
#define CR_TESTS_DPLR_CASE_H

#include "credence/kernels/dplr.h"
#include "tests/support/kernel_test.h"

static inline struct cr_dplr_ops ops_of(enum cr_tier tier)
{
    struct cr_dplr_ops ops;
    ck_assert_int_eq(cr_dplr_ops_init(&ops, tier), CR_OK);
    return ops;
}

static inline struct cr_dplr_ops best_ops(void)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    return ops_of(tiers[cr_test_tiers(tiers) - 1]);
}

#endif
