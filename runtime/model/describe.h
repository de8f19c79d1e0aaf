/* describe: what a GGUF file says about itself, as text for people. */
#ifndef CR_MODEL_DESCRIBE_H
#define CR_MODEL_DESCRIBE_H

#include "runtime/core/buf.h"
#include "runtime/io/gguf.h"

/* Appends: kind, sizes, number types of the tensors, then every key with its value (long ones cut). Lines end in \n;
 * bytes of the file are escaped. */
void cr_gguf_describe(const struct cr_gguf *gguf, struct cr_buf *text);

/* Value of general.type "adapter"; and a file without a block of weights: a vocabulary. */
bool cr_gguf_is_adapter(const struct cr_gguf *gguf);
bool cr_gguf_is_vocabulary(const struct cr_gguf *gguf);

#endif
