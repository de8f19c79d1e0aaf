#include <string.h>

#include "runtime/adapter/layout.h"

/* Place of GGUF row `row` among the rows of the Hugging Face order. */
static size_t hf_row(size_t row, size_t head_dim)
{
    size_t head = row / head_dim;
    size_t within = row % head_dim;
    return head * head_dim + within % 2 * (head_dim / 2) + within / 2;
}

void cr_rows_hf_to_gguf(float *dst, const float *src, size_t n_rows, size_t row_floats, size_t head_dim)
{
    for (size_t i = 0; i < n_rows; i++) {
        memcpy(dst + i * row_floats, src + hf_row(i, head_dim) * row_floats, row_floats * sizeof *dst);
    }
}

void cr_rows_gguf_to_hf(float *dst, const float *src, size_t n_rows, size_t row_floats, size_t head_dim)
{
    for (size_t i = 0; i < n_rows; i++) {
        memcpy(dst + hf_row(i, head_dim) * row_floats, src + i * row_floats, row_floats * sizeof *dst);
    }
}
