/* Choices: template T1, the label tokens, and the cut that shortens the question only. */
#include <string.h>

#include <utf8proc.h>

#include "runtime/data/encode.h"
#include "runtime/core/error.h"

/* How every prompt begins. */
#define LEAD "Select one of the choices that answers the following question:"

/* Bytes a token stands for on average are far fewer: the first guess of how much of a long question fits. */
enum { FIRST_BYTES_PER_TOKEN = 8 };

/* The choice with its first letter in upper case and a final period unless it has one. */
static void append_choice(struct cr_buf *text, struct cr_line_text choice)
{
    utf8proc_int32_t first = 0;
    utf8proc_ssize_t length =
        utf8proc_iterate((const utf8proc_uint8_t *)choice.bytes, (utf8proc_ssize_t)choice.n, &first);
    size_t rest = 0;
    if (length > 0) {
        utf8proc_uint8_t upper[4];
        utf8proc_ssize_t n = utf8proc_encode_char(utf8proc_toupper(first), upper);
        cr_buf_append(text, upper, (size_t)n);
        rest = (size_t)length;
    }
    cr_buf_append(text, choice.bytes + rest, choice.n - rest);
    if (choice.bytes[choice.n - 1] != '.') {
        cr_buf_putc(text, '.');
    }
}

void cr_render_choices(struct cr_buf *text, const struct cr_line *line, size_t question_bytes)
{
    cr_buf_puts(text, LEAD " ");
    cr_buf_append(text, line->question.bytes, question_bytes);
    cr_buf_puts(text, " Choices:");
    for (uint32_t i = 0; i < line->n_choices; i++) {
        char label[4] = {' ', (char)('A' + (int)i), '.', ' '};
        cr_buf_append(text, label, sizeof label);
        append_choice(text, cr_line_choice(line, i));
    }
    cr_buf_puts(text, " Answer:");
}

/* A letter with the space in front of it must be one token: " A" or, in vocabularies that mark spaces, U+2581 A. */
static cr_status find_label(struct cr_encoder *encoder, char letter, int32_t *id, size_t *n_dropped_bytes,
                            struct cr_error *err)
{
    const struct cr_tokenizer *tokenizer = encoder->tokenizer;
    bool marks_spaces = strcmp(cr_tokenizer_model(tokenizer), "llama") == 0;
    size_t n_tokens = 1;
    if (marks_spaces) {
        char piece[4] = {'\xe2', '\x96', '\x81', letter};
        *id = cr_tokenizer_find(tokenizer, piece, sizeof piece);
    } else {
        char piece[2] = {' ', letter};
        encoder->part.n = 0;
        CR_TRY(cr_tokenize(tokenizer, piece, sizeof piece, 0, &encoder->part, n_dropped_bytes, err));
        n_tokens = encoder->part.n;
        *id = n_tokens == 1 ? encoder->part.ids[0] : -1;
    }
    if (*id < 0 || *id == cr_tokenizer_unk(tokenizer)) {
        return cr_fail(err, CR_E_INPUT,
                       "label \" %c\" is not one token of the model's vocabulary (%zu tokens): "
                       "choices need a model whose letters are tokens",
                       letter, *id < 0 && marks_spaces ? 0 : n_tokens);
    }
    return CR_OK;
}

/* The labels not looked up yet, each a token of its own: of two whose letters have none the space is left of both. */
static cr_status find_labels(struct cr_encoder *encoder, uint32_t n_choices, struct cr_error *err)
{
    int32_t *ids = encoder->label_ids;
    size_t n_dropped_bytes = 0;
    uint32_t n_whole = encoder->n_labels; /* labels before any that lost a byte */
    for (uint32_t i = encoder->n_labels; i < n_choices; i++) {
        CR_TRY(find_label(encoder, (char)('A' + (int)i), &ids[i], &n_dropped_bytes, err));
        for (uint32_t k = 0; k < i; k++) {
            if (ids[k] == ids[i]) {
                return cr_fail(err, CR_E_INPUT, "labels \" %c\" and \" %c\" are the same token, number %d",
                               (char)('A' + (int)k), (char)('A' + (int)i), ids[i]);
            }
        }
        n_whole += n_dropped_bytes == 0;
    }
    if (n_whole < n_choices) {
        return cr_fail(err, CR_E_INPUT, "label \" %c\": the model's vocabulary has no token for this letter",
                       (char)('A' + (int)n_whole));
    }
    encoder->n_labels = n_choices > encoder->n_labels ? n_choices : encoder->n_labels;
    return CR_OK;
}

static unsigned prompt_flags(const struct cr_encoder *encoder)
{
    return encoder->flags | (cr_tokenizer_add_bos(encoder->tokenizer) ? CR_TOK_BOS : 0u);
}

static cr_status find_lead(struct cr_encoder *encoder, struct cr_error *err)
{
    return encoder->lead.n > 0 ? CR_OK
                               : cr_tokenize(encoder->tokenizer, LEAD, sizeof LEAD - 1, prompt_flags(encoder),
                                             &encoder->lead, NULL, err);
}

static bool leads(const struct cr_encoder *encoder)
{
    size_t n = encoder->lead.n;
    return encoder->ids.n > n && memcmp(encoder->ids.ids, encoder->lead.ids, n * sizeof *encoder->ids.ids) == 0;
}

/* Fills encoder->ids with the prompt that keeps question_bytes of the question. */
static cr_status encode_prompt(struct cr_encoder *encoder, const struct cr_line *line, size_t question_bytes,
                               size_t *n_dropped_bytes, struct cr_error *err)
{
    cr_buf_clear(&encoder->text);
    cr_render_choices(&encoder->text, line, question_bytes);
    if (encoder->text.failed) {
        return cr_fail(err, CR_E_MEMORY, "out of memory for a prompt of %zu bytes", line->question.n);
    }
    encoder->ids.n = 0;
    *n_dropped_bytes = 0;
    return cr_tokenize(encoder->tokenizer, encoder->text.data, encoder->text.n, prompt_flags(encoder), &encoder->ids,
                       n_dropped_bytes, err);
}

/* The largest cut position <= n that ends a character and not in blanks. */
static size_t cut_at(struct cr_line_text question, size_t n)
{
    while (n > 0 && n < question.n && ((unsigned char)question.bytes[n] & 0xc0) == 0x80) {
        n--;
    }
    while (n > 0 && strchr(" \t\r\n", question.bytes[n - 1]) != NULL && question.bytes[n - 1] != 0) {
        n--;
    }
    return n;
}

/* Bisects for the longest question that fits. A longer text has hardly ever fewer tokens; where it has, a fitting
 * length is found all the same. Works on prefixes near the limit, so a huge question costs no more. */
static cr_status cut_question(struct cr_encoder *encoder, const struct cr_line *line, struct cr_encoded *out,
                              struct cr_error *err)
{
    size_t limit = encoder->options->max_seq_length;
    size_t fits = 0;
    size_t too_long = line->question.n;
    CR_TRY(encode_prompt(encoder, line, 0, &out->n_dropped_bytes, err));
    if (encoder->ids.n > limit) {
        out->skip = CR_ENCODE_NO_TARGET;
        return CR_OK;
    }
    for (size_t guess = limit * FIRST_BYTES_PER_TOKEN; guess < too_long; guess *= 2) {
        CR_TRY(encode_prompt(encoder, line, cut_at(line->question, guess), &out->n_dropped_bytes, err));
        if (encoder->ids.n > limit) {
            too_long = guess;
        } else {
            fits = guess;
        }
    }
    while (too_long - fits > 1) {
        size_t middle = fits + (too_long - fits) / 2;
        CR_TRY(encode_prompt(encoder, line, cut_at(line->question, middle), &out->n_dropped_bytes, err));
        if (encoder->ids.n > limit) {
            too_long = middle;
        } else {
            fits = middle;
        }
    }
    out->truncated = true;
    return encode_prompt(encoder, line, cut_at(line->question, fits), &out->n_dropped_bytes, err);
}

cr_status cr_encode_choices(struct cr_encoder *encoder, const struct cr_line *line, struct cr_encoded *out,
                            struct cr_error *err)
{
    CR_TRY(find_labels(encoder, line->n_choices, err));
    CR_TRY(find_lead(encoder, err));
    CR_TRY(encode_prompt(encoder, line, line->question.n, &out->n_dropped_bytes, err));
    out->n_targets = 1;
    if (encoder->ids.n > encoder->options->max_seq_length) {
        if (encoder->options->on_long_skip) {
            out->skip = CR_ENCODE_LONG;
            return CR_OK;
        }
        CR_TRY(cut_question(encoder, line, out, err));
    }
    out->n_lead = leads(encoder) ? (uint32_t)encoder->lead.n : 0;
    return CR_OK;
}
