/* swag: when to take snapshots of the weights and with which learning rate, their running moments, and draws.
 *
 *   theta = mean + sqrt(scale) (sqrt(var) z1 + D^T z2 / sqrt(K - 1))
 * mean, var: of all snapshots; D: the last K deviations of a snapshot from the running mean after it, so the first one
 * is zero and the divisor keeps K while there are fewer. Covariance scale (diag(var) + D^T D / (K - 1)).
 * Sources: Maddox et al. 2019 (arXiv 1902.02476), section 3 and algorithm 1 (scale 1/2); Onal et al. 2024
 * (arXiv 2405.03425), SWAG on adapters (its program: scale 1). Moments and draws run on credence/kernels/dplr.h.
 *
 * Memory is the caller's. Same bits for any number of threads. `parallel` NULL: on the calling thread.
 */
#ifndef CR_POSTERIOR_SWAG_H
#define CR_POSTERIOR_SWAG_H

#include <stdbool.h>

#include "credence/kernels/dplr.h"
#include "credence/parallel.h"
#include "runtime/core/error.h"

/* Steps count from 0. Up to `start` the run has its own schedule; step start + k has the rate
 *   lr0 (1 - t) + lr t,  t = min(1, k / n_anneal), for cosine (1 - cos(pi t)) / 2;   n_anneal 0: t = 1
 * lr0 being the rate that the own schedule has at `start`. A snapshot follows step start + every - 1 and every `every`
 * steps from there. (PyTorch's SWALR.) */
struct cr_swag_plan {
    uint64_t n_steps, start, every, n_anneal;
    double lr;
    bool cosine;
};

/* start = fraction of n_steps, rounded up. Errors, CR_E_USAGE: fraction outside [0, 1), every 0, lr not positive and
 * finite, no snapshot at all. */
cr_status cr_swag_plan_init(struct cr_swag_plan *plan, uint64_t n_steps, double fraction, uint64_t every, double lr,
                            uint64_t n_anneal, struct cr_error *err);

/* Steps between snapshots where none are said: 25, fewer or more where that gives less than K + 1 snapshots in the
 * n_left steps, or more than 4 (K + 1); at least 1. K = n_rows. */
uint64_t cr_swag_interval(uint64_t n_left, uint32_t n_rows);

/* Rate of a step >= plan->start. */
double cr_swag_lr(const struct cr_swag_plan *plan, uint64_t step, double lr0);

/* Is a snapshot taken after this step, n having been taken? One whose step was skipped is made up for by the next. */
bool cr_swag_due(const struct cr_swag_plan *plan, uint64_t step, uint64_t n_taken);
uint64_t cr_swag_snapshots(const struct cr_swag_plan *plan); /* of the whole run */

/* Moments of n_params weights. Starts with n = 0 and zeros everywhere. */
struct cr_swag {
    size_t n_params, row_stride; /* row_stride: elements between rows */
    uint32_t n_rows;             /* K >= 2 */
    uint64_t n;                  /* snapshots taken */
    float *mean, *mean_low, *m2; /* [n_params]; the mean is a pair, m2 / n the variance */
    uint16_t *rows;              /* [n_rows], bf16; snapshot i lies in row i % K */
};

/* Deviations held: min(n, K), and their number that is not the zero of the first snapshot: the rank, K only from
 * n = K + 1 on. */
uint32_t cr_swag_held(const struct cr_swag *swag);
uint32_t cr_swag_rank(const struct cr_swag *swag);

/* Row of the deviation of that age, 0 the oldest held. */
const uint16_t *cr_swag_row(const struct cr_swag *swag, uint32_t age);

/* Takes w [n_params] in. */
void cr_swag_collect(struct cr_swag *swag, const struct cr_dplr_ops *ops, const struct cr_parallel *parallel,
                     const float *w);

struct cr_swag_draws {
    double scale;      /* >= 0; 0 gives the mean, bit for bit */
    double clamp;      /* least variance, the reference 1e-30; 0 leaves numbers that never moved where they are */
    bool diagonal;     /* without the deviations */
    bool plain_factor; /* `scale` where its root belongs: the reference in its block mode */
    uint64_t seed;
    uint32_t first_sample, block; /* sample s is the same in any call; block: 0, or of a tensor drawn by itself */
    size_t n_samples;
    const float *z1; /* [n_samples][z1_stride >= n_params] given normals, NULL: drawn from the seed */
    size_t z1_stride;
    const double *z2; /* [n_samples][held] by age, NULL: drawn */
};

/* out [n_samples][out_stride >= n_params]. coef: caller's, [held * n_samples]. swag->n >= 1. One call over a whole
 * adapter shares z2 among its tensors, which is what couples them. */
void cr_swag_sample(const struct cr_swag *swag, const struct cr_dplr_ops *ops, const struct cr_parallel *parallel,
                    const struct cr_swag_draws *draws, float *coef, float *out, size_t out_stride);

#endif
