/* prefix_adapter: an adapter whose parameters are learned keys and values (runtime/model/prefix.h): no slot has a rank.
 *
 * Its PEFT form is a directory of type PREFIX_TUNING: one table [n_rows][2 n_layers][n_features] of keys (even) and
 * values (odd), keys of llama bases in the Hugging Face order, tokens behind it at positions from n_rows on. It holds
 * the centroid of several vertices, and no label rows: those stand in posterior.safetensors only. There is no GGUF
 * form.
 */
#ifndef CR_ADAPTER_PREFIX_ADAPTER_H
#define CR_ADAPTER_PREFIX_ADAPTER_H

#include <jansson.h>

#include "runtime/adapter/peft.h"

/* The numbers of a prefix on this model, with equal weights for every vertex and no parameters. */
void cr_prefix_shape_of(const struct cr_model *model, uint32_t n_vertices, uint32_t n_rows, uint32_t n_labels,
                        struct cr_prefix *out);

/* An adapter of zeros with this shape. Sets everything but base_hash and method. Returns owned. Errors: CR_E_MEMORY. */
cr_status cr_prefix_adapter_create(const struct cr_prefix *shape, bool with_grads, struct cr_adapter **out,
                                   struct cr_error *err);

/* One vertex, the mean of all, with base_hash and method. Returns owned. Errors: CR_E_MEMORY. */
cr_status cr_prefix_adapter_centroid(const struct cr_adapter *adapter, struct cr_adapter **out, struct cr_error *err);

/* Floats of a table. */
size_t cr_prefix_table_floats(const struct cr_prefix *prefix);

/* A vertex of the parameters as table, or from it. Errors: CR_E_USAGE when keys must be reordered and the head size of
 * the base is unknown or does not fit. */
cr_status cr_prefix_to_table(const struct cr_prefix *prefix, const struct cr_adapter_base *base, uint32_t vertex,
                             float *table, struct cr_error *err);
cr_status cr_prefix_from_table(const struct cr_prefix *prefix, const struct cr_adapter_base *base, uint32_t vertex,
                               const float *table, struct cr_error *err);

/* The shape of a checkpoint's parameters: {"features","labels","layers","rows","vertices","width"}. Reading checks it
 * against the model (may be NULL) and sane bounds: CR_E_INPUT naming label. */
json_t *cr_prefix_shape_json(const struct cr_prefix *prefix);
cr_status cr_prefix_shape_read(const json_t *object, const struct cr_model *model, const char *label,
                               struct cr_prefix *out, struct cr_error *err);

/* The PEFT directory; as cr_adapter_write_peft and _read_peft, which come here. config: its adapter_config.json. */
cr_status cr_prefix_write_peft(const struct cr_adapter *adapter, const struct cr_adapter_base *base, const char *dir,
                               const char *method, struct cr_error *err);
cr_status cr_prefix_read_peft(const char *dir, const json_t *config, const struct cr_model *model, bool with_grads,
                              struct cr_adapter **out, struct cr_adapter_base *base, struct cr_error *err);

#endif
