/* config: the numbers of a model from its metadata, checked before anything is sized by them. */
#ifndef CR_MODEL_CONFIG_H
#define CR_MODEL_CONFIG_H

#include "runtime/model/model.h"

/* What the served architectures differ in. A new one that fits the same layer is a line of the table in config.c. */
struct cr_architecture {
    const char *name;
    enum cr_rope_style rope_style;
    bool permuted_qk; /* rows of q and k stand in another order in GGUF files than in Hugging Face's */
    bool qkv_bias;    /* q, k and v must have one */
};

/* Of the name's first n bytes; NULL: not served. */
const struct cr_architecture *cr_architecture_find(const char *name, size_t n);

/* Errors: CR_E_INPUT naming the key, the value and what is allowed; for an architecture or a rope scaling that is not
 * built, its name and the list of those that are. */
cr_status cr_model_config_read(const struct cr_gguf *gguf, struct cr_model_config *config, struct cr_error *err);

#endif
