/* SPM: every character starts as a symbol; the adjacent pair whose joint text is the token of highest score, leftmost
 * first, is joined until no pair is a token. Heap entries hold score and left position, and the joint length to see
 * whether they are stale. Cost O(n log n) table lookups. */
#include <string.h>

#include "runtime/core/error.h"
#include "runtime/core/utf8.h"
#include "runtime/tokenizer/vocab.h"

/* U+2581, which SPM writes for a space. */
static const char space_mark[3] = "\xE2\x96\x81";

/* Unsigned order of the result = descending order of the scores; both zeros are equal. */
static uint32_t score_key(float score)
{
    float positive_zero = score + 0.0f;
    uint32_t bits;
    memcpy(&bits, &positive_zero, sizeof bits);
    uint32_t ascending = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return ~ascending;
}

static void offer(const struct cr_tokenizer *tok, struct cr_encode_work *work, size_t *n_heap, int32_t left)
{
    const struct cr_symbol *symbols = work->symbols;
    int32_t right = left < 0 ? -1 : symbols[left].next;
    if (right < 0) {
        return;
    }
    size_t n = (size_t)symbols[left].n_bytes + symbols[right].n_bytes;
    int32_t id = cr_vocab_find(tok, work->text + symbols[left].begin, n, true);
    if (id >= 0) {
        cr_heap_push(work->heap, n_heap,
                     (struct cr_heap_item){(uint64_t)score_key(tok->scores[id]) << 32 | (uint32_t)left, n});
    }
}

static void merge_all(const struct cr_tokenizer *tok, struct cr_encode_work *work, size_t n)
{
    struct cr_symbol *symbols = work->symbols;
    size_t n_heap = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        offer(tok, work, &n_heap, (int32_t)i);
    }
    while (n_heap > 0) {
        struct cr_heap_item item = cr_heap_pop(work->heap, &n_heap);
        int32_t left = (int32_t)(uint32_t)item.key;
        int32_t right = symbols[left].next;
        if (symbols[left].id == CR_SYMBOL_GONE || right < 0 ||
            (uint64_t)symbols[left].n_bytes + symbols[right].n_bytes != item.check) {
            continue;
        }
        symbols[left].n_bytes += symbols[right].n_bytes;
        symbols[left].id = cr_vocab_find(tok, work->text + symbols[left].begin, symbols[left].n_bytes, true);
        cr_symbol_absorb(symbols, left);
        offer(tok, work, &n_heap, symbols[left].previous);
        offer(tok, work, &n_heap, left);
    }
}

/* A character without token: its byte tokens; when one is missing, one unknown token. */
static cr_status push_bytes(const struct cr_tokenizer *tok, struct cr_encode_work *work, const char *bytes, size_t n,
                            struct cr_ids *ids, struct cr_error *err)
{
    bool complete = true;
    for (size_t i = 0; i < n; i++) {
        complete = complete && tok->byte_ids[(unsigned char)bytes[i]] >= 0;
    }
    if (!complete && tok->unk >= 0) {
        return cr_ids_push(ids, tok->unk, err);
    }
    for (size_t i = 0; i < n; i++) {
        int32_t id = tok->byte_ids[(unsigned char)bytes[i]];
        if (id >= 0) {
            CR_TRY(cr_ids_push(ids, id, err));
        } else {
            work->n_dropped_bytes++;
        }
    }
    return CR_OK;
}

/* Writes the text with marks for spaces into work->text and its characters into work->symbols. */
static size_t start(const struct cr_tokenizer *tok, struct cr_encode_work *work, const char *text, size_t n,
                    bool space_prefix)
{
    size_t n_text = 0;
    if (space_prefix) {
        memcpy(work->text, space_mark, 3);
        n_text = 3;
    }
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ') {
            memcpy(work->text + n_text, space_mark, 3);
            n_text += 3;
        } else {
            work->text[n_text++] = text[i];
        }
    }
    size_t n_symbols = 0;
    for (size_t i = 0; i < n_text; n_symbols++) {
        unsigned length = cr_utf8_length(work->text + i, n_text - i);
        length = length == 0 ? 1 : length;
        work->symbols[n_symbols] = (struct cr_symbol){.begin = (uint32_t)i,
                                                      .n_bytes = length,
                                                      .id = cr_vocab_find(tok, work->text + i, length, true),
                                                      .previous = (int32_t)n_symbols - 1,
                                                      .next = (int32_t)n_symbols + 1};
        i += length;
    }
    work->symbols[n_symbols - 1].next = -1;
    return n_symbols;
}

cr_status cr_spm_encode(const struct cr_tokenizer *tok, struct cr_encode_work *work, const char *text, size_t n,
                        bool space_prefix, struct cr_ids *ids, struct cr_error *err)
{
    size_t n_spaces = 0;
    for (size_t i = 0; i < n; i++) {
        n_spaces += text[i] == ' ';
    }
    CR_TRY(cr_encode_work_reserve(work, n + 1, n + 2 * n_spaces + 3, err));
    merge_all(tok, work, start(tok, work, text, n, space_prefix));
    for (int32_t i = 0; i >= 0; i = work->symbols[i].next) {
        const struct cr_symbol *symbol = &work->symbols[i];
        if (symbol->id >= 0) {
            CR_TRY(cr_ids_push(ids, symbol->id, err));
        } else {
            CR_TRY(push_bytes(tok, work, work->text + symbol->begin, symbol->n_bytes, ids, err));
        }
    }
    return CR_OK;
}
