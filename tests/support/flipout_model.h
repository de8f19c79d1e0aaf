/* flipout_model: noise of an adapter with signs of every token's own, in double and by its definition, one token at a
 * time (Wen et al. 2018, arXiv 1803.04386). */
#ifndef CR_TESTS_FLIPOUT_MODEL_H
#define CR_TESTS_FLIPOUT_MODEL_H

#include <stddef.h>

/* h [r] += sign_out * (noise (sign_in * x)), noise [r][n]. */
void cr_flipout_model(const double *noise, const double *x, const double *sign_in, const double *sign_out, size_t r,
                      size_t n, double *h);

/* Its reverse: d_noise [r][n] += (sign_out * d_h) (sign_in * x)^T;  dx [n] += sign_in * noise^T (sign_out * d_h). */
void cr_flipout_model_back(const double *noise, const double *x, const double *sign_in, const double *sign_out,
                           size_t r, size_t n, const double *d_h, double *d_noise, double *dx);

#endif
