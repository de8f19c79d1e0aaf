/* tiny_vocab: a vocabulary-only GGUF file in memory, opened as a tokenizer.
 *
 * Byte-level BPE: ids 0...255 are the bytes, 256...281 the pieces " A" ... " Z", then <|endoftext|> (eos), <|im_start|>
 * (bos) and <|im_end|>. SPM: <unk> <s> </s>, 256 byte tokens, then the printable ASCII characters and U+2581 A ... Z.
 */
#ifndef CR_TESTS_TINY_VOCAB_H
#define CR_TESTS_TINY_VOCAB_H

#include <stdbool.h>

#include "runtime/io/gguf.h"
#include "runtime/tokenizer/tokenizer.h"

enum { CR_TINY_LABEL_A = 256, CR_TINY_EOS = 282, CR_TINY_IM_START = 283, CR_TINY_IM_END = 284 };

struct cr_tiny_vocab_options {
    bool spm;
    bool add_bos;
    bool no_template;
    int n_labels;      /* letters that are one token; 0 = 26 */
    const char *lacks; /* byte-level: letters that no token stands for; NULL = none */
};

struct cr_tiny_vocab {
    uint8_t *bytes;
    size_t n_bytes;
    struct cr_gguf *gguf;
    struct cr_tokenizer *tokenizer;
};

/* NULL options = byte-level, no bos, with a chatml template. False with a message on failure. */
bool cr_tiny_vocab_open(struct cr_tiny_vocab *vocab, const struct cr_tiny_vocab_options *options);
void cr_tiny_vocab_close(struct cr_tiny_vocab *vocab);

/* The same file on disk. */
bool cr_tiny_vocab_write(const char *path, const struct cr_tiny_vocab_options *options);

#endif
