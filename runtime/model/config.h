/* config: the numbers of a model from its metadata, checked before anything is sized by them. */
#ifndef CR_MODEL_CONFIG_H
#define CR_MODEL_CONFIG_H

#include "runtime/model/model.h"

/* Errors: CR_E_INPUT naming the key, the value and what is allowed; for an architecture or a rope scaling that is not
 * built, its name and the list of those that are. */
cr_status cr_model_config_read(const struct cr_gguf *gguf, struct cr_model_config *config, struct cr_error *err);

#endif
