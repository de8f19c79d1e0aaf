/* What a tokenizer tells about its vocabulary. */
#include "runtime/tokenizer/tokenizer.h"

#include <string.h>

#include "runtime/core/utf8.h"
#include "runtime/tokenizer/vocab.h"

size_t cr_tokenizer_n_vocab(const struct cr_tokenizer *tok)
{
    return tok->n_vocab;
}

const char *cr_tokenizer_model(const struct cr_tokenizer *tok)
{
    return tok->spm ? "llama" : "gpt2";
}

const char *cr_tokenizer_pre(const struct cr_tokenizer *tok)
{
    return tok->spm ? "" : cr_pretok_name(tok->pretok);
}

int32_t cr_tokenizer_unk(const struct cr_tokenizer *tok)
{
    return tok->unk;
}

bool cr_tokenizer_add_bos(const struct cr_tokenizer *tok)
{
    return tok->add_bos;
}

static bool is_id(const struct cr_tokenizer *tok, int32_t id)
{
    return id >= 0 && (size_t)id < tok->n_vocab;
}

const char *cr_tokenizer_chat_template(const struct cr_tokenizer *tok, size_t *n)
{
    *n = tok->chat_template_bytes;
    return tok->chat_template;
}

const char *cr_tokenizer_text(const struct cr_tokenizer *tok, int32_t id, size_t *n)
{
    *n = 0;
    return is_id(tok, id) ? cr_vocab_piece(tok, id, n) : NULL;
}

int32_t cr_tokenizer_find(const struct cr_tokenizer *tok, const char *piece, size_t n)
{
    int32_t plain = cr_vocab_find(tok, piece, n, true);
    int32_t other = cr_vocab_find(tok, piece, n, false);
    return plain > other ? plain : other;
}

unsigned cr_tokenizer_n_missing_bytes(const struct cr_tokenizer *tok)
{
    unsigned n = 0;
    for (unsigned byte = 0; byte < 256; byte++) {
        n += tok->byte_ids[byte] < 0;
    }
    return n;
}

struct output {
    char *bytes;
    size_t capacity;
    size_t n; /* also counts what does not fit */
};

static void put(struct output *out, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++, out->n++) {
        if (out->n < out->capacity) {
            out->bytes[out->n] = bytes[i];
        }
    }
}

size_t cr_tokenizer_decode(const struct cr_tokenizer *tok, int32_t id, char *buf, size_t cap)
{
    struct output out = {buf, cap, 0};
    size_t n = 0;
    const char *piece = cr_tokenizer_text(tok, id, &n);
    if (piece == NULL) {
        return 0;
    }
    int type = tok->types[id];
    if (type == CR_TOKEN_CONTROL || type == CR_TOKEN_UNKNOWN || type == CR_TOKEN_USER_DEFINED) {
        put(&out, piece, n);
        return out.n;
    }
    if (type == CR_TOKEN_BYTE && tok->spm) {
        char byte = (char)cr_byte_token_value(piece, n);
        put(&out, &byte, 1);
        return out.n;
    }
    for (size_t i = 0; i < n;) {
        unsigned length = cr_utf8_length(piece + i, n - i);
        int byte = -1;
        if (length > 0 && !tok->spm) {
            byte = cr_printable_to_byte(cr_utf8_decode(piece + i, length));
        } else if (length == 3 && memcmp(piece + i, "\xE2\x96\x81", 3) == 0) {
            byte = ' ';
        }
        length = length == 0 ? 1 : length;
        char decoded = (char)byte;
        put(&out, byte >= 0 ? &decoded : piece + i, byte >= 0 ? 1 : length);
        i += length;
    }
    return out.n;
}
