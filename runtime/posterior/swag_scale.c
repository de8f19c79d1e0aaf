#include "runtime/posterior/swag_scale.h"

#include "credence/kernels/math.h"
#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/posterior/members.h"

/* sum[i] = sum over draws of the probability of target i; mean NLL of their mean. */
static double mixture_nll(const double *sum, size_t n)
{
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        total -= cr_ln(sum[i] / CR_SWAG_TRIAL_DRAWS);
    }
    return total / (double)n;
}

static cr_status try_scale(const struct cr_swag *swag, const struct cr_dplr_ops *ops,
                           const struct cr_parallel *parallel, const struct cr_method_trial *trial,
                           struct cr_swag_draws *draws, float *coef, double *work, float *params, double *nll,
                           struct cr_error *err)
{
    size_t n = (size_t)trial->n_targets;
    double *sum = work + n;
    for (size_t i = 0; i < n; i++) {
        sum[i] = 0;
    }
    for (uint32_t s = 0; s < CR_SWAG_TRIAL_DRAWS; s++) {
        draws->first_sample = s;
        cr_swag_sample(swag, ops, parallel, draws, coef, params, swag->n_params);
        CR_TRY(trial->nll(trial->ctx, work, err));
        for (size_t i = 0; i < n; i++) {
            sum[i] += cr_exp(-work[i]);
        }
    }
    *nll = mixture_nll(sum, n);
    return CR_OK;
}

cr_status cr_swag_choose_scale(const struct cr_swag *swag, const struct cr_dplr_ops *ops,
                               const struct cr_parallel *parallel, const struct cr_method_trial *trial, uint64_t seed,
                               float *params, struct cr_swag_scales *out, struct cr_error *err)
{
    float *coef = cr_alloc(cr_swag_held(swag), sizeof *coef);
    double *work = cr_alloc((size_t)trial->n_targets, 2 * sizeof *work);
    cr_status status = CR_OK;
    *out = (struct cr_swag_scales){.scale = {0.5, 1}};
    if (coef == NULL || work == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for %llu held-out targets", (unsigned long long)trial->n_targets);
    }
    for (int i = 0; i < 2 && status == CR_OK; i++) {
        struct cr_swag_draws draws = {.scale = out->scale[i], .seed = cr_members_seed(seed, 0), .n_samples = 1};
        status = try_scale(swag, ops, parallel, trial, &draws, coef, work, params, &out->nll[i], err);
    }
    out->best = out->scale[out->nll[1] < out->nll[0]];
    cr_free(coef);
    cr_free(work);
    return status;
}
