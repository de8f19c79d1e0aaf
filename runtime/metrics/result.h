/* result: the figures of an evaluation as the JSON file that other programs read. Private to the runtime. */
#ifndef CR_METRICS_RESULT_H
#define CR_METRICS_RESULT_H

#include <jansson.h>

#include "credence/credence.h"
#include "runtime/core/error.h"
#include "runtime/metrics/outcome.h"

/* What an evaluation found. All borrowed. */
struct cr_evaluation {
    const struct cr_eval_result *result;
    struct cr_outcomes outcomes;   /* by all members, in file order */
    struct cr_outcomes calibrated; /* the same at a fitted temperature; items NULL: none */
    const char *const *task_names;
    size_t n_tasks;
    const char *model, *data; /* paths */
    char data_hash[33];       /* XXH3-128 of the data's bytes */
    struct cr_ood_entropies ood;
};

/* {"model","method","samples","tokens","seconds","tok_s","groups":[{"task","n","accuracy","nll","ece","brier",
 * "auroc_error"}...],"all":{...}}; text data also "perplexity", and with tasks "ppl_bora". Several members: "members",
 * and in each group "running" (the figures after the first 1, 2, ...); of choices, in the group and in "running",
 * "entropy", "expected_entropy", "mutual_information", "disagreement"; over all pairs of members "pair_disagreement"
 * and "pair_distance". By task "global": examples answered by the common adapter, where there are any. With a fitted
 * temperature "calibration" says it, and each group has "calibrated": its figures at that temperature, the others
 * staying raw. "ood" when it was asked for, "settings" the flags given. "data": {"path","xxh3","tasks"}. "examples"
 * (and "calibrated_examples"): what comparisons need of each, as columns.h says, unless options->no_examples. What does
 * not apply is null. Written atomically to options->json. Errors: CR_E_IO, CR_E_MEMORY. */
cr_status cr_result_write(const struct cr_evaluation *evaluation, const struct cr_eval_options *options,
                          struct cr_error *err);

/* Such a file, read back. */
struct cr_result_file {
    struct cr_evaluation evaluation; /* borrows from the rest; no result */
    const char *path;                /* borrowed */
    json_t *json;                    /* owned: everything that the file says */
    struct cr_eval_result result;    /* owned: method, samples, n_members and ood as the file says, and running, of
                                        all examples alone, as far as it is there; no figures */
    struct cr_outcome *items;        /* owned; index is the place among the examples */
    const char **task_names;         /* owned */
    struct cr_ood_entropies ood;     /* owned; empty when the file has none */
};

/* *file is zeroed before; close it whatever is returned. calibrated: the outcomes are those at the fitted temperature.
 * Errors: CR_E_IO, CR_E_MEMORY, CR_E_INPUT naming the file and what is wrong, also when there are no examples in it. */
cr_status cr_result_load(const char *path, bool calibrated, struct cr_result_file *file, struct cr_error *err);
void cr_result_close(struct cr_result_file *file);

#endif
