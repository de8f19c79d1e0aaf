#include "runtime/eval/jacobian.h"

#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"

static uint32_t parts_of(uint32_t n_labels)
{
    return n_labels > CR_JACOBIAN_PARTS ? n_labels : CR_JACOBIAN_PARTS;
}

uint64_t cr_jacobian_bytes(const struct cr_adapter *adapter, uint32_t n_labels)
{
    return (uint64_t)parts_of(n_labels) *
           (adapter->n_params * sizeof(float) + (size_t)adapter->n_layers * CR_N_PROJ * sizeof(struct cr_lora) +
            sizeof(struct cr_engine_noise) + sizeof(double));
}

cr_status cr_jacobian_init(struct cr_jacobian *j, const struct cr_adapter *adapter, uint32_t n_labels,
                           struct cr_error *err)
{
    size_t n_slots = (size_t)adapter->n_layers * CR_N_PROJ;
    *j = (struct cr_jacobian){.n_params = adapter->n_params, .n_parts = parts_of(n_labels)};
    j->slots = cr_alloc(j->n_parts, n_slots * sizeof *j->slots);
    if (j->slots == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the slots of %u adapters", j->n_parts);
    }
    for (uint32_t p = 0; p < j->n_parts; p++) {
        memcpy(j->slots + p * n_slots, adapter->slots, n_slots * sizeof *j->slots);
    }
    return CR_OK;
}

cr_status cr_jacobian_allocate(struct cr_jacobian *j, const struct cr_adapter *adapter, struct cr_error *err)
{
    size_t n_slots = (size_t)adapter->n_layers * CR_N_PROJ;
    j->grads = cr_zalloc(j->n_parts, j->n_params * sizeof *j->grads);
    j->noise = cr_zalloc(j->n_parts, sizeof *j->noise);
    j->loss = cr_zalloc(j->n_parts, sizeof *j->loss);
    if (j->grads == NULL || j->noise == NULL || j->loss == NULL) {
        cr_jacobian_deinit(j);
        return cr_fail(err, CR_E_MEMORY, "no memory for the gradients of %zu weights", adapter->n_params);
    }
    for (size_t i = 0; i < j->n_parts * n_slots; i++) {
        struct cr_lora *slot = &j->slots[i];
        float *grads = j->grads + i / n_slots * j->n_params;
        if (slot->rank > 0) {
            slot->grad_a = grads + (slot->a - adapter->params);
            slot->grad_b = grads + (slot->b - adapter->params);
        }
    }
    return CR_OK;
}

void cr_jacobian_deinit(struct cr_jacobian *j)
{
    cr_free(j->slots);
    cr_free(j->grads);
    cr_free(j->noise);
    cr_free(j->loss);
    memset(j, 0, sizeof *j);
}

size_t cr_jacobian_take(const struct cr_jacobian *j, const struct cr_dataset *dataset, const uint32_t *order, size_t n)
{
    size_t taken = 0, parts = 0;
    while (taken < n && parts + dataset->examples[order[taken]].n_choices <= j->n_parts) {
        parts += dataset->examples[order[taken++]].n_choices;
    }
    return taken;
}

/* The parts in the batch: minus the gradient of -log p, the only row of each. */
static cr_status pass(struct cr_jacobian *j, struct cr_engine *engine, struct cr_token_batch *batch,
                      struct cr_error *err)
{
    return batch->n_parts > 0 ? cr_engine_train(engine, batch, j->noise, j->loss, err) : CR_OK;
}

cr_status cr_jacobian_run(struct cr_jacobian *j, struct cr_engine *engine, struct cr_token_batch *batch,
                          const struct cr_dataset *dataset, const uint32_t *order, size_t n, struct cr_error *err)
{
    uint32_t part = 0;
    memset(j->grads, 0, j->n_parts * j->n_params * sizeof *j->grads);
    cr_batch_clear(batch);
    for (size_t i = 0; i < n; i++) {
        size_t tokens = cr_batch_part_tokens(dataset, &order[i], 1);
        for (uint32_t c = 0; c < dataset->examples[order[i]].n_choices; c++) {
            if (batch->n_blocks * 16 + tokens > batch->max_tokens) {
                CR_TRY(pass(j, engine, batch, err));
                cr_batch_clear(batch);
            }
            cr_batch_add_part(batch, part++, dataset, &order[i], 1, -1.0f);
            batch->row_target[batch->n_rows - 1] = (int32_t)c;
        }
    }
    return pass(j, engine, batch, err);
}
