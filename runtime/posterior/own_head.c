#include "runtime/posterior/own_head.h"

#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/io/json.h"

bool cr_headless(const struct cr_adapter *adapter)
{
    return strcmp(adapter->method, CR_HEADLESS_MEMBER) == 0 || strcmp(adapter->method, CR_HEADLESS_SWAG) == 0;
}

void cr_head_nll_record(const struct cr_head_nll *nll, json_t *object)
{
    if (isfinite(nll->model)) {
        json_object_set_new(object, "nll", json_real(nll->own));
        json_object_set_new(object, "nll_model_head", json_real(nll->model));
    }
}

cr_status cr_own_head_read(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                           struct cr_own_head *out, struct cr_error *err)
{
    const char *label = cr_safetensors_label(file->st);
    struct cr_own_head made = {.nll = {(double)NAN, (double)NAN}};
    if (adapter->n_labels > 0) {
        CR_TRY(cr_json_get_number(file->numbers, "nll", false, &made.nll.own, label, err));
        CR_TRY(cr_json_get_number(file->numbers, "nll_model_head", false, &made.nll.model, label, err));
        made.label_ids = cr_alloc(adapter->n_labels, sizeof *made.label_ids);
        cr_status status = made.label_ids != NULL
                               ? cr_posterior_file_labels(file, adapter->n_labels, made.label_ids, err)
                               : cr_fail(err, CR_E_MEMORY, "no memory for %u tokens", adapter->n_labels);
        if (status != CR_OK) {
            cr_own_head_free(&made);
            return status;
        }
    }
    *out = made;
    return CR_OK;
}

void cr_own_head_free(struct cr_own_head *head)
{
    cr_free(head->label_ids);
    memset(head, 0, sizeof *head);
}
