/* Names, shapes and orders of the tensors that stand for the matrices of an adapter. */
#include "runtime/posterior/posterior_private.h"

#include <stdio.h>
#include <string.h>

#include "runtime/adapter/peft_config.h"

void cr_posterior_tensor_name(char *out, size_t n, size_t slot, int part, const char *suffix)
{
    char module[96];
    cr_peft_module_name(module, sizeof module, (uint32_t)(slot / CR_N_PROJ), (enum cr_proj)(slot % CR_N_PROJ));
    snprintf(out, n, "base_model.model.%s.lora_%c.weight%s", module, part == 0 ? 'A' : 'B', suffix);
}

bool cr_posterior_reordered(const struct cr_adapter_base *base, size_t slot, int part)
{
    return part == 1 && cr_adapter_permutes(base, (enum cr_proj)(slot % CR_N_PROJ));
}

size_t cr_posterior_matrix_begin(const struct cr_adapter *adapter, size_t slot, int part)
{
    const struct cr_lora *lora = &adapter->slots[slot];
    return (size_t)((part == 0 ? lora->a : lora->b) - adapter->params);
}

void cr_posterior_matrix_shape(const struct cr_lora *lora, int part, uint64_t shape[2])
{
    shape[0] = part == 0 ? lora->rank : lora->n_out;
    shape[1] = part == 0 ? lora->n_in : lora->rank;
}

void cr_posterior_label_rows_name(char *out, size_t n, const char *suffix)
{
    snprintf(out, n, "base_model.model.lm_head.label_rows%s", suffix);
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
