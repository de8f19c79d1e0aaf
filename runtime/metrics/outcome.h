/* outcome: what is kept of each example, and the figures of a group of examples with their uncertainty.
 *
 * Sums run in the order of the outcomes, which is that of the file: no figure depends on batches or threads.
 * Private to the runtime.
 */
#ifndef CR_METRICS_OUTCOME_H
#define CR_METRICS_OUTCOME_H

#include "credence/credence.h"
#include "runtime/core/error.h"

struct cr_outcome {
    uint32_t index;           /* of the example in its dataset */
    uint64_t line;            /* of the file */
    uint32_t n_targets;       /* choices: 1 */
    int32_t task;             /* -1 = none */
    uint32_t prediction;      /* choices */
    bool correct;             /* choices */
    double nll;               /* choices: of the answer; texts: sum over the targets */
    double confidence, brier; /* choices */
    double entropy, expected_entropy, mutual_information, disagreement; /* choices */
};

struct cr_outcomes {
    struct cr_outcome *items; /* borrowed */
    size_t n;
    bool classification;
    size_t n_bins;
};

/* Entropies, over the log of the number of choices, of the examples here and elsewhere (`--ood`), in file order. */
struct cr_ood_entropies {
    double *in, *out; /* owned: [n_in], [n_out] */
    size_t n_in, n_out;
};

void cr_ood_entropies_deinit(struct cr_ood_entropies *entropies);

/* Outcomes of one task moved together, in file order: view over outcomes whose task is `task`. Returns owned items
 * (cr_free) in *out. Errors: CR_E_MEMORY. */
cr_status cr_outcomes_of_task(const struct cr_outcomes *all, int32_t task, struct cr_outcomes *out,
                              struct cr_error *err);

/* Fills everything but the name. Texts: n = target tokens, nll a token, the rest but the perplexity NaN.
 * Errors: CR_E_MEMORY. */
cr_status cr_outcomes_measure(const struct cr_outcomes *outcomes, struct cr_group_metrics *out, struct cr_error *err);

/* Perplexity of texts as the paper of BoRA reports it (runtime/posterior/bora.h), over batches of 64 documents in file
 * order: every task of a batch weighs the same. NaN without texts of tasks. Errors: CR_E_MEMORY. */
cr_status cr_outcomes_bora_ppl(const struct cr_outcomes *outcomes, size_t n_tasks, double *out, struct cr_error *err);

enum cr_figure { CR_FIGURE_ACCURACY, CR_FIGURE_NLL, CR_FIGURE_BRIER, CR_FIGURE_ECE, CR_N_FIGURES };

/* Where a figure stands among those of a group. */
double *cr_figure_in(struct cr_group_metrics *group, enum cr_figure figure);

struct cr_bin;

/* The bins of the confidences of outcomes at[i] (at NULL: i), i < n; nothing for texts. */
void cr_outcomes_bins(const struct cr_outcomes *outcomes, const uint32_t *at, uint16_t *bin_of);

/* The ECE that these confidences would have if they were right (calibrate.h), over 500 draws of seed; at as above.
 * NaN for texts. Errors: CR_E_MEMORY. */
cr_status cr_outcomes_ece_floor(const struct cr_outcomes *outcomes, const uint32_t *at, uint64_t seed, double *out,
                                struct cr_error *err);

/* figures [CR_N_FIGURES] with outcome at[i] taken times[i] times: a resample. bin_of as above; room for n_bins + 1
 * bins. Of texts all but the NLL are NaN. */
void cr_outcomes_weigh(const struct cr_outcomes *outcomes, const uint32_t *at, const uint32_t *times,
                       const uint16_t *bin_of, struct cr_bin *bins, double *figures);

/* 95 % intervals of the bootstrap over examples: CR_BOOTSTRAP resamples drawn by Philox from (seed, stream); of the ECE
 * around its value (calibrate.h). {low, high}, NaN where the figure is not applicable. Source: Efron 1979, percentile
 * method. */
enum { CR_BOOTSTRAP = 1000 };

struct cr_intervals {
    double accuracy[2], nll[2], ece[2], brier[2], perplexity[2];
};

/* Errors: CR_E_MEMORY, CR_E_STOPPED. */
cr_status cr_outcomes_bootstrap(const struct cr_outcomes *outcomes, uint64_t seed, uint32_t stream,
                                const struct cr_host *host, struct cr_intervals *out, struct cr_error *err);

#endif
