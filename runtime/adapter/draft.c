#include "runtime/adapter/draft.h"

#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"

static bool take(const char **at, const char *text)
{
    size_t n = strlen(text);
    if (strncmp(*at, text, n) != 0) {
        return false;
    }
    *at += n;
    return true;
}

/* A decimal number of at most five digits without a leading zero. */
static bool take_number(const char **at, uint32_t *out)
{
    uint32_t value = 0;
    int n = 0;
    for (; (*at)[n] >= '0' && (*at)[n] <= '9' && n < 5; n++) {
        value = value * 10 + (uint32_t)((*at)[n] - '0');
    }
    if (n == 0 || ((*at)[0] == '0' && n > 1)) {
        return false;
    }
    *at += n;
    *out = value;
    return true;
}

static bool parse(const char *name, const char *lead, const char *(*proj_name)(enum cr_proj),
                  const char *const parts[2], struct cr_draft_name *out)
{
    struct cr_draft_name found = {0};
    if (!take(&name, lead) || !take_number(&name, &found.layer) || !take(&name, ".")) {
        return false;
    }
    for (int p = 0; p < CR_N_PROJ; p++) {
        for (int part = 0; part < 2; part++) {
            const char *rest = name;
            if (take(&rest, proj_name((enum cr_proj)p)) && strcmp(rest, parts[part]) == 0) {
                found.proj = (enum cr_proj)p;
                found.part = part;
                *out = found;
                return true;
            }
        }
    }
    return false;
}

bool cr_draft_parse_peft(const char *name, struct cr_draft_name *out)
{
    static const char *const parts[2] = {".lora_A.weight", ".lora_B.weight"};
    return parse(name, "base_model.model.model.layers.", cr_proj_hf_path, parts, out);
}

bool cr_draft_parse_gguf(const char *name, struct cr_draft_name *out)
{
    static const char *const parts[2] = {".weight.lora_a", ".weight.lora_b"};
    return parse(name, "blk.", cr_proj_gguf_name, parts, out);
}

/* Slots up to `layer`, doubling while no model says how many there are. */
static cr_status widen(struct cr_draft *draft, uint32_t layer, struct cr_error *err)
{
    uint32_t n_layers = draft->model != NULL ? draft->model->config.n_layers : layer + 1;
    if (n_layers > draft->layers_capacity) {
        uint32_t wanted = n_layers > 2 * draft->layers_capacity ? n_layers : 2 * draft->layers_capacity;
        struct cr_draft_slot *wider = cr_zalloc((size_t)wanted * CR_N_PROJ, sizeof *wider);
        if (wider == NULL) {
            return cr_fail(err, CR_E_MEMORY, "%s: out of memory for %u layers", draft->label, n_layers);
        }
        if (draft->slots != NULL) {
            memcpy(wider, draft->slots, (size_t)draft->n_layers * CR_N_PROJ * sizeof *wider);
        }
        cr_free(draft->slots);
        draft->slots = wider;
        draft->layers_capacity = wanted;
    }
    draft->n_layers = n_layers > draft->n_layers ? n_layers : draft->n_layers;
    return CR_OK;
}

cr_status cr_draft_add(struct cr_draft *draft, const struct cr_draft_name *where, const char *name, const void *tensor,
                       uint64_t rows, uint64_t cols, struct cr_error *err)
{
    uint32_t limit = draft->model != NULL ? draft->model->config.n_layers : CR_ADAPTER_LAYERS_MAX;
    if (where->layer >= limit) {
        return cr_fail(err, CR_E_INPUT, "%s: tensor %s: layer %u, the base model has %u layers", draft->label, name,
                       where->layer, limit);
    }
    CR_TRY(widen(draft, where->layer, err));
    struct cr_draft_slot *slot = &draft->slots[(size_t)where->layer * CR_N_PROJ + (size_t)where->proj];
    slot->tensor[where->part] = tensor;
    slot->name[where->part] = name;
    slot->rows[where->part] = rows;
    slot->cols[where->part] = cols;
    draft->n_tensors++;
    return CR_OK;
}

static cr_status check_shapes(const struct cr_draft *draft, size_t i, struct cr_error *err)
{
    const struct cr_draft_slot *slot = &draft->slots[i];
    uint64_t rank = slot->rows[0], n_in = slot->cols[0], n_out = slot->rows[1];
    if (rank != slot->cols[1]) {
        return cr_fail(err, CR_E_INPUT, "%s: tensor %s has rank %llu, its partner %s has rank %llu", draft->label,
                       slot->name[0], (unsigned long long)rank, slot->name[1], (unsigned long long)slot->cols[1]);
    }
    if (rank < 1 || rank > CR_RANK_MAX || (rank > n_in && rank > n_out)) {
        return cr_fail(err, CR_E_INPUT, "%s: tensor %s has rank %llu, 1...%d and not above both %llu and %llu expected",
                       draft->label, slot->name[0], (unsigned long long)rank, CR_RANK_MAX, (unsigned long long)n_in,
                       (unsigned long long)n_out);
    }
    if (draft->model != NULL) {
        const struct cr_qmat *w = &draft->model->layers[i / CR_N_PROJ].proj[i % CR_N_PROJ];
        if (n_in != w->n_cols || n_out != w->n_rows) {
            int part = n_in != w->n_cols ? 0 : 1;
            return cr_fail(err, CR_E_INPUT,
                           "%s: tensor %s has shape %llu x %llu, %llu x %llu expected for this base "
                           "model",
                           draft->label, slot->name[part], (unsigned long long)slot->rows[part],
                           (unsigned long long)slot->cols[part],
                           (unsigned long long)(part == 0 ? rank : (uint64_t)w->n_rows),
                           (unsigned long long)(part == 0 ? (uint64_t)w->n_cols : rank));
        }
    } else if (n_in > INT32_MAX || n_out > INT32_MAX) {
        return cr_fail(err, CR_E_INPUT, "%s: tensor %s is too large", draft->label, slot->name[0]);
    }
    return CR_OK;
}

cr_status cr_draft_check(const struct cr_draft *draft, struct cr_error *err)
{
    if (draft->n_tensors == 0) {
        return cr_fail(err, CR_E_INPUT, "%s: no adapter tensors", draft->label);
    }
    for (size_t i = 0; i < (size_t)draft->n_layers * CR_N_PROJ; i++) {
        const struct cr_draft_slot *slot = &draft->slots[i];
        if (slot->tensor[0] == NULL && slot->tensor[1] == NULL) {
            continue;
        }
        if (slot->tensor[0] == NULL || slot->tensor[1] == NULL) {
            int have = slot->tensor[0] != NULL ? 0 : 1;
            return cr_fail(err, CR_E_INPUT, "%s: tensor %s has no partner (lora_%c of the same projection)",
                           draft->label, slot->name[have], have == 0 ? 'B' : 'A');
        }
        CR_TRY(check_shapes(draft, i, err));
        enum cr_proj proj = (enum cr_proj)(i % CR_N_PROJ);
        uint32_t head_dim = draft->base.head_dim;
        if (draft->hf_order && cr_adapter_permutes(&draft->base, proj) &&
            (head_dim == 0 || head_dim % 2 != 0 || slot->rows[1] % head_dim != 0)) {
            return cr_fail(err, CR_E_INPUT, "%s: tensor %s has %llu rows, heads of %u rows expected", draft->label,
                           slot->name[1], (unsigned long long)slot->rows[1], head_dim);
        }
    }
    return CR_OK;
}

static cr_status fill_b(const struct cr_draft *draft, const struct cr_draft_slot *slot, enum cr_proj proj,
                        const struct cr_lora *lora, struct cr_error *err)
{
    if (!draft->hf_order || !cr_adapter_permutes(&draft->base, proj)) {
        return draft->read(draft->file, slot->tensor[1], lora->b, err);
    }
    float *rows = cr_alloc((size_t)lora->n_out * lora->rank, sizeof *rows);
    if (rows == NULL) {
        return cr_fail(err, CR_E_MEMORY, "%s: out of memory for %u rows", draft->label, lora->n_out);
    }
    cr_status status = draft->read(draft->file, slot->tensor[1], rows, err);
    if (status == CR_OK) {
        cr_rows_hf_to_gguf(lora->b, rows, lora->n_out, lora->rank, draft->base.head_dim);
    }
    cr_free(rows);
    return status;
}

cr_status cr_draft_build(const struct cr_draft *draft, bool with_grads, struct cr_adapter **out, struct cr_error *err)
{
    cr_status status = CR_OK;
    struct cr_adapter *adapter = NULL;
    size_t n_slots = (size_t)draft->n_layers * CR_N_PROJ;
    struct cr_lora *slots = cr_zalloc(n_slots, sizeof *slots);
    if (slots == NULL) {
        return cr_fail(err, CR_E_MEMORY, "%s: out of memory for %u layers", draft->label, draft->n_layers);
    }
    for (size_t i = 0; i < n_slots; i++) {
        const struct cr_draft_slot *slot = &draft->slots[i];
        if (draft->model != NULL) {
            slots[i].n_in = (uint32_t)draft->model->layers[i / CR_N_PROJ].proj[i % CR_N_PROJ].n_cols;
            slots[i].n_out = (uint32_t)draft->model->layers[i / CR_N_PROJ].proj[i % CR_N_PROJ].n_rows;
        }
        if (slot->tensor[0] != NULL) {
            slots[i].rank = (uint32_t)slot->rows[0];
            slots[i].n_in = (uint32_t)slot->cols[0];
            slots[i].n_out = (uint32_t)slot->rows[1];
            slots[i].scale = (float)slot->scale;
        }
    }
    CR_TRY_OUT(status, cr_adapter_assemble(slots, draft->n_layers, with_grads, &adapter, err));
    for (size_t i = 0; i < n_slots; i++) {
        const struct cr_lora *lora = &adapter->slots[i];
        if (lora->rank > 0) {
            CR_TRY_OUT(status, draft->read(draft->file, draft->slots[i].tensor[0], lora->a, err));
            CR_TRY_OUT(status, fill_b(draft, &draft->slots[i], (enum cr_proj)(i % CR_N_PROJ), lora, err));
        }
    }
    *out = adapter;
    adapter = NULL;
out:
    cr_adapter_destroy(adapter);
    cr_free(slots);
    return status;
}

void cr_draft_deinit(struct cr_draft *draft)
{
    cr_free(draft->slots);
    draft->slots = NULL;
}
