/* scoring_parts: what the files of scoring share. */
#ifndef CR_EVAL_SCORING_PARTS_H
#define CR_EVAL_SCORING_PARTS_H

#include "runtime/eval/scoring.h"

/* scoring_load.c: all files of examples, once it is known which sets of weights answer. */
cr_status cr_scoring_load_sets(struct cr_scoring *s, struct cr_error *err);
void cr_scoring_close_set(struct cr_scoring_set *set);

/* Whether a Laplace posterior is being made: its validation file stands where a calibration's does. */
bool cr_scoring_gathers(const struct cr_scoring *s);

/* scoring_give.c: one score an example of the batch in s->batch, whose results are in s->scratch and s->linear. */
cr_status cr_scoring_give(const struct cr_scoring *s, const struct cr_scoring_set *set, cr_score_fn *fn, void *ctx,
                          struct cr_error *err);

/* The refusal of an example for which the model says no number. */
cr_status cr_scoring_not_finite(const struct cr_scoring_set *set, const struct cr_example *example,
                                struct cr_error *err);

#endif
