/* temperature: one number that makes answers less (above 1) or more sure, fitted on examples held out for it.
 *
 * p = softmax(z / T), z the logits of a single set of weights, of several the logarithm of their mean probability. The
 * examples that are judged never decide T: the options refuse one file for both. Source: Guo et al. 2017
 * (arXiv 1706.04599). Private to runtime/eval.
 */
#ifndef CR_EVAL_TEMPERATURE_H
#define CR_EVAL_TEMPERATURE_H

#include "runtime/eval/scoring.h"

/* Sets s->temperature from s->calibration; nll: of those examples at 1 and at the temperature found. Errors: those of
 * cr_scoring_run, CR_E_MEMORY. */
cr_status cr_temperature_of(struct cr_scoring *s, double nll[2], struct cr_error *err);

/* probs [n_choices] and NLL of the answer at that temperature, of choices. */
void cr_temperature_apply(double temperature, const struct cr_score *score, double *probs, double *nll);

#endif
