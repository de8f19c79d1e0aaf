/* laplace_fit: one call of cr_laplace, from the examples to the posterior. */
#ifndef CR_EVAL_LAPLACE_FIT_H
#define CR_EVAL_LAPLACE_FIT_H

#include "runtime/eval/curvature.h"
#include "runtime/eval/scoring.h"

/* Precisions that a validation file chooses from: the one of the evidence times these, half a decade apart. */
enum { CR_LAPLACE_TRIALS = 9 };

struct cr_laplace_trial {
    double precision, nll;
};

struct cr_laplace_fit {
    struct cr_laplace_options options;
    char *own_valid; /* owned: what the adapter's run held out, where that is to choose */
    struct cr_scoring scoring;
    struct cr_laplace_set set;
    struct cr_curvature curvature;
    struct cr_rng_ops rng;
    double *values; /* owned: of cr_laplace_set_values */
    double log_lik, norm2;
    struct cr_laplace_trial trials[CR_LAPLACE_TRIALS];
    size_t n_trials;
    const char *chosen_by;
    struct cr_laplace_result result;
};

/* The prior precision: given, that of the largest evidence, or of those about it the best on the validation examples.
 * Needs curvature and log_lik; fills the values, norm2, the trials, chosen_by and their part of the result. Errors:
 * CR_E_MEMORY, CR_E_DIVERGED, CR_E_STOPPED, those of a pass. */
cr_status cr_laplace_choose(struct cr_laplace_fit *fit, struct cr_error *err);

#endif
