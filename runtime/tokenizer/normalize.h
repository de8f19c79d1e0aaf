/* Unicode normal form C, for vocabularies whose original tokenizer normalises (Qwen) or users who ask for it. */
#ifndef CR_TOKENIZER_NORMALIZE_H
#define CR_TOKENIZER_NORMALIZE_H

#include <stddef.h>

#include "credence/status.h"

/* Returns owned in *out, *n_out bytes, not terminated. Bytes that are not well-formed UTF-8 stay as they are and
 * separate the runs that are normalised. Errors: CR_E_MEMORY; CR_E_INPUT for a run too long to be normalised. */
cr_status cr_text_nfc(const char *text, size_t n, char **out, size_t *n_out, struct cr_error *err);

#endif
