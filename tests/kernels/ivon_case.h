/* ivon_case: the table of a tier. */
#ifndef CR_TESTS_IVON_CASE_H
#define CR_TESTS_IVON_CASE_H

#include "credence/kernels/ivon.h"
#include "tests/support/kernel_test.h"

static inline struct cr_ivon_ops ops_of(enum cr_tier tier)
{
    struct cr_ivon_ops ops;
    ck_assert_int_eq(cr_ivon_ops_init(&ops, tier), CR_OK);
    return ops;
}

#endif
