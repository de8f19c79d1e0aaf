/* review_parts: the pieces of a page, for one evaluation and for several. Private to runtime/review. */
#ifndef CR_REVIEW_PARTS_H
#define CR_REVIEW_PARTS_H

#include <jansson.h>

#include "runtime/report/report.h"
#include "runtime/review/kept.h"
#include "runtime/review/review.h"

/* Appends "credence COMMAND --flag value ... operand ..." as a shell takes it. flags: object of flags by their long
 * names; those of several values are repeated. */
void cr_command_line(struct cr_buf *out, const char *command, const json_t *flags);
void cr_command_operand(struct cr_buf *out, const char *operand);

/* What charts show of an evaluation, or of the evaluations of several seeds together. */
struct cr_view_group {
    const char *name;
    struct cr_outcomes outcomes;
    const struct cr_group_metrics *running; /* [n_members] after the first 1, 2, ...; NULL: unknown */
    const struct cr_group_metrics *all;     /* by all members; NULL: how far these agree is unknown */
};

/* What --ood measures. */
#define CR_ENTROPY_SHARE "entropy over the log of the number of choices"

struct cr_view {
    const char *name;                   /* NULL: it is the only one */
    const struct cr_view_group *groups; /* [n_groups]: all of it first */
    size_t n_groups, n_members;
    double pair_disagreement, pair_distance; /* of members two by two; NaN: unknown */
    struct cr_ood_entropies ood;             /* n_out 0: none */
    const struct cr_ood_metrics *found;      /* by the mutual information too; NULL: unknown */
    const char *in, *out;                    /* what these are of */
    const char *entropy;                     /* in which unit they are */
};

/* Fills the bins of a group of choices. Errors: CR_E_MEMORY. */
cr_status cr_review_bins(const struct cr_outcomes *outcomes, struct cr_kept *kept, struct cr_report_group *group,
                         struct cr_error *err);

/* Risk over coverage, figures over the number of members, how far these agree, entropies here and elsewhere: as far as
 * there is something to show; then `more`, unless it is NULL. Sets report->sections. Errors: CR_E_MEMORY. */
cr_status cr_review_charts(const struct cr_view *views, size_t n_views, const struct cr_report_section *more,
                           struct cr_kept *kept, struct cr_report *report, struct cr_error *err);

/* How much of the uncertainty is the members' disagreement: a row a group, or one a view. *out NULL: nothing is known.
 * note: of the only view, how far two members lie apart; NULL: unknown. Errors: CR_E_MEMORY. */
cr_status cr_review_agreement(const struct cr_view *views, size_t n_views, struct cr_kept *kept,
                              const struct cr_report_table **out, const char **note, struct cr_error *err);

/* How well examples from elsewhere are told by their entropy, and by their mutual information: a row a view. *out NULL:
 * there are none. Errors: CR_E_MEMORY. */
cr_status cr_review_elsewhere(const struct cr_view *views, size_t n_views, struct cr_kept *kept,
                              const struct cr_report_table **out, struct cr_error *err);

/* A section from a JSON file, as review_lines.c says; *json is owned (json_decref, also after a failure) and lends the
 * texts. Errors: CR_E_MEMORY, CR_E_IO, CR_E_INPUT naming the file. */
cr_status cr_review_lines(const char *path, struct cr_kept *kept, json_t **json, struct cr_report_section *out,
                          struct cr_error *err);

/* What a training run left beside its adapter. */
struct cr_training {
    struct cr_report_series loss, valid, rate; /* valid: NLL of the held-out part; rate: tokens a second */
    const double *path; /* of a prefix: [n_vertices][n_path] NLL of the held-out part from next to the centroid, evenly,
                         * to the vertex; n_vertices 0: none */
    size_t n_vertices, n_path;
    double centroid_nll;
    const struct cr_report_pair *settings;
    size_t n_settings;
    const char *command; /* the line of the run; NULL when unknown */
};

/* train.jsonl and summary.json of the adapter directory (anything else: nothing). Files that are absent leave all
 * untouched, broken ones are warned of. Errors: CR_E_MEMORY. */
cr_status cr_review_training(const char *dir, const struct cr_host *host, struct cr_kept *kept,
                             struct cr_training *training, struct cr_error *err);

/* The runs that made the adapters: their course, settings, and the lines that repeat them, which are put into commands
 * (room for n) by *n_commands. Errors: CR_E_MEMORY. */
cr_status cr_review_runs(const char *const *dirs, size_t n, const struct cr_host *host, struct cr_kept *kept,
                         struct cr_report *report, struct cr_report_pair *commands, size_t *n_commands,
                         struct cr_error *err);

/* Charts of one run, or of several by name (name NULL: the only one). Sets report->training when there is something to
 * show. Errors: CR_E_MEMORY. */
cr_status cr_review_training_charts(const struct cr_training *runs, const char *const *names, size_t n,
                                    struct cr_kept *kept, struct cr_report *report, struct cr_error *err);

/* The most confident mistakes of the first evaluation, or its texts with the highest NLL a token, with their words from
 * the data file, and what each evaluation answered. outcomes: one list an evaluation, of the same examples. A file that
 * cannot be read or has changed is warned of, and the page says so. Errors: CR_E_MEMORY. */
struct cr_review_source {
    const char *data, *data_hash;
    const char *const *task_names;
    const struct cr_outcomes *const *outcomes; /* [n] */
    const char *const *names;                  /* [n]; NULL: the only one */
    size_t n;
};
cr_status cr_review_examples(const struct cr_review_source *source, const struct cr_host *host, struct cr_kept *kept,
                             struct cr_report *report, struct cr_error *err);

#endif
