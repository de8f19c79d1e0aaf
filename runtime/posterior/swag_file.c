#include "runtime/posterior/swag_file.h"

#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/io/json.h"

uint64_t cr_swag_result_bytes(uint32_t n_rows, uint64_t n_params)
{
    return sizeof(struct cr_swag_head) + 3 * n_params * sizeof(float) + n_rows * n_params * sizeof(uint16_t);
}

void cr_swag_pack(const struct cr_swag *swag, void *result)
{
    size_t n = swag->n_params;
    struct cr_swag_head head = {.layout = sizeof head, .n = swag->n, .n_rows = swag->n_rows};
    float *at = (float *)((char *)result + sizeof head);
    memcpy(result, &head, sizeof head);
    memcpy(at, swag->mean, n * sizeof *at);
    memcpy(at + n, swag->mean_low, n * sizeof *at);
    memcpy(at + 2 * n, swag->m2, n * sizeof *at);
    memcpy(at + 3 * n, swag->rows, swag->n_rows * n * sizeof *swag->rows); /* row_stride is n */
}

void cr_swag_unpack(struct cr_swag *swag, const void *result)
{
    size_t n = swag->n_params;
    struct cr_swag_head head;
    const float *at = (const float *)((const char *)result + sizeof head);
    memcpy(&head, result, sizeof head);
    memcpy(swag->mean, at, n * sizeof *at);
    memcpy(swag->mean_low, at + n, n * sizeof *at);
    memcpy(swag->m2, at + 2 * n, n * sizeof *at);
    memcpy(swag->rows, at + 3 * n, swag->n_rows * n * sizeof *swag->rows);
    swag->n = head.n;
}

cr_status cr_swag_check(const struct cr_swag *swag, struct cr_error *err)
{
    for (size_t i = 0; i < swag->n_params; i++) {
        if (!isfinite(swag->mean[i]) || !isfinite(swag->mean_low[i]) || !(swag->m2[i] >= 0) || !isfinite(swag->m2[i])) {
            return cr_fail(err, CR_E_INPUT, "weight %zu: mean %g, sum of squares %g, finite and not negative expected",
                           i, (double)swag->mean[i], (double)swag->m2[i]);
        }
    }
    for (size_t i = 0; i < cr_swag_held(swag) * swag->row_stride; i++) {
        if ((swag->rows[i] & 0x7f80) == 0x7f80) {
            return cr_fail(err, CR_E_INPUT, "deviation %zu of weight %zu is not finite", i / swag->row_stride,
                           i % swag->row_stride);
        }
    }
    return CR_OK;
}

cr_status cr_swag_write(const struct cr_swag *swag, double scale, struct cr_head_nll nll,
                        const struct cr_posterior_about *about, const char *dir, struct cr_error *err)
{
    const struct cr_posterior_vector vectors[] = {{".mean", swag->mean}, {".m2", swag->m2}};
    const struct cr_posterior_rows rows = {".dev", swag->rows, swag->row_stride, cr_swag_held(swag)};
    json_t *numbers = json_object();
    cr_json_put(&numbers, "n", json_integer((json_int_t)swag->n));
    cr_json_put(&numbers, "k", json_integer(swag->n_rows));
    cr_json_put(&numbers, "scale", json_real(scale));
    cr_head_nll_record(&nll, numbers);
    cr_status status = cr_posterior_write(about, "swag", numbers, vectors, 2, &rows, dir, err);
    json_decref(numbers);
    return status;
}

void cr_swag_free(struct cr_swag *swag)
{
    cr_free(swag->mean);
    cr_free(swag->mean_low);
    cr_free(swag->m2);
    cr_free(swag->rows);
    memset(swag, 0, sizeof *swag);
}

static cr_status read_numbers(const struct cr_posterior_file *file, struct cr_swag *swag, double *scale,
                              struct cr_error *err)
{
    const char *label = cr_safetensors_label(file->st);
    int64_t n = 0, k = 0;
    CR_TRY(cr_json_get_int(file->numbers, "n", true, 2, INT64_MAX, &n, label, err));
    CR_TRY(cr_json_get_int(file->numbers, "k", true, 2, 4096, &k, label, err));
    CR_TRY(cr_json_get_number(file->numbers, "scale", true, scale, label, err));
    swag->n = (uint64_t)n;
    swag->n_rows = (uint32_t)k;
    return *scale > 0 ? CR_OK : cr_fail(err, CR_E_INPUT, "%s: scale %g, above 0 expected", label, *scale);
}

/* All but the rows, which are made once it is known that the file has them. */
static cr_status allocate(struct cr_swag *swag, const struct cr_adapter *adapter, struct cr_error *err)
{
    size_t n = adapter->n_params;
    swag->n_params = swag->row_stride = n;
    swag->mean = cr_alloc(n, sizeof *swag->mean);
    swag->mean_low = cr_zalloc(n, sizeof *swag->mean_low);
    swag->m2 = cr_zalloc(n, sizeof *swag->m2);
    return swag->mean != NULL && swag->mean_low != NULL && swag->m2 != NULL
               ? CR_OK
               : cr_fail(err, CR_E_MEMORY, "no memory for a posterior of %zu parameters", n);
}

static cr_status read(const struct cr_posterior_file *file, struct cr_adapter **given,
                      const struct cr_adapter_base *base, struct cr_swag *swag, double *scale, struct cr_own_head *head,
                      struct cr_error *err)
{
    const char *label = cr_safetensors_label(file->st);
    CR_TRY(read_numbers(file, swag, scale, err));
    CR_TRY(cr_posterior_file_add_rows(file, ".mean", given, err));
    struct cr_adapter *adapter = *given;
    CR_TRY(cr_posterior_file_check(file, adapter, 3, err));
    CR_TRY(allocate(swag, adapter, err));
    CR_TRY(cr_posterior_file_mean(file, adapter, base, swag->mean, err));
    CR_TRY(cr_posterior_file_vector(file, adapter, base, ".m2", swag->m2, err));
    CR_TRY(cr_posterior_file_rows(file, adapter, base, ".dev", cr_swag_held(swag), &swag->rows, err));
    struct cr_error why;
    cr_status status = cr_swag_check(swag, &why);
    if (status != CR_OK) {
        return cr_fail(err, status, "%s: %s", label, why.message);
    }
    memcpy(adapter->params, swag->mean, adapter->n_params * sizeof *swag->mean); /* label rows: the rest is equal */
    return cr_own_head_read(file, adapter, head, err);
}

cr_status cr_swag_read(const char *dir, struct cr_adapter **adapter, const struct cr_adapter_base *base,
                       struct cr_swag *swag, double *scale, struct cr_own_head *head, struct cr_error *err)
{
    struct cr_posterior_file file;
    struct cr_swag made = {0};
    CR_TRY(cr_posterior_file_open(dir, *adapter, &file, err));
    cr_status status = read(&file, adapter, base, &made, scale, head, err);
    cr_posterior_file_close(&file);
    if (status == CR_OK) {
        *swag = made;
    } else {
        cr_swag_free(&made);
    }
    return status;
}
