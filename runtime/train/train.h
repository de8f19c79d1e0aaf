/* train: the parts of a fine-tuning run and the functions its files share. Private to runtime/train.
 *
 * Order of a run (finetune.c): options checked, model and data read, memory predicted, everything allocated, output
 * taken, then either step 0 is committed or a checkpoint restored; what another run left goes; loop.c does the steps;
 * outputs are written. After setup a step allocates nothing.
 */
#ifndef CR_TRAIN_TRAIN_H
#define CR_TRAIN_TRAIN_H

#include <jansson.h>

#include "runtime/adapter/adapter.h"
#include "runtime/core/host.h"
#include "runtime/data/batch.h"
#include "runtime/data/dataset.h"
#include "runtime/model/engine.h"
#include "runtime/model/model.h"
#include "runtime/optim/norm2.h"
#include "runtime/optim/schedule.h"
#include "runtime/posterior/method.h"
#include "runtime/thread/memory.h"
#include "runtime/thread/workers.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/train/checkpoint_dir.h"

/* Running numbers of a run. A checkpoint stores this struct and the evaluations behind it as they lie. */
struct cr_train_eval {
    uint64_t step;
    double nll;
};

struct cr_train_history {
    uint64_t layout;       /* sizeof this struct */
    uint64_t tokens;       /* non-padding tokens that entered training passes */
    uint64_t n_skipped;    /* steps without an update because loss or gradient was not finite */
    uint64_t n_bad_in_row; /* of those, the latest without a good one between */
    uint64_t n_halvings;   /* of the learning rate, after bad steps in a row */
    uint64_t finished;     /* 1: stopped early, no further step */
    uint64_t best_step, last_eval_step, n_without_better, n_evals;
    uint64_t report_steps;   /* finite steps since the last report */
    uint64_t report_tokens;  /* value of `tokens` at the last report */
    double report_loss;      /* sum of their losses */
    double last_report_loss; /* what the last report said; NaN before the first */
    double best_nll;         /* NaN before the first evaluation */
    struct cr_train_eval evals[];
};

/* Why the predicted peak is what it is, bytes. */
struct cr_train_memory {
    uint64_t held;  /* program, tokenizer and data as they are now */
    uint64_t model; /* the mapped file */
    uint64_t engine, adapter, optimiser, best, batch, overhead;
    uint64_t checkpoint; /* a file of one; its pages count where a run is resumed from it */
    uint64_t total;      /* what is compared with the budget */
    uint64_t peak;       /* what is reported: the process may have been larger before */
};

struct cr_trace;

struct cr_train {
    struct cr_finetune_options options; /* checked, defaults resolved; strings borrowed from the caller */
    const struct cr_host *host;
    struct cr_workers workers;

    struct cr_model *model;
    struct cr_tokenizer *tokenizer;
    struct cr_dataset data, valid_file;
    struct cr_dataset seen;            /* data as the training passes take it; borrows from it */
    const struct cr_dataset *valid;    /* set that valid_pool indexes */
    bool looks_whole;                  /* looks of validation share no tokens among texts */
    uint32_t *train_pool, *valid_pool; /* owned */
    size_t n_train, n_valid;
    uint32_t n_labels;
    uint64_t n_targets; /* loss terms of an epoch */

    uint32_t targets;
    uint32_t n_sets;       /* of parameters in the adapter: members, tasks; else 1 */
    uint32_t sets_at_once; /* whose full micro-batches a pass has room for */
    struct cr_adapter *adapter;
    struct cr_prefix prefix_shape; /* that the adapter will have; n_rows 0: low-rank pairs */
    const struct cr_method *method;
    void *state;           /* owned: of the method */
    struct cr_norm2 norm2; /* of gradients and parameters */
    struct cr_token_batch batch;
    struct cr_engine *engine;
    uint32_t *set_of, *valid_set_of; /* owned: by task (data/batch.h), of the training and the validation data; NULL for
                                      * methods whose sets see every example */
    uint32_t *sorted;                /* owned: examples of a step by set */
    uint32_t *task_examples;         /* owned: [1 + n_tasks] to train on, without a task first; NULL unless the method
                                      * takes tokens_by_task */
    double *task_weight;             /* owned, alike: weight of a target token of the step */
    struct cr_label_rows *own_rows;  /* owned: [n_sets]; NULL: the model's */
    struct cr_engine_noise *noise;   /* owned: [n_sets] */
    double *set_loss;                /* owned: [n_sets], work of a pass */
    void *best; /* owned: result of the method at the best evaluation; NULL unless the best is kept */
    size_t best_bytes;
    bool has_best;
    float *scratch;  /* owned: for cr_nll_mean */
    uint32_t *order; /* owned: [n_train] examples of epoch order_epoch */
    uint64_t order_epoch;

    bool recompute;
    uint64_t step, n_steps, steps_per_epoch;
    struct cr_schedule schedule;
    struct cr_train_history *history; /* owned */
    size_t max_evals;                 /* of the whole run */
    struct cr_train_memory memory;
    uint64_t linear_params; /* of the projections of all layers, for the estimate of operations */

    char *settings, *digests; /* owned: canonical JSON texts */
    char *shapes;             /* owned: what the flat weights mean, for readers of a checkpoint */
    uint64_t run_id;

    char *checkpoint_dir, *journal_path, *last_checkpoint; /* owned */
    int lock_fd, journal_fd;                               /* -1 = none */
    uint64_t journal_lines;
    uint32_t failed_saves; /* in a row */
    bool journal_broken;
    bool shared; /* the output directory may hold files of another run */

    double train_seconds, report_seconds; /* of this process, without evaluation and saving */
    double earlier_seconds;               /* of the processes before a resume */
    uint64_t first_step;                  /* where this process began */
    uint64_t first_tokens;
    uint64_t started_ns;
    struct cr_trace *trace; /* owned or NULL */
};

/* options.c: ranges and conflicts; resolves defaults that need no file. Errors: CR_E_USAGE. */
cr_status cr_train_check_options(const struct cr_finetune_options *given, struct cr_finetune_options *out,
                                 struct cr_error *err);

/* settings.c: the texts that identify a run, and their comparison with recorded ones (CR_E_BUSY lists differences). */
cr_status cr_train_make_settings(struct cr_train *train, struct cr_error *err);
cr_status cr_train_make_digests(struct cr_train *train, struct cr_error *err);
cr_status cr_train_compare(const struct cr_train *train, const struct cr_checkpoint *checkpoint, const char *path,
                           struct cr_error *err);

/* load.c: model, tokenizer, data, split. */
cr_status cr_train_load(struct cr_train *train, struct cr_error *err);

/* plan.c: number of steps; memory prediction against the budget; then everything is allocated. */
cr_status cr_train_plan_steps(struct cr_train *train, struct cr_error *err);
cr_status cr_train_plan_memory(struct cr_train *train, struct cr_error *err);
/* Settings that depend on the data; then nothing of the options changes any more. */
void cr_train_resolve(struct cr_train *train);
size_t cr_train_micro_tokens(const struct cr_train *train, size_t max_seq); /* that a set's micro-batch may have */
void cr_train_engine_options(const struct cr_train *train, const struct cr_lora *lora, size_t max_seq, bool recompute,
                             struct cr_engine_options *out);

/* prefix_start.c: first values of a prefix, once there is an engine; nothing for other methods. Errors: CR_E_INPUT when
 * the training texts are too much alike, CR_E_MEMORY. */
cr_status cr_train_start_prefix(struct cr_train *train, struct cr_error *err);

/* setup.c */
struct cr_adapter *cr_train_acting(const struct cr_train *train); /* what the engine reads and files show */
cr_status cr_train_allocate(struct cr_train *train, struct cr_error *err);
void cr_train_free(struct cr_train *train);

/* state.c: saving and restoring. cr_train_save counts failures: CR_E_IO only for the third in a row or `must`. */
cr_status cr_train_save(struct cr_train *train, bool must, bool fresh, struct cr_error *err);
cr_status cr_train_restore(struct cr_train *train, const struct cr_checkpoint *checkpoint, const char *path,
                           struct cr_error *err);

/* passes.c */

/* Whether label rows are trained, in every set. */
bool cr_train_owns_rows(const struct cr_train *train);

/* Refuses examples without a task where the method needs them, more tasks than it can have, and texts where label rows
 * are trained. Errors: CR_E_INPUT, CR_E_USAGE. */
cr_status cr_train_check_tasks(const struct cr_train *train, struct cr_error *err);

/* Which set is each task's, where the method has one for each: set_of and what goes with it; held-out examples of a set
 * stand together. Errors: CR_E_MEMORY. */
cr_status cr_train_assign_tasks(struct cr_train *train, struct cr_error *err);

/* Part of a step: adds the gradient of the mean over the targets of these examples, and over the sets that see each, to
 * the adapter's, and the loss to *loss; the micro-batches are a function of the examples alone. `draw` keys the
 * dropout. */
cr_status cr_train_accumulate(struct cr_train *train, const uint32_t *examples, size_t n, uint64_t draw, double *loss,
                              uint64_t *tokens, struct cr_error *err);

/* loop.c */
struct cr_step_result {
    double loss, norm; /* mean and root mean square over the passes of the step, before any clipping */
    uint64_t tokens;
    bool finite; /* loss and gradient of every pass; else the step was skipped */
};
double cr_train_lr(const struct cr_train *train, uint64_t step); /* learning rate of the step, halvings included */
cr_status cr_train_step(struct cr_train *train, struct cr_step_result *result, struct cr_error *err);
cr_status cr_train_loop(struct cr_train *train, struct cr_error *err);

/* validate.c: one evaluation at the present step; keeps the best parameters, decides on early stopping. */
uint64_t cr_train_eval_every(const struct cr_train *train); /* steps between evaluations; the last step has one, too */
bool cr_train_eval_due(const struct cr_train *train);
double cr_train_looks(const struct cr_train *train); /* of an evaluation, as passes over all held-out examples */
void cr_train_show_point(struct cr_train *train);    /* of the method, into params */
cr_status cr_train_validate(struct cr_train *train, struct cr_error *err);
/* What the method decides by held-out examples once it has its result; its loss terms that are looked at. */
cr_status cr_train_tune(struct cr_train *train, struct cr_error *err);
uint64_t cr_train_trial_targets(const struct cr_train *train);

/* held_out.c: the lines held out of the data file, if any, as valid.jsonl of the output, which is left alone when it
 * holds them already. Errors: CR_E_IO, CR_E_MEMORY; a data file that has changed or cannot be read again is warned
 * of. */
cr_status cr_train_write_held_out(const struct cr_train *train, struct cr_error *err);

/* journal.c: train.jsonl, cut to its first keep_lines lines where these are of this run, else to none. Losing it is a
 * warning, never an end. */
cr_status cr_journal_open(struct cr_train *train, uint64_t keep_lines, struct cr_error *err);
void cr_journal_sync(struct cr_train *train);
void cr_journal_close(struct cr_train *train);
void cr_train_report(struct cr_train *train, const struct cr_step_result *step, bool report);

/* outputs.c: whether a run of this method writes the file of this name; whether all that it writes are there; and
 * whether those that are there are of the run of this id, as their summary says. Errors: CR_E_MEMORY. */
bool cr_train_writes(const struct cr_train *train, const char *name);
bool cr_train_outputs_present(const struct cr_train *train);
cr_status cr_train_outputs_of(const struct cr_train *train, uint64_t run_id, bool *of_run, struct cr_error *err);

/* summary.c: adapter files, then summary.json as the last file of a run. */
cr_status cr_train_write_outputs(struct cr_train *train, struct cr_error *err);
void cr_train_fill_result(const struct cr_train *train, struct cr_finetune_result *result);

/* trace.c: times of the engine's operations; `events` also keeps every one, to be written as Chrome trace events. */
cr_status cr_trace_create(struct cr_engine *engine, bool events, struct cr_trace **out, struct cr_error *err);
void cr_trace_step(struct cr_trace *trace, uint64_t step);                   /* NULL: no effect */
void cr_trace_log_times(struct cr_trace *trace, const struct cr_host *host); /* a line a kind, longest first */
cr_status cr_trace_write(const struct cr_trace *trace, const char *path, const struct cr_host *host,
                         struct cr_error *err);
void cr_trace_destroy(struct cr_trace *trace, struct cr_engine *engine);

#endif
