/* report: an evaluation as one self-contained HTML page. Takes plain numbers and texts, knows no model and no file.
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
    uint64_t n; /* examples, or target tokens of texts */
    struct cr_report_figure accuracy, nll, ece, brier, perplexity;
    double auroc_error;
    const struct cr_report_bin *bins; /* [n_bins] of equal width on [0, 1]; texts: NULL */
    size_t n_bins;
};

/* A wrong answer, or a text that the model did not expect. */
struct cr_report_example {
    const char *task; /* NULL = none */
    uint64_t line;    /* of the data file */
    const char *text;
    size_t text_bytes;
    bool cut;                  /* the text goes on */
    const char *given, *right; /* choices: texts of the predicted and of the right answer; texts: NULL */
    size_t given_bytes, right_bytes;
    double p_given, p_right; /* choices */
    double nll;              /* texts: a token */
};

struct cr_report_point {
    double step, value;
};

struct cr_report_series {
    const struct cr_report_point *points;
    size_t n;
};

struct cr_report_pair {
    const char *key, *value;
};

struct cr_report {
    const char *title;
    bool classification;
    const struct cr_report_pair *facts; /* under the title: model, adapter, data... */
    size_t n_facts;
    const struct cr_report_group *groups; /* all of it first */
    size_t n_groups;
    uint32_t n_resamples; /* behind the intervals */
    const struct cr_report_example *examples;
    size_t n_examples;
    struct cr_report_series loss, valid, rate; /* of the training run: loss, validation NLL, tokens a second */
    const struct cr_report_pair *settings;     /* of the training run */
    size_t n_settings;
    const struct cr_report_pair *commands; /* what they do, the line to type */
    size_t n_commands;
};

/* Appends the page. A failed allocation shows in out->failed. */
void cr_report_html(const struct cr_report *report, struct cr_buf *out);

#endif
