/* ivon: the variational online Newton optimiser with a diagonal Gaussian posterior, fused (Shen et al. 2024, algorithm
 * 1; details as the authors' optimiser, both of its Hessian estimates).
 *
 * Posterior N(mean, 1 / (ess (h + wd))). eps [D] is the unit normal of a sample: given as an array, or element e of the
 * stream `noise` (credence/kernels/rng.h), regenerated and never stored. For each step and sample s = 1 ... S:
 *
 *   perturb     next = mean + eps_next sqrt(1 / (ess a)),  a = h + wd; the backward pass runs at next and makes grad
 *   accumulate  g = grad_scale grad;  c = eps g (price) or g^2 (gradsq)
 *               avg_grad += (g - avg_grad) / s;  avg_curv += (c - avg_curv) / s;  next as perturb
 *   step        the last sample joins the averages (S = 1: no averages are kept), then, with their values g and c,
 *               f = sqrt(ess a) c (price: noise times gradient times ess a) or ess c (gradsq)
 *               d = (1 - beta2) (f - h);  h' = h + d (1 + d / (2 a)) = b2 h + (1-b2) f + (1-b2)^2 (f-h)^2 / (2 a)
 *               m' = beta1 m + (1 - beta1) clip g
 *               x = (m' / (1 - beta1^t) + wd mean) / (h' + wd)
 *               mean' = mean - lr (hess_init + wd if rescale_lr) min(max(x, -clip_radius), clip_radius)
 *               next = mean' + eps_next sqrt(1 / (ess (h' + wd))) for the step that follows
 *
 * f uses the h that the noise was drawn with, the update uses the new one. h + wd stays at least half of what it was;
 * h itself may become negative when wd > 0. 1 - beta1, 1 - beta2 and the other scalars are made in double and rounded
 * once. One noise for all micro-batches: sum their gradients in grad, set grad_scale. clip (of a global norm) scales
 * the gradient in the momentum only. Several workers: each accumulates all its samples, cr_ivon_merge averages the
 * averages, and every worker steps with grad NULL, which takes them as they are.
 *
 * Arrays: mean, momentum, hess [D] in/out; grad, eps, eps_next [D] read; avg_grad, avg_curv [D] in/out, read when
 * sample > 1 or grad is NULL; next [D] f32 and next_high, next_low [D] bf16 (next rounded, and what that left, rounded)
 * written where not NULL. Any alignment, no aliasing. accumulate reads mean and hess only if a next is asked for.
 * Requires h + wd > 0 and normal, ess and 1 / ess normal in f32, clip_radius > 0 (infinity: none), t >= 1, sample >= 1,
 * and the other scalars, rounded to f32, finite.
 * Range: elements; begin and end multiples of CR_IVON_CHUNK or end == D; D <= 2^34. Elementwise: same bits for any
 * split and on every tier (fused multiply-add, division and square root, each correctly rounded). stats (step only,
 * NULL: none): one a chunk, at begin / CR_IVON_CHUNK and up. sum_hess adds 64 chains of f32 in double: within 65 *
 * 2^-24 of the sum of |h'|. Tolerance of step, u = 2^-24: m' 4 u of its |terms|; h' (per update) 2 u |h'| + 12 u of |d|
 * and its factors; mean 2 u |mean| + 8 u of the change and of its |terms|; next 6 u of the noise and u |next|.
 */
#ifndef CREDENCE_KERNELS_IVON_H
#define CREDENCE_KERNELS_IVON_H

#include <stdbool.h>

#include "credence/kernels/rng.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CR_IVON_CHUNK = 4096 };

struct cr_ivon_stats {
    double sum_hess;    /* of h' */
    float min_hess;     /* least h' */
    uint32_t n_clipped; /* elements with |x| > clip_radius */
};

struct cr_ivon_args {
    float *mean, *momentum, *hess;
    const float *grad;
    float *avg_grad, *avg_curv;
    const float *eps, *eps_next;       /* NULL: the streams below */
    struct cr_noise noise, noise_next; /* of the sample that grad belongs to; of next */
    float *next;
    uint16_t *next_high, *next_low; /* both or none */
    struct cr_ivon_stats *stats;
    double lr, ess, weight_decay, beta1, beta2, hess_init, clip_radius;
    double grad_scale, clip; /* factors of grad, 1 = none */
    uint64_t t;      /* number of this step, from 1 */
    uint32_t sample; /* s of this gradient, from 1; in step: S */
    bool gradsq, debias, rescale_lr;
};

typedef void cr_ivon_fn(const struct cr_ivon_args *args, size_t begin, size_t end);

struct cr_ivon_ops {
    cr_ivon_fn *perturb, *accumulate, *step;
};

CR_API cr_status cr_ivon_ops_init(struct cr_ivon_ops *ops, enum cr_tier tier);

/* The statistics of n_workers workers, whose samples all are in their averages: avg_grad[w] and avg_curv[w] [D] of
 * every worker w become the mean over the workers, added in their order in double and rounded once. Elements [begin,
 * end), any bounds: the same bits for any split. No array is given twice. Workers of equal statistics keep them, bit
 * for bit (fewer than 2^29): W workers with the same data and the same noise are one. */
CR_API void cr_ivon_merge(float *const *avg_grad, float *const *avg_curv, size_t n_workers, size_t begin, size_t end);

/* Checked entries: the call when the arguments are sound, else CR_E_USAGE, a message and nothing touched. `end` is not
 * checked against D. Values of the arrays are not looked at. */
CR_API cr_status cr_ivon_perturb_checked(const struct cr_ivon_ops *ops, const struct cr_ivon_args *args, size_t begin,
                                         size_t end, struct cr_error *err);
CR_API cr_status cr_ivon_accumulate_checked(const struct cr_ivon_ops *ops, const struct cr_ivon_args *args,
                                            size_t begin, size_t end, struct cr_error *err);
CR_API cr_status cr_ivon_step_checked(const struct cr_ivon_ops *ops, const struct cr_ivon_args *args, size_t begin,
                                      size_t end, struct cr_error *err);
CR_API cr_status cr_ivon_merge_checked(float *const *avg_grad, float *const *avg_curv, size_t n_workers, size_t begin,
                                       size_t end, struct cr_error *err);

#ifdef __cplusplus
}
#endif
#endif
