/* metrics: how good and how honest predictions are. Pure arithmetic in double, no heap, exp and log of our own.
 *
 *   p_n   = mean over members of softmax        conf_n = max_c p_nc      pred_n = argmax_c p_nc, lowest index of equals
 *   ACC   = mean [pred_n == y_n]                NLL   = mean -log p_n,y_n
 *   Brier = mean sum_c (p_nc - [c == y_n])^2    not divided by the number of classes: 0...2
 *   ECE   = sum over bins of n_b / N |accuracy_b - mean confidence_b|, bins of equal width on [0, 1]
 *   H(p)  = -sum_c p_c log p_c                  MI    = H(mean p) - mean over members of H(p_s)
 *   AUROC = probability that a positive scores above a negative, equals counting one half
 *   AP    = sum over distinct scores, from the highest, of (recall - recall before) * precision
 * Natural logarithms, 0 log 0 = 0. Means over nothing are NaN. Sums run in the order given.
 * Definitions: Guo et al. 2017 (ECE); Brier 1950; Houlsby et al. 2011 (MI); choices among their variants as written.
 */
#ifndef CR_METRICS_H
#define CR_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* probs [n] = softmax(logits [n]); in place is fine. Logits finite, n >= 1. */
void cr_softmax(const double *logits, size_t n, double *probs);

/* mean [n_classes] of probs [n_members][n_classes]. */
void cr_mean_probs(const double *probs, size_t n_members, size_t n_classes, double *mean);

/* -log softmax(logits [n])[answer], exact to rounding where the probability itself would underflow. */
double cr_softmax_nll(const double *logits, size_t n, size_t answer);

/* NLL of the mean of the probabilities exp(-member_nll[s]), s < n_members. */
double cr_mixture_nll(const double *member_nll, size_t n_members);

/* exp(-nll) */
double cr_probability(double nll);

double cr_entropy(const double *probs, size_t n);

/* What members say together: entropy of the mean of their probabilities, mean of their entropies, and the difference,
 * the mutual information: not below 0; exactly 0 for one member. */
struct cr_doubt {
    double entropy, expected_entropy, mutual_information;
};

/* Of the members so far, one more at a time, the n_members-th with probs [n_classes]: sum [n_classes] and *entropies
 * are 0 before the first one. The same bits as all at once. */
struct cr_doubt cr_doubt_add(const double *probs, size_t n_classes, size_t n_members, double *sum, double *entropies);

double cr_brier(const double *probs, size_t n, size_t answer);

/* Index of the largest, the lowest of equals. */
size_t cr_argmax(const double *values, size_t n);

/* exp(nll_sum / n_tokens); NaN without tokens. */
double cr_perplexity(double nll_sum, uint64_t n_tokens);

/* What a batch holds of one task. */
struct cr_task_nll {
    double nll;        /* sum over the target tokens, nats */
    uint64_t n_tokens; /* targets; 0 where the task is not present */
};

/* Perplexity as BoRA reports it (Eide and Frigessi 2024, arXiv 2407.15857, and their program): exp of the mean over
 * present tasks of nll / n_tokens, averaged over batches that have any. parts [n_batches][n_tasks]. NaN without. The
 * paper then takes the smallest over epochs. */
double cr_task_perplexity(const struct cr_task_nll *parts, size_t n_batches, size_t n_tasks);

/* Which side of a bin its edge belongs to. Edges are b / n_bins, rounded to double. */
enum cr_bin_rule {
    CR_BIN_RIGHT_CLOSED, /* (lo, hi], the default; 0 falls into the first */
    CR_BIN_LEFT_CLOSED,  /* [lo, hi), confidence 1 in a bin of its own: n_bins + 1 bins */
    CR_BIN_CLAMPED       /* [lo, hi), confidence 1 in the last bin */
};

enum { CR_BINS_DEFAULT = 15, CR_BINS_MAX = 1000 };

/* 0 ... n_bins - 1 (n_bins for confidence 1 by the rule with a bin of its own). */
size_t cr_bin_of(double confidence, size_t n_bins, enum cr_bin_rule rule);

struct cr_bin {
    uint64_t n;
    double confidence, correct; /* sums; divide by n for means */
};

/* Fills bins [n_bins + 1]. */
void cr_bins_fill(const double *confidence, const bool *correct, size_t n, size_t n_bins, enum cr_bin_rule rule,
                  struct cr_bin *bins);

/* ECE of filled bins [n_bins + 1]; NaN when they are empty. */
double cr_bins_ece(const struct cr_bin *bins, size_t n_bins);

struct cr_scored {
    double score;
    bool positive;
};

/* Both sort items. NaN without a positive or (AUROC) without a negative. */
double cr_auroc(struct cr_scored *items, size_t n);
double cr_average_precision(struct cr_scored *items, size_t n);

#endif
