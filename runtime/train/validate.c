/* Looking at the held-out examples: what is best so far, and whether to go on. */
#include "runtime/train/train.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/clock.h"
#include "runtime/eval/nll.h"

/* Held-out examples that choices at the end look at: many passes over each. */
enum { TRIAL_EXAMPLES = 200 };

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

static struct cr_nll_job job_of(struct cr_train *train)
{
    return (struct cr_nll_job){.engine = train->engine,
                               .batch = &train->batch,
                               .dataset = train->valid,
                               .examples = train->valid_pool,
                               .n = train->n_valid,
                               .n_labels = train->n_labels,
                               .n_sets = train->n_sets,
                               .set_of = train->valid_set_of,
                               .set_nll = train->set_loss,
                               .scratch = train->scratch,
                               .host = train->host};
}

cr_status cr_train_validate(struct cr_train *train, struct cr_error *err)
{
    struct cr_nll_job job = job_of(train);
    struct cr_nll nll;
    uint64_t start = cr_clock_ns();
    train->method->show_point(train->state);
    CR_TRY(cr_nll_mean(&job, &nll, err));
    double seconds = cr_clock_since(start);
    remember(train, nll.mean);
    cr_host_log(train->host, CR_LOG_INFO, "step %" PRIu64 ": validation loss %.4f over %" PRIu64 " %s (%.1f s)%s",
                train->step, nll.mean,
                train->set_of != NULL ? (uint64_t)train->n_valid : nll.n_targets,
                train->set_of != NULL || train->data.classification ? "examples" : "tokens", seconds,
                train->history->best_step == train->step ? ", best so far" : "");
    return CR_OK;
}

struct trial {
    struct cr_train *train;
    uint32_t *examples; /* owned: spread evenly over the held-out ones */
};

static size_t trial_examples(const struct cr_train *train)
{
    return train->method->tune == NULL ? 0 : train->n_valid < TRIAL_EXAMPLES ? train->n_valid : TRIAL_EXAMPLES;
}

static uint32_t trial_example(const struct cr_train *train, size_t i)
{
    return train->valid_pool[i * train->n_valid / trial_examples(train)];
}

static cr_status trial_nll(void *ctx, double *out, struct cr_error *err)
{
    const struct trial *trial = ctx;
    struct cr_nll_job job = job_of(trial->train);
    struct cr_nll nll;
    job.examples = trial->examples;
    job.n = trial_examples(trial->train);
    job.each = out;
    return cr_nll_mean(&job, &nll, err);
}

uint64_t cr_train_trial_targets(const struct cr_train *train)
{
    uint64_t n = 0;
    for (size_t i = 0; i < trial_examples(train); i++) {
        n += train->valid->examples[trial_example(train, i)].n_targets;
    }
    return n;
}

cr_status cr_train_tune(struct cr_train *train, struct cr_error *err)
{
    struct trial trial = {.train = train};
    struct cr_method_trial given = {&trial, cr_train_trial_targets(train), trial_nll};
    if (given.n_targets == 0) {
        return CR_OK;
    }
    trial.examples = cr_alloc(trial_examples(train), sizeof *trial.examples);
    if (trial.examples == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for held-out examples");
    }
    for (size_t i = 0; i < trial_examples(train); i++) {
        trial.examples[i] = trial_example(train, i);
    }
    train->method->show_point(train->state);
    cr_status status = train->method->tune(train->state, &given, err);
    cr_free(trial.examples);
    return status;
}
