#include "credence/kernels/act.h"

#include "kernels/common/contract.h"

static void gates(struct cr_contract *c, const struct cr_act_args *a, size_t end)
{
    size_t bytes = cr_tl16_bytes(a->g_type, a->n_features);
    cr_contract_dimension(c, a->n_features, "n_features");
    cr_contract_operand_type(c, a->g_type, a->n_features, "g_type");
    cr_contract_blocks(c, a->g, a->gu_stride, bytes, end, "g");
    cr_contract_blocks(c, a->u, a->gu_stride, bytes, end, "u");
}

cr_status cr_act_swiglu_fwd_checked(const struct cr_act_ops *ops, const struct cr_act_args *args, size_t begin,
                                    size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("act swiglu fwd", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->swiglu_fwd != NULL, "ops.swiglu_fwd", "is NULL");
    gates(&c, args, end);
    cr_contract_operand_type(&c, args->h_type, args->n_features, "h_type");
    cr_contract_blocks(&c, args->h, args->h_stride, cr_tl16_bytes(args->h_type, args->n_features), end, "h");
    if (c.status == CR_OK && begin < end) {
        ops->swiglu_fwd(args, begin, end);
    }
    return c.status;
}

cr_status cr_act_swiglu_bwd_checked(const struct cr_act_ops *ops, const struct cr_act_args *args, size_t begin,
                                    size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("act swiglu bwd", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->swiglu_bwd != NULL, "ops.swiglu_bwd", "is NULL");
    gates(&c, args, end);
    cr_contract_f32_blocks(&c, args->dh, args->dh_stride, args->n_features, end, "dh");
    cr_contract_f32_blocks(&c, args->dg, args->dgu_stride, args->n_features, end, "dg");
    cr_contract_f32_blocks(&c, args->du, args->dgu_stride, args->n_features, end, "du");
    if (c.status == CR_OK && begin < end) {
        ops->swiglu_bwd(args, begin, end);
    }
    return c.status;
}
