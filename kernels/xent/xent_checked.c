#include "credence/kernels/xent.h"

#include "kernels/common/contract.h"

static void shared(struct cr_contract *c, const struct cr_xent_args *a, size_t end)
{
    cr_contract_dimension(c, a->n_rows, "n_rows");
    cr_contract_at_most(c, a->first_row, INT32_MAX, "first_row"); /* targets are 32-bit */
    cr_contract_at_most(c, a->n_rows, INT32_MAX - a->first_row, "n_rows");
    cr_contract_f32_blocks(c, a->z, a->z_stride, a->n_rows, end, "z");
    cr_contract_pointer(c, a->target, "target");
}

cr_status cr_xent_stats_checked(const struct cr_xent_ops *ops, const struct cr_xent_args *args, size_t begin,
                                size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("xent stats", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->stats != NULL, "ops.stats", "is NULL");
    shared(&c, args, end);
    cr_contract_pointer(&c, args->m, "m");
    cr_contract_pointer(&c, args->s, "s");
    cr_contract_pointer(&c, args->label, "label");
    if (c.status == CR_OK && begin < end) {
        ops->stats(args, begin, end);
    }
    return c.status;
}

cr_status cr_xent_grad_checked(const struct cr_xent_ops *ops, const struct cr_xent_args *args, size_t begin, size_t end,
                               struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("xent grad", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->grad != NULL, "ops.grad", "is NULL");
    shared(&c, args, end);
    cr_contract_pointer(&c, args->lse, "lse");
    cr_contract_pointer(&c, args->weight, "weight");
    cr_contract_operand_type(&c, args->dz_type, args->n_rows, "dz_type");
    cr_contract_blocks(&c, args->dz, args->dz_stride, cr_tl16_bytes(args->dz_type, args->n_rows), end, "dz");
    if (c.status == CR_OK && begin < end) {
        ops->grad(args, begin, end);
    }
    return c.status;
}
