#include "credence/kernels/dequant.h"

#include "kernels/common/contract.h"

cr_status cr_dequant_checked(int type, enum cr_tier tier, const void *row, size_t first, size_t n, float *out,
                             struct cr_error *err)
{
    cr_dequant_fn *fn = cr_dequant_fn_for(type, tier);
    struct cr_contract c = {"dequant", err, CR_OK};
    cr_contract_that(&c, fn != NULL, "type", "is no tensor type with values here");
    cr_contract_pointer(&c, row, "row");
    cr_contract_pointer(&c, out, "out");
    cr_contract_at_most(&c, n, PTRDIFF_MAX / sizeof(float), "n");
    cr_contract_at_most(&c, first, PTRDIFF_MAX / sizeof(float) - n, "first");
    cr_contract_that(&c, first % 32 == 0, "first", "is no multiple of 32");
    cr_contract_that(&c, n % 32 == 0, "n", "is no multiple of 32");
    if (c.status == CR_OK && n > 0) {
        fn(row, first, n, out);
    }
    return c.status;
}
