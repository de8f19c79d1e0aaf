/* Inside of struct cr_tokenizer: the checked vocabulary and its lookups. Only for the files of this folder. */
#ifndef CR_TOKENIZER_VOCAB_H
#define CR_TOKENIZER_VOCAB_H

#include "runtime/io/gguf.h"
#include "runtime/tokenizer/heap.h"
#include "runtime/tokenizer/pretok.h"
#include "runtime/tokenizer/special.h"
#include "runtime/tokenizer/tokenizer.h"

/* Values of tokenizer.ggml.token_type. */
enum {
    CR_TOKEN_UNDEFINED = 0,
    CR_TOKEN_NORMAL = 1,
    CR_TOKEN_UNKNOWN = 2,
    CR_TOKEN_CONTROL = 3,
    CR_TOKEN_USER_DEFINED = 4,
    CR_TOKEN_UNUSED = 5,
    CR_TOKEN_BYTE = 6
};

/* Open addressing, linear probing, at most half full. A text stands at most twice: once for the tokens that plain text
 * may become and once for the others. */
struct cr_piece_slot {
    uint32_t tag;
    int32_t id; /* -1: free */
};

struct cr_merge {
    int32_t left;
    int32_t right;
    int32_t joined; /* -1: never applied */
};

struct cr_tokenizer {
    const struct cr_gguf *gguf; /* borrowed */
    bool spm;
    size_t n_vocab;
    struct cr_gguf_value pieces; /* tokenizer.ggml.tokens */
    uint8_t *types;              /* [n_vocab] CR_TOKEN_* */
    float *scores;               /* [n_vocab], SPM only */
    size_t longest_piece;        /* bytes */

    struct cr_piece_slot *slots; /* [slot_mask + 1] */
    size_t slot_mask;

    struct cr_merge *merges; /* by rank */
    size_t n_merges;
    int32_t *merge_slots; /* [merge_mask + 1] rank, -1: free */
    size_t merge_mask;

    int32_t byte_ids[256]; /* -1: the vocabulary has no token for this byte */
    struct cr_specials specials;
    struct cr_pretok *pretok; /* byte-level BPE only */

    int32_t bos, eos, unk;
    bool add_bos, add_space_prefix;
    const char *chat_template;
    size_t chat_template_bytes;
};

static inline const char *cr_vocab_piece(const struct cr_tokenizer *tok, int32_t id, size_t *n)
{
    return cr_gguf_array_str(&tok->pieces, (uint64_t)id, n);
}

/* Whether plain text may become this token. */
bool cr_vocab_is_plain(const struct cr_tokenizer *tok, int32_t id);

cr_status cr_vocab_index_pieces(struct cr_tokenizer *tok, struct cr_error *err); /* fills slots */
int32_t cr_vocab_find(const struct cr_tokenizer *tok, const char *text, size_t n, bool plain);

/* Fills merges and merge_slots from tokenizer.ggml.merges. */
cr_status cr_vocab_index_merges(struct cr_tokenizer *tok, struct cr_error *err);
int32_t cr_vocab_merge_rank(const struct cr_tokenizer *tok, int32_t left, int32_t right); /* -1: no merge */

/* Byte-level BPE writes each byte as one printable character of 1 or 2 bytes. Returns its length. */
unsigned cr_byte_to_printable(unsigned char byte, char out[2]);
int cr_printable_to_byte(uint32_t code_point); /* -1: not one of the 256 */

/* A byte token `<0xXX>` as its byte, -1 for any other text. */
int cr_byte_token_value(const char *piece, size_t n);

/* Space of one call of the encoder. All zero is valid. */
struct cr_symbol {
    uint32_t begin; /* SPM: bytes of the text */
    uint32_t n_bytes;
    int32_t id; /* -1: no token; CR_SYMBOL_GONE: merged into its left neighbour */
    int32_t previous;
    int32_t next; /* -1 at the ends */
};

#define CR_SYMBOL_GONE (-2)

/* Takes the right neighbour, which there is, out of the list. */
static inline void cr_symbol_absorb(struct cr_symbol *symbols, int32_t left)
{
    struct cr_symbol *right = &symbols[symbols[left].next];
    symbols[left].next = right->next;
    right->id = CR_SYMBOL_GONE;
    if (right->next >= 0) {
        symbols[right->next].previous = left;
    }
}

struct cr_encode_work {
    struct cr_pretok_work pretok;
    struct cr_symbol *symbols;
    struct cr_heap_item *heap;
    size_t n_symbols; /* room for this many; the heap holds twice as many */
    char *text;
    size_t text_bytes;
    struct cr_fragments fragments;
    size_t n_dropped_bytes;
};

void cr_encode_work_deinit(struct cr_encode_work *work);
cr_status cr_encode_work_reserve(struct cr_encode_work *work, size_t n_symbols, size_t text_bytes,
                                 struct cr_error *err);

/* Append the ids of one raw fragment. */
cr_status cr_bpe_encode(const struct cr_tokenizer *tok, struct cr_encode_work *work, const char *text, size_t n,
                        struct cr_ids *ids, struct cr_error *err);
cr_status cr_spm_encode(const struct cr_tokenizer *tok, struct cr_encode_work *work, const char *text, size_t n,
                        bool space_prefix, struct cr_ids *ids, struct cr_error *err);

/* Encodes the fragments collected in work->fragments. *after_raw: whether raw text stands directly before; updated. */
cr_status cr_encode_fragments(const struct cr_tokenizer *tok, struct cr_encode_work *work, const char *text,
                              bool *after_raw, struct cr_ids *ids, struct cr_error *err);

/* Longest text of one call: positions stay below 2^31 even when SPM writes three bytes for each space. */
#define CR_TEXT_MAX_BYTES ((size_t)1 << 29)

#endif
