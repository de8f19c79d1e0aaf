#include "runtime/posterior/blob_file.h"

#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/io/json.h"

cr_status cr_blob_write(const float *mean, const float *sigma, double prior_std, const struct cr_posterior_about *about,
                        const char *dir, struct cr_error *err)
{
    const struct cr_posterior_vector vectors[] = {{".mean", mean}, {".sigma", sigma}};
    json_t *numbers = json_object();
    cr_json_put(&numbers, "prior_std", json_real(prior_std));
    cr_status status = cr_posterior_write(about, "blob", numbers, vectors, 2, NULL, dir, err);
    json_decref(numbers);
    return status;
}

/* A has a spread, B none. */
static cr_status check(const struct cr_adapter *adapter, const float *sigma, const char *label, struct cr_error *err)
{
    size_t n_parts;
    struct cr_ivon_part *parts = cr_ivon_parts_of(adapter, &n_parts);
    cr_status status = parts != NULL ? CR_OK : cr_fail(err, CR_E_MEMORY, "no memory for the parts of an adapter");
    for (size_t p = 0; p < n_parts && status == CR_OK; p++) {
        bool of_a = parts[p].group == CR_IVON_GROUP_A;
        for (size_t i = parts[p].begin; i < parts[p].begin + parts[p].n; i++) {
            if (!isfinite(sigma[i]) || (of_a ? !(sigma[i] >= 0) : sigma[i] != 0)) {
                status = cr_fail(err, CR_E_INPUT, "%s: standard deviation of parameter %zu is %g, %s expected", label,
                                 i, (double)sigma[i], of_a ? "0 or more" : "0, as that of all of B,");
                break;
            }
        }
    }
    cr_free(parts);
    return status;
}

cr_status cr_blob_read(const char *dir, const struct cr_adapter *adapter, const struct cr_adapter_base *base,
                       float *sigma, double *prior_std, struct cr_error *err)
{
    struct cr_posterior_file file;
    CR_TRY(cr_posterior_file_open(dir, adapter, &file, err));
    const char *label = cr_safetensors_label(file.st);
    cr_status status = CR_OK;
    CR_TRY_OUT(status, cr_json_get_number(file.numbers, "prior_std", true, prior_std, label, err));
    if (!(*prior_std > 0)) {
        status = cr_fail(err, CR_E_INPUT, "%s: prior_std %g, above 0 expected", label, *prior_std);
        goto out;
    }
    CR_TRY_OUT(status, cr_posterior_file_check(&file, adapter, 2, err));
    CR_TRY_OUT(status, cr_posterior_file_mean(&file, adapter, base, sigma, err)); /* sigma as room */
    memset(sigma, 0, adapter->n_params * sizeof *sigma);
    CR_TRY_OUT(status, cr_posterior_file_vector(&file, adapter, base, ".sigma", sigma, err));
    status = check(adapter, sigma, label, err);
out:
    cr_posterior_file_close(&file);
    return status;
}

void cr_blob_draw(const struct cr_rng_ops *ops, const struct cr_blob_draw *draw, float *out)
{
    float root = (float)sqrt(draw->temperature);
    for (size_t p = 0; p < draw->n_parts; p++) {
        const struct cr_ivon_part *part = &draw->parts[p];
        const float *mean = draw->mean + part->begin, *sigma = draw->sigma + part->begin;
        float *z = out + part->begin;
        if (part->group != CR_IVON_GROUP_A) {
            continue;
        }
        struct cr_noise noise = {.key = {(uint32_t)draw->seed, CR_NOISE_DRAW ^ (uint32_t)(draw->seed >> 32)},
                                 .step = draw->stream,
                                 .sample = draw->sample,
                                 .tensor = part->tensor};
        ops->normals(&noise, z, 0, part->n);
        for (size_t i = 0; i < part->n; i++) {
            z[i] = mean[i] + root * sigma[i] * z[i];
        }
    }
}
