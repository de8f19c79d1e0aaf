/* ood: how well uncertainty tells examples from elsewhere from those of the file. Private to runtime/eval.
 *
 * Score: entropy of the mean probabilities over the log of the example's number of choices; beside it the mutual
 * information. Elsewhere is positive. Source of the comparison: Onal et al. 2024 (arXiv 2405.03425).
 */
#ifndef CR_EVAL_OOD_H
#define CR_EVAL_OOD_H

#include "runtime/eval/scoring.h"
#include "runtime/metrics/outcome.h"

/* Looks at s->ood with the sets of weights that gave `in`. *entropies is zeroed before and owned after, untouched on
 * failure. Errors: those of cr_scoring_run, CR_E_MEMORY. */
cr_status cr_ood_measure(struct cr_scoring *s, const struct cr_outcomes *in, struct cr_ood_metrics *out,
                         struct cr_ood_entropies *entropies, struct cr_error *err);

#endif
