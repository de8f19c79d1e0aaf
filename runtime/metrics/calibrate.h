/* calibrate: how far predictions can be trusted, and whether a difference between two methods is one. Double, no heap
 * unless said, sums in a fixed order; random numbers by Philox from the seed given.
 *
 *   temperature   T > 0 minimising mean -log softmax(z / T)[y] on a validation part        (Guo et al. 2017)
 *   risk(k)       errors among the k most confident / k;  area = mean over k = 1 ... n     (Geifman, El-Yaniv 2017)
 *   ECE floor     ECE of a predictor whose confidences are right, at the same n and confidences
 *   bootstrap     percentile intervals of a mean over seeds x examples, both drawn again    (Efron 1979; Owen 2007)
 *   equivalence   two one-sided tests: the 90 % interval within the margins                 (Schuirmann 1987)
 */
#ifndef CR_METRICS_CALIBRATE_H
#define CR_METRICS_CALIBRATE_H

#include "runtime/core/error.h"
#include "runtime/metrics/metrics.h"

/* Logits of n examples, row i at logits + i stride with n_classes[i] <= stride of them (NULL: stride). Of a mixture,
 * the logarithms of its probabilities: cr_log_probs. */
struct cr_logits {
    const double *logits;
    size_t n, stride;
    const uint32_t *n_classes, *labels;
};

/* logits [n] = ln(probs [n] + 1e-12); in place is fine. */
void cr_log_probs(const double *probs, size_t n, double *logits);

/* Mean NLL at a temperature; NaN without examples. */
double cr_temperature_nll(const struct cr_logits *set, double temperature);

/* The best temperature, by bisection on its logarithm (NLL is convex in 1/T), cut to [0.01, 100]: there it stays when
 * every answer is right, or when the logits say nothing. 1 without examples. */
double cr_temperature_fit(const struct cr_logits *set);

/* Fills risk [n] (risk[k - 1] of the k most confident; may be NULL) and returns its area. `positive` of an item means a
 * right answer. Among equal confidences errors count as spread evenly, so order does not matter. Sorts items. NaN for
 * n = 0. */
double cr_risk_coverage(struct cr_scored *items, size_t n, double *risk);

/* Mean and 2.5, 97.5 % points of an estimate. */
struct cr_estimate {
    double mean, low, high;
};

/* Sets low and high to the ends of the interval of `level` of values [n >= 2], which it sorts. */
void cr_interval(double *values, size_t n, double level, struct cr_estimate *out);

/* The same, moved by what the mean of the values is off `figure`. For figures that resampling biases: noise raises an
 * ECE, and resamples have the noise of the examples and their own, so that an ECE may lie below its plain interval. */
void cr_interval_around(double figure, double *values, size_t n, double level, struct cr_estimate *out);

/* Mean ECE over n_draws draws (1 to 100000) of answers right with probability confidence[i]. Errors: CR_E_MEMORY. */
cr_status cr_ece_floor(const double *confidence, size_t n, size_t n_bins, uint64_t seed, size_t n_draws, double *out,
                       struct cr_error *err);

/* A draw of a bootstrap: how often each of n seeds (kind 0) or examples (kind 1) is taken, with replacement, counts
 * [n]. Of a comparison both are drawn, the same for all methods. Other kinds are other draws. */
void cr_resample(uint64_t seed, size_t draw, uint32_t kind, size_t n, uint32_t *counts);

/* Equivalent within +-margin at 5 %: interval of level 0.9 inside. Not worse than -margin (higher is better): its lower
 * end above. False for NaN. */
bool cr_equivalent(const struct cr_estimate *of_level_90, double margin);
bool cr_not_worse(const struct cr_estimate *of_level_90, double margin);

#endif
