#include "runtime/data/encode.h"

#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/tokenizer/normalize.h"

cr_status cr_encoder_init(struct cr_encoder *encoder, const struct cr_tokenizer *tokenizer,
                          const struct cr_dataset_options *options, struct cr_error *err)
{
    if (options->max_seq_length < 2 || options->max_seq_length > INT32_MAX) {
        return cr_fail(err, CR_E_USAGE, "max-seq-length is %u, 2...%d expected", options->max_seq_length, INT32_MAX);
    }
    if (options->normalize != NULL && strcmp(options->normalize, "nfc") != 0) {
        char shown[CR_ESCAPE_BYTES];
        return cr_fail(err, CR_E_USAGE, "normalize is \"%s\", \"nfc\" expected",
                       cr_escape(shown, sizeof shown, options->normalize, strlen(options->normalize)));
    }
    if (options->chat_template != NULL && cr_chat_by_name(options->chat_template) == CR_CHAT_NONE) {
        char shown[CR_ESCAPE_BYTES];
        return cr_fail(err, CR_E_USAGE, "chat template \"%.300s\" unknown (have %s)",
                       cr_escape(shown, sizeof shown, options->chat_template, strlen(options->chat_template)),
                       cr_chat_names());
    }
    memset(encoder, 0, sizeof *encoder);
    encoder->tokenizer = tokenizer;
    encoder->options = options;
    encoder->flags = options->normalize != NULL ? CR_TOK_NFC : 0u;
    return CR_OK;
}

void cr_encoder_deinit(struct cr_encoder *encoder)
{
    if (encoder->has_chat) {
        cr_chat_deinit(&encoder->chat);
    }
    cr_buf_free(&encoder->text);
    cr_ids_deinit(&encoder->ids);
    cr_ids_deinit(&encoder->part);
    cr_ids_deinit(&encoder->lead);
    cr_ids_deinit(&encoder->loss);
    memset(encoder, 0, sizeof *encoder);
}

/* loss[from ... n_ids-1] = value, growing the list to the length of ids. */
static cr_status extend_loss(struct cr_encoder *encoder, int32_t value, struct cr_error *err)
{
    while (encoder->loss.n < encoder->ids.n) {
        CR_TRY(cr_ids_push(&encoder->loss, value, err));
    }
    return CR_OK;
}

static cr_status append_text(struct cr_encoder *encoder, struct cr_line_text text, unsigned flags, int32_t loss,
                             struct cr_encoded *out, struct cr_error *err)
{
    CR_TRY(cr_tokenize(encoder->tokenizer, text.bytes, text.n, encoder->flags | flags, &encoder->ids,
                       &out->n_dropped_bytes, err));
    return extend_loss(encoder, loss, err);
}

static unsigned bos_flag(const struct cr_encoder *encoder)
{
    return cr_tokenizer_add_bos(encoder->tokenizer) ? CR_TOK_BOS : 0u;
}

/* Removes n tokens from position `at` on. */
static void remove_tokens(struct cr_encoder *encoder, size_t at, size_t n)
{
    size_t behind = encoder->ids.n - at - n;
    memmove(encoder->ids.ids + at, encoder->ids.ids + at + n, behind * sizeof *encoder->ids.ids);
    memmove(encoder->loss.ids + at, encoder->loss.ids + at + n, behind * sizeof *encoder->loss.ids);
    encoder->ids.n -= n;
    encoder->loss.n -= n;
}

static cr_status encode_prompt(struct cr_encoder *encoder, const struct cr_line *line, struct cr_encoded *out,
                               struct cr_error *err)
{
    size_t limit = encoder->options->max_seq_length;
    size_t n_bos = bos_flag(encoder) != 0 ? 1 : 0;
    CR_TRY(append_text(encoder, line->prompt, bos_flag(encoder), 0, out, err));
    size_t n_prompt = encoder->ids.n - n_bos;
    CR_TRY(append_text(encoder, line->completion, CR_TOK_EOS, 1, out, err));
    if (encoder->ids.n > limit) {
        size_t excess = encoder->ids.n - limit;
        remove_tokens(encoder, n_bos, excess < n_prompt ? excess : n_prompt);
        out->truncated = true;
    }
    return CR_OK;
}

/* Contents in normal form C, one after the other in encoder->text; messages then point into it. */
static cr_status normalize_messages(struct cr_encoder *encoder, struct cr_chat_message *messages, size_t n,
                                    struct cr_error *err)
{
    cr_buf_clear(&encoder->text);
    for (size_t i = 0; i < n; i++) {
        size_t before = encoder->text.n;
        CR_TRY(cr_text_nfc(messages[i].text, messages[i].text_bytes, &encoder->text, err));
        messages[i].text_bytes = encoder->text.n - before;
    }
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        messages[i].text = encoder->text.data + at;
        at += messages[i].text_bytes;
    }
    return CR_OK;
}

static cr_status encode_messages(struct cr_encoder *encoder, const struct cr_line *line, struct cr_encoded *out,
                                 struct cr_error *err)
{
    size_t n = cr_line_n_messages(line);
    if (n == 0) {
        return CR_OK; /* no tokens: left out for want of a target */
    }
    const struct cr_dataset_options *options = encoder->options;
    if (!encoder->has_chat) {
        CR_TRY(cr_chat_init(&encoder->chat, encoder->tokenizer, options->chat_template, options->system, err));
        encoder->has_chat = true;
    }
    cr_status status = CR_OK;
    struct cr_chat_rendering rendering = {0};
    struct cr_chat_message *messages = cr_alloc(n, sizeof *messages);
    if (messages == NULL) {
        return cr_fail(err, CR_E_MEMORY, "out of memory for %zu messages", n);
    }
    for (size_t i = 0; i < n; i++) {
        struct cr_line_text role, content;
        cr_line_message(line, i, &role, &content);
        messages[i] = (struct cr_chat_message){role.bytes, role.n, content.bytes, content.n};
    }
    if (encoder->flags & CR_TOK_NFC) {
        CR_TRY_OUT(status, normalize_messages(encoder, messages, n, err));
    }
    CR_TRY_OUT(status, cr_chat_render(&encoder->chat, messages, n, false, &rendering, err));
    CR_TRY_OUT(status, cr_chat_encode(&encoder->chat, encoder->tokenizer, &rendering, &encoder->ids, &encoder->loss,
                                      &out->n_dropped_bytes, err));
out:
    cr_chat_rendering_deinit(&rendering);
    cr_free(messages);
    return status;
}

/* Cuts the end, settles which tokens carry loss and counts them. */
static void finish_text(struct cr_encoder *encoder, struct cr_encoded *out)
{
    size_t limit = encoder->options->max_seq_length;
    if (encoder->ids.n > limit) {
        remove_tokens(encoder, limit, encoder->ids.n - limit);
        out->truncated = true;
    }
    for (size_t i = 0; i < encoder->ids.n; i++) {
        if (i == 0) {
            encoder->loss.ids[i] = 0;
        } else if (encoder->options->train_on_prompt) {
            encoder->loss.ids[i] = 1;
        }
        out->n_targets += encoder->loss.ids[i] != 0;
    }
    if (out->n_targets == 0) {
        out->skip = CR_ENCODE_NO_TARGET;
    }
}

cr_status cr_encode_line(struct cr_encoder *encoder, const struct cr_line *line, struct cr_encoded *out,
                         struct cr_error *err)
{
    struct cr_encoded fresh = {0};
    encoder->ids.n = 0;
    encoder->loss.n = 0;
    if (line->kind == CR_EXAMPLE_CHOICE) {
        CR_TRY(cr_encode_choices(encoder, line, &fresh, err));
        *out = fresh;
        return CR_OK;
    }
    if (line->kind == CR_EXAMPLE_PROMPT) {
        CR_TRY(encode_prompt(encoder, line, &fresh, err));
    } else if (line->kind == CR_EXAMPLE_MESSAGES) {
        CR_TRY(encode_messages(encoder, line, &fresh, err));
    } else {
        CR_TRY(append_text(encoder, line->text, bos_flag(encoder) | CR_TOK_EOS, 1, &fresh, err));
    }
    bool too_long = fresh.truncated || encoder->ids.n > encoder->options->max_seq_length;
    finish_text(encoder, &fresh);
    if (too_long && encoder->options->on_long_skip) {
        fresh.skip = CR_ENCODE_LONG;
    }
    *out = fresh;
    return CR_OK;
}
