/* Looking at the held-out examples: what is best so far, and whether to go on. */
#include "runtime/train/train.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "runtime/core/clock.h"
#include "runtime/eval/nll.h"

bool cr_train_eval_due(const struct cr_train *train)
{
    uint64_t every = train->options.eval_every > 0 ? train->options.eval_every : train->steps_per_epoch;
    return train->n_valid > 0 && train->step > 0 && train->history->last_eval_step != train->step &&
           (train->step % every == 0 || train->step == train->n_steps);
}

static void remember(struct cr_train *train, double nll)
{
    struct cr_train_history *h = train->history;
    if (h->n_evals < train->max_evals) {
        h->evals[h->n_evals++] = (struct cr_train_eval){.step = train->step, .nll = nll};
    }
    h->last_eval_step = train->step;
    if (train->method->ready != NULL && !train->method->ready(train->state)) {
        return; /* what this method gives does not exist yet */
    }
    if (isfinite(nll) && !(nll >= h->best_nll)) { /* true for the first, when best_nll is NaN */
        h->best_nll = nll;
        h->best_step = train->step;
        h->n_without_better = 0;
        if (train->best != NULL) {
            train->method->take_result(train->state, train->best);
            train->has_best = true;
        }
        return;
    }
    h->n_without_better++;
    if (train->options.patience > 0 && h->n_without_better >= train->options.patience) {
        h->finished = 1;
        cr_host_log(train->host, CR_LOG_INFO, "early stop at step %" PRIu64 ": %" PRIu64
                    " evaluations without a better validation loss", train->step, h->n_without_better);
    }
}

cr_status cr_train_validate(struct cr_train *train, struct cr_error *err)
{
    struct cr_nll_job job = {.engine = train->engine,
                             .batch = &train->batch,
                             .dataset = train->valid,
                             .examples = train->valid_pool,
                             .n = train->n_valid,
                             .n_labels = train->n_labels,
                             .scratch = train->scratch,
                             .host = train->host};
    struct cr_nll nll;
    uint64_t start = cr_clock_ns();
    train->method->show_point(train->state);
    CR_TRY(cr_nll_mean(&job, &nll, err));
    double seconds = cr_clock_since(start);
    remember(train, nll.mean);
    cr_host_log(train->host, CR_LOG_INFO, "step %" PRIu64 ": validation loss %.4f over %" PRIu64 " %s (%.1f s)%s",
                train->step, nll.mean, nll.n_targets, train->data.classification ? "examples" : "tokens", seconds,
                train->history->best_step == train->step ? ", best so far" : "");
    return CR_OK;
}
