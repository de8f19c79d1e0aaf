/* Optimiser steps, and what happens between them. */
#include "runtime/train/train.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "runtime/core/clock.h"

/* Steps without a finite loss and gradient, one after the other: the first is skipped, from the second on the learning
 * rate is halved for the rest of the run, and so many end it. */
enum { MAX_BAD_STEPS = 3 };

/* The examples of the present step: a slice of the epoch's order. */
static const uint32_t *examples_of_step(struct cr_train *train, size_t *n)
{
    uint64_t epoch = train->step / train->steps_per_epoch;
    if (epoch != train->order_epoch) {
        cr_epoch_order(train->train_pool, train->n_train, train->options.seed, (uint32_t)epoch, train->order);
        train->order_epoch = epoch;
    }
    size_t per_step = (size_t)train->options.batch_size * train->options.grad_accumulation_steps;
    size_t begin = (size_t)(train->step % train->steps_per_epoch) * per_step;
    *n = train->n_train - begin < per_step ? train->n_train - begin : per_step;
    return train->order + begin;
}

static cr_status diverged(const struct cr_train *train, const char *what, double value, struct cr_error *err)
{
    const char *last = train->last_checkpoint;
    return cr_fail(err, CR_E_DIVERGED,
                   "training diverged at step %" PRIu64 ": %s is %g; a smaller --lr or a --warmup helps%s%.300s%s",
                   train->step + 1, what, value, last != NULL ? "; last finite checkpoint: " : "",
                   last != NULL ? last : "",
                   last != NULL ? " (credence export -a FILE -o OUT writes its adapter)" : "");
}

static cr_status skip_step(struct cr_train *train, const char *what, double value, struct cr_error *err)
{
    struct cr_train_history *h = train->history;
    h->n_skipped++;
    h->n_bad_in_row++;
    if (h->n_bad_in_row >= MAX_BAD_STEPS) {
        return diverged(train, what, value, err);
    }
    h->n_halvings += h->n_bad_in_row > 1;
    cr_host_log(train->host, CR_LOG_WARNING, "step %" PRIu64 " skipped: %s is %g%s", train->step + 1, what, value,
                h->n_bad_in_row > 1 ? "; the learning rate is halved from here on" : "");
    train->step++;
    return CR_OK;
}

double cr_train_lr(const struct cr_train *train, uint64_t step)
{
    double lr =
        train->method->lr != NULL ? train->method->lr(train->state, step) : cr_schedule_lr(&train->schedule, step);
    return ldexp(lr, -(int)train->history->n_halvings);
}

/* All passes of a step, the method deciding where the gradient is taken. Stops after the first pass that is not
 * finite. */
static cr_status run_passes(struct cr_train *train, struct cr_step_result *result, struct cr_error *err)
{
    const struct cr_method *method = train->method;
    size_t n;
    const uint32_t *examples = examples_of_step(train, &n);
    uint32_t n_passes = method->n_passes != NULL ? method->n_passes(train->state) : 1;
    double loss_sum = 0, norm2_sum = 0;
    result->finite = true;
    for (uint32_t pass = 0; pass < n_passes && result->finite; pass++) {
        double loss = 0;
        uint64_t tokens = 0;
        if (method->begin_pass != NULL) {
            method->begin_pass(train->state, train->step, pass);
        }
        memset(train->adapter->grads, 0, train->adapter->n_params * sizeof *train->adapter->grads);
        CR_TRY(cr_train_accumulate(train, examples, n, train->step * n_passes + pass, &loss, &tokens, err));
        if (method->regularise != NULL) {
            method->regularise(train->state);
        }
        double norm2 = cr_norm2_of(&train->norm2, train->adapter->grads);
        loss_sum += loss;
        norm2_sum += norm2;
        result->tokens = tokens; /* passes over the same tokens do not multiply them */
        result->finite = isfinite(loss) && isfinite(norm2);
        if (result->finite && method->end_pass != NULL) {
            method->end_pass(train->state, train->step, pass);
        }
    }
    result->loss = loss_sum / n_passes;
    result->norm = sqrt(norm2_sum / n_passes);
    return CR_OK;
}

cr_status cr_train_step(struct cr_train *train, struct cr_step_result *result, struct cr_error *err)
{
    *result = (struct cr_step_result){0};
    CR_TRY(run_passes(train, result, err));
    struct cr_train_history *h = train->history;
    h->tokens += result->tokens;
    if (!result->finite) {
        return isfinite(result->loss) ? skip_step(train, "the gradient's norm", result->norm, err)
                                      : skip_step(train, "the loss", result->loss, err);
    }
    struct cr_method_step step = {.step = train->step, .lr = cr_train_lr(train, train->step), .norm = result->norm};
    train->method->update(train->state, &step);
    double weights2 = cr_norm2_of(&train->norm2, train->method->point(train->state));
    if (!isfinite(weights2)) {
        return diverged(train, "the norm of the weights", sqrt(weights2), err);
    }
    h->n_bad_in_row = 0;
    h->report_loss += result->loss;
    h->report_steps++;
    train->step++;
    return CR_OK;
}

static bool at_end(const struct cr_train *train)
{
    return train->step >= train->n_steps || train->history->finished != 0;
}

/* A step with its clock and its report. */
static cr_status timed_step(struct cr_train *train, struct cr_error *err)
{
    struct cr_step_result result;
    cr_trace_step(train->trace, train->step);
    uint64_t start = cr_clock_ns();
    CR_TRY(cr_train_step(train, &result, err));
    double seconds = cr_clock_since(start);
    train->train_seconds += seconds;
    train->report_seconds += seconds;
    bool report = train->step % train->options.report_every == 0 || train->step == train->n_steps;
    cr_train_report(train, &result, report);
    if (report && train->method->watch != NULL) {
        train->method->watch(train->state, train->host);
    }
    return CR_OK;
}

/* The end that the host asked for, between two steps or within one: a step that did not end has changed nothing. */
static cr_status stopped(struct cr_train *train, bool saved, struct cr_error *err)
{
    if (!saved) {
        CR_TRY(cr_train_save(train, true, false, err));
    }
    return cr_fail(err, CR_E_STOPPED, "stopped at step %" PRIu64 " of %" PRIu64 "; --resume continues from %.400s",
                   train->step, train->n_steps, train->last_checkpoint != NULL ? train->last_checkpoint : "the start");
}

/* Evaluation of the present step. A stop in its middle leaves it undone: the checkpoint says so and a resume redoes
 * it. */
static cr_status evaluate(struct cr_train *train, bool saved, struct cr_error *err)
{
    struct cr_error why = {0};
    cr_status status = cr_train_validate(train, &why);
    if (status == CR_E_STOPPED) {
        return stopped(train, saved, err);
    }
    return status == CR_OK ? CR_OK : cr_fail(err, status, "%s", why.message);
}

cr_status cr_train_loop(struct cr_train *train, struct cr_error *err)
{
    bool saved = train->last_checkpoint != NULL; /* the present state is on disk */
    for (;;) {
        if (cr_train_eval_due(train)) {
            CR_TRY(evaluate(train, saved, err));
            saved = false;
        }
        if (!saved && (at_end(train) || train->step % train->options.save_every == 0)) {
            CR_TRY(cr_train_save(train, false, false, err));
            saved = train->failed_saves == 0;
        }
        if (at_end(train)) {
            return CR_OK;
        }
        if (cr_host_stopped(train->host)) {
            return stopped(train, saved, err);
        }
        struct cr_error why = {0};
        cr_status status = timed_step(train, &why);
        if (status != CR_OK) {
            return status == CR_E_STOPPED ? stopped(train, saved, err) : cr_fail(err, status, "%s", why.message);
        }
        saved = false;
    }
}
