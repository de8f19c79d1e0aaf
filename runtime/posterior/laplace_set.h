/* laplace_set: the Kronecker curvature of all matrices of an adapter, as it is gathered, stored and used (laplace.h).
 *
 * Matrices in the order of the parameters: A and B of each adapted projection. Large side: in of A, out of B (rows of B
 * in the adapter's order). posterior.safetensors holds .mean, .large [n][k] and .small [r][r], scaled so that their
 * Kronecker product is the curvature summed over the examples; its numbers are prior_precision and n_examples.
 */
#ifndef CR_POSTERIOR_LAPLACE_SET_H
#define CR_POSTERIOR_LAPLACE_SET_H

#include "runtime/posterior/laplace.h"
#include "runtime/posterior/posterior_file.h"

struct cr_laplace_matrix {
    size_t begin, n, r, k; /* first parameter; sides; columns kept of the large one */
    bool of_a;
    double *large, *small;           /* [n][k], [r][r] */
    struct cr_laplace_factor factor; /* of cr_laplace_set_ready */
};

struct cr_laplace_set {
    struct cr_laplace_matrix *items; /* owned */
    size_t n_items;                  /* 0: there is none */
    double *memory, *scratch;        /* owned: all arrays; work of the functions below */
    double precision;                /* of the prior, 1 / s2 */
    uint64_t n_examples;
};

/* Zeros for every matrix of the adapter. Errors: CR_E_MEMORY. Bytes: of the set, and of what making one takes beside:
 * its eigenvalues, and while it is written the same once more in f32. */
uint64_t cr_laplace_set_bytes(const struct cr_adapter *adapter);
uint64_t cr_laplace_make_bytes(const struct cr_adapter *adapter);
cr_status cr_laplace_set_init(struct cr_laplace_set *set, const struct cr_adapter *adapter, struct cr_error *err);
void cr_laplace_set_free(struct cr_laplace_set *set); /* zeroed: no effect */

/* Makes the factors. Errors: CR_E_DIVERGED for numbers that are not finite. */
cr_status cr_laplace_set_ready(struct cr_laplace_set *set, struct cr_error *err);

/* Eigenvalues of the curvature of all matrices, [cr_laplace_set_values]; zeros are left out. */
size_t cr_laplace_set_n_values(const struct cr_laplace_set *set);
void cr_laplace_set_values(const struct cr_laplace_set *set, double *values);

/* var [n_classes][n_classes] = J P^-1 J^T at prior variance s2, row c of J in the layout of the parameters at jacobian
 * + c stride. n_classes <= CR_LAPLACE_CLASSES_MAX. Uses the set's work: one call at a time. */
void cr_laplace_set_var(const struct cr_laplace_set *set, double s2, const float *jacobian, size_t stride,
                        size_t n_classes, double *var);

/* out [n_params] = mean + P^-1/2 z sqrt(temperature), gaps left alone; z a function of (seed, stream, sample) and the
 * matrix. */
struct cr_laplace_sample {
    const float *mean;
    double temperature;
    uint64_t seed;
    uint32_t stream, sample;
};
void cr_laplace_set_draw(const struct cr_laplace_set *set, const struct cr_rng_ops *ops,
                         const struct cr_laplace_sample *sample, float *out);

/* Errors of writing as cr_posterior_write. Reading makes the set ready; the means must be the adapter's parameters.
 * Errors: CR_E_INPUT. */
cr_status cr_laplace_write(const struct cr_laplace_set *set, const struct cr_posterior_about *about, const char *dir,
                           struct cr_error *err);
cr_status cr_laplace_read(const char *dir, const struct cr_adapter *adapter, const struct cr_adapter_base *base,
                          struct cr_laplace_set *set, struct cr_error *err);

#endif
