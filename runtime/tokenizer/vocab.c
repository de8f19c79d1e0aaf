#include "runtime/tokenizer/vocab.h"

#include <string.h>
#include <xxhash.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/core/utf8.h"

/* The 188 bytes that are printable as they are stand for themselves, the other 68 for U+0100 + their order. */
static bool is_printable(unsigned byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

static unsigned order_of_unprintable(unsigned byte)
{
    return byte < 33 ? byte : byte < 161 ? 33 + byte - 127 : 67;
}

unsigned cr_byte_to_printable(unsigned char byte, char out[2])
{
    unsigned c = is_printable(byte) ? byte : 0x100 + order_of_unprintable(byte);
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xC0 | c >> 6);
    out[1] = (char)(0x80 | (c & 0x3F));
    return 2;
}

int cr_printable_to_byte(uint32_t code_point)
{
    if (code_point < 0x100) {
        return is_printable(code_point) ? (int)code_point : -1;
    }
    uint32_t order = code_point - 0x100;
    return order < 33 ? (int)order : order < 67 ? (int)(order - 33 + 127) : order == 67 ? 173 : -1;
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int cr_byte_token_value(const char *piece, size_t n)
{
    if (n != 6 || memcmp(piece, "<0x", 3) != 0 || piece[5] != '>') {
        return -1;
    }
    int high = hex_value(piece[3]);
    int low = hex_value(piece[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
}

bool cr_vocab_is_plain(const struct cr_tokenizer *tok, int32_t id)
{
    switch (tok->types[id]) {
    case CR_TOKEN_UNKNOWN:
    case CR_TOKEN_CONTROL:
        return false;
    case CR_TOKEN_UNUSED:
    case CR_TOKEN_BYTE:
        return !tok->spm; /* SPM keeps these apart from the pieces that characters merge into */
    default:
        return true;
    }
}

/* Slots for n entries, at most half full; 0 when that overflows. */
static size_t table_slots(size_t n)
{
    size_t slots = 16;
    while (slots / 2 < n) {
        if (slots > SIZE_MAX / 2) {
            return 0;
        }
        slots *= 2;
    }
    return slots;
}

/* Slot of the entry with this text and class, or the free slot where it belongs. */
static size_t find_slot(const struct cr_tokenizer *tok, const char *text, size_t n, bool plain)
{
    XXH64_hash_t hash = XXH3_64bits(text, n);
    uint32_t tag = (uint32_t)(hash >> 32);
    size_t slot = (size_t)hash & tok->slot_mask;
    while (tok->slots[slot].id >= 0) {
        if (tok->slots[slot].tag == tag && cr_vocab_is_plain(tok, tok->slots[slot].id) == plain) {
            size_t piece_bytes = 0;
            const char *piece = cr_vocab_piece(tok, tok->slots[slot].id, &piece_bytes);
            if (piece_bytes == n && memcmp(piece, text, n) == 0) {
                break;
            }
        }
        slot = (slot + 1) & tok->slot_mask;
    }
    return slot;
}

cr_status cr_vocab_index_pieces(struct cr_tokenizer *tok, struct cr_error *err)
{
    size_t n_slots = table_slots(tok->n_vocab);
    tok->slots = n_slots == 0 ? NULL : cr_alloc(n_slots, sizeof *tok->slots);
    if (tok->slots == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a vocabulary of %zu tokens", tok->n_vocab);
    }
    memset(tok->slots, 0xFF, n_slots * sizeof *tok->slots);
    tok->slot_mask = n_slots - 1;
    for (size_t i = 0; i < tok->n_vocab; i++) {
        size_t n = 0;
        const char *piece = cr_vocab_piece(tok, (int32_t)i, &n);
        if (n == 0) {
            continue; /* a hole in the list: no text has it */
        }
        size_t slot = find_slot(tok, piece, n, cr_vocab_is_plain(tok, (int32_t)i));
        tok->slots[slot].id = (int32_t)i;
        tok->slots[slot].tag = (uint32_t)(XXH3_64bits(piece, n) >> 32);
        tok->longest_piece = n > tok->longest_piece ? n : tok->longest_piece;
    }
    return CR_OK;
}

int32_t cr_vocab_find(const struct cr_tokenizer *tok, const char *text, size_t n, bool plain)
{
    return n == 0 || n > tok->longest_piece ? -1 : tok->slots[find_slot(tok, text, n, plain)].id;
}

static size_t merge_hash(int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    key *= UINT64_C(0x9E3779B97F4A7C15); /* 2^64 / golden ratio: spreads consecutive ids */
    return (size_t)(key ^ key >> 29);
}

static size_t find_merge_slot(const struct cr_tokenizer *tok, int32_t left, int32_t right)
{
    size_t slot = merge_hash(left, right) & tok->merge_mask;
    while (tok->merge_slots[slot] >= 0) {
        const struct cr_merge *merge = &tok->merges[tok->merge_slots[slot]];
        if (merge->left == left && merge->right == right) {
            break;
        }
        slot = (slot + 1) & tok->merge_mask;
    }
    return slot;
}

int32_t cr_vocab_merge_rank(const struct cr_tokenizer *tok, int32_t left, int32_t right)
{
    return tok->merge_slots[find_merge_slot(tok, left, right)];
}

static cr_status find_part(const struct cr_tokenizer *tok, const char *text, size_t n, size_t rank, int32_t *id,
                           struct cr_error *err)
{
    int32_t found = cr_tokenizer_find(tok, text, n);
    if (found < 0) {
        char shown[CR_ESCAPE_BYTES];
        return cr_fail(err, CR_E_INPUT, "tokenizer.ggml.merges[%zu]: \"%.400s\" is not a token", rank,
                       cr_escape(shown, sizeof shown, text, n));
    }
    *id = found;
    return CR_OK;
}

/* Reads "left right"; joined has room for the longest merge. */
static cr_status read_merge(const struct cr_tokenizer *tok, const char *text, size_t n, size_t rank, char *joined,
                            struct cr_merge *merge, struct cr_error *err)
{
    const char *space = n < 2 ? NULL : memchr(text + 1, ' ', n - 1);
    size_t left_bytes = space == NULL ? 0 : (size_t)(space - text);
    size_t right_bytes = space == NULL ? 0 : n - left_bytes - 1;
    if (right_bytes == 0 || memchr(space + 1, ' ', right_bytes) != NULL) {
        char shown[CR_ESCAPE_BYTES];
        return cr_fail(err, CR_E_INPUT,
                       "tokenizer.ggml.merges[%zu]: \"%.400s\" is not two parts with one space between", rank,
                       cr_escape(shown, sizeof shown, text, n));
    }
    memcpy(joined, text, left_bytes);
    memcpy(joined + left_bytes, space + 1, right_bytes);
    CR_TRY(find_part(tok, text, left_bytes, rank, &merge->left, err));
    CR_TRY(find_part(tok, space + 1, right_bytes, rank, &merge->right, err));
    CR_TRY(find_part(tok, joined, n - 1, rank, &merge->joined, err));
    if (!cr_vocab_is_plain(tok, merge->joined)) {
        merge->joined = -1; /* plain text never becomes a control token */
    }
    return CR_OK;
}

cr_status cr_vocab_index_merges(struct cr_tokenizer *tok, struct cr_error *err)
{
    struct cr_gguf_value list;
    CR_TRY(cr_gguf_array(tok->gguf, "tokenizer.ggml.merges", CR_GGUF_KIND_STRING, true, &list, err));
    if (list.n > INT32_MAX) {
        return cr_fail(err, CR_E_INPUT, "tokenizer.ggml.merges: %llu entries, at most 2147483647",
                       (unsigned long long)list.n);
    }
    size_t longest = 0;
    for (uint64_t i = 0; i < list.n; i++) {
        size_t n = 0;
        (void)cr_gguf_array_str(&list, i, &n);
        longest = n > longest ? n : longest;
    }
    size_t n_slots = table_slots((size_t)list.n);
    cr_status status = CR_OK;
    char *joined = cr_alloc(longest, 1);
    tok->merges = cr_alloc((size_t)list.n, sizeof *tok->merges);
    tok->merge_slots = n_slots == 0 ? NULL : cr_alloc(n_slots, sizeof *tok->merge_slots);
    if (joined == NULL || tok->merges == NULL || tok->merge_slots == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for %llu merges", (unsigned long long)list.n);
        goto out;
    }
    memset(tok->merge_slots, 0xFF, n_slots * sizeof *tok->merge_slots);
    tok->merge_mask = n_slots - 1;
    for (size_t rank = 0; rank < (size_t)list.n; rank++) {
        size_t n = 0;
        const char *text = cr_gguf_array_str(&list, rank, &n);
        CR_TRY_OUT(status, read_merge(tok, text, n, rank, joined, &tok->merges[rank], err));
        size_t slot = find_merge_slot(tok, tok->merges[rank].left, tok->merges[rank].right);
        if (tok->merge_slots[slot] < 0 && tok->merges[rank].joined >= 0) {
            tok->merge_slots[slot] = (int32_t)rank; /* of a repeated merge the first counts */
        }
    }
    tok->n_merges = (size_t)list.n;
out:
    cr_free(joined);
    return status;
}
