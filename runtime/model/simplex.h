/* simplex: mixtures of m vertices with uniform weights on their simplex, as plain arrays.
 *
 *   lambda_j = e_j / sum e,  e_j ~ Exponential(1)             Dirichlet(1, ..., 1)
 *   w = sum_j lambda_j w_j;   gradient of w_j = lambda_j * gradient of w
 *   cos2(u, v) = (u.v)^2 / (|u|^2 |v|^2),  dot and norms over all tensors of a vertex
 * Sources: Wortsman et al. 2021 (arXiv 2102.10472), subspace training; Falissard et al. 2023 (arXiv
 * 2310.15793), its use on prefixes with weights for every example and layer.
 *
 * Arrays: n contiguous numbers of one tensor, one pointer a vertex. Arithmetic in double, results rounded once; sums
 * over vertices run in their order. No aliasing, no memory of our own, nothing fails; m >= 1.
 */
#ifndef CR_MODEL_SIMPLEX_H
#define CR_MODEL_SIMPLEX_H

#include <stddef.h>
#include <stdint.h>

/* What points are drawn for. */
enum { CR_SIMPLEX_TRAINING = 1, CR_SIMPLEX_VALIDATION = 2, CR_SIMPLEX_TEST = 3 };

/* Example or layer of a point that all of them share. */
#define CR_SIMPLEX_ALL UINT32_MAX

/* A point of the simplex: the same numbers whenever and wherever these five are the same, so an answer does not depend
 * on its neighbours in a batch. One point for a whole batch or for all layers: CR_SIMPLEX_ALL. */
struct cr_simplex_point {
    uint64_t seed;
    uint32_t stream;  /* what it is for */
    uint32_t draw;    /* optimiser step in training, sample in evaluation */
    uint32_t example; /* its place in the data set */
    uint32_t layer;   /* the head counts as one more */
};

/* e [m]: -ln u, u = (word + 1/2) 2^-32, word j % 4 of Philox block (draw, example, layer, j / 4) under a key of
 * (seed, stream). Between 1.1e-10 and 22.9. */
void cr_simplex_exponentials(const struct cr_simplex_point *point, size_t m, double *e);

/* lambda = e / sum e; in place is fine. */
void cr_simplex_normalise(const double *e, size_t m, double *lambda);

/* Both: the weights of a point. m == 1 gives exactly 1. */
void cr_simplex_weights(const struct cr_simplex_point *point, size_t m, double *lambda);

/* 1 / m each: the mean of all points, the model to predict with when one is wanted. */
void cr_simplex_centroid(size_t m, double *lambda);

/* A pair i < j of m >= 2 vertices, uniform (bias m^2 / 2^32 at most); layer is free to tell several apart. */
void cr_simplex_pair(const struct cr_simplex_point *point, size_t m, size_t *i, size_t *j);

/* out = sum_j lambda[j] vertex[j] */
void cr_simplex_mix_f32(const double *lambda, const float *const *vertex, size_t m, size_t n, float *out);
void cr_simplex_mix_f64(const double *lambda, const double *const *vertex, size_t m, size_t n, double *out);

/* d_vertex[j] += lambda[j] grad */
void cr_simplex_scatter_f32(const double *lambda, const float *grad, size_t m, size_t n, float *const *d_vertex);
void cr_simplex_scatter_f64(const double *lambda, const double *grad, size_t m, size_t n, double *const *d_vertex);

/* u.v, u.u and v.v over all tensors: start from zeros and add each tensor. */
struct cr_simplex_dots {
    double uv, uu, vv;
};
void cr_simplex_dots_f32(const float *u, const float *v, size_t n, struct cr_simplex_dots *dots);
void cr_simplex_dots_f64(const double *u, const double *v, size_t n, struct cr_simplex_dots *dots);

/* 0 when either vector is 0. */
double cr_simplex_cos2(const struct cr_simplex_dots *dots);

/* du += beta d cos2 / du and dv += beta d cos2 / dv of one tensor, dots being those of all. */
void cr_simplex_cos2_grad_f32(const struct cr_simplex_dots *dots, double beta, const float *u, const float *v, size_t n,
                              float *du, float *dv);
void cr_simplex_cos2_grad_f64(const struct cr_simplex_dots *dots, double beta, const double *u, const double *v,
                              size_t n, double *du, double *dv);

#endif
