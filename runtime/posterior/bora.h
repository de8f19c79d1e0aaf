/* bora: one low-rank adapter per task under a common Gaussian prior with a learned mean, as plain arrays.
 *
 *   objective   sum_d data_d + weight * sum_d penalty(theta_d - Theta)
 *   SQ          penalty = 1/2 ||theta_d - Theta||^2                     the MAP objective of the paper
 *   NORM        penalty = sum over tensors ||theta_d,j - Theta_j||      what the authors' program minimises
 * Source: Eide and Frigessi 2024 (arXiv 2407.15857).
 *
 * weight is the prior precision tau where data_d is the sum of log-likelihoods; where it is the mean over the N
 * training documents, tau / N. A flat prior on Theta: for SQ its optimum given all theta_d is their mean.
 *
 * Arrays: n contiguous numbers of one tensor, or of a whole adapter for SQ. Arithmetic in double, results rounded once.
 * No aliasing, no memory of our own, nothing fails; values that are not finite propagate. Sums run in a fixed order.
 */
#ifndef CR_POSTERIOR_BORA_H
#define CR_POSTERIOR_BORA_H

#include <stddef.h>

enum cr_bora_prior { CR_BORA_SQ, CR_BORA_NORM };

/* Returns penalty(theta - center) of the n numbers, without the weight; center NULL = zeros (an adapter beside the
 * common one). Adds weight times its gradient to grad and minus that to center_grad; either may be NULL. The gradient
 * of NORM where theta == center is 0. */
double cr_bora_pull_f32(enum cr_bora_prior prior, double weight, const float *theta, const float *center, size_t n,
                        float *grad, float *center_grad);
double cr_bora_pull_f64(enum cr_bora_prior prior, double weight, const double *theta, const double *center, size_t n,
                        double *grad, double *center_grad);

/* center = mean of theta[0 ... n_tasks - 1], added in that order: the optimal Theta of SQ. n_tasks >= 1. */
void cr_bora_center_f32(const float *const *theta, size_t n_tasks, size_t n, float *center);
void cr_bora_center_f64(const double *const *theta, size_t n_tasks, size_t n, double *center);

#endif
