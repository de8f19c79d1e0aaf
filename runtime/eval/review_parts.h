/* review_parts: the pieces of a page that come from files. Private to runtime/eval. */
#ifndef CR_EVAL_REVIEW_PARTS_H
#define CR_EVAL_REVIEW_PARTS_H

#include <jansson.h>

#include "runtime/eval/review.h"
#include "runtime/report/report.h"

/* Texts and arrays that live as long as the page is made. */
struct cr_kept {
    void **blocks; /* owned, each owned */
    size_t n, capacity;
};

/* Takes a block; NULL (or no room) is CR_E_MEMORY, and the block is freed. */
cr_status cr_kept_add(struct cr_kept *kept, void *block, struct cr_error *err);
/* Takes the buffer's bytes; *out borrows them from kept. */
cr_status cr_kept_text(struct cr_kept *kept, struct cr_buf *buf, const char **out, struct cr_error *err);
void cr_kept_free(struct cr_kept *kept);

/* Appends "credence COMMAND --flag value ..." as a shell takes it. flags: object of flags by their long names. */
void cr_command_line(struct cr_buf *out, const char *command, const json_t *flags);

/* train.jsonl and summary.json of the adapter directory: loss, valid, rate, settings of the report, and the command
 * line of the run in *command (NULL when unknown). Files that are absent leave all untouched, broken ones are warned
 * of. Errors: CR_E_MEMORY. */
cr_status cr_review_training(const char *dir, const struct cr_host *host, struct cr_kept *kept,
                             struct cr_report *report, const char **command, struct cr_error *err);

/* The most confident mistakes, or the texts with the highest NLL a token, with their words from the data file.
 * Errors: CR_E_MEMORY. */
cr_status cr_review_examples(const struct cr_scoring *scoring, const struct cr_outcomes *outcomes, struct cr_kept *kept,
                             struct cr_report *report, struct cr_error *err);

#endif
