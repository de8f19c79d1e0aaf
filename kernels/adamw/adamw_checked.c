#include "credence/kernels/adamw.h"

#include "kernels/common/contract.h"

/* The last chunk may be short and only the caller knows n, so `end` is free. */
static void range(struct cr_contract *c, const struct cr_adamw_args *a, size_t begin, size_t end)
{
    cr_contract_at_most(c, end, PTRDIFF_MAX / sizeof(float), "end");
    cr_contract_range(c, begin, end, CR_ADAMW_CHUNK, end);
    cr_contract_pointer(c, a->grad, "grad");
}

static bool decay(double beta)
{
    return beta >= 0 && beta < 1;
}

/* The largest that a step multiplies with: 1 - beta1^t is at least 1 - beta1. */
static double step_size(const struct cr_adamw_args *a)
{
    return a->lr / (1 - a->beta1);
}

cr_status cr_adamw_step_checked(const struct cr_adamw_ops *ops, const struct cr_adamw_args *args, size_t begin,
                                size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("adamw step", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->step != NULL, "ops.step", "is NULL");
    range(&c, args, begin, end);
    cr_contract_pointer(&c, args->w, "w");
    cr_contract_pointer(&c, args->m, "m");
    cr_contract_pointer(&c, args->v, "v");
    cr_contract_that(&c, args->t >= 1, "t", "is 0, expected the number of the step from 1");
    cr_contract_that(&c, decay(args->beta1), "beta1", "is outside [0, 1)");
    cr_contract_that(&c, decay(args->beta2), "beta2", "is outside [0, 1)");
    cr_contract_that(&c, (float)args->eps > 0 && cr_contract_f32(args->eps), "eps", "is no finite f32 number above 0");
    cr_contract_that(&c, args->clip >= 0 && cr_contract_f32(args->clip), "clip", "is no finite f32 number from 0");
    cr_contract_that(&c, cr_contract_f32(step_size(args)), "lr", "makes no step of a finite f32 number");
    cr_contract_that(&c, cr_contract_f32(1 - args->lr * args->weight_decay), "weight_decay",
                     "makes no finite f32 number with lr");
    if (c.status == CR_OK && begin < end) {
        ops->step(args, begin, end);
    }
    return c.status;
}

cr_status cr_adamw_norm2_checked(const struct cr_adamw_ops *ops, const struct cr_adamw_args *args, size_t begin,
                                 size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("adamw norm2", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->norm2 != NULL, "ops.norm2", "is NULL");
    range(&c, args, begin, end);
    cr_contract_pointer(&c, args->partial, "partial");
    if (c.status == CR_OK && begin < end) {
        ops->norm2(args, begin, end);
    }
    return c.status;
}
