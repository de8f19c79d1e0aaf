/* Byte-level BPE: every byte starts as a symbol; the adjacent pair of lowest rank, leftmost first, is joined until no
 * pair has a rank. A linked list and a heap make a word of n bytes cost O(n log n). A heap entry holds rank and left
 * position; it is stale when the two symbols there are no longer those of the merge. */
#include "runtime/core/error.h"
#include "runtime/core/utf8.h"
#include "runtime/tokenizer/vocab.h"

static void offer(const struct cr_tokenizer *tok, struct cr_encode_work *work, size_t *n_heap, int32_t left)
{
    const struct cr_symbol *symbols = work->symbols;
    int32_t right = left < 0 ? -1 : symbols[left].next;
    if (right < 0 || symbols[left].id < 0 || symbols[right].id < 0) {
        return;
    }
    int32_t rank = cr_vocab_merge_rank(tok, symbols[left].id, symbols[right].id);
    if (rank >= 0) {
        cr_heap_push(work->heap, n_heap, (struct cr_heap_item){(uint64_t)rank << 32 | (uint32_t)left, 0});
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
        const struct cr_merge *merge = &tok->merges[item.key >> 32];
        int32_t left = (int32_t)(uint32_t)item.key;
        int32_t right = symbols[left].next;
        if (right < 0 || symbols[left].id != merge->left || symbols[right].id != merge->right) {
            continue;
        }
        symbols[left].id = merge->joined;
        cr_symbol_absorb(symbols, left);
        offer(tok, work, &n_heap, symbols[left].previous);
        offer(tok, work, &n_heap, left);
    }
}

/* Id of a whole word in the vocabulary, -1. */
static cr_status find_word(const struct cr_tokenizer *tok, struct cr_encode_work *work, const char *word, size_t n,
                           int32_t *id, struct cr_error *err)
{
    *id = -1;
    if (n > tok->longest_piece) {
        return CR_OK;
    }
    CR_TRY(cr_encode_work_reserve(work, 0, 2 * n, err));
    size_t n_text = 0;
    for (size_t i = 0; i < n; i++) {
        n_text += cr_byte_to_printable((unsigned char)word[i], work->text + n_text);
    }
    *id = cr_vocab_find(tok, work->text, n_text, true);
    return CR_OK;
}

static cr_status encode_word(const struct cr_tokenizer *tok, struct cr_encode_work *work, const char *word, size_t n,
                             struct cr_ids *ids, struct cr_error *err)
{
    if (cr_pretok_ignore_merges(tok->pretok)) {
        int32_t id = -1;
        CR_TRY(find_word(tok, work, word, n, &id, err));
        if (id >= 0) {
            return cr_ids_push(ids, id, err);
        }
    }
    CR_TRY(cr_encode_work_reserve(work, n, 0, err));
    for (size_t i = 0; i < n; i++) {
        work->symbols[i] = (struct cr_symbol){.id = tok->byte_ids[(unsigned char)word[i]],
                                              .previous = (int32_t)i - 1,
                                              .next = i + 1 < n ? (int32_t)i + 1 : -1};
    }
    merge_all(tok, work, n);
    for (int32_t i = 0; i >= 0; i = work->symbols[i].next) {
        if (work->symbols[i].id >= 0) {
            CR_TRY(cr_ids_push(ids, work->symbols[i].id, err));
        } else {
            work->n_dropped_bytes++; /* a symbol without token is a single byte */
        }
    }
    return CR_OK;
}

cr_status cr_bpe_encode(const struct cr_tokenizer *tok, struct cr_encode_work *work, const char *text, size_t n,
                        struct cr_ids *ids, struct cr_error *err)
{
    for (size_t at = 0; at < n;) {
        size_t run = cr_utf8_run(text + at, n - at);
        if (run == 0) {
            CR_TRY(encode_word(tok, work, text + at, 1, ids, err));
            at++;
            continue;
        }
        const uint32_t *ends = NULL;
        size_t n_ends = 0;
        CR_TRY(cr_pretok_split(tok->pretok, &work->pretok, text + at, run, &ends, &n_ends, err));
        size_t begin = 0;
        for (size_t i = 0; i < n_ends; i++) {
            CR_TRY(encode_word(tok, work, text + at + begin, ends[i] - begin, ids, err));
            begin = ends[i];
        }
        at += run;
    }
    return CR_OK;
}
