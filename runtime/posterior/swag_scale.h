/* swag_scale: which share of the collected covariance is drawn with, by what held-out examples say of each.
 *
 * The paper of SWAG draws with a half (arXiv 1902.02476, algorithm 1), the program for adapters with all of it (arXiv
 * 2405.03425). Both are tried with the same normals: CR_SWAG_TRIAL_DRAWS sets of weights, whose probabilities of every
 * target are averaged as in an evaluation. The lower NLL wins, the smaller scale at a tie.
 */
#ifndef CR_POSTERIOR_SWAG_SCALE_H
#define CR_POSTERIOR_SWAG_SCALE_H

#include "runtime/posterior/method.h"
#include "runtime/posterior/swag.h"

/* Half of what answers are averaged over: the draws are shared by both, so their noise is no part of the difference. */
enum { CR_SWAG_TRIAL_DRAWS = 5 };

struct cr_swag_scales {
    double scale[2], nll[2]; /* tried, and what came of them */
    double best;
};

/* All borrowed. params [n_params]: what a trial looks at; left at some draw. */
struct cr_swag_candidate {
    const struct cr_swag *swag;
    const struct cr_dplr_ops *ops;
    const struct cr_parallel *parallel;
    uint64_t seed;
    float *params;
};

/* Errors: those of trial->nll, CR_E_MEMORY. */
cr_status cr_swag_choose_scale(const struct cr_swag_candidate *candidate, const struct cr_method_trial *trial,
                               struct cr_swag_scales *out, struct cr_error *err);

#endif
