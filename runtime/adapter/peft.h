/* peft: what the PEFT directories of all kinds of adapters have in common. Private to runtime/adapter. */
#ifndef CR_ADAPTER_PEFT_H
#define CR_ADAPTER_PEFT_H

#include "runtime/adapter/files.h"
#include "runtime/io/safetensors.h"

/* Names of the two files. */
#define CR_PEFT_CONFIG "adapter_config.json"
#define CR_PEFT_TENSORS "adapter_model.safetensors"

/* What the file says of the base and of the method that trained it. */
cr_status cr_peft_add_metadata(struct cr_safetensors_writer *w, const struct cr_adapter *adapter,
                               const struct cr_adapter_base *base, const char *method, struct cr_error *err);

/* Opens the tensors of a directory; a pickle is refused. */
cr_status cr_peft_open_tensors(const char *dir, struct cr_safetensors **st, struct cr_error *err);

/* *base: the model's, or (model NULL) what the metadata says, if it says it. */
cr_status cr_peft_read_base(const struct cr_safetensors *st, const struct cr_model *model, struct cr_adapter_base *base,
                            struct cr_error *err);

/* The recorded base hash, 0 when there is none; and the method into the adapter. */
cr_status cr_peft_read_hash(const struct cr_safetensors *st, uint64_t *hash, struct cr_error *err);
void cr_peft_read_method(const struct cr_safetensors *st, struct cr_adapter *adapter);

#endif
