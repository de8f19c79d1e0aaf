#include "credence/kernels/cast.h"

#include "kernels/common/contract.h"

static void buffers(struct cr_contract *c, const struct cr_cast_args *a, size_t end)
{
    cr_contract_dimension(c, a->n_features, "n_features");
    cr_contract_that(c, a->n_features % 2 == 0, "n_features", "is odd");
    cr_contract_f32_blocks(c, a->f32, a->f32_stride, a->n_features, end, "f32");
    cr_contract_blocks(c, a->bf16, a->bf16_stride, cr_tl16_bytes(CR_X_BF16, a->n_features), end, "bf16");
}

cr_status cr_cast_to_bf16_checked(const struct cr_cast_ops *ops, const struct cr_cast_args *args, size_t begin,
                                  size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("cast to bf16", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->to_bf16 != NULL, "ops.to_bf16", "is NULL");
    buffers(&c, args, end);
    if (c.status == CR_OK && begin < end) {
        ops->to_bf16(args, begin, end);
    }
    return c.status;
}

cr_status cr_cast_from_bf16_checked(const struct cr_cast_ops *ops, const struct cr_cast_args *args, size_t begin,
                                    size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("cast from bf16", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->from_bf16 != NULL, "ops.from_bf16", "is NULL");
    buffers(&c, args, end);
    if (c.status == CR_OK && begin < end) {
        ops->from_bf16(args, begin, end);
    }
    return c.status;
}
