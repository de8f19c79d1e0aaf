/* Reading and checking the vocabulary. Everything later relies on what is checked here: ids inside the vocabulary,
 * arrays of equal length, finite scores, every merge made of tokens. */
#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/tokenizer/vocab.h"

/* Texts that end a turn or a generation, as llama.cpp has them. */
static const char *const end_texts[] = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|return|>",      "<|call|>",
    "<|eom_id|>", "<EOT>",      "_<EOT>",  "<|endoftext|>", "<|end_of_text|>", "<end_of_utterance>",
};

enum { N_END_TEXTS = sizeof end_texts / sizeof end_texts[0] };

static cr_status load_model_name(struct cr_tokenizer *tok, struct cr_error *err)
{
    const char *model = NULL;
    size_t n = 0;
    CR_TRY(cr_gguf_str(tok->gguf, "tokenizer.ggml.model", true, &model, &n, err));
    tok->spm = n == 5 && memcmp(model, "llama", 5) == 0;
    if (!tok->spm && !(n == 4 && memcmp(model, "gpt2", 4) == 0)) {
        char shown[CR_ESCAPE_BYTES];
        return cr_fail(err, CR_E_INPUT, "tokenizer.ggml.model: \"%.400s\" unsupported (have gpt2, llama)",
                       cr_escape(shown, sizeof shown, model, n));
    }
    return CR_OK;
}

static cr_status load_pieces(struct cr_tokenizer *tok, struct cr_error *err)
{
    CR_TRY(cr_gguf_array(tok->gguf, "tokenizer.ggml.tokens", CR_GGUF_KIND_STRING, true, &tok->pieces, err));
    if (tok->pieces.n == 0 || tok->pieces.n > INT32_MAX) {
        return cr_fail(err, CR_E_INPUT, "tokenizer.ggml.tokens: %llu tokens, expected 1 to 2147483647",
                       (unsigned long long)tok->pieces.n);
    }
    tok->n_vocab = (size_t)tok->pieces.n;
    const struct cr_gguf_tensor *embedding = cr_gguf_tensor_find(tok->gguf, "token_embd.weight");
    if (embedding != NULL && embedding->ne[1] < tok->n_vocab) {
        return cr_fail(err, CR_E_INPUT, "tokenizer.ggml.tokens: %zu tokens, but token_embd.weight has %llu rows",
                       tok->n_vocab, (unsigned long long)embedding->ne[1]);
    }
    return CR_OK;
}

static cr_status check_length(const struct cr_tokenizer *tok, const char *key, uint64_t n, struct cr_error *err)
{
    return n == tok->n_vocab ? CR_OK
                             : cr_fail(err, CR_E_INPUT, "%s: %llu entries, expected %zu as tokenizer.ggml.tokens", key,
                                       (unsigned long long)n, tok->n_vocab);
}

static bool is_text(const char *piece, size_t n, const char *text)
{
    return strlen(text) == n && memcmp(piece, text, n) == 0;
}

/* Types as in the file; without the array all are normal but what the texts give away. */
static cr_status load_types(struct cr_tokenizer *tok, struct cr_error *err)
{
    struct cr_gguf_value list;
    CR_TRY(cr_gguf_array(tok->gguf, "tokenizer.ggml.token_type", CR_GGUF_KIND_INTEGER, false, &list, err));
    const bool present = cr_gguf_find(tok->gguf, "tokenizer.ggml.token_type", NULL);
    if (present) {
        CR_TRY(check_length(tok, "tokenizer.ggml.token_type", list.n, err));
    }
    tok->types = cr_alloc(tok->n_vocab, sizeof *tok->types);
    if (tok->types == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a vocabulary of %zu tokens", tok->n_vocab);
    }
    for (size_t i = 0; i < tok->n_vocab; i++) {
        int64_t type = present ? cr_gguf_array_int(&list, i) : CR_TOKEN_NORMAL;
        if (type < CR_TOKEN_UNDEFINED || type > CR_TOKEN_BYTE) {
            return cr_fail(err, CR_E_INPUT, "tokenizer.ggml.token_type[%zu]: %lld, expected 0 to 6", i,
                           (long long)type);
        }
        size_t n = 0;
        const char *piece = cr_vocab_piece(tok, (int32_t)i, &n);
        if (tok->spm && type == CR_TOKEN_BYTE && cr_byte_token_value(piece, n) < 0) {
            char shown[CR_ESCAPE_BYTES];
            return cr_fail(err, CR_E_INPUT, "tokenizer.ggml.tokens[%zu]: \"%.400s\" is a byte token, expected <0xXX>",
                           i, cr_escape(shown, sizeof shown, piece, n));
        }
        if (tok->spm && !present) {
            type = cr_byte_token_value(piece, n) >= 0 ? CR_TOKEN_BYTE
                   : is_text(piece, n, "<unk>")       ? CR_TOKEN_UNKNOWN
                                                      : type;
        }
        /* Converters have marked these as normal; plain text must not become them. */
        for (size_t text = 0; text < N_END_TEXTS; text++) {
            if (is_text(piece, n, end_texts[text])) {
                type = type == CR_TOKEN_USER_DEFINED ? type : CR_TOKEN_CONTROL;
            }
        }
        tok->types[i] = (uint8_t)type;
    }
    return CR_OK;
}

static cr_status load_scores(struct cr_tokenizer *tok, struct cr_error *err)
{
    const char *key = "tokenizer.ggml.scores";
    struct cr_gguf_value list;
    CR_TRY(cr_gguf_array(tok->gguf, key, CR_GGUF_KIND_FLOAT, tok->spm, &list, err));
    if (!cr_gguf_find(tok->gguf, key, NULL)) {
        return CR_OK;
    }
    if (list.item_type != CR_GGUF_F32) {
        return cr_fail(err, CR_E_INPUT, "%s: elements of type %s, expected f32", key,
                       cr_gguf_type_name(list.item_type));
    }
    CR_TRY(check_length(tok, key, list.n, err));
    if (!tok->spm) {
        return CR_OK;
    }
    tok->scores = cr_alloc(tok->n_vocab, sizeof *tok->scores);
    if (tok->scores == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a vocabulary of %zu tokens", tok->n_vocab);
    }
    for (size_t i = 0; i < tok->n_vocab; i++) {
        tok->scores[i] = (float)cr_gguf_array_float(&list, i);
        if (!isfinite(tok->scores[i])) {
            return cr_fail(err, CR_E_INPUT, "%s[%zu]: not a finite number", key, i);
        }
    }
    return CR_OK;
}

/* An id of the file, or fallback (-1: none) when the key is absent. Either must lie inside the vocabulary. */
static cr_status load_id(const struct cr_tokenizer *tok, const char *key, int64_t fallback, int32_t *out,
                         struct cr_error *err)
{
    const bool present = cr_gguf_find(tok->gguf, key, NULL);
    int64_t id = fallback;
    CR_TRY(cr_gguf_i64(tok->gguf, key, false, &id, err));
    if ((present && id < 0) || id >= (int64_t)tok->n_vocab) {
        return cr_fail(err, CR_E_INPUT, "%s: %s %lld, expected 0 to %zu", key,
                       present ? "id" : "absent, and the default is", (long long)id, tok->n_vocab - 1);
    }
    *out = (int32_t)id;
    return CR_OK;
}

static int32_t first_of_type(const struct cr_tokenizer *tok, int type)
{
    const uint8_t *found = memchr(tok->types, type, tok->n_vocab);
    return found == NULL ? -1 : (int32_t)(found - tok->types);
}

/* Those that nothing here uses are looked at all the same: a file with one outside its vocabulary is damaged. Defaults
 * as llama.cpp's: SPM bos 1 and eos 2, byte-level BPE 11 for both. */
static cr_status load_ids(struct cr_tokenizer *tok, struct cr_error *err)
{
    int32_t unused = -1;
    CR_TRY(load_id(tok, "tokenizer.ggml.bos_token_id", tok->spm ? 1 : 11, &tok->bos, err));
    CR_TRY(load_id(tok, "tokenizer.ggml.eos_token_id", tok->spm ? 2 : 11, &tok->eos, err));
    CR_TRY(load_id(tok, "tokenizer.ggml.eot_token_id", -1, &unused, err));
    CR_TRY(load_id(tok, "tokenizer.ggml.eom_token_id", -1, &unused, err));
    CR_TRY(load_id(tok, "tokenizer.ggml.unknown_token_id", -1, &tok->unk, err));
    CR_TRY(load_id(tok, "tokenizer.ggml.padding_token_id", -1, &unused, err));
    CR_TRY(load_id(tok, "tokenizer.ggml.seperator_token_id", -1, &unused, err));
    CR_TRY(load_id(tok, "tokenizer.ggml.cls_token_id", -1, &unused, err));
    CR_TRY(load_id(tok, "tokenizer.ggml.mask_token_id", -1, &unused, err));
    if (tok->unk < 0 && tok->spm) {
        tok->unk = first_of_type(tok, CR_TOKEN_UNKNOWN);
    }
    return CR_OK;
}

static cr_status load_flags(struct cr_tokenizer *tok, struct cr_error *err)
{
    tok->add_bos = tok->spm || cr_pretok_add_bos(tok->pretok);
    tok->add_space_prefix = tok->spm;
    CR_TRY(cr_gguf_bool(tok->gguf, "tokenizer.ggml.add_bos_token", false, &tok->add_bos, err));
    CR_TRY(cr_gguf_bool(tok->gguf, "tokenizer.ggml.add_space_prefix", false, &tok->add_space_prefix, err));
    return cr_gguf_str(tok->gguf, "tokenizer.chat_template", false, &tok->chat_template, &tok->chat_template_bytes,
                       err);
}

static cr_status load_specials(struct cr_tokenizer *tok, struct cr_error *err)
{
    for (size_t i = 0; i < tok->n_vocab; i++) {
        size_t n = 0;
        const char *piece = cr_vocab_piece(tok, (int32_t)i, &n);
        uint8_t type = tok->types[i];
        if (n == 0 || (type != CR_TOKEN_CONTROL && type != CR_TOKEN_UNKNOWN && type != CR_TOKEN_USER_DEFINED)) {
            continue;
        }
        if (n > CR_SPECIAL_MAX_BYTES) {
            return cr_fail(err, CR_E_INPUT, "tokenizer.ggml.tokens[%zu]: special token of %zu bytes, at most %d", i, n,
                           CR_SPECIAL_MAX_BYTES);
        }
        CR_TRY(cr_specials_add(
            &tok->specials, (struct cr_special){piece, (uint32_t)n, (int32_t)i, type == CR_TOKEN_USER_DEFINED}, err));
    }
    cr_specials_sort(&tok->specials);
    return CR_OK;
}

/* Byte-level BPE may lack bytes (SmolLM2 does); SPM only when the unknown token can stand for them. */
static cr_status load_bytes(struct cr_tokenizer *tok, struct cr_error *err)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[8];
        size_t n = tok->spm ? 6 : cr_byte_to_printable((unsigned char)byte, text);
        if (tok->spm) {
            const char digits[] = "0123456789ABCDEF";
            memcpy(text, "<0x__>", 6);
            text[3] = digits[byte / 16];
            text[4] = digits[byte % 16];
            tok->byte_ids[byte] = cr_tokenizer_find(tok, text, n);
        } else {
            tok->byte_ids[byte] = cr_vocab_find(tok, text, n, true);
        }
        if (tok->spm && tok->byte_ids[byte] < 0 && tok->unk < 0) {
            return cr_fail(err, CR_E_INPUT,
                           "tokenizer.ggml.tokens: byte token %.6s is missing, and so is an unknown token", text);
        }
    }
    return CR_OK;
}

static cr_status load_split_rule(struct cr_tokenizer *tok, struct cr_error *err)
{
    if (tok->spm) {
        return CR_OK;
    }
    const char *pre = "default";
    size_t n = strlen(pre);
    CR_TRY(cr_gguf_str(tok->gguf, "tokenizer.ggml.pre", false, &pre, &n, err));
    return cr_pretok_create(pre, n, true, &tok->pretok, err);
}

static cr_status load(struct cr_tokenizer *tok, struct cr_error *err)
{
    CR_TRY(load_model_name(tok, err));
    CR_TRY(load_split_rule(tok, err));
    CR_TRY(load_pieces(tok, err));
    CR_TRY(load_types(tok, err));
    CR_TRY(load_scores(tok, err));
    CR_TRY(cr_vocab_index_pieces(tok, err));
    CR_TRY(load_ids(tok, err));
    CR_TRY(load_flags(tok, err));
    CR_TRY(load_specials(tok, err));
    CR_TRY(load_bytes(tok, err));
    return tok->spm ? CR_OK : cr_vocab_index_merges(tok, err);
}

cr_status cr_tokenizer_open(const struct cr_gguf *gguf, struct cr_tokenizer **out, struct cr_error *err)
{
    struct cr_tokenizer *tok = cr_zalloc(1, sizeof *tok);
    if (tok == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a tokenizer");
    }
    tok->gguf = gguf;
    cr_status status = load(tok, err);
    if (status != CR_OK) {
        const char *label = cr_gguf_label(gguf);
        cr_tokenizer_close(tok);
        /* The getters of the reader name the file themselves. */
        return err != NULL && strncmp(err->message, label, strlen(label)) == 0
                   ? status
                   : cr_fail_prefix(err, status, "%s", label);
    }
    *out = tok;
    return CR_OK;
}

void cr_tokenizer_close(struct cr_tokenizer *tok)
{
    if (tok == NULL) {
        return;
    }
    cr_pretok_destroy(tok->pretok);
    cr_specials_deinit(&tok->specials);
    cr_free(tok->types);
    cr_free(tok->scores);
    cr_free(tok->slots);
    cr_free(tok->merges);
    cr_free(tok->merge_slots);
    cr_free(tok);
}
