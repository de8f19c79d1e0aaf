/* about: what a page says of the model, the adapters, the data and the run. Private to runtime/eval. */
#ifndef CR_EVAL_ABOUT_H
#define CR_EVAL_ABOUT_H

#include "runtime/eval/scoring.h"
#include "runtime/review/kept.h"
#include "runtime/review/review.h"

/* *out is zeroed before; its texts live in kept, also after a failure. result: what was found. Errors: CR_E_MEMORY. */
cr_status cr_scoring_about(const struct cr_scoring *scoring, const struct cr_eval_result *result, struct cr_kept *kept,
                           struct cr_review_about *out, struct cr_error *err);

#endif
