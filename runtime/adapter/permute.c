#include <string.h>

#include "runtime/adapter/layout.h"

size_t cr_gguf_row(size_t hf_row, size_t head_dim)
{
    size_t within = hf_row % head_dim, half = head_dim / 2;
    return hf_row - within + 2 * (within % half) + within / half;
}

size_t cr_adapter_reordered_floats(const struct cr_adapter *adapter, const struct cr_adapter_base *base)
{
    size_t n = 0;
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        if (cr_adapter_permutes(base, (enum cr_proj)(i % CR_N_PROJ))) {
            n += (size_t)adapter->slots[i].rank * adapter->slots[i].n_out;
        }
    }
    return n;
}

void cr_rows_hf_to_gguf(float *dst, const float *src, size_t n_rows, size_t row_floats, size_t head_dim)
{
    for (size_t i = 0; i < n_rows; i++) {
        memcpy(dst + cr_gguf_row(i, head_dim) * row_floats, src + i * row_floats, row_floats * sizeof *dst);
    }
}

void cr_rows_gguf_to_hf(float *dst, const float *src, size_t n_rows, size_t row_floats, size_t head_dim)
{
    for (size_t i = 0; i < n_rows; i++) {
        memcpy(dst + i * row_floats, src + cr_gguf_row(i, head_dim) * row_floats, row_floats * sizeof *dst);
    }
}
