#include "credence/kernels/norm.h"

#include "kernels/common/contract.h"

/* What all share: items are token blocks, of which only `end` is known. */
static void shared(struct cr_contract *c, const struct cr_norm_args *a, size_t end)
{
    cr_contract_dimension(c, a->n_features, "n_features");
    cr_contract_operand_type(c, a->x_type, a->n_features, "x_type");
    cr_contract_blocks(c, a->x, a->x_stride, cr_tl16_bytes(a->x_type, a->n_features), end, "x");
    cr_contract_pointer(c, a->w, "w");
    cr_contract_pointer(c, a->rstd, "rstd");
}

static void output(struct cr_contract *c, const struct cr_norm_args *a, size_t end)
{
    cr_contract_operand_type(c, a->y_type, a->n_features, "y_type");
    cr_contract_blocks(c, a->y, a->y_stride, cr_tl16_bytes(a->y_type, a->n_features), end, "y");
}

cr_status cr_norm_rms_fwd_checked(const struct cr_norm_ops *ops, const struct cr_norm_args *args, size_t begin,
                                  size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("norm rms fwd", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->rms_fwd != NULL, "ops.rms_fwd", "is NULL");
    shared(&c, args, end);
    cr_contract_that(&c, args->x_type == CR_X_F32, "x_type", "is not f32");
    output(&c, args, end);
    if (c.status == CR_OK && begin < end) {
        ops->rms_fwd(args, begin, end);
    }
    return c.status;
}

cr_status cr_norm_rms_apply_checked(const struct cr_norm_ops *ops, const struct cr_norm_args *args, size_t begin,
                                    size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("norm rms apply", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->rms_apply != NULL, "ops.rms_apply", "is NULL");
    shared(&c, args, end);
    output(&c, args, end);
    if (c.status == CR_OK && begin < end) {
        ops->rms_apply(args, begin, end);
    }
    return c.status;
}

cr_status cr_norm_rms_bwd_checked(const struct cr_norm_ops *ops, const struct cr_norm_args *args, size_t begin,
                                  size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("norm rms bwd", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->rms_bwd != NULL, "ops.rms_bwd", "is NULL");
    shared(&c, args, end);
    cr_contract_f32_blocks(&c, args->dy, args->dy_stride, args->n_features, end, "dy");
    cr_contract_f32_blocks(&c, args->dx, args->dx_stride, args->n_features, end, "dx");
    if (c.status == CR_OK && begin < end) {
        ops->rms_bwd(args, begin, end);
    }
    return c.status;
}
