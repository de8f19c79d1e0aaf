#include "runtime/metrics/metrics.h"

#include <math.h>
#include <stdlib.h>

#include "credence/kernels/math.h"

static double largest_of(const double *values, size_t n)
{
    double largest = values[0];
    for (size_t i = 1; i < n; i++) {
        largest = values[i] > largest ? values[i] : largest;
    }
    return largest;
}

void cr_softmax(const double *logits, size_t n, double *probs)
{
    double largest = largest_of(logits, n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        probs[i] = cr_exp(logits[i] - largest);
        sum += probs[i];
    }
    for (size_t i = 0; i < n; i++) {
        probs[i] /= sum;
    }
}

void cr_mean_probs(const double *probs, size_t n_members, size_t n_classes, double *mean)
{
    for (size_t c = 0; c < n_classes; c++) {
        double sum = 0;
        for (size_t s = 0; s < n_members; s++) {
            sum += probs[s * n_classes + c];
        }
        mean[c] = sum / (double)n_members;
    }
}

double cr_softmax_nll(const double *logits, size_t n, size_t answer)
{
    double largest = largest_of(logits, n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += cr_exp(logits[i] - largest);
    }
    return largest - logits[answer] + cr_ln(sum);
}

double cr_mixture_nll(const double *member_nll, size_t n_members)
{
    if (n_members == 1) {
        return member_nll[0];
    }
    double smallest = member_nll[0];
    for (size_t s = 1; s < n_members; s++) {
        smallest = member_nll[s] < smallest ? member_nll[s] : smallest;
    }
    double sum = 0;
    for (size_t s = 0; s < n_members; s++) {
        sum += cr_exp(smallest - member_nll[s]);
    }
    return smallest - cr_ln(sum / (double)n_members);
}

double cr_probability(double nll)
{
    return cr_exp(-nll);
}

/* Of values [n] that sum to `whole`. */
static double entropy_of(const double *values, size_t n, double whole)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double p = values[i] / whole;
        sum -= p > 0 ? p * cr_ln(p) : 0;
    }
    return sum > 0 ? sum : 0; /* never -0 */
}

double cr_entropy(const double *probs, size_t n)
{
    return entropy_of(probs, n, 1);
}

struct cr_doubt cr_doubt_add(const double *probs, size_t n_classes, size_t n_members, double *sum, double *entropies)
{
    for (size_t c = 0; c < n_classes; c++) {
        sum[c] += probs[c];
    }
    *entropies += cr_entropy(probs, n_classes);
    struct cr_doubt doubt = {.entropy = entropy_of(sum, n_classes, (double)n_members),
                             .expected_entropy = *entropies / (double)n_members};
    double information = doubt.entropy - doubt.expected_entropy;
    doubt.mutual_information = information > 0 ? information : 0;
    return doubt;
}

double cr_brier(const double *probs, size_t n, size_t answer)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double difference = probs[i] - (i == answer ? 1.0 : 0.0);
        sum += difference * difference;
    }
    return sum;
}

size_t cr_argmax(const double *values, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        best = values[i] > values[best] ? i : best;
    }
    return best;
}

double cr_perplexity(double nll_sum, uint64_t n_tokens)
{
    return n_tokens > 0 ? cr_exp(nll_sum / (double)n_tokens) : (double)NAN;
}

double cr_task_perplexity(const struct cr_task_nll *parts, size_t n_batches, size_t n_tasks)
{
    double sum = 0;
    size_t n_summed = 0;
    for (size_t b = 0; b < n_batches; b++) {
        double nll = 0;
        size_t n_present = 0;
        for (const struct cr_task_nll *p = parts + b * n_tasks; p < parts + (b + 1) * n_tasks; p++) {
            if (p->n_tokens > 0) {
                nll += p->nll / (double)p->n_tokens;
                n_present++;
            }
        }
        if (n_present > 0) {
            sum += cr_exp(nll / (double)n_present);
            n_summed++;
        }
    }
    return n_summed > 0 ? sum / (double)n_summed : (double)NAN;
}

/* Largest b with b / n_bins <= confidence, so that the product's rounding cannot move a value over an edge. */
static size_t edge_below(double confidence, size_t n_bins)
{
    double width = (double)n_bins;
    size_t b = (size_t)(confidence * width);
    while (b > 0 && (double)b / width > confidence) {
        b--;
    }
    while (b < n_bins && (double)(b + 1) / width <= confidence) {
        b++;
    }
    return b;
}

size_t cr_bin_of(double confidence, size_t n_bins, enum cr_bin_rule rule)
{
    size_t b = edge_below(confidence, n_bins);
    if (rule == CR_BIN_RIGHT_CLOSED) {
        return b > 0 && (double)b / (double)n_bins >= confidence ? b - 1 : b;
    }
    return rule == CR_BIN_CLAMPED && b == n_bins ? n_bins - 1 : b;
}

void cr_bins_fill(const double *confidence, const bool *correct, size_t n, size_t n_bins, enum cr_bin_rule rule,
                  struct cr_bin *bins)
{
    for (size_t b = 0; b <= n_bins; b++) {
        bins[b] = (struct cr_bin){0};
    }
    for (size_t i = 0; i < n; i++) {
        struct cr_bin *bin = &bins[cr_bin_of(confidence[i], n_bins, rule)];
        bin->n++;
        bin->confidence += confidence[i];
        bin->correct += correct[i] ? 1 : 0;
    }
}

double cr_bins_ece(const struct cr_bin *bins, size_t n_bins)
{
    double sum = 0;
    uint64_t n = 0;
    for (size_t b = 0; b <= n_bins; b++) {
        sum += fabs(bins[b].correct - bins[b].confidence);
        n += bins[b].n;
    }
    return n > 0 ? sum / (double)n : (double)NAN;
}

static int higher_first(const void *a, const void *b)
{
    double x = ((const struct cr_scored *)a)->score;
    double y = ((const struct cr_scored *)b)->score;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* End of the run of equal scores that begins at i, and how many of it are positive. */
static size_t run_of_equals(const struct cr_scored *items, size_t n, size_t i, size_t *n_positive)
{
    double score = items[i].score;
    *n_positive = 0;
    while (i < n && items[i].score == score) {
        *n_positive += items[i++].positive;
    }
    return i;
}

double cr_auroc(struct cr_scored *items, size_t n)
{
    double above = 0; /* pairs with the positive in front; equals count one half */
    size_t positives = 0;
    if (n > 0) {
        qsort(items, n, sizeof *items, higher_first);
    }
    for (size_t i = 0; i < n;) {
        size_t run_positives;
        size_t end = run_of_equals(items, n, i, &run_positives);
        double negatives = (double)(end - i - run_positives);
        above += negatives * ((double)positives + (double)run_positives / 2);
        positives += run_positives;
        i = end;
    }
    return positives > 0 && positives < n ? above / ((double)positives * (double)(n - positives)) : (double)NAN;
}

double cr_average_precision(struct cr_scored *items, size_t n)
{
    double sum = 0;
    size_t positives = 0;
    if (n > 0) {
        qsort(items, n, sizeof *items, higher_first);
    }
    for (size_t i = 0; i < n;) {
        size_t run_positives;
        size_t end = run_of_equals(items, n, i, &run_positives);
        positives += run_positives;
        sum += (double)run_positives * ((double)positives / (double)end);
        i = end;
    }
    return positives > 0 ? sum / (double)positives : (double)NAN;
}
