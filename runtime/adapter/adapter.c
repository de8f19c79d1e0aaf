#include "runtime/adapter/adapter.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "credence/kernels/rng.h"
#include "runtime/adapter/layout.h"
#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/model/config.h"

void cr_adapter_base_of(const struct cr_model *model, struct cr_adapter_base *base)
{
    memset(base, 0, sizeof *base);
    snprintf(base->architecture, sizeof base->architecture, "%s", model->config.architecture);
    base->head_dim = model->config.head_dim;
    base->permuted_qk = model->config.permuted_qk;
}

bool cr_architecture_permutes(const char *architecture)
{
    const struct cr_architecture *found = cr_architecture_find(architecture, strlen(architecture));
    return found != NULL && found->permuted_qk;
}

bool cr_adapter_permutes(const struct cr_adapter_base *base, enum cr_proj proj)
{
    return base->permuted_qk && (proj == CR_PROJ_Q || proj == CR_PROJ_K);
}

bool cr_adapter_floats(const struct cr_lora *slots, uint32_t n_layers, uint32_t n_labels, uint32_t n_embd,
                       size_t *n_params, size_t *n_trainable)
{
    size_t all = cr_label_floats(n_labels, n_embd), plain = (size_t)n_labels * n_embd;
    for (size_t i = 0; i < (size_t)n_layers * CR_N_PROJ; i++) {
        size_t a = (size_t)slots[i].rank * slots[i].n_in; /* 32 x 32 bits */
        size_t b = (size_t)slots[i].rank * slots[i].n_out;
        if (!cr_add_size(all, cr_round_up_16(a), &all) || !cr_add_size(all, cr_round_up_16(b), &all)) {
            return false;
        }
        plain += a + b;
    }
    *n_params = all;
    *n_trainable = plain;
    return true;
}

/* Points the slots at their places, in parameter order. */
static void place_slots(struct cr_adapter *adapter)
{
    size_t at = 0;
    size_t n_slots = (size_t)adapter->n_layers * CR_N_PROJ;
    for (size_t i = 0; i < adapter->n_sets * n_slots; i++) {
        struct cr_lora *slot = &adapter->slots[i];
        at = i % n_slots == 0 ? i / n_slots * (adapter->n_params / adapter->n_sets) : at;
        slot->tensor_id = (uint32_t)(i % n_slots);
        slot->a = slot->b = slot->grad_a = slot->grad_b = NULL;
        if (slot->rank == 0) {
            continue;
        }
        slot->a = adapter->params + at;
        slot->grad_a = adapter->grads != NULL ? adapter->grads + at : NULL;
        at += cr_round_up_16((size_t)slot->rank * slot->n_in);
        slot->b = adapter->params + at;
        slot->grad_b = adapter->grads != NULL ? adapter->grads + at : NULL;
        at += cr_round_up_16((size_t)slot->rank * slot->n_out);
        adapter->rank = slot->rank > adapter->rank ? slot->rank : adapter->rank;
        adapter->targets |= 1u << (i % CR_N_PROJ);
    }
}

/* What an adapter is made of, beside its slots. */
struct sizes {
    uint32_t n_layers, n_sets, n_labels, n_embd;
};

static cr_status assemble(const struct cr_lora *slots, const struct sizes *sizes, bool with_grads,
                          struct cr_adapter **out, struct cr_error *err)
{
    size_t n_slots = (size_t)sizes->n_layers * CR_N_PROJ;
    size_t n_params = 0, n_trainable = 0, n_sets = sizes->n_sets;
    if (!cr_adapter_floats(slots, sizes->n_layers, sizes->n_labels, sizes->n_embd, &n_params, &n_trainable) ||
        n_params > SIZE_MAX / sizeof(float) / n_sets) {
        return cr_fail(err, CR_E_MEMORY, "the adapter is too large for this machine's address space");
    }
    struct cr_adapter *adapter = cr_zalloc(1, sizeof *adapter);
    if (adapter != NULL) {
        adapter->n_layers = sizes->n_layers;
        adapter->n_labels = sizes->n_labels;
        adapter->n_embd = sizes->n_embd;
        adapter->n_sets = sizes->n_sets;
        adapter->n_params = n_sets * n_params;
        adapter->n_trainable = n_sets * n_trainable;
        adapter->slots = cr_alloc(n_sets * n_slots, sizeof *adapter->slots);
        adapter->params = cr_zalloc(adapter->n_params, sizeof *adapter->params);
        adapter->grads = with_grads ? cr_zalloc(adapter->n_params, sizeof *adapter->grads) : NULL;
    }
    if (adapter == NULL || adapter->slots == NULL || adapter->params == NULL ||
        (with_grads && adapter->grads == NULL)) {
        cr_adapter_destroy(adapter);
        return cr_fail(err, CR_E_MEMORY, "out of memory for an adapter of %zu numbers", n_sets * n_params);
    }
    for (size_t k = 0; k < n_sets; k++) {
        memcpy(adapter->slots + k * n_slots, slots, n_slots * sizeof *slots);
    }
    place_slots(adapter);
    *out = adapter;
    return CR_OK;
}

cr_status cr_adapter_assemble(const struct cr_lora *slots, uint32_t n_layers, bool with_grads, struct cr_adapter **out,
                              struct cr_error *err)
{
    return assemble(slots, &(struct sizes){.n_layers = n_layers, .n_sets = 1}, with_grads, out, err);
}

void cr_adapter_inherit(struct cr_adapter *adapter, const struct cr_adapter *from)
{
    adapter->alpha = from->alpha;
    adapter->dropout = from->dropout;
    adapter->base_hash = from->base_hash;
    memcpy(adapter->method, from->method, sizeof adapter->method);
}

/* *adapter, of one set, in another size: its numbers first in every set, zeros behind them. */
static cr_status resize(struct cr_adapter **adapter, const struct sizes *sizes, struct cr_error *err)
{
    struct cr_adapter *one = *adapter;
    struct cr_adapter *made = NULL;
    CR_TRY(assemble(one->slots, sizes, one->grads != NULL, &made, err));
    for (size_t k = 0; k < sizes->n_sets; k++) {
        memcpy(made->params + k * (made->n_params / sizes->n_sets), one->params, one->n_params * sizeof *one->params);
    }
    cr_adapter_inherit(made, one);
    cr_adapter_destroy(one);
    *adapter = made;
    return CR_OK;
}

cr_status cr_adapter_repeat(struct cr_adapter **adapter, uint32_t n_sets, struct cr_error *err)
{
    const struct cr_adapter *one = *adapter;
    return resize(adapter, &(struct sizes){one->n_layers, n_sets, one->n_labels, one->n_embd}, err);
}

cr_status cr_adapter_add_rows(struct cr_adapter **adapter, uint32_t n_labels, uint32_t n_embd, struct cr_error *err)
{
    return resize(adapter, &(struct sizes){(*adapter)->n_layers, 1, n_labels, n_embd}, err);
}

void cr_adapter_destroy(struct cr_adapter *adapter)
{
    if (adapter != NULL) {
        cr_free(adapter->slots);
        cr_free(adapter->prefix);
        cr_free(adapter->params);
        cr_free(adapter->grads);
        cr_free(adapter);
    }
}

static cr_status check_settings(const struct cr_model *model, uint32_t rank, double alpha, double dropout,
                                uint32_t targets, struct cr_error *err)
{
    if (rank < 1 || rank > CR_RANK_MAX) {
        return cr_fail(err, CR_E_USAGE, "rank is %u, 1...%d expected", rank, CR_RANK_MAX);
    }
    if (!(alpha > 0) || !isfinite((float)alpha)) {
        return cr_fail(err, CR_E_USAGE, "alpha is %g, a positive number expected", alpha);
    }
    if (!(dropout >= 0 && dropout < 1)) {
        return cr_fail(err, CR_E_USAGE, "dropout is %g, 0 or more and below 1 expected", dropout);
    }
    if (targets == 0 || targets >= 1u << CR_N_PROJ) {
        return cr_fail(err, CR_E_USAGE, "targets: no projection named");
    }
    for (int p = 0; p < CR_N_PROJ && model->config.n_layers > 0; p++) {
        const struct cr_qmat *w = &model->layers[0].proj[p];
        if ((targets >> p & 1u) != 0 && rank > w->n_rows && rank > w->n_cols) {
            return cr_fail(err, CR_E_USAGE, "rank %u exceeds both dimensions of %s (%zu x %zu)", rank,
                           cr_proj_hf_name((enum cr_proj)p), w->n_rows, w->n_cols);
        }
    }
    return CR_OK;
}

cr_status cr_adapter_create(const struct cr_model *model, uint32_t rank, double alpha, double dropout, uint32_t targets,
                            uint64_t seed, bool with_grads, struct cr_adapter **out, struct cr_error *err)
{
    CR_TRY(check_settings(model, rank, alpha, dropout, targets, err));
    size_t n_slots = (size_t)model->config.n_layers * CR_N_PROJ;
    struct cr_lora *slots = cr_zalloc(n_slots, sizeof *slots);
    if (slots == NULL) {
        return cr_fail(err, CR_E_MEMORY, "out of memory for an adapter");
    }
    for (size_t i = 0; i < n_slots; i++) {
        const struct cr_qmat *w = &model->layers[i / CR_N_PROJ].proj[i % CR_N_PROJ];
        slots[i].rank = (targets >> (i % CR_N_PROJ) & 1u) != 0 ? rank : 0;
        slots[i].n_in = (uint32_t)w->n_cols;
        slots[i].n_out = (uint32_t)w->n_rows;
        slots[i].scale = (float)(alpha / rank);
    }
    struct cr_adapter *adapter = NULL;
    cr_status status = cr_adapter_assemble(slots, model->config.n_layers, with_grads, &adapter, err);
    cr_free(slots);
    CR_TRY(status);
    for (size_t i = 0; i < n_slots; i++) {
        struct cr_lora *slot = &adapter->slots[i];
        if (slot->rank > 0) {
            /* The high word of the seed is 0 for every seed the program accepts. */
            uint32_t key[2] = {(uint32_t)seed, slot->tensor_id ^ (uint32_t)(seed >> 32)};
            float bound = 1.0f / sqrtf((float)slot->n_in);
            cr_uniform_f32(key, -bound, bound, slot->a, (size_t)slot->rank * slot->n_in);
        }
    }
    adapter->alpha = alpha;
    adapter->dropout = dropout;
    adapter->base_hash = model->base_hash;
    *out = adapter;
    return CR_OK;
}
