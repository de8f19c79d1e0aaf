/* review: gathers what an HTML page shows and writes it. Private to runtime/review. */
#ifndef CR_REVIEW_H
#define CR_REVIEW_H

#include "runtime/metrics/result.h"
#include "runtime/report/report.h"

struct cr_comparison;

enum { CR_REVIEW_FACTS_MAX = 8 };

/* What stands above the figures. Texts borrowed. */
struct cr_review_about {
    const char *title;
    struct cr_report_pair facts[CR_REVIEW_FACTS_MAX];
    size_t n_facts;
};

/* Write options->report atomically. Training files of adapter directories are shown when they are there and can be
 * read; so are examples, when the data file is still the one that was evaluated. Errors: CR_E_MEMORY, CR_E_IO,
 * CR_E_STOPPED. */
cr_status cr_review_write(const struct cr_eval_options *options, const struct cr_host *host,
                          const struct cr_review_about *about, const struct cr_evaluation *evaluation,
                          struct cr_error *err);
cr_status cr_review_compare(const struct cr_comparison *comparison, struct cr_error *err);

#endif
