/* compare: evaluations of one test file beside each other, and whether they differ. Private to runtime/review.
 *
 * A contender is a method with one evaluation a seed. Figures of a contender are means over its seeds of the figure of
 * each evaluation; intervals come from CR_COMPARE_DRAWS resamples, the same for all contenders, of seeds and of
 * examples (crossed; Owen 2007). A difference is contender minus the first one. With few seeds their part of the
 * interval is too small: three values say little of their spread.
 */
#ifndef CR_REVIEW_COMPARE_H
#define CR_REVIEW_COMPARE_H

#include "runtime/core/buf.h"
#include "runtime/metrics/calibrate.h"
#include "runtime/metrics/result.h"

enum { CR_COMPARE_DRAWS = 2000 };

struct cr_contender {
    const char *name;            /* borrowed */
    struct cr_result_file *runs; /* owned: [n_seeds] */
};

/* What is said of a contender on a group of examples. */
struct cr_compared {
    struct cr_estimate figures[CR_N_FIGURES];     /* 95 % */
    struct cr_estimate differences[CR_N_FIGURES]; /* 95 %; of the first contender 0 */
    struct cr_estimate narrow[CR_N_FIGURES];      /* the same, 90 % */
    double floor;                                 /* of the ECE: what right confidences would have at these numbers */
};

struct cr_compared_group {
    const char *name; /* borrowed: a task, "shifted" or "all" */
    bool is_task;
    uint32_t *items; /* owned: [n] places in the outcomes */
    size_t n;
    struct cr_compared *of; /* owned: [n_contenders] */
};

struct cr_comparison {
    struct cr_compare_options options; /* defaults resolved */
    const struct cr_host *host;
    struct cr_contender *contenders; /* owned */
    size_t n_contenders, n_seeds;
    struct cr_compared_group *groups; /* owned: tasks, shifted, all */
    size_t n_groups;
    bool classification;
};

/* Whether what is meant to be small (or, for accuracy, large) is so beyond doubt. */
enum cr_verdict { CR_UNCLEAR, CR_BETTER, CR_WORSE };
enum cr_verdict cr_compare_verdict(const struct cr_compared *c, enum cr_figure figure);

/* Two one-sided tests at 5 % with the margins of the options; only accuracy and NLL have one. */
bool cr_compare_equivalent(const struct cr_comparison *comparison, const struct cr_compared *c, enum cr_figure figure);
bool cr_compare_not_worse(const struct cr_comparison *comparison, const struct cr_compared *c, enum cr_figure figure);

/* Both in words: "better", "worse, equivalent", "not worse", "open"...; static storage. */
const char *cr_compare_words(const struct cr_comparison *comparison, const struct cr_compared *c,
                             enum cr_figure figure);

/* Whether a name stands in a comma list. */
bool cr_compare_listed(const char *list, const char *name);

/* Fills group->of. Errors: CR_E_MEMORY, CR_E_STOPPED. */
cr_status cr_compare_measure(const struct cr_comparison *comparison, struct cr_compared_group *group,
                             struct cr_error *err);

/* The tables, in markdown that is also readable as it is. */
void cr_compare_tables(const struct cr_comparison *comparison, struct cr_buf *out);

/* Writes options.json. Errors: CR_E_IO, CR_E_MEMORY. */
cr_status cr_compare_write(const struct cr_comparison *comparison, struct cr_error *err);

#endif
