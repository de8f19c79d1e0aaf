/* Unicode normal form C, for vocabularies whose original tokenizer normalises (Qwen) or users who ask for it. */
#ifndef CR_TOKENIZER_NORMALIZE_H
#define CR_TOKENIZER_NORMALIZE_H

#include <stddef.h>

#include "credence/status.h"
#include "runtime/core/buf.h"

/* Appends the text to out, which has bytes to point to even if n is 0. Bytes that are not well-formed UTF-8 stay as
 * they are and separate the runs that are normalised. Errors: CR_E_MEMORY; CR_E_INPUT for a run too long to be
 * normalised; out may then hold a part. */
cr_status cr_text_nfc(const char *text, size_t n, struct cr_buf *out, struct cr_error *err);

#endif
