/* review: gathers what the HTML page shows and writes it. Private to runtime/eval. */
#ifndef CR_EVAL_REVIEW_H
#define CR_EVAL_REVIEW_H

#include "runtime/eval/outcome.h"
#include "runtime/eval/scoring.h"

/* Writes options.report atomically. Training files of the adapter directory are shown when they are there and can be
 * read. Errors: CR_E_MEMORY, CR_E_IO, CR_E_STOPPED. */
cr_status cr_review_write(const struct cr_scoring *scoring, const struct cr_outcomes *outcomes,
                          const struct cr_eval_result *result, struct cr_error *err);

#endif
