#include "runtime/optim/own_rows.h"

#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/optim/trial.h"

size_t cr_own_rows_n(const struct cr_adapter *adapter)
{
    return (size_t)adapter->n_labels * adapter->n_embd;
}

cr_status cr_own_rows_init(struct cr_own_rows *rows, const struct cr_method_setup *setup, struct cr_error *err)
{
    struct cr_adapter *adapter = setup->adapter;
    size_t n = cr_own_rows_n(adapter), n_sets = adapter->n_sets, n_set = adapter->n_params / n_sets;
    rows->adapter = adapter;
    rows->options = setup->options;
    rows->nll = (struct cr_head_nll){(double)NAN, (double)NAN};
    if (n == 0) {
        return CR_OK;
    }
    rows->groups = cr_alloc(2 * n_sets, sizeof *rows->groups);
    rows->model = cr_alloc(n, sizeof *rows->model);
    if (rows->groups == NULL || rows->model == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the label rows of %zu sets of weights", n_sets);
    }
    for (size_t k = 0; k < n_sets; k++) {
        rows->groups[2 * k].end = k * n_set + cr_adapter_rows_begin(adapter);
        rows->groups[2 * k + 1].end = (k + 1) * n_set;
    }
    memcpy(rows->model, adapter->params + cr_adapter_rows_begin(adapter), n * sizeof *rows->model);
    return CR_OK;
}

void cr_own_rows_deinit(struct cr_own_rows *rows)
{
    cr_free(rows->groups);
    cr_free(rows->model);
    memset(rows, 0, sizeof *rows);
}

void cr_own_rows_step(struct cr_own_rows *rows, struct cr_adamw *adamw, const struct cr_method_step *step)
{
    const struct cr_finetune_options *o = rows->options;
    float *params = rows->adapter->params;
    if (rows->groups == NULL) {
        cr_adamw_step(adamw, params, rows->adapter->grads, step->norm, step->lr);
        return;
    }
    for (size_t k = 0; k < rows->adapter->n_sets; k++) {
        rows->groups[2 * k].lr = step->lr;
        rows->groups[2 * k + 1].lr = o->head_lr > 0 ? step->lr / o->lr * o->head_lr : step->lr;
    }
    cr_adamw_step_groups(adamw, params, rows->adapter->grads, step->norm, rows->groups,
                         2 * (size_t)rows->adapter->n_sets);
}

/* Label rows of set k from `from` + k * stride. */
static void put(struct cr_own_rows *rows, const float *from, size_t stride)
{
    for (uint32_t k = 0; k < rows->adapter->n_sets; k++) {
        struct cr_adapter set = cr_adapter_set(rows->adapter, k);
        memcpy(set.params + cr_adapter_rows_begin(&set), from + k * stride, cr_own_rows_n(&set) * sizeof *from);
    }
}

cr_status cr_own_rows_trial(struct cr_own_rows *rows, const struct cr_method_trial *trial, struct cr_error *err)
{
    uint32_t n_sets = rows->adapter->n_sets;
    size_t n = cr_own_rows_n(rows->adapter);
    if (n == 0) {
        return CR_OK;
    }
    float *own = cr_alloc(n_sets, n * sizeof *own);
    if (own == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the label rows of %u sets of weights", n_sets);
    }
    for (uint32_t k = 0; k < n_sets; k++) {
        struct cr_adapter set = cr_adapter_set(rows->adapter, k);
        memcpy(own + k * n, set.params + cr_adapter_rows_begin(&set), n * sizeof *own);
    }
    cr_status status = cr_trial_mean(trial, &rows->nll.own, err);
    if (status == CR_OK) {
        put(rows, rows->model, 0);
        status = cr_trial_mean(trial, &rows->nll.model, err);
        put(rows, own, n);
    }
    cr_free(own);
    return status;
}
