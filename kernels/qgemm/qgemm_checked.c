#include "credence/kernels/qgemm.h"

#include "kernels/common/contract.h"
#include "credence/kernels/lowrank.h"

/* Everything but the range; n_in features of X make n_out features of Y. */
static void product(struct cr_contract *c, const struct cr_qgemm_ops *ops, const struct cr_qgemm_args *a, size_t n_in,
                    size_t n_out)
{
    cr_contract_matrix(c, &a->w);
    cr_contract_at_least(c, ops->step, 1, "ops.step");
    cr_contract_operand_type(c, ops->x_type, 0, "ops.x_type");
    size_t pairs = n_in + (ops->x_type == CR_X_BF16 && n_in % 2 != 0);
    cr_contract_blocks(c, a->x, a->x_stride, cr_tl16_bytes(ops->x_type, pairs), a->n_blocks, "x");
    cr_contract_f32_blocks(c, a->y, a->y_stride, n_out, a->n_blocks, "y");
    if (a->p != NULL) {
        cr_contract_at_least(c, a->rank, 1, "rank");
        cr_contract_at_most(c, a->rank, CR_RANK_MAX, "rank");
        cr_contract_f32_blocks(c, a->u, a->u_stride, a->rank, a->n_blocks, "u");
        size_t by_output, by_rank, last;
        cr_contract_that(c,
                         !__builtin_mul_overflow(n_out - 1, a->p_os, &by_output) &&
                             !__builtin_mul_overflow(a->rank - 1, a->p_rs, &by_rank) &&
                             !__builtin_add_overflow(by_output, by_rank, &last) && last < PTRDIFF_MAX / sizeof(float),
                         "p", "has strides beyond the address space");
    }
}

static void scratch_of(struct cr_contract *c, const struct cr_qgemm_ops *ops, size_t n_reduce, size_t rank,
                       const void *scratch, size_t scratch_bytes)
{
    if (c->status == CR_OK) {
        cr_contract_scratch(c, scratch, scratch_bytes, cr_qgemm_scratch_bytes(ops, n_reduce, rank));
    }
}

cr_status cr_qgemm_fwd_checked(const struct cr_qgemm_ops *ops, const struct cr_qgemm_args *args, size_t begin,
                               size_t end, void *scratch, size_t scratch_bytes, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("qgemm fwd", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->fwd != NULL, "ops.fwd", "is NULL");
    product(&c, ops, args, args->w.n_cols, args->w.n_rows);
    if (c.status == CR_OK) {
        cr_contract_range(&c, begin, end, ops->step, args->w.n_rows);
    }
    scratch_of(&c, ops, args->w.n_cols, args->p == NULL ? 0 : args->rank, scratch, scratch_bytes);
    if (c.status == CR_OK && begin < end) {
        ops->fwd(args, begin, end, scratch);
    }
    return c.status;
}

cr_status cr_qgemm_dx_checked(const struct cr_qgemm_ops *ops, const struct cr_qgemm_args *args, size_t begin,
                              size_t end, void *scratch, size_t scratch_bytes, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("qgemm dx", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->dx != NULL, "ops.dx", "is NULL");
    product(&c, ops, args, args->w.n_rows, args->w.n_cols);
    if (c.status == CR_OK) {
        cr_contract_range(&c, begin, end, ops->step, args->w.n_cols);
    }
    scratch_of(&c, ops, args->w.n_rows, args->p == NULL ? 0 : args->rank, scratch, scratch_bytes);
    if (c.status == CR_OK && begin < end) {
        ops->dx(args, begin, end, scratch);
    }
    return c.status;
}
