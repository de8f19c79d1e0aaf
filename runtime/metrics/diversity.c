#include "runtime/metrics/diversity.h"

#include <math.h>

#include "credence/kernels/math.h"
#include "runtime/metrics/metrics.h"

#define LEAST_PROBABILITY 1e-300

/* KL(p||q) + KL(q||p) = sum (p - q) (ln p - ln q); every term is >= 0. */
static double symmetric_kl(const double *p, const double *q, size_t n)
{
    double sum = 0;
    for (size_t c = 0; c < n; c++) {
        if (p[c] != q[c]) {
            sum += (p[c] - q[c]) * (cr_ln(fmax(p[c], LEAST_PROBABILITY)) - cr_ln(fmax(q[c], LEAST_PROBABILITY)));
        }
    }
    return sum;
}

void cr_diversity_add(const double *probs, size_t n_members, size_t n_classes, struct cr_diversity *sum)
{
    for (size_t a = 0; a < n_members; a++) {
        const double *p = probs + a * n_classes;
        for (size_t b = a + 1; b < n_members; b++) {
            const double *q = probs + b * n_classes;
            sum->n_pairs++;
            sum->n_disagree += cr_argmax(p, n_classes) != cr_argmax(q, n_classes);
            double half = 0.5 * symmetric_kl(p, q, n_classes);
            sum->half_kl += half;
            sum->distance += sqrt(half);
        }
    }
}

double cr_diversity_disagreement(const struct cr_diversity *sum)
{
    return sum->n_pairs > 0 ? (double)sum->n_disagree / (double)sum->n_pairs : (double)NAN;
}

double cr_diversity_distance(const struct cr_diversity *sum)
{
    return sum->n_pairs > 0 ? sum->distance / (double)sum->n_pairs : (double)NAN;
}
