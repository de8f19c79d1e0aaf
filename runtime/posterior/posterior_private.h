/* posterior_private: what the files of posterior_file share. Private to runtime/posterior. */
#ifndef CR_POSTERIOR_POSTERIOR_PRIVATE_H
#define CR_POSTERIOR_POSTERIOR_PRIVATE_H

#include "runtime/posterior/posterior_file.h"

/* part: 0 = A, 1 = B. */
void cr_posterior_tensor_name(char *out, size_t n, size_t slot, int part, const char *suffix);

/* Rows of B are stored in the Hugging Face order. */
bool cr_posterior_reordered(const struct cr_adapter_base *base, size_t slot, int part);

/* posterior_sides.c: room [floats of the values] holds reordered ones until the file is written. */
cr_status cr_posterior_add_sides(struct cr_safetensors_writer *w, const struct cr_adapter *adapter,
                                 const struct cr_adapter_base *base, const struct cr_posterior_sides *sides,
                                 float *room, struct cr_error *err);
size_t cr_posterior_sides_floats(const struct cr_adapter *adapter, const struct cr_posterior_sides *sides);

#endif
