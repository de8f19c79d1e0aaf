/* What a checkpoint of a run holds, and putting it back. */
#include "runtime/train/train.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"

/* Checkpoints that may fail one after the other before the run ends. */
enum { MAX_FAILED_SAVES = 3 };

static uint64_t examples_a_step(const struct cr_train *train)
{
    return (uint64_t)train->options.batch_size * train->options.grad_accumulation_steps;
}

static size_t history_bytes(const struct cr_train_history *history)
{
    return sizeof *history + (size_t)history->n_evals * sizeof history->evals[0];
}

static cr_status write_file(struct cr_train *train, const char *path, struct cr_error *err)
{
    if (cr_gguf_changed(train->model->gguf)) {
        return cr_fail(err, CR_E_IO, "%s: the model file changed while in use", train->model->path);
    }
    cr_journal_sync(train);
    uint64_t rng[2] = {train->options.seed, train->step};
    uint64_t position[2] = {train->step / train->steps_per_epoch,
                            train->step % train->steps_per_epoch * examples_a_step(train)};
    const struct cr_checkpoint_section common[] = {
        {CR_CKPT_RNG, rng, sizeof rng},
        {CR_CKPT_POSITION, position, sizeof position},
        {CR_CKPT_HISTORY, train->history, history_bytes(train->history)},
        {CR_CKPT_DIGESTS, train->digests, strlen(train->digests)},
        {CR_CKPT_JOURNAL, &train->journal_lines, sizeof train->journal_lines},
        {CR_CKPT_ADAPTER, train->shapes, strlen(train->shapes)},
    };
    struct cr_checkpoint_section sections[CR_CKPT_MAX_SECTIONS] = {
        {CR_CKPT_SETTINGS, train->settings, strlen(train->settings)},
        {CR_CKPT_WEIGHTS, train->method->point(train->state), train->adapter->n_params * sizeof(float)},
    };
    size_t n = 2 + train->method->sections(train->state, sections + 2);
    memcpy(sections + n, common, sizeof common);
    n += sizeof common / sizeof common[0];
    if (train->has_best) {
        sections[n++] = (struct cr_checkpoint_section){CR_CKPT_BEST, train->best, train->best_bytes};
    }
    return cr_checkpoint_write(path, train->run_id, train->step, sections, n, err);
}

cr_status cr_train_save(struct cr_train *train, bool must, bool fresh, struct cr_error *err)
{
    char *path = cr_checkpoint_path(train->checkpoint_dir, train->step);
    if (path == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a path");
    }
    struct cr_error why = {0};
    cr_status status = write_file(train, path, &why);
    if (status == CR_OK) {
        train->failed_saves = 0;
        cr_free(train->last_checkpoint);
        train->last_checkpoint = path;
        cr_checkpoint_retain(train->checkpoint_dir, train->run_id, train->step, train->options.keep_checkpoints, fresh);
        return CR_OK;
    }
    cr_free(path);
    train->failed_saves++;
    bool changed = cr_gguf_changed(train->model->gguf);
    if (must || changed || train->failed_saves >= MAX_FAILED_SAVES) {
        return cr_fail(err, status, "%.480s%s%.200s", why.message,
                       train->last_checkpoint != NULL ? "; last checkpoint: " : "",
                       train->last_checkpoint != NULL ? train->last_checkpoint : "");
    }
    cr_host_log(train->host, CR_LOG_WARNING, "checkpoint at step %" PRIu64 " failed: %s", train->step, why.message);
    return CR_OK;
}

static cr_status get_numbers(const struct cr_checkpoint *checkpoint, uint32_t kind, size_t n, float *out,
                             struct cr_error *err)
{
    char what[32];
    snprintf(what, sizeof what, "section %u: parameter", kind);
    CR_TRY(cr_checkpoint_get(checkpoint, kind, NULL, out, n * sizeof *out, err));
    return cr_checkpoint_finite(what, out, n, err);
}

static cr_status get_history(struct cr_train *train, const struct cr_checkpoint *checkpoint, struct cr_error *err)
{
    const struct cr_checkpoint_section *section = cr_checkpoint_find(checkpoint, CR_CKPT_HISTORY);
    struct cr_train_history head;
    if (section == NULL || section->bytes < sizeof head) {
        return cr_fail(err, CR_E_INPUT, "history missing or cut");
    }
    memcpy(&head, section->data, sizeof head);
    size_t room = (section->bytes - sizeof head) / sizeof head.evals[0];
    if (head.layout != sizeof head || head.n_evals != room || section->bytes != history_bytes(&head)) {
        return cr_fail(err, CR_E_INPUT,
                       "history of %zu bytes with %" PRIu64 " evaluations, layout %" PRIu64 ", expected layout %zu",
                       section->bytes, head.n_evals, head.layout, sizeof head);
    }
    uint64_t behind = checkpoint->step / cr_train_eval_every(train); /* by the present settings */
    size_t all = room + (behind < train->max_evals ? train->max_evals - (size_t)behind : 0);
    if (all > train->max_evals) { /* other settings were allowed */
        struct cr_train_history *larger = cr_alloc(1, sizeof head + all * sizeof head.evals[0]);
        if (larger == NULL) {
            return cr_fail(err, CR_E_MEMORY, "no memory for %zu evaluations", all);
        }
        cr_free(train->history);
        train->history = larger;
        train->max_evals = all;
    }
    memcpy(train->history, section->data, section->bytes);
    return CR_OK;
}

/* The best result, and what is remembered of it: of a run that kept none (other settings were allowed) nothing counts
 * as best yet. A run that stopped early goes on where patience is switched off or longer by now. */
static cr_status get_best(struct cr_train *train, const struct cr_checkpoint *checkpoint, struct cr_error *err)
{
    struct cr_train_history *h = train->history;
    uint32_t patience = train->options.patience;
    if (patience == 0 || h->n_without_better < patience) {
        h->finished = 0;
    }
    train->has_best = train->best != NULL && cr_checkpoint_find(checkpoint, CR_CKPT_BEST) != NULL;
    if (train->has_best) {
        return get_numbers(checkpoint, CR_CKPT_BEST, train->best_bytes / sizeof(float), train->best, err);
    }
    if (train->best != NULL) {
        h->best_nll = (double)NAN;
        h->best_step = h->n_without_better = 0;
    }
    return CR_OK;
}

static cr_status restore(struct cr_train *train, const struct cr_checkpoint *checkpoint, struct cr_error *err)
{
    uint64_t rng[2];
    uint64_t position[2];
    float *params = train->adapter->params;
    CR_TRY(get_numbers(checkpoint, CR_CKPT_WEIGHTS, train->adapter->n_params, params, err));
    CR_TRY(train->method->restore(train->state, params, checkpoint, err));
    CR_TRY(get_history(train, checkpoint, err));
    CR_TRY(cr_checkpoint_get(checkpoint, CR_CKPT_RNG, NULL, rng, sizeof rng, err));
    CR_TRY(cr_checkpoint_get(checkpoint, CR_CKPT_POSITION, NULL, position, sizeof position, err));
    CR_TRY(
        cr_checkpoint_get(checkpoint, CR_CKPT_JOURNAL, NULL, &train->journal_lines, sizeof train->journal_lines, err));
    train->step = checkpoint->step;
    if (rng[1] != train->step) {
        return cr_fail(err, CR_E_INPUT, "random numbers stand at step %" PRIu64 ", the file at step %" PRIu64, rng[1],
                       train->step);
    }
    /* The place in the data is a function of the step; another one means other settings, which were allowed. */
    if (position[0] != train->step / train->steps_per_epoch ||
        position[1] != train->step % train->steps_per_epoch * examples_a_step(train)) {
        if (!train->options.allow_inexact) {
            return cr_fail(err, CR_E_INPUT,
                           "data position epoch %" PRIu64 " example %" PRIu64 " does not belong to step %" PRIu64,
                           position[0], position[1], train->step);
        }
    }
    return get_best(train, checkpoint, err);
}

cr_status cr_train_restore(struct cr_train *train, const struct cr_checkpoint *checkpoint, const char *path,
                           struct cr_error *err)
{
    cr_status status = restore(train, checkpoint, err);
    return status == CR_E_INPUT ? cr_fail_prefix(err, status, "%s", path) : status; /* what the file is to blame for */
}
