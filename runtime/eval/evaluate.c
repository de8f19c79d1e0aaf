/* cr_eval: the figures of a file, for each task and for all of it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/eval/metrics.h"
#include "runtime/eval/outcome.h"
#include "runtime/eval/result.h"
#include "runtime/eval/review.h"
#include "runtime/eval/scoring.h"
#include "runtime/thread/float_env.h"

static cr_status keep(void *ctx, const struct cr_score *score, struct cr_error *err)
{
    struct cr_outcomes *outcomes = ctx;
    struct cr_outcome *o = &outcomes->items[outcomes->n++];
    (void)err;
    *o = (struct cr_outcome){.index = score->index,
                             .n_targets = (uint32_t)score->n_targets,
                             .task = score->example->task,
                             .nll = score->nll};
    if (score->probs != NULL) {
        uint32_t n = score->example->n_choices;
        o->prediction = (uint32_t)cr_argmax(score->probs, n);
        o->confidence = score->probs[o->prediction];
        o->correct = o->prediction == score->example->answer;
        o->brier = cr_brier(score->probs, n, score->example->answer);
    }
    return CR_OK;
}

/* One group a task that has examples, in the order in which the file names them. */
static cr_status measure_tasks(const struct cr_scoring *s, const struct cr_outcomes *all, struct cr_eval_result *r,
                               struct cr_error *err)
{
    r->groups = cr_zalloc(s->data.n_tasks, sizeof *r->groups);
    if (r->groups == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %zu tasks", s->data.n_tasks);
    }
    for (size_t t = 0; t < s->data.n_tasks; t++) {
        struct cr_outcomes part;
        struct cr_group_metrics *group = &r->groups[r->n_groups];
        CR_TRY(cr_outcomes_of_task(all, (int32_t)t, &part, err));
        cr_status status = cr_outcomes_measure(&part, group, err);
        cr_free(part.items);
        CR_TRY(status);
        snprintf(group->task, sizeof group->task, "%s", s->data.task_names[t]);
        r->n_groups += part.n > 0;
    }
    return CR_OK;
}

static cr_status evaluate(struct cr_scoring *s, struct cr_outcomes *all, struct cr_eval_result *r, struct cr_error *err)
{
    all->classification = s->data.classification;
    all->n_bins = s->options.n_bins;
    all->items = cr_alloc(s->n, sizeof *all->items);
    if (all->items == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %zu results", s->n);
    }
    CR_TRY(cr_scoring_run(s, keep, all, err));
    CR_TRY(cr_outcomes_measure(all, &r->all, err));
    CR_TRY(measure_tasks(s, all, r, err));
    r->classification = all->classification;
    r->tokens = s->tokens;
    r->seconds = s->seconds;
    r->tok_s = s->seconds > 0 ? (double)s->tokens / s->seconds : 0;
    memcpy(r->method, s->method, sizeof r->method);
    if (s->options.json != NULL) {
        CR_TRY(cr_result_write(r, s->options.model, s->options.json, err));
    }
    return s->options.report != NULL ? cr_review_write(s, all, r, err) : CR_OK;
}

cr_status cr_eval(const struct cr_eval_options *options, const struct cr_host *host, struct cr_eval_result *result,
                  struct cr_error *err)
{
    struct cr_scoring scoring = {0};
    struct cr_outcomes outcomes = {0};
    struct cr_eval_result made = {0};
    uint64_t saved = cr_float_env_enter();
    cr_status status = cr_scoring_open(options, host, &scoring, err);
    if (status == CR_OK) {
        status = evaluate(&scoring, &outcomes, &made, err);
    }
    cr_float_env_leave(saved);
    cr_free(outcomes.items);
    cr_scoring_close(&scoring);
    if (status == CR_OK && result != NULL) {
        *result = made;
    } else {
        cr_eval_result_deinit(&made);
    }
    return status;
}

void cr_eval_result_deinit(struct cr_eval_result *result)
{
    if (result != NULL) {
        cr_free(result->groups);
        result->groups = NULL;
        result->n_groups = 0;
    }
}
