/* prefix_file: the vertices of a prefix in posterior.safetensors, beside the PEFT directory of their centroid.
 *
 * Tensors: prompt_embeddings.vertices [n_vertices][n_rows][2 n_layers n_features], each in the order of the PEFT table;
 * with label rows of their own prompt_embeddings.head [n_vertices][n_labels][n_embd]. Numbers: the shape as in a
 * checkpoint, "offset" (position of the first token behind the rows) and "rotated": false (keys are what attention
 * sees: no rotation is applied to them). Errors: as in posterior_file.h.
 */
#ifndef CR_POSTERIOR_PREFIX_FILE_H
#define CR_POSTERIOR_PREFIX_FILE_H

#include "runtime/posterior/posterior_file.h"

/* about->adapter has the prefix. */
cr_status cr_prefix_file_write(const struct cr_posterior_about *about, const char *dir, struct cr_error *err);

/* *adapter, owned, is the centroid as dir has it, and becomes the adapter with all vertices. */
cr_status cr_prefix_file_read(const char *dir, const struct cr_adapter_base *base, struct cr_adapter **adapter,
                              struct cr_error *err);

#endif
