/* method: a way to train an adapter, as the training loop sees it. The loop knows no method by name.
 *
 * The engine reads adapter->params and adds to adapter->grads; what stands in params is the method's business. A step:
 *
 *   for pass = 0 ... n_passes - 1   begin_pass sets params (a perturbed copy, a member, a task's set); the loop zeroes
 *                                   grads and adds the mean gradient of all micro-batches; end_pass takes it
 *   regularise                      adds what is no mean over examples to the gradient, before end_pass sees it
 *   update                          only when loss and gradient of every pass were finite; else nothing of it is left
 *
 * Between steps show_point puts the parameters that stand for the result into params: for validation and files.
 *
 * `point` is the vector that checkpoints call weights, in the layout of the adapter, so that a checkpoint of any method
 * is an adapter; `sections` adds what else a resume needs. The result (`result_bytes`, `take_result`, `put_result`) is
 * what is kept of the best evaluation and what the output files are made of: point and spread.
 *
 * Every function but `create` succeeds or cannot fail, unless it returns a status. NULL where "may be NULL" is said.
 * Same bits for any number of threads; noise is a function of (seed, step, pass, element), never stored.
 */
#ifndef CR_POSTERIOR_METHOD_H
#define CR_POSTERIOR_METHOD_H

#include <jansson.h>

#include "credence/credence.h"
#include "runtime/adapter/adapter.h"
#include "runtime/io/checkpoint.h"

/* What a training state is made for. All borrowed while it lives. */
struct cr_method_setup {
    const struct cr_finetune_options *options; /* resolved */
    struct cr_adapter *adapter;                /* holds the start; with grads */
    const struct cr_parallel *parallel;
    enum cr_tier tier;
    uint64_t n_targets;      /* loss terms of one epoch: examples of choices, target tokens of texts */
    uint64_t n_examples;     /* to train on */
    char *const *task_names; /* [n_tasks] of the training file */
    size_t n_tasks;
    uint64_t n_steps, steps_per_epoch;
    uint64_t first_eval; /* steps before the first validation; 0: nothing is held out */
    double (*own_lr)(const void *schedule, uint64_t step); /* rate of a step by the settings of the run */
    const void *schedule;
};

struct cr_method_step {
    uint64_t step;
    double lr;
    double norm; /* of the gradient; of several passes the root mean square, which is not that of their mean */
};

/* What posterior files say about the run beside the numbers. */
struct cr_posterior_about {
    const struct cr_adapter *adapter;
    const struct cr_model *model;
    const char *template_name; /* of the prompts */
    uint64_t tokenizer_hash;
    const int32_t *label_ids; /* [n_labels] */
    uint32_t n_labels;
};

/* Held-out examples, for what a finished result leaves open. */
struct cr_method_trial {
    void *ctx;
    uint64_t n_targets;                                             /* loss terms, at least 1 */
    cr_status (*nll)(void *ctx, double *out, struct cr_error *err); /* [n_targets] with what stands in params */
};

enum { CR_METHOD_MAX_SECTIONS = 6 };

/* Whose examples are whose, where the adapter has several sets of parameters. */
enum cr_method_sharing {
    CR_EVERY_SET, /* each set sees every example: one set, or members whose mean probabilities answer */
    CR_BY_TASK /* set 1 + task sees the examples of its task, set 0 those without one; the loss is a mean over examples
                * of the sum of their targets, not over targets */
};

struct cr_method {
    const char *name;
    bool flipout; /* the engine runs with the noise that `create` put beside A (struct cr_lora) */
    bool prefix;  /* trains learned keys and values (options.vertices, .prefix_length), not low-rank pairs */

    /* Options of a run: refusals that need no file (CR_E_USAGE); then what depends on the data, once it is known. */
    cr_status (*check)(const struct cr_finetune_options *options, struct cr_error *err); /* may be NULL */
    double scale;  /* alpha over rank where nothing is said; 0: 2 */
    bool own_rate; /* `resolve` sets options.lr where it is NaN */
    enum cr_method_sharing sharing;
    /* Of CR_BY_TASK: the loss is instead, summed over the tasks of a step, the mean over a task's target tokens times
     * its share of all examples. NULL: no. */
    bool (*tokens_by_task)(const struct cr_finetune_options *options);
    /* Label rows in every set; NULL: no. choices: the data are questions with choices, without which a run that wants
     * rows is refused. */
    bool (*own_rows)(const struct cr_finetune_options *options, bool choices);
    /* Sets of parameters of the adapter; 0 when the data must name tasks and does not. NULL: 1. */
    uint32_t (*n_sets)(const struct cr_finetune_options *options, size_t n_tasks);
    /* n_targets: loss terms of n_examples. May be NULL. */
    void (*resolve)(struct cr_finetune_options *options, uint64_t n_examples, uint64_t n_targets);
    void (*settings)(const struct cr_finetune_options *options, json_t *object); /* its own keys; may be NULL */

    /* Bytes of the state beside params and grads, and of the result. */
    uint64_t (*state_bytes)(const struct cr_finetune_options *options, uint64_t n_params, uint64_t n_slots);
    uint64_t (*result_bytes)(const struct cr_finetune_options *options, uint64_t n_params);

    cr_status (*create)(const struct cr_method_setup *setup, void **state, struct cr_error *err);
    void (*destroy)(void *state); /* NULL: no effect */

    /* What the engine reads and adds gradients to, and what files show, where it is not the adapter: of as many sets,
     * of `rank_factor` times its rank. NULL: the adapter. Its gradients are the method's to clear. */
    struct cr_adapter *(*acting)(const void *state); /* NULL: the adapter, too */
    uint32_t (*rank_factor)(const struct cr_finetune_options *options);

    /* Whether every text is shown something of its own, by training passes and by looks of validation: there it shares
     * no tokens with others. NULL: no. */
    bool (*trains_by_text)(const struct cr_finetune_options *options);
    bool (*looks_by_text)(const struct cr_finetune_options *options);

    uint32_t (*n_passes)(const void *state);                       /* NULL: 1 */
    void (*begin_pass)(void *state, uint64_t step, uint32_t pass); /* NULL: params stand as the passes want them */
    void (*regularise)(void *state);                               /* may be NULL */
    void (*end_pass)(void *state, uint64_t step, uint32_t pass);   /* NULL: update takes the one gradient itself */
    double (*lr)(const void *state, uint64_t step);                /* a schedule of its own; NULL: the run's */
    void (*update)(void *state, const struct cr_method_step *step);

    void (*show_point)(void *state); /* NULL: it always stands there */

    /* Validation that looks at each text several times, at what look shows; 0 or both NULL: once, at the point. */
    uint32_t (*n_looks)(const void *state);
    void (*look)(void *state, uint32_t look);

    const float *(*point)(const void *state); /* [n_params] */

    bool (*ready)(const void *state); /* is there a result that may be the best? NULL: always */

    /* What an evaluation after `step` steps gave, whether ready or not. May be NULL. */
    void (*evaluated)(void *state, uint64_t step, double nll);

    /* Sections of a checkpoint beside the weights: at most CR_METHOD_MAX_SECTIONS, borrowed. Returns their number. */
    size_t (*sections)(const void *state, struct cr_checkpoint_section *out);
    /* weights [n_params], which may be adapter->params, are checked to be finite. Errors: CR_E_INPUT without the name
     * of the file. */
    cr_status (*restore)(void *state, const float *weights, const struct cr_checkpoint *checkpoint,
                         struct cr_error *err);

    void (*take_result)(const void *state, void *result);
    void (*put_result)(void *state, const void *result);

    /* Once, with the result in place, before anything is written; not called when nothing is held out. May be NULL. */
    cr_status (*tune)(void *state, const struct cr_method_trial *trial, struct cr_error *err);
    uint32_t tune_passes; /* that it takes over each, for them to cost a thirtieth of the run; 0: not counted */

    /* Words for people: a line when training begins, and when its last step is done; warnings, asked for at every
     * report; facts of summary.json. */
    void (*announce)(const void *state, const struct cr_host *host); /* may be NULL */
    void (*conclude)(const void *state, const struct cr_host *host); /* may be NULL */
    void (*watch)(void *state, const struct cr_host *host);          /* may be NULL */
    void (*facts)(const void *state, json_t *object);                /* may be NULL */

    /* dir/posterior.safetensors; NULL when the adapter says it all. With no_adapter there is none beside it: no one set
     * of parameters stands for the result, and what is written here is all. */
    bool no_adapter;
    cr_status (*write)(const void *state, const struct cr_posterior_about *about, const char *dir,
                       struct cr_error *err);
};

extern const struct cr_method cr_method_adamw, cr_method_blob, cr_method_bora, cr_method_ensemble, cr_method_ivon,
    cr_method_prefix, cr_method_swag;

/* NULL when there is none of that name. */
const struct cr_method *cr_method_find(const char *name);

/* The names, as a message lists them. */
const char *cr_method_names(void);

/* Sets what method and preset decide; both may be NULL (adamw; the tuned defaults). Errors: CR_E_USAGE. */
cr_status cr_preset_apply(const char *method, const char *preset, struct cr_finetune_options *options,
                          struct cr_error *err);

/* A file of a method's posterior. */
#define CR_POSTERIOR_FILE "posterior.safetensors"

#endif
