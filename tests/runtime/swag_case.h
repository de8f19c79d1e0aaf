/* swag_case: settings of whole runs with method swag, and what their summaries say. */
#ifndef CR_TESTS_SWAG_CASE_H
#define CR_TESTS_SWAG_CASE_H

#include <check.h>
#include <jansson.h>
#include <stdio.h>

#include "tests/support/train_test.h"

/* Ten steps: from step 4 on a snapshot after each second one, so after steps 6, 8 and 10. */
static inline void full_init(struct cr_train_run *run, const char *output)
{
    cr_train_full_init(run, output);
    run->options.method = "swag";
    run->options.steps = 10;
    run->options.swag_start = 0.4;
    run->options.swag_every = 2;
    run->options.swag_rank = 2;
    run->options.swag_lr = 1e-2;
    run->options.swag_anneal = 2;
    run->options.targets = "q_proj,k_proj,down_proj";
    run->options.save_every = 1;
    run->options.keep_checkpoints = 20;
    run->options.report_every = 1;
}

/* The same with label rows. */
static inline void head_init(struct cr_train_run *run, const char *output)
{
    full_init(run, output);
    run->options.swag_head = CR_YES;
    run->options.head_lr = 2e-2;
}

/* What summary.json of an output says of its posterior. Owned. */
static inline json_t *facts_of(const char *output)
{
    char path[300];
    snprintf(path, sizeof path, "%s/summary.json", output);
    json_t *summary = json_load_file(cr_train_path(path), 0, NULL);
    ck_assert_ptr_nonnull(summary);
    json_t *facts = json_incref(json_object_get(summary, "posterior"));
    json_decref(summary);
    return facts;
}

#endif
