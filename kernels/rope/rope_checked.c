#include "credence/kernels/rope.h"

#include "kernels/common/contract.h"

cr_status cr_rope_apply_checked(const struct cr_rope_ops *ops, const struct cr_rope_args *args, size_t begin,
                                size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("rope apply", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->apply != NULL, "ops.apply", "is NULL");
    cr_contract_dimension(&c, args->n_heads, "n_heads");
    cr_contract_dimension(&c, args->head_dim, "head_dim");
    size_t n_features = 0;
    bool fits = !__builtin_mul_overflow(args->n_heads, args->head_dim, &n_features);
    cr_contract_that(&c, fits, "n_heads", "times head_dim overflows");
    cr_contract_dimension(&c, n_features, "n_heads * head_dim");
    cr_contract_at_most(&c, args->n_rot, args->head_dim, "n_rot");
    cr_contract_that(&c, args->n_rot % 2 == 0, "n_rot", "is odd");
    cr_contract_that(&c, args->style == CR_ROPE_NORM || args->style == CR_ROPE_NEOX, "style", "is unknown");
    cr_contract_f32_blocks(&c, args->x, args->x_stride, n_features, end, "x");
    cr_contract_pointer(&c, args->pos, "pos");
    cr_contract_pointer(&c, args->table, "table");
    if (c.status == CR_OK && begin < end) {
        ops->apply(args, begin, end);
    }
    return c.status;
}
