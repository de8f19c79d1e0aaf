#include "runtime/posterior/swag_scale.h"

#include <string.h>

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

struct room {
    float *coef;       /* owned: of cr_swag_sample */
    double *nll, *sum; /* owned together: [n_targets] of a draw, and summed probabilities */
};

static cr_status try_scale(const struct cr_swag_candidate *c, const struct cr_method_trial *trial, double scale,
                           const struct room *room, double *nll, struct cr_error *err)
{
    struct cr_swag_draws draws = {.scale = scale, .seed = cr_members_seed(c->seed, 0), .n_samples = 1};
    size_t n = (size_t)trial->n_targets;
    memset(room->sum, 0, n * sizeof *room->sum);
    for (uint32_t s = 0; s < CR_SWAG_TRIAL_DRAWS; s++) {
        draws.first_sample = s;
        cr_swag_sample(c->swag, c->ops, c->parallel, &draws, room->coef, c->params, c->swag->n_params);
        CR_TRY(trial->nll(trial->ctx, room->nll, err));
        for (size_t i = 0; i < n; i++) {
            room->sum[i] += cr_exp(-room->nll[i]);
        }
    }
    *nll = mixture_nll(room->sum, n);
    return CR_OK;
}

cr_status cr_swag_choose_scale(const struct cr_swag_candidate *c, const struct cr_method_trial *trial,
                               struct cr_swag_scales *out, struct cr_error *err)
{
    size_t n = (size_t)trial->n_targets;
    struct room room = {.coef = cr_alloc(cr_swag_held(c->swag), sizeof *room.coef),
                        .nll = cr_alloc(n, 2 * sizeof *room.nll)};
    cr_status status = CR_OK;
    *out = (struct cr_swag_scales){.scale = {0.5, 1}};
    if (room.coef == NULL || room.nll == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for %zu held-out targets", n);
    } else {
        room.sum = room.nll + n;
    }
    for (int i = 0; i < 2 && status == CR_OK; i++) {
        status = try_scale(c, trial, out->scale[i], &room, &out->nll[i], err);
    }
    out->best = out->scale[out->nll[1] < out->nll[0]];
    cr_free(room.coef);
    cr_free(room.nll);
    return status;
}
