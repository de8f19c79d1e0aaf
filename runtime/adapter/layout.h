/* layout: how an adapter lies in memory, and what its files say about the base model. */
#ifndef CR_ADAPTER_LAYOUT_H
#define CR_ADAPTER_LAYOUT_H

#include "runtime/adapter/adapter.h"

/* Largest rank of a file or a setting. */
enum { CR_RANK_MAX = 256 };

/* What a file must know of the base besides the numbers. head_dim 0 = unknown. */
struct cr_adapter_base {
    char architecture[16]; /* "" = unknown */
    uint32_t head_dim;
    bool permuted_qk; /* rows of q and k differ between the GGUF and the Hugging Face order */
};

void cr_adapter_base_of(const struct cr_model *model, struct cr_adapter_base *base);

/* True for the architectures whose q and k rows the GGUF converter reorders. */
bool cr_architecture_permutes(const char *architecture);

/* An adapter of zeros. slots: n_layers * CR_N_PROJ entries whose rank, n_in, n_out and scale are set; rank 0 = not
 * adapted. Sets everything but alpha, dropout and base_hash. Returns owned. Errors: CR_E_MEMORY. */
cr_status cr_adapter_assemble(const struct cr_lora *slots, uint32_t n_layers, bool with_grads, struct cr_adapter **out,
                              struct cr_error *err);

/* Floats of one set of an adapter of these slots with so many label rows, with and without the gaps. False when they
 * are more than size_t counts, nothing is then written. */
bool cr_adapter_floats(const struct cr_lora *slots, uint32_t n_layers, uint32_t n_labels, uint32_t n_embd,
                       size_t *n_params, size_t *n_trainable);

/* Place in the GGUF order of the row that stands at hf_row in the Hugging Face order, by the formula below. */
size_t cr_gguf_row(size_t hf_row, size_t head_dim);

/* Rows of a matrix [n_rows][row_floats] between the orders, head by head (n_rows is a multiple of head_dim):
 *   gguf_row[h*d + 2j + s] = hf_row[h*d + s*d/2 + j],  j < d/2, s in {0, 1}      (GGUF conversion of llama models)
 * dst and src must not overlap. */
void cr_rows_hf_to_gguf(float *dst, const float *src, size_t n_rows, size_t row_floats, size_t head_dim);
void cr_rows_gguf_to_hf(float *dst, const float *src, size_t n_rows, size_t row_floats, size_t head_dim);

/* True when rows of B of this projection are reordered for this base. */
bool cr_adapter_permutes(const struct cr_adapter_base *base, enum cr_proj proj);

/* Floats of all B that are reordered for this base together. */
size_t cr_adapter_reordered_floats(const struct cr_adapter *adapter, const struct cr_adapter_base *base);

#endif
