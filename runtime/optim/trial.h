/* trial: what a finished result is worth on held-out examples. */
#ifndef CR_OPTIM_TRIAL_H
#define CR_OPTIM_TRIAL_H

#include "runtime/posterior/method.h"

/* Mean NLL a target with what stands in the parameters. Errors: CR_E_MEMORY, those of the trial. */
cr_status cr_trial_mean(const struct cr_method_trial *trial, double *out, struct cr_error *err);

#endif
