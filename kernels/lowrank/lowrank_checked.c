#include "credence/kernels/lowrank.h"

#include "kernels/common/contract.h"

static void shared(struct cr_contract *c, const struct cr_lowrank_args *a)
{
    cr_contract_at_least(c, a->rank, 1, "rank");
    cr_contract_at_most(c, a->rank, CR_RANK_MAX, "rank");
    cr_contract_dimension(c, a->n_features, "n_features");
    cr_contract_f32_blocks(c, a->u, a->u_stride, a->rank, a->n_blocks, "u");
    cr_contract_at_least(c, a->dropout.keep16, 1, "dropout.keep16");
    cr_contract_at_most(c, a->dropout.keep16, 65536, "dropout.keep16");
    if (a->dropout.keep16 < 65536) {
        cr_contract_pointer(c, a->dropout.position, "dropout.position");
        cr_contract_pointer(c, a->dropout.example, "dropout.example");
    }
}

/* (rank - 1) * rs + (n_features - 1) * ks floats from base. */
static void matrix(struct cr_contract *c, const float *base, size_t rs, size_t ks, const struct cr_lowrank_args *a,
                   const char *argument)
{
    size_t by_rank, by_feature, last;
    cr_contract_pointer(c, base, argument);
    cr_contract_that(c,
                     !__builtin_mul_overflow(a->rank - 1, rs, &by_rank) &&
                         !__builtin_mul_overflow(a->n_features - 1, ks, &by_feature) &&
                         !__builtin_add_overflow(by_rank, by_feature, &last) && last < PTRDIFF_MAX / sizeof(float),
                     argument, "has strides beyond the address space");
}

static void operand(struct cr_contract *c, const struct cr_lowrank_args *a)
{
    cr_contract_operand_type(c, a->x_type, a->n_features, "x_type");
    cr_contract_blocks(c, a->x, a->x_stride, cr_tl16_bytes(a->x_type, a->n_features), a->n_blocks, "x");
}

static void scratch_of(struct cr_contract *c, const struct cr_lowrank_args *a, const void *scratch,
                       size_t scratch_bytes)
{
    if (c->status == CR_OK) {
        cr_contract_scratch(c, scratch, scratch_bytes, cr_lowrank_scratch_bytes(a->n_features, a->rank));
    }
}

cr_status cr_lowrank_down_checked(const struct cr_lowrank_ops *ops, const struct cr_lowrank_args *args, size_t begin,
                                  size_t end, void *scratch, size_t scratch_bytes, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("lowrank down", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->down != NULL, "ops.down", "is NULL");
    shared(&c, args);
    cr_contract_range(&c, begin, end, 1, args->n_blocks);
    matrix(&c, args->p, args->p_rs, args->p_ks, args, "p");
    operand(&c, args);
    scratch_of(&c, args, scratch, scratch_bytes);
    if (c.status == CR_OK && begin < end) {
        ops->down(args, begin, end, scratch);
    }
    return c.status;
}

cr_status cr_lowrank_up_checked(const struct cr_lowrank_ops *ops, const struct cr_lowrank_args *args, size_t begin,
                                size_t end, void *scratch, size_t scratch_bytes, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("lowrank up", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->up != NULL, "ops.up", "is NULL");
    shared(&c, args);
    cr_contract_range(&c, begin, end, 1, args->n_blocks);
    matrix(&c, args->p, args->p_rs, args->p_ks, args, "p");
    cr_contract_f32_blocks(&c, args->y, args->y_stride, args->n_features, args->n_blocks, "y");
    scratch_of(&c, args, scratch, scratch_bytes);
    if (c.status == CR_OK && begin < end) {
        ops->up(args, begin, end, scratch);
    }
    return c.status;
}

cr_status cr_lowrank_grad_checked(const struct cr_lowrank_ops *ops, const struct cr_lowrank_args *args, size_t begin,
                                  size_t end, void *scratch, size_t scratch_bytes, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("lowrank grad", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->grad != NULL, "ops.grad", "is NULL");
    shared(&c, args);
    cr_contract_range(&c, begin, end, CR_LOWRANK_STEP, args->n_features);
    matrix(&c, args->g, args->g_rs, args->g_ks, args, "g");
    operand(&c, args);
    scratch_of(&c, args, scratch, scratch_bytes);
    if (c.status == CR_OK && begin < end) {
        ops->grad(args, begin, end, scratch);
    }
    return c.status;
}
