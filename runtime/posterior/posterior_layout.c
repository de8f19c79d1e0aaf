/* Names, shapes and orders of the tensors that stand for the matrices of an adapter. */
#include "runtime/posterior/posterior_private.h"

#include <stdio.h>
#include <string.h>

#include "runtime/adapter/peft_config.h"

void cr_posterior_label_rows_name(char *out, size_t n, const char *suffix)
{
    snprintf(out, n, "base_model.model.lm_head.label_rows%s", suffix);
}

static bool label_rows(struct cr_posterior_matrix *m)
{
    const struct cr_adapter *adapter = m->adapter;
    if (!m->with_label_rows || adapter->n_labels == 0 || m->next > 2 * (size_t)adapter->n_layers * CR_N_PROJ) {
        return false;
    }
    m->next++;
    m->lora = NULL;
    m->moves = false;
    m->begin = cr_adapter_rows_begin(adapter);
    m->shape[0] = adapter->n_labels;
    m->shape[1] = adapter->n_embd;
    if (m->suffix != NULL) {
        cr_posterior_label_rows_name(m->name, sizeof m->name, m->suffix);
    }
    return true;
}

bool cr_posterior_next(struct cr_posterior_matrix *m)
{
    const struct cr_adapter *adapter = m->adapter;
    size_t n = 2 * (size_t)adapter->n_layers * CR_N_PROJ;
    while (m->next < n && adapter->slots[m->next / 2].rank == 0) {
        m->next += 2;
    }
    if (m->next >= n) {
        return label_rows(m);
    }
    size_t slot = m->next / 2;
    enum cr_proj proj = (enum cr_proj)(slot % CR_N_PROJ);
    const struct cr_lora *lora = &adapter->slots[slot];
    m->of_a = m->next++ % 2 == 0;
    m->lora = lora;
    m->moves = !m->of_a && m->base != NULL && cr_adapter_permutes(m->base, proj);
    m->begin = (size_t)((m->of_a ? lora->a : lora->b) - adapter->params);
    m->shape[0] = m->of_a ? lora->rank : lora->n_out;
    m->shape[1] = m->of_a ? lora->n_in : lora->rank;
    if (m->suffix != NULL) {
        char module[96];
        cr_peft_module_name(module, sizeof module, (uint32_t)(slot / CR_N_PROJ), proj);
        snprintf(m->name, sizeof m->name, "base_model.model.%s.lora_%c.weight%s", module, m->of_a ? 'A' : 'B',
                 m->suffix);
    }
    return true;
}

void cr_posterior_move_rows(uint16_t *file, uint16_t *memory, const uint64_t shape[2], size_t head_dim, bool moves,
                            bool out)
{
    for (size_t r = 0; r < shape[0]; r++) {
        uint16_t *here = memory + (moves ? cr_gguf_row(r, head_dim) : r) * shape[1];
        uint16_t *there = file + r * shape[1];
        memcpy(out ? there : here, out ? here : there, shape[1] * sizeof *here);
    }
}
