/* Looking at the held-out examples: what is best so far, and whether to go on. */
#include "runtime/train/train.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "runtime/core/clock.h"
#include "runtime/eval/nll.h"

/* Held-out examples that are looked at where each takes many passes. */
enum { TRIAL_EXAMPLES = 200, TRIAL_LEAST = 32 };

uint64_t cr_train_eval_every(const struct cr_train *train)
{
    return train->options.eval_every > 0 ? train->options.eval_every : train->steps_per_epoch;
}

bool cr_train_eval_due(const struct cr_train *train)
{
    return train->n_valid > 0 && train->step > 0 && train->history->last_eval_step != train->step &&
           (train->step % cr_train_eval_every(train) == 0 || train->step == train->n_steps);
}

static void remember(struct cr_train *train, double nll)
{
    struct cr_train_history *h = train->history;
    if (h->n_evals < train->max_evals) {
        h->evals[h->n_evals++] = (struct cr_train_eval){.step = train->step, .nll = nll};
    }
    h->last_eval_step = train->step;
    if (train->method->evaluated != NULL) {
        train->method->evaluated(train->state, train->step, nll);
    }
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
        cr_host_log(train->host, CR_LOG_INFO,
                    "early stop at step %" PRIu64 ": %" PRIu64 " evaluations without a better validation loss",
                    train->step, h->n_without_better);
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

/* Examples where each is looked at several times: at most so many, spread evenly over the held-out ones. */
static size_t n_spread(const struct cr_train *train)
{
    uint64_t n = TRIAL_EXAMPLES, passes = train->method->tune_passes;
    if (passes > 0) { /* a pass is a third of a step's work: together a thirtieth of the run */
        uint64_t seen = train->n_steps * train->options.batch_size * train->options.grad_accumulation_steps;
        n = seen / (10 * passes) < n ? seen / (10 * passes) : n;
        n = n > TRIAL_LEAST ? n : TRIAL_LEAST;
    }
    return train->n_valid < n ? train->n_valid : (size_t)n;
}

/* Returns how many. */
static size_t spread(const struct cr_train *train, uint32_t *out)
{
    size_t n = n_spread(train);
    for (size_t i = 0; i < n; i++) {
        out[i] = train->valid_pool[i * train->n_valid / n];
    }
    return n;
}

double cr_train_looks(const struct cr_train *train)
{
    uint32_t n_looks = train->method->n_looks != NULL ? train->method->n_looks(train->state) : 0;
    return n_looks == 0 || train->n_valid == 0 ? 1 : n_looks * (double)n_spread(train) / (double)train->n_valid;
}

void cr_train_show_point(struct cr_train *train)
{
    if (train->method->show_point != NULL) {
        train->method->show_point(train->state);
    }
}

/* Every look counts like an example of its own. */
static cr_status look(struct cr_train *train, struct cr_nll *nll, struct cr_error *err)
{
    const struct cr_method *method = train->method;
    struct cr_nll_job job = job_of(train);
    uint32_t some[TRIAL_EXAMPLES], n_looks = method->n_looks != NULL ? method->n_looks(train->state) : 0;
    double sum = 0;
    if (n_looks == 0) {
        cr_train_show_point(train);
        return cr_nll_mean(&job, nll, err);
    }
    struct cr_dataset whole = cr_dataset_whole(train->valid);
    job.dataset = train->looks_whole ? &whole : train->valid;
    job.n = spread(train, some);
    job.examples = some;
    for (uint32_t i = 0; i < n_looks; i++) {
        method->look(train->state, i);
        CR_TRY(cr_nll_mean(&job, nll, err));
        sum += nll->mean;
    }
    nll->mean = sum / n_looks;
    nll->n_targets *= n_looks;
    return CR_OK;
}

cr_status cr_train_validate(struct cr_train *train, struct cr_error *err)
{
    struct cr_nll nll;
    uint64_t start = cr_clock_ns();
    CR_TRY(look(train, &nll, err));
    double seconds = cr_clock_since(start);
    remember(train, nll.mean);
    cr_host_log(train->host, CR_LOG_INFO, "step %" PRIu64 ": validation loss %.4f over %" PRIu64 " %s (%.1f s)%s",
                train->step, nll.mean, train->set_of != NULL ? (uint64_t)train->n_valid : nll.n_targets,
                train->set_of != NULL || train->data.classification ? "examples" : "tokens", seconds,
                train->history->best_step == train->step ? ", best so far" : "");
    return CR_OK;
}

static cr_status trial_nll(void *ctx, double *out, struct cr_error *err)
{
    struct cr_train *train = ctx;
    struct cr_nll_job job = job_of(train);
    struct cr_nll nll;
    uint32_t some[TRIAL_EXAMPLES];
    job.n = spread(train, some);
    job.examples = some;
    job.each = out;
    return cr_nll_mean(&job, &nll, err);
}

uint64_t cr_train_trial_targets(const struct cr_train *train)
{
    uint32_t some[TRIAL_EXAMPLES];
    uint64_t n = 0;
    size_t n_some = train->method->tune != NULL ? spread(train, some) : 0;
    for (size_t i = 0; i < n_some; i++) {
        n += train->valid->examples[some[i]].n_targets;
    }
    return n;
}

cr_status cr_train_tune(struct cr_train *train, struct cr_error *err)
{
    if (train->method->tune == NULL) {
        return CR_OK;
    }
    struct cr_method_trial given = {train, cr_train_trial_targets(train), trial_nll};
    if (given.n_targets == 0) {
        return CR_OK;
    }
    cr_train_show_point(train);
    return train->method->tune(train->state, &given, err);
}
