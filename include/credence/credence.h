/* credence: fine-tune quantised language models on a CPU with low-rank adapters, and say how sure the result is.
 *
 * One call a job: each takes an options struct and a host struct (NULL: none). Set `size` to its sizeof, or start from its
 * _init where there is one; zero or NULL then means the default written beside the field. Only cr_finetune_options must
 * start from cr_finetune_options_for or _init: there 0 is a value. Strings and arrays are borrowed until the call returns.
 * Each returns a status; on failure err holds one line. The library never prints, exits, installs signal
 * handlers or reads the environment. Calls are independent of each other; two of finetune, laplace and export must not write
 * into one output directory at a time (they take its lock: CR_E_BUSY). With `force` they remove the adapter, posterior and
 * summary of the run before; an input that would be lost is refused.
 */
#ifndef CREDENCE_CREDENCE_H
#define CREDENCE_CREDENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "credence/cpu.h"
#include "credence/parallel.h"
#include "credence/status.h"
#include "credence/version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a call reports while it works. */
struct cr_progress {
    const char *phase;      /* "load", "data", "train", "validate", "eval", "write" */
    uint64_t step, n_steps; /* optimiser steps, or examples when phase is "eval" or "validate" */
    double epoch;           /* passes over the data so far */
    double loss, lr, grad_norm; /* NaN when not applicable */
    double tok_s, eta_s;    /* tokens a second, seconds left; NaN or 0 = not known */
    uint64_t tokens;        /* so far */
    double rss_mb;          /* MiB; 0 = not measured */
    bool report;            /* true at every report interval: one plain line a report on a pipe */
};

enum cr_log_level { CR_LOG_WARNING = 1, CR_LOG_INFO = 2 };

/* Whose threads compute when the host lends none (credence/parallel.h says which to choose); results are the same bits.
 * AUTO is OpenMP; the pool in builds without OpenMP, and in a child of fork whose parent has computed here, where OpenMP
 * has lost its threads. OPENMP: the same, and CR_E_USAGE in builds without it. */
enum cr_threads_by { CR_THREADS_AUTO = 0, CR_THREADS_OPENMP = 1, CR_THREADS_POOL = 2 };

/* The caller's side. Zero-initialise; every field is optional. Callbacks run on the calling thread. */
struct cr_host {
    const char *cpu_cap;                 /* tier name, NULL = best */
    int n_threads;                       /* 0 = one a physical core of the affinity mask, at most the cgroup quota; else
                                          * 1...1024, at most mask and quota */
    const struct cr_parallel *parallel;  /* NULL = n_threads of our own, by threads_by */
    void (*log)(void *ctx, enum cr_log_level level, const char *line);
    void (*progress)(void *ctx, const struct cr_progress *progress);
    bool (*stop)(void *ctx);             /* asked before every layer of a pass and between batches; true = CR_E_STOPPED,
                                          * of finetune after a checkpoint */
    void *ctx;
    uint64_t memory_bytes;               /* budget, 0 = what the system has left */
    const char *verbose;                 /* comma list: "dispatch,time" ; NULL = none */
    enum cr_threads_by threads_by;
};

enum cr_lr_schedule { CR_LR_LINEAR = 0, CR_LR_COSINE = 1, CR_LR_CONSTANT = 2 };
enum cr_tristate { CR_AUTO = 0, CR_YES = 1, CR_NO = 2 };
#define CR_SWAG_EPOCH UINT32_MAX /* swag_every: once an epoch */

/* finetune. Fields mirror the flags of the program. Defaults beside them are those of adamw and of each method's own options:
 * set them by cr_finetune_options_for(method). cr_finetune_options_init alone is for adamw: ivon would get adamw's rate, and
 * prefix is refused. */
struct cr_finetune_options {
    size_t size;                 /* sizeof this struct */
    const char *model, *data, *output; /* paths, required */
    const char *valid;           /* path or NULL: hold out a seeded, stratified tenth */
    bool no_valid;               /* train on everything; keep must be last */
    const char *adapter;         /* adapter directory or .gguf to continue from, or NULL */
    const char *method;          /* "adamw"; or "ivon", "swag", "ensemble", "blob", "bora", "prefix" */
    const char *targets;         /* "q_proj,v_proj"; "all"; GGUF leaf names too */
    uint32_t rank;               /* 8, 1...256 */
    double alpha;                /* 0 = 2 * rank; ensemble: rank */
    double dropout;              /* 0, [0, 1) */
    double epochs;               /* 1; ignored when steps > 0 */
    uint64_t steps;              /* 0 = by epochs */
    uint32_t batch_size;         /* 8 examples */
    uint32_t grad_accumulation_steps; /* 1 */
    double lr;                   /* 2e-4; NaN (bora's "paper"): 1e-5 tau, 1e-4 at tau 0 */
    enum cr_lr_schedule lr_schedule;  /* linear to 0 */
    double warmup;               /* 0; below 1 a fraction of the steps, else steps */
    double weight_decay;         /* 0 */
    double max_grad_norm;        /* 1 (ivon, bora: 0); 0 = off */
    uint32_t max_seq_length;     /* 0 = min(context, 2048) */
    bool on_long_skip;           /* false = cut */
    bool train_on_prompt;        /* false: --mask-prompt yes */
    const char *chat_template;   /* name, NULL = from the model */
    const char *system;          /* system text, NULL = the template's own */
    const char *normalize;       /* NULL or "nfc" */
    bool keep_best_set, keep_best; /* unset: best when valid or patience is given, else last */
    uint32_t patience;           /* 0 = no early stopping; else evaluations without a better NLL */
    uint32_t eval_every;         /* 0 = once an epoch */
    uint32_t save_every;         /* 200 */
    uint32_t report_every;       /* 10 */
    uint32_t keep_checkpoints;   /* 2 */
    uint64_t seed;               /* 0 ... 2^32-1 */
    bool resume, force, allow_inexact;
    enum cr_tristate grad_checkpoint;
    bool dry_run;                /* probe three steps, report memory and time, write nothing */
    const char *trace;           /* Chrome trace events file, or NULL */
    const char *settings_json;   /* one JSON object of flags as given, echoed in summary.json; NULL = {} */

    const char *preset;          /* that the defaults came from, recorded; NULL = the tuned ones */
    /* ivon: the posterior N(mean, 1 / (ess (h + weight_decay))), see credence/kernels/ivon.h */
    double ess;                  /* 0 = 3e5, or the number of training targets (examples of choices, target tokens of
                                    texts) if that is larger */
    double hess_init;            /* 1e-3 */
    double clip_radius;          /* 1e-3; infinity = none */
    uint32_t mc_samples;         /* 1: gradients at so many draws in one step */
    double beta1, beta2;         /* 0.9, 0.99999 */
    bool gradsq;                 /* curvature by squared gradients instead of noise times gradient */
    bool no_debias;              /* momentum as it is in the first steps */
    bool rescale_lr;             /* rate times hess_init + weight_decay */
    /* swag: mean and spread of snapshots of AdamW, see credence/kernels/dplr.h */
    double swag_start;           /* .6 of the steps before the first snapshot is prepared */
    uint32_t swag_every;         /* steps from snapshot to snapshot; 0 = 25, less or more where that makes fewer than
                                    swag_rank + 1 of them, or more than four times as many; CR_SWAG_EPOCH = once an epoch */
    uint32_t swag_rank;          /* 10 deviations are kept */
    double swag_lr;              /* 5e-4 */
    uint32_t swag_anneal;        /* 50 steps from the run's rate to swag_lr; 0 = five epochs */
    bool swag_cosine;            /* along half a cosine, instead of a line */
    enum cr_tristate swag_head;  /* no: the model's label rows, frozen; yes: label rows trained, averaged and drawn with the
                                    rest, for questions with choices alone; auto: yes for choices. Rate: head_lr */
    enum cr_tristate swag_from_best; /* no: the snapshots start from the weights where training stands; yes: from those of
                                    the best validation before; auto: likewise where there is one. Moments stay */
    double swag_scale;           /* share of the covariance that is drawn with; 0 = .5 or 1 by the held-out examples, .5
                                  * when there are none */
    /* blob: A ~ N(mu, rho^4), see runtime/posterior/blob.h */
    double prior_std;            /* .2 */
    double kl_lr;                /* .01 of descent on the KL */
    double rho_init;             /* .05: rho starts between this over the root of 2 and this */
    double lr_b, ess_b, hess_init_b, clip_radius_b; /* ivon: of the B matrices where they differ; 0 = as A */
    /* ensemble: members trained side by side on the same batches, see runtime/posterior/members.h */
    uint32_t members;            /* 4 */
    double init_gain;            /* of where their A start; 0 = 1, for normal starts .02 */
    const char *member_init;     /* "xavier" (NULL), "normal", or "peft": without a gain, as a single adapter */
    bool member_heads;           /* label rows of every member's own, for questions with choices; else the model's, frozen */
    double head_lr;              /* their learning rate, and that of the label rows of swag; 0 = lr, for a prefix's 2e-4 */
    double head_noise;           /* .01: standard deviation around the model's rows they start with, in their root mean
                                  * square */
    uint32_t members_at_once;    /* most that share a pass over the base; 0 = as many as 2,048 tokens, 2 GiB of activations
                                  * and the memory that is allowed hold; changes no bit */
    /* bora: an adapter a task (field `task` of the data) under a common prior, see runtime/posterior/bora.h */
    double tau;                  /* precision of the prior: 0 = tasks apart; NaN = 10 for choices, 300 for texts */
    const char *bora_prior;      /* "sq" (NULL): tau / 2 the squared distance; "norm": tau the distance, matrix by matrix, as the
                                  * authors' program, whose loss comes with it: mean over tokens times documents, by task */
    const char *bora_mode;       /* "tasks" (NULL); "joined": each acts beside a common one; "global": one adapter for all */
    double bora_spread;          /* 1e-3: standard deviation of the tasks' starts around the common one */
    /* prefix: rows of learned keys and values before every text, see runtime/model/prefix.h; rank, alpha, dropout and
     * targets keep their defaults */
    uint32_t vertices;           /* 1...8 of a simplex, 3; 1 = plain prefix tuning */
    uint32_t prefix_length;      /* 1...256 rows a layer, 40 */
    uint32_t valid_draws;        /* 10 looks at each held-out text; 0 = one, at the centroid */
    const char *lambda_per;      /* who draws a point of the simplex in a step: "text-layer" (NULL), each text for each layer;
                                  * "text", one for all its layers; "layer", each layer for all texts; "step", one for all.
                                  * Later draws are a text's own, with or without the layer as in training */
    double cosine_weight;        /* 0; of the squared cosine between two vertices, a pair drawn for each step, which is added
                                  * to what a step descends on, not to the losses that are reported */
};

/* What a finished (or dry) run says. Strings are fixed buffers. */
struct cr_finetune_result {
    uint64_t steps, tokens, n_train, n_valid, n_params;
    double seconds, tok_s, peak_rss_mb, final_loss, best_nll;
    uint64_t best_step;
    bool nothing_to_do;          /* resume of a finished run */
    double predicted_mb, predicted_seconds; /* dry run: peak memory and whole-run time */
};

CR_API void cr_finetune_options_init(struct cr_finetune_options *options);

/* The same with the defaults of a method and a preset of it ("paper"); NULL: adamw, the tuned defaults. Set by method
 * or preset: lr, lr_schedule, warmup, max_grad_norm, dropout, batch_size, steps, epochs, targets, the method's own, and by
 * bora's "paper" rank, alpha, patience and max_seq_length. Errors: CR_E_USAGE for unknown names. */
CR_API cr_status cr_finetune_options_for(struct cr_finetune_options *options, const char *method, const char *preset,
                                         struct cr_error *err);
CR_API cr_status cr_finetune(const struct cr_finetune_options *options, const struct cr_host *host,
                             struct cr_finetune_result *result, struct cr_error *err);

/* eval and predict */
struct cr_eval_options {
    size_t size;
    const char *model, *data;    /* required */
    const char *adapter;         /* directory (PEFT), .gguf, checkpoint, or NULL = base model alone */
    uint32_t batch_size;         /* 0 = by tokens */
    uint32_t max_seq_length;     /* 0 = min(context, 2048) */
    uint32_t samples;            /* of each adapter; 0 = the method's own: 10 of a posterior, all of an ensemble, 1 of a
                                  * point or prefix (its centroid), 10,000 draws of logits of the linearised model */
    const char *chat_template, *system, *normalize;
    bool train_on_prompt;
    bool on_long_skip;
    const char *json;            /* path or NULL */
    const char *report;          /* HTML path or NULL */
    const char *settings_json;
    bool allow_inexact;          /* accept an adapter whose recorded base differs */
    uint64_t limit;              /* 0 = all; else the first n examples of each task */
    uint64_t seed;
    uint32_t n_bins;             /* 0 = 15 */
    const char *const *adapters; /* [n_adapters] several as a mixture, equal weights; n_adapters 0: `adapter` alone */
    size_t n_adapters;
    bool mean;                   /* the point that stands for a posterior, no draws */
    bool weights;                /* of a Laplace posterior: draws of weights instead of the linearised model */
    bool mc_dropout;             /* draws by dropout, of an adapter that was trained with it */
    double posterior_temperature; /* of the variance; 0 = 1 */
    double prune;                /* share of weights least sure to differ from 0 that are left out; 0, [0, 1) */
    const char *ood;             /* examples from elsewhere: how well the entropy tells them apart; eval only, or NULL */
    const char *calibrate;       /* validation examples that a temperature of the answers is fitted on, or NULL */
    bool no_examples;            /* json without what cr_compare needs of each example */
    bool strict_task;            /* refuse examples whose task an adapter by task does not know */
    bool vertex_set;             /* of a prefix: vertex number `vertex` alone, from 0, a diagnosis */
    uint32_t vertex;
};

struct cr_group_metrics {
    char task[64];               /* "" for the whole */
    uint64_t n;                  /* examples, or target tokens of text data */
    double accuracy, nll, ece, brier, auroc_error, perplexity; /* NaN = not applicable */
    /* means over examples of choices, nats: entropy of the mean probabilities, mean entropy of the members, their
     * difference; share of members whose answer is not that of the mean logits */
    double entropy, expected_entropy, mutual_information, disagreement;
};

/* How well a score tells examples from elsewhere (positive) from those of the file. */
struct cr_ood_metrics {
    uint64_t n_in, n_out;
    double auroc, average_precision;                       /* of the entropy over the log of the number of choices */
    double mean_in, mean_out;                              /* of that entropy */
    double information_auroc, information_average_precision; /* of the mutual information; NaN for one member */
};

struct cr_eval_result {
    bool classification;
    struct cr_group_metrics all;
    struct cr_group_metrics *groups; /* owned: cr_eval_result_deinit */
    size_t n_groups;
    uint64_t tokens;
    double seconds, tok_s;
    char method[16];
    uint32_t samples;            /* of each adapter */
    size_t n_members;            /* sets of weights that answered together */
    struct cr_group_metrics *running; /* owned: [(1 + n_groups) * n_members]: all, then each group, after the first k
                                         members; NULL for one member */
    bool has_ood;
    struct cr_ood_metrics ood;
    double temperature;          /* fitted on n_calibration examples; NaN = none was asked for */
    uint64_t n_calibration;
    double calibration_nll[2];   /* of those examples at temperature 1 and at the fitted one */
    struct cr_group_metrics *calibrated; /* owned: [1 + n_groups] all, then each group, at the temperature; NULL = none */
    /* of 2 to 64 members on choices, means over pairs of members and examples: share of pairs with different answers,
     * root of half their symmetric Kullback-Leibler divergence; else NaN */
    double pair_disagreement, pair_distance;
    double bora_perplexity;      /* of texts with tasks, as the paper of BoRA averages: over tasks and batches; else NaN */
    uint64_t n_global;           /* of adapters by task: examples whose task has none, answered by the common one */
};

/* laplace: a Gaussian around a trained adapter, from the curvature of its loss on the examples it was trained on. Writes
 * the adapter again, with posterior.safetensors and summary.json beside it. */
struct cr_laplace_options {
    size_t size;
    const char *model, *data, *adapter, *output; /* required; data: the training examples, with choices.
                                  * Those that the adapter's run held out of this very file, as the summary.json beside the
                                  * adapter says, do not count; a file that the run was not trained on is warned of */
    const char *valid;           /* chooses the prior precision by its NLL; NULL: valid.jsonl of the adapter's directory,
                                  * which its run held out, where there is one, else the evidence */
    double prior_precision;      /* 0 = to be chosen */
    uint32_t max_seq_length;     /* 0 = min(context, 2048) */
    bool on_long_skip;
    const char *normalize;
    bool force, allow_inexact;
    uint64_t seed;
    bool no_valid;               /* the evidence chooses, whatever there is */
};

struct cr_laplace_result {
    uint64_t n_examples, tokens;
    double seconds;
    double prior_precision, log_likelihood, evidence;
    double valid_nll[2];         /* of the point, and with the posterior; NaN without valid */
};

CR_API cr_status cr_laplace(const struct cr_laplace_options *options, const struct cr_host *host,
                            struct cr_laplace_result *result, struct cr_error *err);

CR_API void cr_eval_options_init(struct cr_eval_options *options);
/* *result is the caller's to deinit. When only a file of it could not be written (CR_E_IO), it is filled all the same,
 * which n_members > 0 tells. */
CR_API cr_status cr_eval(const struct cr_eval_options *options, const struct cr_host *host,
                         struct cr_eval_result *result, struct cr_error *err);
CR_API void cr_eval_result_deinit(struct cr_eval_result *result);

/* compare: do evaluations of one test file differ? */
struct cr_compare_entry {
    const char *name;            /* of the row; NULL = the method in its file */
    const char *const *files;    /* [n_files] of cr_eval's json, one a seed */
    size_t n_files;
    bool calibrated;             /* the answers at the temperature that was fitted for each */
};

struct cr_compare_options {
    size_t size;
    const struct cr_compare_entry *entries; /* [n_entries], at least 2, as many files in each; the first is compared with */
    size_t n_entries;
    const char *in_domain;       /* comma list of tasks; the examples of the others together are "shifted"; NULL = no such
                                    group */
    double margin_accuracy;      /* in points: equivalence is shown within it; 0 = 1.5 */
    double margin_nll;           /* 0 = 0.03 */
    const char *json;            /* path or NULL */
    const char *report;          /* HTML path or NULL */
    const char *charts;          /* JSON file of further charts for the report, or NULL: {"title", "note", "charts":
                                    [{"title", "x", "lines": [{"name", "points": [[x, y], ...]}]}]} */
    const char *settings_json;   /* one JSON object of flags as given; NULL = {} */
    uint64_t seed;               /* of the resamples */
};

CR_API void cr_compare_options_init(struct cr_compare_options *options);

/* Paired bootstrap over examples, and over seeds when there are several: figures of each entry with 95 % intervals,
 * differences from the first, equivalence and being not worse by 90 % intervals (two one-sided tests at 5 %). Tables in
 * markdown go through emit. Errors: CR_E_USAGE; CR_E_INPUT for files that cannot be compared; CR_E_STOPPED. */
CR_API cr_status cr_compare(const struct cr_compare_options *options, const struct cr_host *host,
                            bool (*emit)(void *ctx, const char *text, size_t n_bytes), void *ctx, struct cr_error *err);

/* Calls emit(ctx, line) once an example, in file order: one JSON object a line without the line feed. emit returns
 * false to stop (CR_E_IO). */
CR_API cr_status cr_predict(const struct cr_eval_options *options, const struct cr_host *host,
                            bool (*emit)(void *ctx, const char *line), void *ctx, struct cr_error *err);

/* Text of `credence info`, `credence data`, `credence cpu`: written through emit in pieces. `color` allows terminal
 * colours. */
typedef bool cr_emit_fn(void *ctx, const char *text, size_t n_bytes);
CR_API cr_status cr_info(const char *path, cr_emit_fn *emit, void *ctx, struct cr_error *err);
CR_API cr_status cr_cpu_report(const struct cr_host *host, cr_emit_fn *emit, void *ctx, struct cr_error *err);

struct cr_data_options {
    size_t size;
    const char *model, *data;
    uint32_t max_seq_length;
    bool on_long_skip, train_on_prompt, color;
    const char *chat_template, *system, *normalize;
    uint64_t limit; /* examples shown, 0 = 5 */
};
CR_API cr_status cr_data_show(const struct cr_data_options *options, cr_emit_fn *emit, void *ctx,
                              struct cr_error *err);

struct cr_tokenize_options {
    size_t size;
    const char *model;
    bool jsonl, special, bos;
    const char *normalize;
};
/* Tokenises n_bytes of text, one line a line of input, to lines of ids. Warnings go to host->log. */
CR_API cr_status cr_tokenize_text(const struct cr_tokenize_options *options, const struct cr_host *host,
                                  const char *text, size_t n_bytes, cr_emit_fn *emit, void *ctx, struct cr_error *err);

struct cr_export_options {
    size_t size;
    const char *model;   /* needed to check shapes; NULL = trust the adapter */
    const char *adapter; /* directory, .gguf or checkpoint */
    const char *format;  /* "peft" or "gguf" */
    const char *output;
    bool force;
    bool mean;           /* the point that stands for a posterior: also what is written when nothing is said. An
                            * ensemble has none: member_set is needed */
    bool sample_set;     /* draw number `sample` (from 0), as an evaluation with this seed makes it */
    uint32_t sample;
    uint64_t seed;
    double posterior_temperature; /* 0 = 1 */
    double prune;        /* as in cr_eval_options */
    bool allow_inexact;
    bool member_set;     /* member number `member` (from 0) of an ensemble */
    uint32_t member;
    const char *task;    /* of bora, the adapter of this task; NULL = the common one */
    bool drop_head;      /* a member with label rows of its own is written without them; else its PEFT directory has them
                            as a pair on lm_head, which needs `model`, and one with an output matrix of its own */
};
CR_API cr_status cr_export(const struct cr_export_options *options, const struct cr_host *host, struct cr_error *err);

/* Refuses an input that the host itself reads, given by `flag`, when finetune, laplace or export with this output directory
 * would write over it or remove it; inputs in options are refused by the calls. Errors: CR_E_USAGE naming both. */
CR_API cr_status cr_output_check(const char *output, const char *flag, const char *path, struct cr_error *err);

/* A JSON object of flags: calls set(ctx, key, place, value) for every member, value in the text form of the flag, place 0;
 * for a list once an element in its order, place counting them from 0, and for an empty one once with "".
 * Errors: CR_E_IO, CR_E_INPUT, or what set returns. */
typedef cr_status cr_config_set(void *ctx, const char *key, size_t place, const char *value, struct cr_error *err);
CR_API cr_status cr_config_read(const char *path, cr_config_set *set, void *ctx, struct cr_error *err);

/* Version, compiler, dependencies. Static storage. */
CR_API const char *cr_version_text(void);

#ifdef __cplusplus
}
#endif
#endif
