/* posterior_private: what the files of posterior_file share. Private to runtime/posterior. */
#ifndef CR_POSTERIOR_POSTERIOR_PRIVATE_H
#define CR_POSTERIOR_POSTERIOR_PRIVATE_H

#include "runtime/posterior/posterior_file.h"

#define CR_KEY_NUMBERS "credence.posterior"

/* posterior_file.c: out [product of shape] = the tensor of this name as f32, finite. Errors: CR_E_INPUT where it is not
 * there or of another shape, and as cr_safetensors_read_f32. */
cr_status cr_posterior_read(const struct cr_posterior_file *file, const char *name, uint32_t n_dims,
                            const uint64_t *shape, float *out, struct cr_error *err);

/* posterior_layout.c; part: 0 = A, 1 = B. */
void cr_posterior_tensor_name(char *out, size_t n, size_t slot, int part, const char *suffix);

/* Rows of B are stored in the Hugging Face order. */
bool cr_posterior_reordered(const struct cr_adapter_base *base, size_t slot, int part);

/* Of a matrix in a vector of parameters. */
size_t cr_posterior_matrix_begin(const struct cr_adapter *adapter, size_t slot, int part);
void cr_posterior_matrix_shape(const struct cr_lora *lora, int part, uint64_t shape[2]);

/* One matrix of bf16 between memory and the file's order; `out` says the direction. */
void cr_posterior_move_rows(uint16_t *file, uint16_t *memory, const uint64_t shape[2], size_t head_dim, bool moves,
                            bool out);

/* Metadata: the tokens of label rows, in their order, separated by commas. */
#define CR_KEY_LABELS "credence.labels"

void cr_posterior_label_rows_name(char *out, size_t n, const char *suffix);

/* posterior_sides.c: room [floats of the values] holds reordered ones until the file is written. */
cr_status cr_posterior_add_sides(struct cr_safetensors_writer *w, const struct cr_adapter *adapter,
                                 const struct cr_adapter_base *base, const struct cr_posterior_sides *sides,
                                 float *room, struct cr_error *err);
size_t cr_posterior_sides_floats(const struct cr_adapter *adapter, const struct cr_posterior_sides *sides);

#endif
