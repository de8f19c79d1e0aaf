/* peft_config: adapter_config.json of a PEFT LoRA directory; of one of type PREFIX_TUNING, which has a reader of its
 * own (prefix_adapter.h), only the type is looked at.
 *
 * Read: peft_type, r, lora_alpha, lora_dropout, use_rslora, target_modules, rank_pattern, alpha_pattern,
 * layers_to_transform, exclude_modules; every setting
 * that would change what the adapter computes and is not supported is refused by name. Unknown keys are ignored unless
 * they read use_...: true. Errors: CR_E_IO (missing), CR_E_INPUT naming file and key, CR_E_MEMORY.
 * Defaults of absent keys and meaning of the patterns: PEFT.
 */
#ifndef CR_ADAPTER_PEFT_CONFIG_H
#define CR_ADAPTER_PEFT_CONFIG_H

#include <jansson.h>

#include "runtime/adapter/layout.h"

struct cr_peft_config {
    char *path;     /* owned, printable */
    json_t *object; /* owned: the patterns are looked up in it */
    uint32_t rank;
    double alpha, dropout;
    bool rslora;
    bool prefix;        /* PREFIX_TUNING: nothing below and above but path and object is set */
    bool named_targets; /* targets come from a list in the file */
    uint32_t targets;
};

/* Reads dir/adapter_config.json. */
cr_status cr_peft_config_read(const char *dir, struct cr_peft_config *config, struct cr_error *err);
void cr_peft_config_deinit(struct cr_peft_config *config);

/* Rank and scale of a module ("model.layers.3.self_attn.q_proj") after the patterns: alpha / r, or alpha / sqrt(r)
 * with use_rslora. */
cr_status cr_peft_config_module(const struct cr_peft_config *config, const char *module, uint32_t *rank, double *scale,
                                struct cr_error *err);

/* The key by which the file itself leaves a module out (layers_to_transform, exclude_modules), NULL: it does not. */
const char *cr_peft_config_leaves_out(const struct cr_peft_config *config, uint32_t layer, const char *module);

/* "model.layers.3.self_attn.q_proj" */
void cr_peft_module_name(char *dst, size_t dst_bytes, uint32_t layer, enum cr_proj proj);

#endif
