#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/tokenizer/normalize.h"
#include "runtime/tokenizer/vocab.h"

void cr_ids_deinit(struct cr_ids *list)
{
    if (list != NULL) {
        cr_free(list->ids);
        memset(list, 0, sizeof *list);
    }
}

cr_status cr_ids_push(struct cr_ids *list, int32_t id, struct cr_error *err)
{
    int32_t *ids = cr_grow(list->ids, list->n, 1, &list->capacity, sizeof *ids);
    if (ids == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for more than %zu token ids", list->n);
    }
    list->ids = ids;
    list->ids[list->n++] = id;
    return CR_OK;
}

void cr_encode_work_deinit(struct cr_encode_work *work)
{
    cr_pretok_work_deinit(&work->pretok);
    cr_fragments_deinit(&work->fragments);
    cr_free(work->symbols);
    cr_free(work->heap);
    cr_free(work->text);
    memset(work, 0, sizeof *work);
}

cr_status cr_encode_work_reserve(struct cr_encode_work *work, size_t n_symbols, size_t text_bytes, struct cr_error *err)
{
    if (n_symbols > work->n_symbols) {
        size_t n = n_symbols < 64 ? 64 : n_symbols;
        cr_free(work->symbols);
        cr_free(work->heap);
        work->n_symbols = 0;
        work->symbols = cr_alloc(n, sizeof *work->symbols);
        work->heap = cr_alloc(n, 2 * sizeof *work->heap);
        if (work->symbols == NULL || work->heap == NULL) {
            return cr_fail(err, CR_E_MEMORY, "no memory to tokenise a word of %zu bytes", n_symbols);
        }
        work->n_symbols = n;
    }
    if (text_bytes > work->text_bytes) {
        cr_free(work->text);
        work->text_bytes = 0;
        work->text = cr_alloc(text_bytes, 1);
        if (work->text == NULL) {
            return cr_fail(err, CR_E_MEMORY, "no memory to tokenise %zu bytes", text_bytes);
        }
        work->text_bytes = text_bytes;
    }
    return CR_OK;
}

cr_status cr_encode_fragments(const struct cr_tokenizer *tok, struct cr_encode_work *work, const char *text,
                              bool *after_raw, struct cr_ids *ids, struct cr_error *err)
{
    for (size_t i = 0; i < work->fragments.n; i++) {
        struct cr_fragment fragment = work->fragments.items[i];
        size_t n = fragment.end - fragment.begin;
        if (fragment.id >= 0) {
            CR_TRY(cr_ids_push(ids, fragment.id, err));
        } else if (tok->spm) {
            CR_TRY(cr_spm_encode(tok, work, text + fragment.begin, n, tok->add_space_prefix && !*after_raw, ids, err));
        } else {
            CR_TRY(cr_bpe_encode(tok, work, text + fragment.begin, n, ids, err));
        }
        *after_raw = fragment.id < 0;
    }
    return CR_OK;
}

static cr_status push_marker(struct cr_ids *ids, int32_t id, const char *name, struct cr_error *err)
{
    if (id < 0) {
        return cr_fail(err, CR_E_INPUT, "tokenizer.ggml.%s_token_id: absent, but the %s token is asked for", name,
                       name);
    }
    return cr_ids_push(ids, id, err);
}

cr_status cr_tokenize(const struct cr_tokenizer *tok, const char *text, size_t n_bytes, unsigned flags,
                      struct cr_ids *append_to, size_t *n_dropped_bytes, struct cr_error *err)
{
    struct cr_encode_work work = {0};
    struct cr_buf normal = {0};
    const size_t n_before = append_to->n;
    bool after_raw = false;
    cr_status status = CR_OK;
    if (n_bytes > CR_TEXT_MAX_BYTES) {
        return cr_fail(err, CR_E_INPUT, "text of %zu bytes, at most %zu can be tokenised at once", n_bytes,
                       CR_TEXT_MAX_BYTES);
    }
    if ((flags & CR_TOK_NFC) != 0) {
        CR_TRY_OUT(status, cr_text_nfc(text, n_bytes, &normal, err));
        text = normal.data;
        n_bytes = normal.n;
    }
    if ((flags & CR_TOK_BOS) != 0) {
        CR_TRY_OUT(status, push_marker(append_to, tok->bos, "bos", err));
    }
    CR_TRY_OUT(status, cr_specials_split(&tok->specials, text, 0, n_bytes, (flags & CR_TOK_SPECIAL) != 0,
                                         &work.fragments, err));
    CR_TRY_OUT(status, cr_encode_fragments(tok, &work, text, &after_raw, append_to, err));
    if ((flags & CR_TOK_EOS) != 0) {
        CR_TRY_OUT(status, push_marker(append_to, tok->eos, "eos", err));
    }
    if (n_dropped_bytes != NULL) {
        *n_dropped_bytes += work.n_dropped_bytes;
    }
out:
    if (status != CR_OK) {
        append_to->n = n_before;
    }
    cr_buf_free(&normal);
    cr_encode_work_deinit(&work);
    return status;
}
