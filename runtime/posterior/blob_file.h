/* blob_file: a Gaussian over A of an adapter in files, and draws from it.
 *
 * posterior.safetensors holds .mean (B included, which is a point) and .sigma, standard deviations (0 for B); its
 * number is prior_std.
 */
#ifndef CR_POSTERIOR_BLOB_FILE_H
#define CR_POSTERIOR_BLOB_FILE_H

#include "runtime/posterior/ivon.h"
#include "runtime/posterior/posterior_file.h"

/* sigma [n_params]: 0 but for A, where it is 0 or more. */
cr_status cr_blob_write(const float *mean, const float *sigma, double prior_std, const struct cr_posterior_about *about,
                        const char *dir, struct cr_error *err);

/* The means must be the adapter's parameters. Errors: CR_E_INPUT. */
cr_status cr_blob_read(const char *dir, const struct cr_adapter *adapter, const struct cr_adapter_base *base,
                       float *sigma, double *prior_std, struct cr_error *err);

/* out = mean + sqrt(temperature) sigma z for the parts of A; the rest of out is left alone. z: a function of (seed,
 * stream, sample) and the tensor. out is not sigma. */
struct cr_blob_draw {
    const float *mean, *sigma;
    const struct cr_ivon_part *parts;
    size_t n_parts;
    double temperature;
    uint64_t seed;
    uint32_t stream, sample;
};
void cr_blob_draw(const struct cr_rng_ops *ops, const struct cr_blob_draw *draw, float *out);

#endif
