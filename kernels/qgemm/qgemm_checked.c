#include "credence/kernels/qgemm.h"

#include "kernels/common/contract.h"
#include "credence/kernels/lowrank.h"
#include "kernels/qgemm/members.h"

static void lowrank(struct cr_contract *c, const struct cr_qgemm_member *m, size_t n_out)
{
    cr_contract_at_least(c, m->rank, 1, "rank");
    cr_contract_at_most(c, m->rank, CR_RANK_MAX, "rank");
    size_t by_output, by_rank, last;
    cr_contract_that(c,
                     !__builtin_mul_overflow(n_out - 1, m->p_os, &by_output) &&
                         !__builtin_mul_overflow(m->rank - 1, m->p_rs, &by_rank) &&
                         !__builtin_add_overflow(by_output, by_rank, &last) && last < PTRDIFF_MAX / sizeof(float),
                     "p", "has strides beyond the address space");
}

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
    if (a->n_members == 0 && a->p != NULL) {
        struct cr_qgemm_member all = {0, a->n_blocks, a->p, a->p_os, a->p_rs, a->rank};
        lowrank(c, &all, n_out);
    }
    cr_contract_that(c, a->n_members == 0 || a->members != NULL, "members", "is NULL");
    for (size_t i = 0, begin = 0; c->status == CR_OK && i < a->n_members; i++) {
        const struct cr_qgemm_member *m = &a->members[i];
        cr_contract_that(c, begin <= m->begin && m->begin <= m->end && m->end <= a->n_blocks, "members",
                         "are not ascending ranges of the token blocks");
        begin = m->end;
        if (m->p != NULL) {
            lowrank(c, m, n_out);
        }
    }
    if (c->status == CR_OK && cr_qgemm_max_rank(a) > 0) {
        cr_contract_f32_blocks(c, a->u, a->u_stride, cr_qgemm_max_rank(a), a->n_blocks, "u");
    }
}

static void scratch_of(struct cr_contract *c, const struct cr_qgemm_ops *ops, const struct cr_qgemm_args *a,
                       size_t n_reduce, const void *scratch, size_t scratch_bytes)
{
    if (c->status == CR_OK) {
        cr_contract_scratch(c, scratch, scratch_bytes, cr_qgemm_scratch_bytes(ops, n_reduce, cr_qgemm_max_rank(a)));
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
    scratch_of(&c, ops, args, args->w.n_cols, scratch, scratch_bytes);
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
    cr_contract_that(&c, args->bias == NULL, "bias", "is of the forward product only");
    product(&c, ops, args, args->w.n_rows, args->w.n_cols);
    if (c.status == CR_OK) {
        cr_contract_range(&c, begin, end, ops->step, args->w.n_cols);
    }
    scratch_of(&c, ops, args, args->w.n_rows, scratch, scratch_bytes);
    if (c.status == CR_OK && begin < end) {
        ops->dx(args, begin, end, scratch);
    }
    return c.status;
}
