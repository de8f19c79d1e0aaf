#include "runtime/core/error.h"
#include "runtime/tokenizer/chat.h"
#include "runtime/tokenizer/chat_style.h"
#include "runtime/tokenizer/vocab.h"

static bool wants_bos(const struct cr_chat *chat, const struct cr_tokenizer *tok)
{
    const struct cr_chat_style *style = cr_chat_style(chat->kind);
    return tok->bos >= 0 && (tok->add_bos || (style != NULL && style->bos));
}

/* Encodes the spans from *i on that carry loss alike, as one text, and moves *i behind them. */
static cr_status encode_group(const struct cr_tokenizer *tok, struct cr_encode_work *work,
                              const struct cr_chat_rendering *rendering, size_t *i, bool *after_raw, struct cr_ids *ids,
                              struct cr_ids *loss, struct cr_error *err)
{
    const bool supervised = rendering->spans[*i].supervised;
    work->fragments.n = 0;
    while (*i < rendering->n_spans && rendering->spans[*i].supervised == supervised) {
        const struct cr_chat_span *span = &rendering->spans[*i];
        size_t begin = (size_t)(span->text - rendering->text);
        CR_TRY(cr_specials_split(&tok->specials, rendering->text, begin, begin + span->n_bytes, span->markup,
                                 &work->fragments, err));
        ++*i;
    }
    CR_TRY(cr_encode_fragments(tok, work, rendering->text, after_raw, ids, err));
    while (loss != NULL && loss->n < ids->n) {
        CR_TRY(cr_ids_push(loss, supervised, err));
    }
    return CR_OK;
}

static cr_status encode(const struct cr_chat *chat, const struct cr_tokenizer *tok, struct cr_encode_work *work,
                        const struct cr_chat_rendering *rendering, struct cr_ids *ids, struct cr_ids *loss,
                        struct cr_error *err)
{
    const size_t start = ids->n;
    const bool bos = wants_bos(chat, tok);
    bool after_raw = false;
    if (bos) {
        CR_TRY(cr_ids_push(ids, tok->bos, err));
        if (loss != NULL) {
            CR_TRY(cr_ids_push(loss, 0, err));
        }
    }
    for (size_t i = 0; i < rendering->n_spans;) {
        CR_TRY(encode_group(tok, work, rendering, &i, &after_raw, ids, loss, err));
    }
    if (bos && ids->n > start + 1 && ids->ids[start + 1] == tok->bos) {
        /* The text brought its own. */
        for (size_t i = start + 1; i + 1 < ids->n; i++) {
            ids->ids[i] = ids->ids[i + 1];
            if (loss != NULL) {
                loss->ids[i] = loss->ids[i + 1];
            }
        }
        ids->n--;
        if (loss != NULL) {
            loss->n--;
        }
    }
    return CR_OK;
}

cr_status cr_chat_encode(const struct cr_chat *chat, const struct cr_tokenizer *tok,
                         const struct cr_chat_rendering *rendering, struct cr_ids *ids, struct cr_ids *loss,
                         size_t *n_dropped_bytes, struct cr_error *err)
{
    const size_t n_before = ids->n;
    if (loss != NULL && loss->n != n_before) {
        return cr_fail(err, CR_E_USAGE, "%zu loss marks for %zu ids", loss->n, n_before);
    }
    if (rendering->n_bytes > CR_TEXT_MAX_BYTES) {
        return cr_fail(err, CR_E_INPUT, "conversation of %zu bytes, at most %zu can be tokenised at once",
                       rendering->n_bytes, CR_TEXT_MAX_BYTES);
    }
    struct cr_encode_work work = {0};
    cr_status status = encode(chat, tok, &work, rendering, ids, loss, err);
    if (status != CR_OK) {
        ids->n = n_before;
        if (loss != NULL) {
            loss->n = n_before;
        }
    } else if (n_dropped_bytes != NULL) {
        *n_dropped_bytes += work.n_dropped_bytes;
    }
    cr_encode_work_deinit(&work);
    return status;
}
