#include "credence/kernels/ivon.h"

#include "kernels/common/contract.h"

static bool emits(const struct cr_ivon_args *a)
{
    return a->next != NULL || a->next_high != NULL;
}

/* What a next needs: the posterior it is drawn from. */
static void posterior(struct cr_contract *c, const struct cr_ivon_args *a)
{
    cr_contract_pointer(c, a->mean, "mean");
    cr_contract_pointer(c, a->hess, "hess");
    cr_contract_that(c, a->ess >= 0x1p-126 && a->ess <= 0x1p126, "ess", "is outside [2^-126, 2^126]");
    cr_contract_that(c, a->weight_decay >= 0 && cr_contract_f32(a->weight_decay), "weight_decay",
                     "is no finite f32 number from 0");
    cr_contract_that(c, (a->next_high == NULL) == (a->next_low == NULL), "next_low", "goes with next_high");
}

/* What a sample's statistics need. */
static void statistics(struct cr_contract *c, const struct cr_ivon_args *a, bool writes)
{
    cr_contract_that(c, a->sample >= 1, "sample", "is 0, expected the number of the sample from 1");
    cr_contract_that(c, a->grad_scale >= 0 && cr_contract_f32(a->grad_scale), "grad_scale",
                     "is no finite f32 number from 0");
    if (writes || a->grad == NULL || a->sample > 1) {
        cr_contract_pointer(c, a->avg_grad, "avg_grad");
        cr_contract_pointer(c, a->avg_curv, "avg_curv");
    }
}

cr_status cr_ivon_perturb_checked(const struct cr_ivon_ops *ops, const struct cr_ivon_args *args, size_t begin,
                                  size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("ivon perturb", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->perturb != NULL, "ops.perturb", "is NULL");
    cr_contract_elements(&c, begin, end, CR_IVON_CHUNK);
    posterior(&c, args);
    cr_contract_that(&c, emits(args), "next", "is NULL, and next_high too");
    if (c.status == CR_OK && begin < end) {
        ops->perturb(args, begin, end);
    }
    return c.status;
}

cr_status cr_ivon_accumulate_checked(const struct cr_ivon_ops *ops, const struct cr_ivon_args *args, size_t begin,
                                     size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("ivon accumulate", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->accumulate != NULL, "ops.accumulate", "is NULL");
    cr_contract_elements(&c, begin, end, CR_IVON_CHUNK);
    cr_contract_pointer(&c, args->grad, "grad");
    statistics(&c, args, true);
    if (emits(args)) {
        posterior(&c, args);
    }
    if (c.status == CR_OK && begin < end) {
        ops->accumulate(args, begin, end);
    }
    return c.status;
}

cr_status cr_ivon_step_checked(const struct cr_ivon_ops *ops, const struct cr_ivon_args *args, size_t begin, size_t end,
                               struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("ivon step", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->step != NULL, "ops.step", "is NULL");
    cr_contract_elements(&c, begin, end, CR_IVON_CHUNK);
    posterior(&c, args);
    cr_contract_pointer(&c, args->momentum, "momentum");
    statistics(&c, args, false);
    cr_contract_that(&c, args->t >= 1, "t", "is 0, expected the number of the step from 1");
    cr_contract_that(&c, args->beta1 >= 0 && args->beta1 < 1, "beta1", "is outside [0, 1)");
    cr_contract_that(&c, args->beta2 >= 0 && args->beta2 <= 1, "beta2", "is outside [0, 1]");
    cr_contract_that(&c, args->hess_init > 0 && cr_contract_f32(args->hess_init), "hess_init",
                     "is no finite f32 number above 0");
    double factor = args->rescale_lr ? args->hess_init + args->weight_decay : 1;
    cr_contract_that(&c, cr_contract_f32(args->lr * factor), "lr", "makes no rate of a finite f32 number");
    cr_contract_that(&c, args->clip_radius > 0, "clip_radius", "is not above 0");
    cr_contract_that(&c, args->clip >= 0 && cr_contract_f32(args->clip), "clip", "is no finite f32 number from 0");
    if (c.status == CR_OK && begin < end) {
        ops->step(args, begin, end);
    }
    return c.status;
}

cr_status cr_ivon_merge_checked(float *const *avg_grad, float *const *avg_curv, size_t n_workers, size_t begin,
                                size_t end, struct cr_error *err)
{
    struct cr_contract c = {"ivon merge", err, CR_OK};
    cr_contract_pointer(&c, avg_grad, "avg_grad");
    cr_contract_pointer(&c, avg_curv, "avg_curv");
    cr_contract_dimension(&c, n_workers, "n_workers");
    cr_contract_at_most(&c, begin, end, "begin");
    cr_contract_elements(&c, begin, end, 1);
    for (size_t w = 0; c.status == CR_OK && w < n_workers; w++) {
        cr_contract_pointer(&c, avg_grad[w], "avg_grad of a worker");
        cr_contract_pointer(&c, avg_curv[w], "avg_curv of a worker");
    }
    if (c.status == CR_OK) {
        cr_ivon_merge(avg_grad, avg_curv, n_workers, begin, end);
    }
    return c.status;
}
