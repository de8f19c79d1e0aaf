/* paired_case: the paired bootstrap of one difference by its definition, from the library's draws: what comparisons,
 * which resample several figures at once, must agree with. */
#ifndef CR_TESTS_PAIRED_CASE_H
#define CR_TESTS_PAIRED_CASE_H

#include <check.h>
#include <stdlib.h>

#include "runtime/metrics/calibrate.h"

/* Differences of two methods on the same examples, [n_seeds][n_examples], run by run, at least one of each. */
struct paired {
    const double *difference;
    size_t n_seeds, n_examples;
};

/* Mean difference and its interval of `level` over n_draws of seeds and of examples with replacement. */
static inline struct cr_estimate paired_bootstrap(const struct paired *pairs, double level, uint64_t seed,
                                                  size_t n_draws)
{
    size_t n_seeds = pairs->n_seeds, n = pairs->n_examples;
    struct cr_estimate made = {0};
    double *values = calloc(n_draws, sizeof *values);
    uint32_t *seeds = calloc(n_seeds, sizeof *seeds), *examples = calloc(n, sizeof *examples);
    ck_assert(values != NULL && seeds != NULL && examples != NULL);
    for (size_t i = 0; i < n_seeds * n; i++) {
        made.mean += pairs->difference[i] / (double)(n_seeds * n);
    }
    for (size_t d = 0; d < n_draws; d++) {
        cr_resample(seed, d, 0, n_seeds, seeds);
        cr_resample(seed, d, 1, n, examples);
        for (size_t i = 0; i < n_seeds * n; i++) {
            values[d] += (double)seeds[i / n] * (double)examples[i % n] * pairs->difference[i];
        }
        values[d] /= (double)n_seeds * (double)n;
    }
    cr_interval(values, n_draws, level, &made);
    free(values);
    free(seeds);
    free(examples);
    return made;
}

#endif
