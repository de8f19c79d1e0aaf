/* ensemble_case: settings of whole runs with method ensemble, and the adapter of one member. */
#ifndef CR_TESTS_ENSEMBLE_CASE_H
#define CR_TESTS_ENSEMBLE_CASE_H

#include <check.h>

#include "tests/support/train_test.h"

enum { N_MEMBERS = 3 };

static inline void full_init(struct cr_train_run *run, const char *output)
{
    cr_train_full_init(run, output);
    run->options.method = "ensemble";
    run->options.members = N_MEMBERS;
    run->options.targets = "q_proj,k_proj,v_proj,o_proj";
    run->options.save_every = 1;
    run->options.keep_checkpoints = 20;
    run->options.report_every = 1;
}

/* Label rows of their own, with a rate of their own. */
static inline void with_heads(struct cr_train_run *run, bool heads)
{
    run->options.member_heads = heads;
    run->options.head_lr = heads ? 1e-3 : 0;
    run->options.head_noise = 0.05;
}

static inline void export_member(const char *from, uint32_t member, const char *to)
{
    struct cr_error err = {0};
    struct cr_export_options o = {.size = sizeof o,
                                  .adapter = cr_train_kept(from),
                                  .output = cr_train_kept(to),
                                  .format = "peft",
                                  .member_set = true,
                                  .member = member};
    ck_assert_msg(cr_export(&o, NULL, &err) == CR_OK, "%s", err.message);
}

#endif
