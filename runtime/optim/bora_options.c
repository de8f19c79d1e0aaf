#include "runtime/optim/bora_options.h"

#include <math.h>
#include <string.h>

#include "runtime/core/error.h"

/* Precisions where none is said, for one term and for a text of some thirty terms an example. */
#define TAU_CHOICES 10.0
#define TAU_TEXTS 300.0

/* Rates of the paper's table: in proportion to tau, and without a prior. */
#define RATE_OF_TAU 1e-5
#define RATE_APART 1e-4

bool cr_bora_mode_is(const struct cr_finetune_options *o, const char *mode)
{
    return strcmp(o->bora_mode != NULL ? o->bora_mode : "tasks", mode) == 0;
}

bool cr_bora_is_norm(const struct cr_finetune_options *o)
{
    return o->bora_prior != NULL && strcmp(o->bora_prior, "norm") == 0;
}

static cr_status unknown(const char *what, const char *word, const char *expected, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    return cr_fail(err, CR_E_USAGE, "%s of bora \"%s\" unknown, expected %s", what,
                   cr_escape(shown, sizeof shown, word, strlen(word)), expected);
}

static cr_status check_words(const struct cr_finetune_options *o, struct cr_error *err)
{
    if (o->bora_prior != NULL && strcmp(o->bora_prior, "sq") != 0 && !cr_bora_is_norm(o)) {
        return unknown("prior", o->bora_prior, "sq or norm", err);
    }
    if (!cr_bora_mode_is(o, "tasks") && !cr_bora_mode_is(o, "global") && !cr_bora_mode_is(o, "joined")) {
        return unknown("mode", o->bora_mode, "tasks, joined or global", err);
    }
    if (cr_bora_mode_is(o, "joined") && !isnan(o->tau) && !(o->tau > 0)) {
        return cr_fail(
            err, CR_E_USAGE,
            "--tau %g: joined adapters need a number above 0, which tells the tasks' part from the common one", o->tau);
    }
    return CR_OK;
}

cr_status cr_bora_check(const struct cr_finetune_options *o, struct cr_error *err)
{
    if (!isnan(o->tau) && !(o->tau >= 0 && isfinite(o->tau))) {
        return cr_fail(err, CR_E_USAGE, "--tau %g, expected a number of at least 0 (0: no prior, tasks apart)", o->tau);
    }
    if (!(o->bora_spread >= 0) || !isfinite(o->bora_spread)) {
        return cr_fail(err, CR_E_USAGE, "spread of the tasks' starts %g, expected a number of at least 0",
                       o->bora_spread);
    }
    return check_words(o, err);
}

void cr_bora_resolve(struct cr_finetune_options *o, uint64_t n_examples, uint64_t n_targets)
{
    if (isnan(o->tau)) {
        o->tau = n_targets > n_examples ? TAU_TEXTS : TAU_CHOICES;
    }
    if (isnan(o->lr)) {
        o->lr = o->tau > 0 ? RATE_OF_TAU * o->tau : RATE_APART;
    }
}

void cr_bora_record(const struct cr_finetune_options *o, json_t *object)
{
    json_object_set_new(object, "tau", json_real(o->tau));
    json_object_set_new(object, "bora-prior", json_string(cr_bora_is_norm(o) ? "norm" : "sq"));
    json_object_set_new(object, "bora-mode", json_string(o->bora_mode != NULL ? o->bora_mode : "tasks"));
    json_object_set_new(object, "bora-spread", json_real(o->bora_spread));
}
