/* review: gathers what an HTML page shows and writes it. Private to runtime/eval. */
#ifndef CR_EVAL_REVIEW_H
#define CR_EVAL_REVIEW_H

#include "runtime/eval/result.h"
#include "runtime/eval/scoring.h"

struct cr_comparison;

/* Write options.report atomically. Training files of adapter directories are shown when they are there and can be
 * read; so are examples, when the data file is still the one that was evaluated. Errors: CR_E_MEMORY, CR_E_IO,
 * CR_E_STOPPED. */
cr_status cr_review_write(const struct cr_scoring *scoring, const struct cr_evaluation *evaluation,
                          struct cr_error *err);
cr_status cr_review_compare(const struct cr_comparison *comparison, struct cr_error *err);

#endif
