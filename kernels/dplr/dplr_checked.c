#include "credence/kernels/dplr.h"

#include "kernels/common/contract.h"
#include "kernels/dplr/dplr_element.h"

/* [n][stride] elements of `bytes` with `end` of them used: apart and addressable. */
static void matrix(struct cr_contract *c, size_t n, size_t stride, size_t end, size_t bytes, const char *argument)
{
    size_t total;
    if (n > 1) {
        cr_contract_at_least(c, stride, end, argument);
        cr_contract_that(c, !__builtin_mul_overflow(n, stride, &total) && total <= PTRDIFF_MAX / bytes, argument,
                         "is beyond the address space");
    }
}

static void gaussian(struct cr_contract *c, const struct cr_dplr_args *a, size_t end)
{
    cr_contract_pointer(c, a->mean, "mean");
    cr_contract_pointer(c, a->var, "var");
    if (a->n_rows > 0) {
        cr_contract_pointer(c, a->rows, "rows");
        cr_contract_at_most(c, a->n_rows, DPLR_ROWS_MAX, "n_rows");
        matrix(c, a->n_rows, a->row_stride, end, sizeof *a->rows, "row_stride");
    }
    cr_contract_that(c, a->var_floor >= 0 && cr_contract_f32(a->var_floor), "var_floor",
                     "is no finite f32 number from 0");
}

cr_status cr_dplr_sample_checked(const struct cr_dplr_ops *ops, const struct cr_dplr_args *args, size_t begin,
                                 size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("dplr sample", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->sample != NULL, "ops.sample", "is NULL");
    cr_contract_elements(&c, begin, end, CR_DPLR_CHUNK);
    gaussian(&c, args, end);
    cr_contract_that(&c, args->var_scale >= 0 && cr_contract_f32(args->var_scale), "var_scale",
                     "is no finite f32 number from 0");
    cr_contract_pointer(&c, args->out, "out");
    cr_contract_dimension(&c, args->n_samples, "n_samples");
    matrix(&c, args->n_samples, args->out_stride, end, sizeof *args->out, "out_stride");
    if (args->n_rows > 0) {
        cr_contract_pointer(&c, args->coef, "coef");
    }
    if (args->eps != NULL) {
        matrix(&c, args->n_samples, args->eps_stride, end, sizeof *args->eps, "eps_stride");
    }
    if (c.status == CR_OK && begin < end) {
        ops->sample(args, begin, end);
    }
    return c.status;
}

cr_status cr_dplr_density_checked(const struct cr_dplr_ops *ops, const struct cr_dplr_args *args, size_t begin,
                                  size_t end, void *scratch, size_t scratch_bytes, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("dplr density", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->density != NULL, "ops.density", "is NULL");
    cr_contract_elements(&c, begin, end, CR_DPLR_CHUNK);
    gaussian(&c, args, end);
    cr_contract_pointer(&c, args->x, "x");
    cr_contract_pointer(&c, args->sums, "sums");
    cr_contract_scratch(&c, scratch, scratch_bytes, CR_DPLR_SCRATCH_BYTES);
    if (c.status == CR_OK && begin < end) {
        ops->density(args, begin, end, scratch);
    }
    return c.status;
}

cr_status cr_dplr_collect_checked(const struct cr_dplr_ops *ops, const struct cr_dplr_collect_args *args, size_t begin,
                                  size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("dplr collect", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->collect != NULL, "ops.collect", "is NULL");
    cr_contract_elements(&c, begin, end, CR_DPLR_CHUNK);
    cr_contract_pointer(&c, args->w, "w");
    cr_contract_pointer(&c, args->mean, "mean");
    cr_contract_pointer(&c, args->mean_low, "mean_low");
    cr_contract_pointer(&c, args->m2, "m2");
    cr_contract_pointer(&c, args->row, "row");
    if (c.status == CR_OK && begin < end) {
        ops->collect(args, begin, end);
    }
    return c.status;
}
