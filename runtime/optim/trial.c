#include "runtime/optim/trial.h"

#include <inttypes.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"

cr_status cr_trial_mean(const struct cr_method_trial *trial, double *out, struct cr_error *err)
{
    double sum = 0;
    double *each = cr_alloc(trial->n_targets, sizeof *each);
    if (each == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the losses of %" PRIu64 " targets", trial->n_targets);
    }
    cr_status status = trial->nll(trial->ctx, each, err);
    for (uint64_t i = 0; i < trial->n_targets && status == CR_OK; i++) {
        sum += each[i];
    }
    cr_free(each);
    *out = sum / (double)trial->n_targets;
    return status;
}
