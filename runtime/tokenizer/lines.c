/* Lines of text to lines of ids: the tokenizer alone, for people and scripts. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "credence/credence.h"
#include "runtime/core/buf.h"
#include "runtime/core/host.h"
#include "runtime/core/options.h"
#include "runtime/io/gguf.h"
#include "runtime/io/json.h"
#include "runtime/tokenizer/tokenizer.h"

/* Ids collected before they are handed on. */
enum { FLUSH_BYTES = 1 << 16 };

struct job {
    const struct cr_tokenizer *tok;
    unsigned flags;
    bool jsonl;
    struct cr_ids ids;
    struct cr_buf out;
    size_t n_dropped;
    cr_emit_fn *emit;
    void *ctx;
};

static cr_status flush(struct job *job, struct cr_error *err)
{
    if (job->out.failed) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a line of ids");
    }
    if (job->out.n > 0 && !job->emit(job->ctx, job->out.data, job->out.n)) {
        return cr_fail(err, CR_E_IO, "the ids could not be written");
    }
    cr_buf_clear(&job->out);
    return CR_OK;
}

static cr_status put_line(struct job *job, const char *text, size_t n_bytes, struct cr_error *err)
{
    job->ids.n = 0;
    CR_TRY(cr_tokenize(job->tok, text, n_bytes, job->flags, &job->ids, &job->n_dropped, err));
    for (size_t i = 0; i < job->ids.n; i++) {
        cr_buf_printf(&job->out, i > 0 ? " %" PRId32 : "%" PRId32, job->ids.ids[i]);
    }
    cr_buf_putc(&job->out, '\n');
    return job->out.n >= FLUSH_BYTES ? flush(job, err) : CR_OK;
}

static cr_status take_line(struct job *job, const char *text, size_t n_bytes, uint64_t line, struct cr_error *err)
{
    if (!job->jsonl) {
        return put_line(job, text, n_bytes, err);
    }
    char label[40];
    json_t *value = NULL;
    snprintf(label, sizeof label, "line %" PRIu64, line);
    CR_TRY(cr_json_parse(text, n_bytes, label, &value, err));
    cr_status status = json_is_string(value) ? put_line(job, json_string_value(value), json_string_length(value), err)
                                             : cr_fail(err, CR_E_INPUT, "%s: expected a JSON string", label);
    json_decref(value);
    return status;
}

static cr_status take_text(struct job *job, const struct cr_host *host, const char *text, size_t n_bytes,
                           struct cr_error *err)
{
    static const char mark[] = "\xef\xbb\xbf"; /* byte-order mark: allowed in front of JSON Lines, text elsewhere */
    size_t at = job->jsonl && n_bytes >= 3 && memcmp(text, mark, 3) == 0 ? 3 : 0;
    for (uint64_t line = 1; at < n_bytes; line++) {
        const char *end = memchr(text + at, '\n', n_bytes - at);
        size_t next = end != NULL ? (size_t)(end - text) + 1 : n_bytes;
        size_t stop = end != NULL ? next - 1 : n_bytes;
        stop -= end != NULL && stop > at && text[stop - 1] == '\r';
        CR_TRY(take_line(job, text + at, stop - at, line, err));
        at = next;
        if (cr_host_stopped(host)) {
            return cr_fail(err, CR_E_STOPPED, "stopped after line %" PRIu64, line);
        }
    }
    return flush(job, err);
}

static cr_status flags_of(const struct cr_tokenize_options *options, unsigned *flags, struct cr_error *err)
{
    if (options->normalize != NULL && strcmp(options->normalize, "nfc") != 0) {
        char escaped[CR_ESCAPE_BYTES];
        return cr_fail(err, CR_E_USAGE, "normalize: expected nfc, got \"%s\"",
                       cr_escape(escaped, sizeof escaped, options->normalize, strlen(options->normalize)));
    }
    *flags = (options->special ? CR_TOK_SPECIAL : 0u) | (options->bos ? CR_TOK_BOS : 0u) |
             (options->normalize != NULL ? CR_TOK_NFC : 0u);
    return CR_OK;
}

cr_status cr_tokenize_text(const struct cr_tokenize_options *options, const struct cr_host *host, const char *text,
                           size_t n_bytes, cr_emit_fn *emit, void *ctx, struct cr_error *err)
{
    struct cr_gguf *gguf = NULL;
    struct cr_tokenizer *tok = NULL;
    struct cr_tokenize_options o = {0}; /* fields that an older caller does not know are 0 */
    CR_TRY(cr_options_copy(&o, sizeof o, options, err));
    if (o.model == NULL) {
        return cr_fail(err, CR_E_USAGE, "tokenize: model expected");
    }
    struct job job = {.jsonl = o.jsonl, .emit = emit, .ctx = ctx};
    CR_TRY(flags_of(&o, &job.flags, err));
    cr_status status = cr_gguf_open(o.model, &gguf, err);
    if (status != CR_OK) {
        goto out;
    }
    CR_TRY_OUT(status, cr_tokenizer_open(gguf, &tok, err));
    job.tok = tok;
    status = take_text(&job, host, text, n_bytes, err);
    if (job.n_dropped > 0) {
        cr_host_log(host, CR_LOG_WARNING, "%zu bytes were dropped: the vocabulary has no token for them",
                    job.n_dropped);
    }
out:
    cr_ids_deinit(&job.ids);
    cr_buf_free(&job.out);
    cr_tokenizer_close(tok);
    cr_gguf_close(gguf);
    return status;
}
