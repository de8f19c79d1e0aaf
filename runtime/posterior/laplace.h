/* laplace: a Gaussian around trained adapters with a Kronecker curvature, and what it predicts.
 *
 * Per adapted matrix, with the large side n (in of A, out of B) and the small side r (the rank):
 *
 *   P = Large kron Small + I / s2        Large = L L^T, L n x k; Small r x r; s2 the prior variance
 *   A:  Large = mean over examples of sum_t a a^T             a inputs
 *       Small = sum over examples of E_y sum_t g g^T
 *   B:  Large = sum over examples of E_y sum_t g g^T
 *       Small = mean over examples of sum_t h h^T             h = A x
 *   g:  gradient of log p(y|x), y ~ p(y|x), at the output of that matrix, alpha / r of the pair included: give the
 *       vectors of every class with its probability as weight
 *
 *   f(x) ~ N(z_MAP(x), J P^-1 J^T)
 *   evidence = log lik - 1/2 (log det P - log det prior + |theta|^2 / s2)
 *
 * Sources: Yang et al. 2024 (arXiv 2308.13111); Daxberger et al. 2021 (arXiv 2106.14806), the evidence; MacKay 1992,
 * the fixed point of its precision.
 *
 * With eigenpairs (d_i, u_i) of Large (k of them) and (e_j, w_j) of Small, P has eigenvectors u_i kron w_j with values
 * d_i e_j + 1/s2 and 1/s2 on the rest: Woodbury's identity, solved once for every s2.
 *
 * Memory is the caller's; no aliasing; sums in a fixed order; values that are not finite give false or propagate.
 */
#ifndef CR_POSTERIOR_LAPLACE_H
#define CR_POSTERIOR_LAPLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "credence/kernels/rng.h"

enum {
    CR_LAPLACE_COLUMNS = 10, /* k of the paper */
    CR_LAPLACE_COLUMNS_MAX = 64,
    CR_LAPLACE_BLOCK = 16, /* rows taken in at a time: 32 cost 1.4 to 1.6 times as much (n 576, 1536; Zen 4, 2026-11) */
    CR_LAPLACE_CLASSES_MAX = 64
};

/* small [r][r] += weight * sum of x x^T over the rows of x [n_rows][r]. */
void cr_laplace_small_add(double *small, size_t r, const float *x, size_t n_rows, double weight);

/* Large factor, kept as columns: large [n][k] <- top k left singular vectors times singular values of
 * [large, sqrt(weight) x^T], for x [n_rows][n] in blocks of CR_LAPLACE_BLOCK rows. Exact as long as the vectors span at
 * most k dimensions. Starts from zeros. k <= CR_LAPLACE_COLUMNS_MAX. scratch: cr_laplace_scratch(n, k) doubles. False
 * when something is not finite; `large` is spoilt then. */
size_t cr_laplace_scratch(size_t n, size_t k);
bool cr_laplace_large_add(double *large, size_t n, size_t k, const float *x, size_t n_rows, double weight,
                          double *scratch);

/* One matrix with its curvature ready for use. */
struct cr_laplace_factor {
    size_t n, r, k;
    bool small_first;     /* parameters are r x n (A), else n x r (B); row-major */
    double *basis;        /* [n][k] eigenvectors of Large */
    double *rotation;     /* [r][r] eigenvectors of Small, columns */
    double *large_values; /* [k] */
    double *small_values; /* [r] */
};

/* Fills the arrays of `factor` (sizes and pointers are set) from large [n][k] columns times sqrt(large_scale) and small
 * times small_scale: 1/N belongs to whichever side holds the inputs. large and small are spoilt. Values below 0 by
 * rounding count as 0. False when not finite. */
bool cr_laplace_factor_init(struct cr_laplace_factor *factor, double *large, double large_scale, double *small,
                            double small_scale);

/* var [n_classes][n_classes] += s2 J J^T - (Woodbury part) for the Jacobian of the logits with respect to this matrix;
 * row c of J at jacobian + c stride, n * r numbers in the order of the parameters. scratch: (n_classes + 1) k r
 * doubles.
 */
void cr_laplace_var_add_f32(const struct cr_laplace_factor *factor, double s2, const float *jacobian, size_t stride,
                            size_t n_classes, double *scratch, double *var);
void cr_laplace_var_add_f64(const struct cr_laplace_factor *factor, double s2, const double *jacobian, size_t stride,
                            size_t n_classes, double *scratch, double *var);

/* out holds n * r standard normals and becomes mean + P^-1/2 times them: a draw of the weights. scratch: 2 k r. */
void cr_laplace_draw_f32(const struct cr_laplace_factor *factor, double s2, const float *mean, double *scratch,
                         float *out);
void cr_laplace_draw_f64(const struct cr_laplace_factor *factor, double s2, const double *mean, double *scratch,
                         double *out);

/* Eigenvalues d_i e_j of the curvature of one matrix, values [k r]; the rest are 0. */
void cr_laplace_spectrum(const struct cr_laplace_factor *factor, double *values);

/* Over the spectra of all matrices together: log det (I + s2 H). log det P is that minus (n r) ln s2. */
double cr_laplace_log_det(const double *values, size_t n_values, double s2);

/* log lik - 1/2 (log det P - log det prior + norm2 / s2), norm2 the squared norm of the adapted weights. */
double cr_laplace_evidence(const double *values, size_t n_values, double norm2, double log_lik, double s2);

enum { CR_LAPLACE_PRECISION_MAX = 100000000 }; /* and its reciprocal the least */

/* Prior precision 1/s2 of the largest evidence: the only root of sum v / (v + p) = p norm2, by bisection on ln p; cut
 * to [1e-8, 1e8]. log_lik does not depend on it. */
double cr_laplace_best_precision(const double *values, size_t n_values, double norm2);

/* var [n][n] becomes the Cholesky factor of var + jitter I; the jitter is raised tenfold, from 1e-6, until one exists.
 * Returns the jitter used, 0 when there is none up to 1 (n x n not finite or far from positive). n <= CLASSES_MAX. */
double cr_laplace_factor_var(double *var, size_t n);

/* probs [n] = mean over draws of softmax(mean + chol z_s); entropy, unless NULL, the mean of their entropies in nats. z
 * [n_draws][n] given, or NULL: drawn from `noise`, draws s keyed by noise->sample + s / 16 and element 64 * (s % 16) +
 * class: n <= CR_LAPLACE_CLASSES_MAX. n_draws >= 1. */
void cr_laplace_predict(const double *mean, const double *chol, size_t n, const double *z, const struct cr_noise *noise,
                        const struct cr_rng_ops *ops, size_t n_draws, double *probs, double *entropy);

/* Without draws: softmax(mean_c / sqrt(1 + pi/8 var_cc)) (MacKay 1992, for several classes); var is not factored. It
 * wants the variances of the logits themselves. Evaluations have those of log p(class), up to the same number in every
 * logit (runtime/eval/jacobian.h): draws do not see the difference, this does, so none answers by it. */
void cr_laplace_probit(const double *mean, const double *var, size_t n, double *probs);

#endif
