/* blob: learning a Gaussian over A of an adapter by backpropagation, and what finding one without training needs.
 *
 *   BLoB  A ~ N(mu, sigma^2) element by element, sigma = rho^2, B a point;  minimise NLL + pi KL
 *         y += s B (mu x + sign_out * (noise (sign_in * x))),  noise = E * sigma, E ~ N(0, 1) once a forward pass
 *         KL = sum ln(sp + 1e-6) - ln(sigma + 1e-6) + (sigma^2 + mu^2) / (2 sp^2 + 1e-6) - 1/2
 *   TFB   B = U diag(d) V^T;  B' = U diag(d), A' = V^T A;  A'_ij has standard deviation sigma_q / (d_i + 1e-6)
 *
 * Sources: Wang et al. 2024 (arXiv 2406.11675) with the guards of 1e-6 of its program; Wen et al. 2018 (arXiv
 * 1803.04386), flipout; Shi et al. 2024 (arXiv 2412.05723).
 *
 * A [r][n] row-major, r the rank. Arithmetic in double, results rounded once. Memory is the caller's; no aliasing
 * unless said; nothing fails unless said.
 */
#ifndef CR_POSTERIOR_BLOB_H
#define CR_POSTERIOR_BLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* rho [n] uniform in [eps / sqrt 2, eps] from the key of the tensor: sigma between eps^2 / 2 and eps^2 (paper: .05). */
void cr_blob_rho_start(const uint32_t key[2], double eps, float *rho, size_t n);

/* Returns KL of the n numbers; adds weight times its gradients to d_mu and d_rho, which may be NULL together, or
 * mu and rho themselves: a step of descent at the rate -weight. */
double cr_blob_kl_f32(const float *mu, const float *rho, size_t n, double prior_std, double weight, float *d_mu,
                      float *d_rho);
double cr_blob_kl_f64(const double *mu, const double *rho, size_t n, double prior_std, double weight, double *d_mu,
                      double *d_rho);

/* pi of a step counted from 0: 2^i / (2^(M+1) - 1), i = step mod M with M for 0, M >= 1 the steps of a cycle. Without
 * overflow for any M; below the smallest double 0. */
double cr_blob_pi(uint64_t step, uint64_t cycle);

/* Steps of a cycle as the authors scale it to the data: 100 N^(pi/8) / batch, whole, at least 1. (Their other choice is
 * the number of batches of an epoch.) */
uint64_t cr_blob_cycle(uint64_t n_examples, uint64_t batch);

/* noise = E * rho^2, E given. In place (noise == e) is fine. */
void cr_blob_noise_f32(const float *e, const float *rho, size_t n, float *noise);
void cr_blob_noise_f64(const double *e, const double *rho, size_t n, double *noise);

/* One sign for each of n numbers of a token, +1 or -1, from words of its own: bit i % 32 of word (i / 32) % 4 of block
 * (token, which, sample, i / 128) under the key. which: 0 for sign_in, 1 for sign_out, or anything else. */
struct cr_blob_signs {
    uint32_t key[2], sample, which;
};
void cr_blob_signs(const struct cr_blob_signs *signs, uint32_t token, size_t n, float *out);

/* b [n_out][r] becomes B', a [r][n_in] becomes A', d [r] the singular values, largest first: the same product. r <=
 * n_out and r <= CR_BLOB_RANK_MAX. False, with b spoilt, when b is not finite. Deterministic, signs included. */
enum { CR_BLOB_RANK_MAX = 64 };
bool cr_blob_tfb_rotate(double *b, double *a, size_t n_out, size_t r, size_t n_in, double *d);

/* Standard deviation of row i of A'. */
double cr_blob_tfb_sigma(double sigma_q, double d);

#endif
