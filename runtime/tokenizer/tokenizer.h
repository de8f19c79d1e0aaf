/* Text to token ids by the vocabulary inside a GGUF file: byte-level BPE (`gpt2`) and SPM (`llama`).
 *
 * A tokenizer is opaque, immutable after cr_tokenizer_open and may be used by any number of threads at once. It
 * borrows its strings (pieces, chat template) from the reader, which must stay open until cr_tokenizer_close.
 * Ids are indices into tokenizer.ggml.tokens, 0 .. n_vocab-1. Bytes are raw bytes of the text, usually UTF-8.
 *
 * Invalid UTF-8 is never an error. Byte-level BPE: every byte that is not part of a well-formed character is a piece
 * of its own and becomes the token of that byte. SPM: such a byte becomes its byte token `<0xXX>`, or the unknown
 * token when the vocabulary lacks it. A byte without any token is dropped and counted.
 * Errors: CR_E_INPUT for a vocabulary that is malformed or of an unsupported kind, CR_E_MEMORY.
 * Rules: GGUF keys tokenizer.*, byte-level BPE and SPM as llama.cpp reads them. */
#ifndef CR_TOKENIZER_TOKENIZER_H
#define CR_TOKENIZER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "credence/status.h"

struct cr_gguf;
struct cr_tokenizer;

/* A growing list of ids. All zero is a valid empty list. */
struct cr_ids {
    int32_t *ids;
    size_t n;
    size_t capacity;
};

void cr_ids_deinit(struct cr_ids *list); /* frees, leaves an empty list; NULL is fine */
cr_status cr_ids_push(struct cr_ids *list, int32_t id, struct cr_error *err);

enum {
    CR_TOK_SPECIAL = 1, /* control and unknown tokens are recognised in the text; else they are plain text */
    CR_TOK_BOS = 2,     /* the bos id goes in front; CR_E_INPUT when the vocabulary has none */
    CR_TOK_EOS = 4,     /* the eos id goes behind; CR_E_INPUT when the vocabulary has none */
    CR_TOK_NFC = 8      /* the text is brought to Unicode normal form C first */
};

/* Returns owned in *out. Borrows gguf until close. Checks every array and id; an unknown model type or pre-tokenizer
 * is CR_E_INPUT with the list of known ones. */
cr_status cr_tokenizer_open(const struct cr_gguf *gguf, struct cr_tokenizer **out, struct cr_error *err);
void cr_tokenizer_close(struct cr_tokenizer *tok); /* NULL is fine */

/* Appends the ids of n_bytes of text (no terminator needed, zero bytes allowed; an empty text has no ids) to
 * append_to, which keeps its old contents on failure. User-defined tokens are always recognised. The number of bytes
 * dropped for want of a token is added to *n_dropped_bytes (NULL: not wanted). */
cr_status cr_tokenize(const struct cr_tokenizer *tok, const char *text, size_t n_bytes, unsigned flags,
                      struct cr_ids *append_to, size_t *n_dropped_bytes, struct cr_error *err);

size_t cr_tokenizer_n_vocab(const struct cr_tokenizer *tok);
const char *cr_tokenizer_model(const struct cr_tokenizer *tok); /* "gpt2" or "llama" */
const char *cr_tokenizer_pre(const struct cr_tokenizer *tok);   /* split rule in use, "" for SPM */

/* Id of the unknown token, -1 when the vocabulary has none. */
int32_t cr_tokenizer_unk(const struct cr_tokenizer *tok);

/* What the file asks for; cr_tokenize obeys only its flags. */
bool cr_tokenizer_add_bos(const struct cr_tokenizer *tok);

/* Chat template text, borrowed; NULL when absent. Not terminated: *n bytes. */
const char *cr_tokenizer_chat_template(const struct cr_tokenizer *tok, size_t *n);

/* The piece as stored in the file, borrowed, *n bytes; NULL for an id outside the vocabulary. */
const char *cr_tokenizer_text(const struct cr_tokenizer *tok, int32_t id, size_t *n);

/* Bytes that one token stands for. Writes at most cap of them to buf (no terminator; buf may be NULL when cap is 0)
 * and returns how many there are; 0 for an id outside the vocabulary. The space that SPM puts in front of a text is
 * part of the first token and is not stripped here. */
size_t cr_tokenizer_decode(const struct cr_tokenizer *tok, int32_t id, char *buf, size_t cap);

/* Id of the token stored as exactly these bytes, -1 when there is none (the last one of equal ones). */
int32_t cr_tokenizer_find(const struct cr_tokenizer *tok, const char *piece, size_t n);

/* Number of the 256 bytes that no token can stand for (SmolLM2: 21). */
unsigned cr_tokenizer_n_missing_bytes(const struct cr_tokenizer *tok);

#endif
