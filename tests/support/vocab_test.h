/* vocab_test: tiny vocabularies as GGUF files in memory, opened by the library. Failures end the running test. */
#ifndef CR_TESTS_VOCAB_TEST_H
#define CR_TESTS_VOCAB_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/io/gguf.h"
#include "runtime/io/gguf_write.h"
#include "runtime/tokenizer/tokenizer.h"

/* What goes into the file; a NULL or empty part writes no key. Change fields before cr_vocab_write. */
enum { CR_TEST_MAX_TOKENS = 512 };
struct cr_test_vocab {
    const char *model;
    const char *pre;
    const char *tokens[CR_TEST_MAX_TOKENS];
    int32_t types[CR_TEST_MAX_TOKENS];
    float scores[CR_TEST_MAX_TOKENS];
    size_t n_tokens;
    const char *merges[CR_TEST_MAX_TOKENS];
    size_t n_merges;
    bool has_types, has_scores;
    int64_t bos, eos, unk, pad;    /* below 0: no key */
    int add_bos, add_space_prefix; /* below 0: no key */
    const char *chat_template;
    char storage[16384];
    size_t n_storage;
};

/* Byte-level BPE: tokens 0...255 are the bytes, then the given ones are added; bos = eos = 0 here. */
void cr_vocab_bpe(struct cr_test_vocab *v, const char *pre);
/* SPM: <unk> 0, <s> 1, </s> 2, then <0x00> ... <0xFF> as 3...258. */
void cr_vocab_spm(struct cr_test_vocab *v);

/* Append; return the id. The text is copied. cr_vocab_merge also adds the joined token when it is new. */
int32_t cr_vocab_add(struct cr_test_vocab *v, const char *text, int32_t type, float score);
int32_t cr_vocab_merge(struct cr_test_vocab *v, const char *left, const char *right);

/* The keys as a writer (owned by the caller), to which a test may add more. */
struct cr_gguf_writer *cr_vocab_write(const struct cr_test_vocab *v);

/* An open file in memory. */
struct cr_test_tokenizer {
    uint8_t *bytes;
    size_t n_bytes;
    struct cr_gguf *gguf;
    struct cr_tokenizer *tok;
};

/* Takes the writer. Returns the status of cr_tokenizer_open. */
cr_status cr_test_open_writer(struct cr_test_tokenizer *t, struct cr_gguf_writer *writer, struct cr_error *err);
void cr_test_open(struct cr_test_tokenizer *t, const struct cr_test_vocab *v); /* must work */
void cr_test_close(struct cr_test_tokenizer *t);

/* Ids of a text as "1 2 3", with " dropped=N" behind when bytes were dropped; a buffer that the next call reuses. */
const char *cr_test_ids(const struct cr_tokenizer *tok, const char *text, size_t n, unsigned flags);
#define CR_IDS(tok, text, flags) cr_test_ids(tok, text, sizeof(text) - 1, flags)

#endif
