#include "runtime/metrics/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/math.h"
#include "credence/kernels/rng.h"
#include "runtime/core/alloc.h"

#define LEAST_PROBABILITY 1e-12 /* of the references, before the logarithm */
#define TEMPERATURE_MAX 100.0

void cr_log_probs(const double *probs, size_t n, double *logits)
{
    for (size_t c = 0; c < n; c++) {
        logits[c] = cr_ln(probs[c] + LEAST_PROBABILITY);
    }
}

/* Of one example at inverse temperature b: NLL, and in *slope its derivative, E_p[z] - z_y. */
static double scaled_nll(const double *z, size_t n, size_t label, double b, double *slope)
{
    double most = z[cr_argmax(z, n)], sum = 0, mean = 0;
    for (size_t c = 0; c < n; c++) {
        double e = cr_exp(b * (z[c] - most));
        sum += e;
        mean += e * (z[c] - most);
    }
    *slope = mean / sum - (z[label] - most);
    return cr_ln(sum) - b * (z[label] - most);
}

static double total_nll(const struct cr_logits *set, double b, double *slope)
{
    double sum = 0;
    *slope = 0;
    for (size_t i = 0; i < set->n; i++) {
        double one;
        size_t n = set->n_classes != NULL ? set->n_classes[i] : set->stride;
        sum += scaled_nll(set->logits + i * set->stride, n, set->labels[i], b, &one);
        *slope += one;
    }
    return sum;
}

double cr_temperature_nll(const struct cr_logits *set, double temperature)
{
    double slope;
    return total_nll(set, 1 / temperature, &slope) / (double)set->n;
}

double cr_temperature_fit(const struct cr_logits *set)
{
    double high = cr_ln(TEMPERATURE_MAX), low = -high, slope;
    while (set->n > 0) {
        double middle = 0.5 * (low + high);
        total_nll(set, cr_exp(-middle), &slope);
        if (middle <= low || middle >= high) {
            return cr_exp(middle);
        }
        if (slope > 0) { /* a smaller 1/T is better */
            low = middle;
        } else if (slope < 0) {
            high = middle;
        } else {
            return cr_exp(middle);
        }
    }
    return 1;
}

static int most_confident_first(const void *a, const void *b)
{
    double x = ((const struct cr_scored *)a)->score;
    double y = ((const struct cr_scored *)b)->score;
    return x > y ? -1 : x < y ? 1 : 0;
}

double cr_risk_coverage(struct cr_scored *items, size_t n, double *risk)
{
    double area = 0, errors_before = 0;
    if (n == 0) {
        return (double)NAN;
    }
    qsort(items, n, sizeof *items, most_confident_first);
    for (size_t begin = 0, end = 0; begin < n; begin = end) {
        double errors = 0;
        while (end < n && items[end].score == items[begin].score) {
            errors += items[end++].positive ? 0 : 1;
        }
        for (size_t k = begin + 1; k <= end; k++) {
            double share = (double)(k - begin) / (double)(end - begin);
            double at = (errors_before + share * errors) / (double)k;
            area += at;
            if (risk != NULL) {
                risk[k - 1] = at;
            }
        }
        errors_before += errors;
    }
    return area / (double)n;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

/* The point below which a share lies, between neighbours by weight. */
static double percentile(const double *sorted, size_t n, double share)
{
    double at = share * (double)(n - 1);
    size_t below = (size_t)at < n - 1 ? (size_t)at : n - 2;
    double rest = at - (double)below;
    return sorted[below] * (1 - rest) + sorted[below + 1] * rest;
}

void cr_interval(double *values, size_t n, double level, struct cr_estimate *out)
{
    qsort(values, n, sizeof *values, ascending);
    out->low = percentile(values, n, (1 - level) / 2);
    out->high = percentile(values, n, (1 + level) / 2);
}

void cr_interval_around(double figure, double *values, size_t n, double level, struct cr_estimate *out)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += values[i];
    }
    double bias = sum / (double)n - figure;
    cr_interval(values, n, level, out);
    out->low -= bias;
    out->high -= bias;
}

/* Words in order: word i % 4 of block (i / 4, draw, kind, 0). */
struct words {
    uint32_t key[2], counter[4], block[4];
    unsigned left;
};

enum { FLOOR_STREAM = 0x65636566, PAIRED_STREAM = 0x70616972 };

static struct words words_of(uint64_t seed, uint32_t stream, size_t draw, uint32_t kind)
{
    return (struct words){.key = {(uint32_t)seed, (uint32_t)(seed >> 32) ^ stream},
                          .counter = {0, (uint32_t)draw, kind, 0}};
}

static uint32_t next(struct words *w)
{
    if (w->left == 0) {
        cr_philox4x32(w->counter, w->key, w->block);
        w->counter[0]++;
        w->left = 4;
    }
    return w->block[4 - w->left--];
}

cr_status cr_ece_floor(const double *confidence, size_t n, size_t n_bins, uint64_t seed, size_t n_draws, double *out,
                       struct cr_error *err)
{
    bool *right = cr_alloc(n, sizeof *right);
    struct cr_bin *bins = cr_alloc(n_bins + 1, sizeof *bins);
    double mean = 0;
    cr_status status = CR_OK;
    if (right == NULL || bins == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for %zu draws of %zu answers", n_draws, n);
        goto out;
    }
    for (size_t d = 0; d < n_draws; d++) {
        struct words w = words_of(seed, FLOOR_STREAM, d, 0);
        for (size_t i = 0; i < n; i++) {
            right[i] = ((double)next(&w) + 0.5) * 0x1p-32 < confidence[i];
        }
        cr_bins_fill(confidence, right, n, n_bins, CR_BIN_RIGHT_CLOSED, bins);
        mean += cr_bins_ece(bins, n_bins) / (double)n_draws;
    }
    *out = mean;
out:
    cr_free(right);
    cr_free(bins);
    return status;
}

void cr_resample(uint64_t seed, size_t draw, uint32_t kind, size_t n, uint32_t *counts)
{
    struct words w = words_of(seed, PAIRED_STREAM, draw, kind);
    memset(counts, 0, n * sizeof *counts);
    for (size_t i = 0; i < n; i++) {
        counts[((uint64_t)next(&w) * n) >> 32]++;
    }
}

bool cr_equivalent(const struct cr_estimate *of_level_90, double margin)
{
    return of_level_90->low > -margin && of_level_90->high < margin;
}

bool cr_not_worse(const struct cr_estimate *of_level_90, double margin)
{
    return of_level_90->low > -margin;
}
