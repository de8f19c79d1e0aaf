/* report: one evaluation, or several of one file side by side, as a self-contained HTML page. Takes plain numbers and
 * texts, knows no model and no file.
 *
 * The page loads nothing (no script, font or image; its policy forbids it), reads on paper, on a phone, light and
 * dark. Every text is escaped here: bytes that are not UTF-8 and control characters become U+FFFD. NaN means "does not
 * apply". All pointers are borrowed for the call.
 */
#ifndef CR_REPORT_REPORT_H
#define CR_REPORT_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/core/buf.h"

/* A figure with its 95 % interval. */
struct cr_report_figure {
    double value, low, high;
};

/* A bin of confidence: means over its n examples. */
struct cr_report_bin {
    uint64_t n;
    double confidence, accuracy;
};

struct cr_report_group {
    const char *name;
    uint64_t n;     /* examples, or target tokens of texts */
    size_t n_seeds; /* evaluations of these examples that the bins hold together; 0 = 1 */
    struct cr_report_figure accuracy, nll, ece, brier, perplexity;
    double auroc_error;
    double ece_floor;                 /* of honest confidences at these numbers */
    const struct cr_report_bin *bins; /* [n_bins] of equal width on [0, 1]; NULL: no diagram */
    size_t n_bins;
};

/* One evaluation. */
struct cr_report_run {
    const char *name;                     /* may be NULL when it is the only one */
    const struct cr_report_group *groups; /* [n_groups] of the report, the same groups in every run */
};

/* Of another run against the first. */
struct cr_report_difference {
    const char *group, *name;
    struct cr_report_figure accuracy, nll, brier, ece;
    const char *accuracy_is, *nll_is; /* verdicts in words */
};

/* What a run answered; the right answer has no name. */
struct cr_report_saying {
    const char *who;  /* NULL: there is one run */
    const char *text; /* of the answer */
    size_t text_bytes;
    double p;
    bool wrong;
};

/* A wrong answer, or a text that the model did not expect. */
struct cr_report_example {
    const char *task; /* NULL = none */
    uint64_t line;    /* of the data file */
    const char *text;
    size_t text_bytes;
    bool cut;                            /* the text goes on */
    const struct cr_report_saying *said; /* [n_said] choices: one a run; texts: none */
    size_t n_said;
    struct cr_report_saying right; /* choices */
    double nll;                    /* texts: a token */
};

struct cr_report_point {
    double step, value;
};

struct cr_report_series {
    const struct cr_report_point *points;
    size_t n;
};

/* A line of a chart; its colour and dashes come from its place. */
struct cr_report_line {
    const char *name; /* NULL: not in the key */
    struct cr_report_series series;
    bool marks; /* a mark a point */
};

struct cr_report_chart {
    const char *title, *x_label;
    const struct cr_report_line *lines; /* at least one of them with points */
    size_t n_lines;
    bool whole; /* x counts: ticks at whole numbers */
    bool zero;  /* the scale of values begins at 0 */
};

struct cr_report_row {
    const char *name;
    const double *values; /* [n_columns] of the table */
};

struct cr_report_table {
    const char *first; /* above the names of the rows */
    const char *const *columns;
    size_t n_columns;
    const struct cr_report_row *rows;
    size_t n_rows;
};

struct cr_report_section {
    const char *title, *note;            /* note may be NULL */
    const struct cr_report_table *table; /* above the charts; NULL: none */
    const struct cr_report_chart *charts;
    size_t n_charts;
};

struct cr_report_pair {
    const char *key, *value;
};

struct cr_report {
    const char *title;
    bool classification;
    const struct cr_report_pair *facts; /* under the title: model, adapter, data... */
    size_t n_facts;
    const struct cr_report_run *runs;
    size_t n_runs, n_groups;                        /* groups: all of it first */
    size_t n_seeds;                                 /* behind each run: diagrams show the examples of all */
    uint32_t n_resamples;                           /* behind the intervals */
    const struct cr_report_difference *differences; /* group by group */
    size_t n_differences;
    const char *margins; /* what the verdicts mean, in words */
    const struct cr_report_section *sections;
    size_t n_sections;
    const struct cr_report_example *examples;
    size_t n_examples;
    const char *no_examples;                  /* why those that there are cannot be shown; NULL: there are none */
    const struct cr_report_section *training; /* behind the examples; NULL: none */
    const struct cr_report_pair *settings;    /* of the training run, or of several together */
    size_t n_settings;
    const struct cr_report_pair *commands; /* what they do, the line to type */
    size_t n_commands;
};

/* Appends the page. A failed allocation shows in out->failed. */
void cr_report_html(const struct cr_report *report, struct cr_buf *out);

#endif
