/* cr_finetune: from options to a finished output directory. */
#include "runtime/train/train.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "runtime/adapter/prefix_adapter.h"
#include "runtime/core/alloc.h"
#include "runtime/core/clock.h"
#include "runtime/posterior/output_dir.h"
#include "runtime/posterior/own_head.h"

enum { PROBE_STEPS = 3 };

static cr_status start_adapter(struct cr_train *train, struct cr_error *err)
{
    struct cr_finetune_options *o = &train->options;
    if (train->method->prefix) {
        uint32_t n_labels = train->data.classification ? train->n_labels : 0;
        cr_prefix_shape_of(train->model, o->vertices, o->prefix_length, n_labels, &train->prefix_shape);
        return CR_OK;
    }
    if (o->adapter == NULL) {
        return cr_targets_parse(o->targets, &train->targets, err);
    }
    CR_TRY(cr_adapter_load(o->adapter, train->model, true, o->allow_inexact, train->host, &train->adapter, err));
    if (train->adapter->prefix != NULL) {
        return cr_fail(err, CR_E_USAGE, "--adapter: a prefix, which --method %s cannot go on from",
                       train->method->name);
    }
    if (train->adapter->n_labels > 0) {
        return cr_fail(err, CR_E_USAGE, "--adapter: label rows of a member's own cannot be continued from");
    }
    if (cr_headless(train->adapter)) {
        cr_host_log(train->host, CR_LOG_WARNING, "--adapter: trained with label rows of its own, which are not here");
    }
    train->adapter->base_hash = train->model->base_hash; /* what goes on from here belongs to this base */
    train->targets = train->adapter->targets;
    o->rank = train->adapter->rank;
    o->alpha = train->adapter->alpha;
    return CR_OK;
}

/* Room for two checkpoints and the outputs, as far as the file system tells. */
static cr_status check_space(const struct cr_train *train, struct cr_error *err)
{
    struct statvfs fs;
    uint64_t params = (uint64_t)train->adapter->n_params * sizeof(float);
    uint64_t need = 2 * train->memory.checkpoint + 2 * params +
                    train->method->result_bytes(&train->options, train->adapter->n_params) + 1048576;
    if (statvfs(train->options.output, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < need) {
        return cr_fail(err, CR_E_IO, "%s: %.1f MiB free, %.1f MiB needed for two checkpoints and the adapter",
                       train->options.output, (double)((uint64_t)fs.f_bavail * fs.f_frsize) / CR_MIB,
                       (double)need / CR_MIB);
    }
    return CR_OK;
}

static cr_status take_output(struct cr_train *train, struct cr_error *err)
{
    const struct cr_finetune_options *o = &train->options;
    CR_TRY(cr_dir_prepare_output(o->output, o->force, o->resume, err));
    CR_TRY(cr_dir_lock(o->output, &train->lock_fd, err));
    train->checkpoint_dir = cr_path_join(o->output, "checkpoints");
    train->journal_path = cr_path_join(o->output, "train.jsonl");
    if (train->checkpoint_dir == NULL || train->journal_path == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a path");
    }
    return CR_OK;
}

/* The files of a run before this one go once there is something that --resume brings to an end. From then on the
 * directory is this run's: a resume does the same again. */
static cr_status begin_fresh(struct cr_train *train, struct cr_error *err)
{
    train->shared = true;
    CR_TRY(check_space(train, err));
    CR_TRY(cr_dir_create(train->checkpoint_dir, err));
    cr_checkpoint_sweep(train->checkpoint_dir);
    CR_TRY(cr_train_save(train, true, true, err));
    CR_TRY(cr_output_clear(train->options.output, err));
    CR_TRY(cr_journal_open(train, 0, err));
    return cr_train_write_held_out(train, err);
}

static cr_status begin_resumed(struct cr_train *train, bool *nothing_to_do, struct cr_error *err)
{
    struct cr_checkpoint checkpoint;
    bool of_run = false;
    char *path = NULL;
    CR_TRY(cr_checkpoint_newest(train->checkpoint_dir, train->run_id, train->host, &path, &checkpoint, &train->shared,
                                err));
    uint64_t run_id = checkpoint.run_id;
    cr_status status = cr_train_compare(train, &checkpoint, path, err);
    if (status == CR_OK) {
        status = cr_train_restore(train, &checkpoint, path, err);
    }
    cr_checkpoint_close(&checkpoint);
    train->last_checkpoint = path;
    CR_TRY(status);
    bool finished = train->history->finished != 0 || train->step >= train->n_steps;
    CR_TRY(cr_train_outputs_of(train, run_id, &of_run, err));
    *nothing_to_do = finished && !cr_train_eval_due(train) && of_run && cr_train_outputs_present(train);
    if (*nothing_to_do) {
        return cr_train_write_held_out(train, err);
    }
    CR_TRY(check_space(train, err));
    cr_checkpoint_sweep(train->checkpoint_dir);
    if (!of_run) { /* nothing of another run's result is to stand beside this one's */
        CR_TRY(cr_output_clear(train->options.output, err));
    }
    CR_TRY(cr_train_write_held_out(train, err));
    cr_host_log(train->host, CR_LOG_INFO, "resumed at step %" PRIu64 " of %" PRIu64 " from %s", train->step,
                train->n_steps, path);
    return cr_journal_open(train, train->journal_lines, err);
}

/* The times that were asked for: as lines, as a file, or both. */
static cr_status give_trace(struct cr_train *train, struct cr_error *err)
{
    if (cr_host_verbose(train->host, "time")) {
        cr_trace_log_times(train->trace, train->host);
    }
    return train->options.trace != NULL ? cr_trace_write(train->trace, train->options.trace, train->host, err) : CR_OK;
}

static cr_status train_and_write(struct cr_train *train, struct cr_finetune_result *result, struct cr_error *err)
{
    CR_TRY(take_output(train, err));
    CR_TRY(train->options.resume ? begin_resumed(train, &result->nothing_to_do, err) : begin_fresh(train, err));
    if (result->nothing_to_do) {
        cr_host_log(train->host, CR_LOG_INFO, "nothing to do: the run in %s is finished", train->options.output);
        cr_train_fill_result(train, result);
        return CR_OK;
    }
    train->first_step = train->step;
    train->first_tokens = train->history->tokens;
    train->started_ns = cr_clock_ns();
    if (train->method->announce != NULL) {
        train->method->announce(train->state, train->host);
    }
    cr_status status = cr_train_loop(train, err);
    if (status == CR_OK && train->method->conclude != NULL) {
        train->method->conclude(train->state, train->host);
    }
    if (status == CR_OK) {
        status = cr_train_write_outputs(train, err);
    }
    /* Behind what took the hours, and also of a run that ends early. */
    cr_status traced = give_trace(train, status == CR_OK ? err : NULL);
    CR_TRY(status == CR_OK ? traced : status);
    cr_train_fill_result(train, result);
    return CR_OK;
}

/* A few steps to say what the whole run would take. Writes nothing but a trace that was asked for. */
static cr_status probe(struct cr_train *train, struct cr_finetune_result *result, struct cr_error *err)
{
    double seconds = 0;
    uint64_t tokens = 0;
    uint64_t n = train->n_steps < PROBE_STEPS ? train->n_steps : PROBE_STEPS;
    for (uint64_t i = 0; i < n; i++) {
        struct cr_step_result step;
        if (cr_host_stopped(train->host)) {
            return cr_fail(err, CR_E_STOPPED, "stopped during the probe; nothing written");
        }
        cr_trace_step(train->trace, i);
        uint64_t start = cr_clock_ns();
        CR_TRY(cr_train_step(train, &step, err));
        if (i > 0 || n == 1) { /* the first one touches memory for the first time */
            seconds += cr_clock_since(start);
            tokens += step.tokens;
        }
    }
    uint64_t train_tokens = 0;
    uint64_t valid_tokens = 0;
    for (size_t i = 0; i < train->n_train; i++) {
        train_tokens += train->data.examples[train->train_pool[i]].n_ids;
    }
    for (size_t i = 0; i < train->n_valid; i++) {
        valid_tokens += train->valid->examples[train->valid_pool[i]].n_ids;
    }
    /* An evaluation is the forward third of a step (forward, gradients of inputs and of adapters, recomputation). */
    double epochs = (double)train->n_steps / (double)train->steps_per_epoch;
    double evals = (double)train->max_evals * cr_train_looks(train);
    double work = epochs * (double)train_tokens + evals * (double)valid_tokens / 3;
    train->train_seconds = seconds;
    const struct cr_train_history *h = train->history;
    train->history->last_report_loss = h->report_steps > 0 ? h->report_loss / (double)h->report_steps : (double)NAN;
    cr_train_fill_result(train, result);
    result->tokens = tokens;
    result->tok_s = seconds > 0 ? (double)tokens / seconds : 0;
    result->predicted_seconds = result->tok_s > 0 ? work / result->tok_s : 0;
    cr_host_log(train->host, CR_LOG_INFO,
                "dry run: %" PRIu64 " steps, %.0f tokens, %.1f tokens/s: about %.0f s, %.0f MiB", train->n_steps,
                epochs * (double)train_tokens, result->tok_s, result->predicted_seconds, result->predicted_mb);
    return give_trace(train, err);
}

static cr_status run(struct cr_train *train, const struct cr_finetune_options *options,
                     struct cr_finetune_result *result, struct cr_error *err)
{
    CR_TRY(cr_train_check_options(options, &train->options, err));
    train->method = cr_method_find(train->options.method);
    CR_TRY(cr_workers_choose(&train->workers, train->host, err));
    if (!train->options.dry_run) {
        const struct cr_finetune_options *o = &train->options;
        CR_TRY(cr_dir_check_output(o->output, o->force, o->resume, err));
    }
    CR_TRY(cr_train_load(train, err));
    CR_TRY(start_adapter(train, err));
    cr_train_resolve(train);
    CR_TRY(cr_train_check_tasks(train, err));
    CR_TRY(cr_train_plan_steps(train, err));
    CR_TRY(cr_train_plan_memory(train, err));
    CR_TRY(cr_train_allocate(train, err));
    CR_TRY(cr_train_make_settings(train, err));
    CR_TRY(cr_train_make_digests(train, err));
    return train->options.dry_run ? probe(train, result, err) : train_and_write(train, result, err);
}

cr_status cr_finetune(const struct cr_finetune_options *options, const struct cr_host *host,
                      struct cr_finetune_result *result, struct cr_error *err)
{
    static const struct cr_host silent;
    struct cr_finetune_result done = {.final_loss = (double)NAN, .best_nll = (double)NAN};
    struct cr_train *train = cr_zalloc(1, sizeof *train);
    if (train == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a run");
    }
    train->host = host != NULL ? host : &silent;
    train->lock_fd = -1;
    train->journal_fd = -1;
    cr_status status = run(train, options, &done, err);
    cr_train_free(train);
    cr_free(train);
    if (status == CR_OK && result != NULL) {
        *result = done;
    }
    return status;
}
