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

cr_status cr_xent_expsum_checked(const struct cr_xent_ops *ops, const struct cr_xent_args *args, size_t begin,
                                 size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("xent expsum", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->expsum != NULL, "ops.expsum", "is NULL");
    shared(&c, args, end);
    cr_contract_pointer(&c, args->m, "m");
    cr_contract_pointer(&c, args->s, "s");
    cr_contract_pointer(&c, args->mass, "mass");
    size_t n_rows = args->n_rows + (args->dz_type == CR_X_BF16 ? args->n_rows % 2 : 0);
    cr_contract_operand_type(&c, args->dz_type, n_rows, "dz_type");
    cr_contract_blocks(&c, args->dz, args->dz_stride, cr_tl16_bytes(args->dz_type, n_rows), end, "dz");
    if (c.status == CR_OK && begin < end) {
        ops->expsum(args, begin, end);
    }
    return c.status;
}

cr_status cr_xent_label_checked(const struct cr_xent_ops *ops, const struct cr_xent_row_args *args, size_t begin,
                                size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("xent label", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->label != NULL, "ops.label", "is NULL");
    cr_contract_dimension(&c, args->n_features, "n_features");
    cr_contract_f32_blocks(&c, args->w, args->w_stride, args->n_features, end, "w");
    cr_contract_operand_type(&c, args->h_type, args->n_features, "h_type");
    cr_contract_blocks(&c, args->h, args->h_stride, cr_tl16_bytes(args->h_type, args->n_features), end, "h");
    cr_contract_pointer(&c, args->m, "m");
    if (c.status == CR_OK && begin < end) {
        ops->label(args, begin, end);
    }
    return c.status;
}

cr_status cr_xent_finish_checked(const struct cr_xent_ops *ops, const struct cr_xent_row_args *args, size_t begin,
                                 size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("xent finish", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->finish != NULL, "ops.finish", "is NULL");
    cr_contract_dimension(&c, args->n_features, "n_features");
    cr_contract_f32_blocks(&c, args->w, args->w_stride, args->n_features, end, "w");
    cr_contract_f32_blocks(&c, args->dh, args->dh_stride, args->n_features, end, "dh");
    cr_contract_pointer(&c, args->mass, "mass");
    cr_contract_pointer(&c, args->scale, "scale");
    if (c.status == CR_OK && begin < end) {
        ops->finish(args, begin, end);
    }
    return c.status;
}
