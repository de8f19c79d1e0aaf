/* data: what a file becomes. Counts and lengths first, then single examples with their target tokens marked, then the
 * lines that cannot be used. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/core/error.h"
#include "runtime/core/options.h"
#include "runtime/core/order.h"
#include "runtime/data/read.h"
#include "runtime/io/gguf.h"

enum {
    ERRORS_SHOWN = 20,
    ERRORS_READ = 1000, /* a file of another kind has an error a line: enough is enough */
    TASKS_SHOWN = 20,
    EXAMPLES_SHOWN = 5,
    ESCAPE_PIECE = 200 /* what cr_escape takes without cutting */
};

struct show {
    const struct cr_data_options *options;
    const struct cr_tokenizer *tokenizer;
    cr_emit_fn *emit;
    void *ctx;
    bool closed;          /* the receiver wants no more */
    struct cr_buf text;   /* of the run in work */
    struct cr_buf errors; /* lines */
    uint64_t n_errors;
    char first_error[sizeof((struct cr_error *)NULL)->message];
};

static void put(struct show *show, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put_bytes(struct show *show, const char *text, size_t n)
{
    if (!show->closed && n > 0) {
        show->closed = !show->emit(show->ctx, text, n);
    }
}

static void put(struct show *show, const char *format, ...)
{
    char line[2048];
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(line, sizeof line, format, ap);
    va_end(ap);
    put_bytes(show, line, n < 0 ? 0 : (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

static bool keep_error(void *ctx, const char *message)
{
    struct show *show = ctx;
    if (show->n_errors == 0) {
        snprintf(show->first_error, sizeof show->first_error, "%s", message);
    }
    if (show->n_errors < ERRORS_SHOWN) {
        cr_buf_printf(&show->errors, "  %s\n", message);
    }
    return ++show->n_errors < ERRORS_READ;
}

/* Text of a token run, controls escaped, quotes left alone: cr_escape in pieces that end with a character. */
static void put_escaped(struct show *show, const char *text, size_t n)
{
    char shown[CR_ESCAPE_BYTES];
    for (size_t at = 0; at < n;) {
        size_t length = n - at < ESCAPE_PIECE ? n - at : ESCAPE_PIECE;
        size_t cut = length;
        while (at + length < n && cut > length - 4 && ((unsigned char)text[at + cut] & 0xc0) == 0x80) {
            cut--;
        }
        length = cut;
        cr_escape(shown, sizeof shown, text + at, length);
        size_t out = 0;
        for (size_t i = 0; shown[i] != '\0'; i++) {
            if (shown[i] == '\\' && (shown[i + 1] == '"' || shown[i + 1] == '\\')) {
                i += shown[i + 1] == '"';
                shown[out++] = shown[i];
                if (shown[i] == '\\') {
                    shown[out++] = shown[++i];
                }
                continue;
            }
            shown[out++] = shown[i];
        }
        put_bytes(show, shown, out);
        at += length;
    }
}

/* A run of tokens that carry loss, or of such that do not. */
static void put_run(struct show *show, bool target)
{
    const char *before = show->options->color ? (target ? "\x1b[1;32m" : "\x1b[2m") : (target ? "[" : "");
    const char *after = show->options->color ? "\x1b[0m" : (target ? "]" : "");
    if (show->text.n > 0) {
        put_bytes(show, before, strlen(before));
        put_escaped(show, show->text.data, show->text.n);
        put_bytes(show, after, strlen(after));
    }
    cr_buf_clear(&show->text);
}

static void add_token(struct show *show, int32_t id)
{
    size_t n = cr_tokenizer_decode(show->tokenizer, id, NULL, 0);
    if (n > 0 && cr_buf_reserve(&show->text, n)) {
        show->text.n += cr_tokenizer_decode(show->tokenizer, id, show->text.data + show->text.n, n);
        show->text.data[show->text.n] = '\0';
    } else if (n == 0) {
        const char *piece = cr_tokenizer_text(show->tokenizer, id, &n);
        cr_buf_append(&show->text, piece, n);
    }
}

static void put_example(struct show *show, const struct cr_dataset *dataset, const struct cr_example *e)
{
    uint32_t n_targets = e->unanswered ? 0 : e->n_targets;
    put(show, "\nline %llu: %s, %u tokens, %u target%s%s\n  ", (unsigned long long)e->line,
        cr_example_kind_name(e->kind), e->n_ids, n_targets, n_targets == 1 ? "" : "s", e->truncated ? ", cut" : "");
    bool target = false;
    for (uint32_t i = 0; i < e->n_ids; i++) {
        bool now = e->mask != NULL && e->mask[i] != 0;
        if (now != target) {
            put_run(show, target);
            target = now;
        }
        add_token(show, e->ids[i]);
    }
    put_run(show, target);
    if (e->kind == CR_EXAMPLE_CHOICE) {
        if (!e->unanswered) {
            add_token(show, dataset->label_ids[e->answer]);
            put_run(show, true);
        }
        if (e->task >= 0) {
            put(show, "\n  task ");
            put_escaped(show, dataset->task_names[e->task], strlen(dataset->task_names[e->task]));
        }
    }
    put(show, "\n");
}

/* Percentiles by the nearest rank. */
static cr_status put_lengths(struct show *show, const struct cr_dataset *dataset, uint32_t limit, struct cr_error *err)
{
    size_t n = dataset->n;
    uint32_t *lengths = cr_alloc(n, sizeof *lengths);
    if (lengths == NULL) {
        return cr_fail(err, CR_E_MEMORY, "out of memory for %zu lengths", n);
    }
    for (size_t i = 0; i < n; i++) {
        lengths[i] = dataset->examples[i].n_ids;
    }
    qsort(lengths, n, sizeof *lengths, cr_order_u32);
    put(show, "lengths: min %u, mean %.1f, median %u, 90%% %u, 99%% %u, max %u (limit %u)\n", lengths[0],
        (double)dataset->n_tokens / (double)n, lengths[(n - 1) / 2], lengths[(n * 9 + 9) / 10 - 1],
        lengths[(n * 99 + 99) / 100 - 1], lengths[n - 1], limit);
    cr_free(lengths);
    return CR_OK;
}

/* Each counts as one target, of which there is none to learn. */
static uint64_t count_unanswered(const struct cr_dataset *dataset)
{
    uint64_t n = 0;
    for (size_t i = 0; i < dataset->n; i++) {
        n += dataset->examples[i].unanswered;
    }
    return n;
}

static void put_answers(struct show *show, const struct cr_dataset *dataset)
{
    uint64_t answers[CR_LABELS_MAX] = {0}, n_unanswered = count_unanswered(dataset);
    for (size_t i = 0; i < dataset->n; i++) {
        answers[dataset->examples[i].answer] += !dataset->examples[i].unanswered;
    }
    put(show, "answers:");
    for (uint32_t i = 0; i < dataset->n_labels; i++) {
        put(show, "%s %c %llu (token %d)", i > 0 ? "," : "", (char)('A' + (int)i), (unsigned long long)answers[i],
            dataset->label_ids[i]);
    }
    if (n_unanswered > 0) {
        put(show, "; unanswered %llu, which only predict takes", (unsigned long long)n_unanswered);
    }
    put(show, "\n");
}

static cr_status put_tasks(struct show *show, const struct cr_dataset *dataset, struct cr_error *err)
{
    uint64_t *counts = cr_zalloc(dataset->n_tasks + 1, sizeof *counts);
    if (counts == NULL) {
        return cr_fail(err, CR_E_MEMORY, "out of memory for %zu tasks", dataset->n_tasks);
    }
    for (size_t i = 0; i < dataset->n; i++) {
        counts[dataset->examples[i].task + 1]++; /* 0: without a task */
    }
    put(show, "tasks:");
    for (size_t i = 0; i < dataset->n_tasks && i < TASKS_SHOWN; i++) {
        put(show, "%s ", i > 0 ? "," : "");
        put_escaped(show, dataset->task_names[i], strlen(dataset->task_names[i]));
        put(show, " %llu", (unsigned long long)counts[i + 1]);
    }
    if (dataset->n_tasks > TASKS_SHOWN) {
        put(show, ", and %zu more", dataset->n_tasks - TASKS_SHOWN);
    }
    if (counts[0] > 0) {
        put(show, ", without %llu", (unsigned long long)counts[0]);
    }
    put(show, "\n");
    cr_free(counts);
    return CR_OK;
}

static cr_status put_summary(struct show *show, const struct cr_dataset *dataset, const struct cr_read_counts *counts,
                             uint32_t limit, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    const char *path = show->options->data;
    uint64_t n_targets = dataset->n_targets - count_unanswered(dataset);
    put(show, "%s: %zu examples, %llu tokens, %llu target%s\n", cr_escape(shown, sizeof shown, path, strlen(path)),
        dataset->n, (unsigned long long)dataset->n_tokens, (unsigned long long)n_targets, n_targets == 1 ? "" : "s");
    put(show, "kinds:");
    const char *separator = " ";
    for (int kind = 0; kind < 4; kind++) {
        if (counts->kinds[kind] > 0) {
            put(show, "%s%s %llu", separator, cr_example_kind_name((enum cr_example_kind)kind),
                (unsigned long long)counts->kinds[kind]);
            separator = ", ";
        }
    }
    put(show, "%s\n", dataset->n == 0 ? " none" : "");
    if (dataset->n > 0) {
        CR_TRY(put_lengths(show, dataset, limit, err));
    }
    if (dataset->n > 0 && dataset->classification) {
        put_answers(show, dataset);
    }
    if (dataset->n_tasks > 0) {
        CR_TRY(put_tasks(show, dataset, err));
    }
    put(show,
        "cut: %llu; skipped: %llu too long, %llu without a target; duplicates: %llu; bytes without a token: %llu; "
        "bad lines: %llu\n",
        (unsigned long long)dataset->n_truncated, (unsigned long long)counts->skipped[CR_ENCODE_LONG],
        (unsigned long long)counts->skipped[CR_ENCODE_NO_TARGET], (unsigned long long)dataset->n_duplicates,
        (unsigned long long)dataset->n_dropped_bytes, (unsigned long long)counts->n_bad);
    return CR_OK;
}

static void put_errors(struct show *show)
{
    if (show->n_errors == 0) {
        return;
    }
    put(show, "\nbad lines:\n");
    put_bytes(show, show->errors.data, show->errors.n);
    if (show->n_errors > ERRORS_SHOWN) {
        put(show, "  and %llu more%s\n", (unsigned long long)(show->n_errors - ERRORS_SHOWN),
            show->n_errors >= ERRORS_READ ? " before reading stopped" : "");
    }
}

/* By the context in the file, where there is one: a vocabulary alone has none. */
static cr_status length_limit(const struct cr_gguf *gguf, uint32_t given, uint32_t *limit, struct cr_error *err)
{
    uint32_t context = 0;
    const char *architecture = NULL;
    size_t n = 0;
    char key[128];
    CR_TRY(cr_gguf_str(gguf, "general.architecture", false, &architecture, &n, err));
    if (architecture != NULL && n < 64) {
        snprintf(key, sizeof key, "%.*s.context_length", (int)n, architecture);
        CR_TRY(cr_gguf_u32(gguf, key, false, &context, err));
    }
    return cr_dataset_limit(given, context, limit, err);
}

static cr_status run(struct show *show, uint32_t limit, struct cr_error *err)
{
    cr_status status = CR_OK;
    const struct cr_data_options *o = show->options;
    struct cr_dataset dataset = {0};
    struct cr_read_counts counts = {0};
    struct cr_dataset_options reading = {.max_seq_length = limit,
                                         .on_long_skip = o->on_long_skip,
                                         .train_on_prompt = o->train_on_prompt,
                                         .answer_optional = true,
                                         .chat_template = o->chat_template,
                                         .system = o->system,
                                         .normalize = o->normalize};
    CR_TRY(cr_dataset_read(o->data, show->tokenizer, &reading, NULL, keep_error, show, &counts, &dataset, err));
    CR_TRY_OUT(status, put_summary(show, &dataset, &counts, limit, err));
    uint64_t n_shown = o->limit != 0 ? o->limit : EXAMPLES_SHOWN;
    for (size_t i = 0; i < dataset.n && i < n_shown && !show->closed; i++) {
        put_example(show, &dataset, &dataset.examples[i]);
    }
    put_errors(show);
    if (show->text.failed || show->errors.failed) {
        status = cr_fail(err, CR_E_MEMORY, "out of memory for the report");
    } else if (show->closed) {
        status = cr_fail(err, CR_E_IO, "the receiver of the report takes no more");
    } else if (show->n_errors > 0) {
        status = cr_fail(err, CR_E_INPUT, "%s (%llu bad lines)", show->first_error, (unsigned long long)show->n_errors);
    } else if (dataset.n == 0) {
        status = cr_fail(err, CR_E_INPUT, "no examples");
    }
out:
    cr_dataset_close(&dataset);
    return status;
}

cr_status cr_data_show(const struct cr_data_options *options, cr_emit_fn *emit, void *ctx, struct cr_error *err)
{
    cr_status status = CR_OK;
    struct cr_data_options copy = {0}; /* fields that an older caller does not know are 0 */
    struct cr_gguf *gguf = NULL;
    struct cr_tokenizer *tokenizer = NULL;
    uint32_t limit = 0;
    CR_TRY(cr_options_copy(&copy, sizeof copy, options, err));
    struct show show = {.options = &copy, .emit = emit, .ctx = ctx};
    if (copy.model == NULL || copy.data == NULL) {
        return cr_fail(err, CR_E_USAGE, "data: %s expected", copy.model == NULL ? "model" : "data");
    }
    CR_TRY(cr_gguf_open(copy.model, &gguf, err));
    CR_TRY_OUT(status, cr_tokenizer_open(gguf, &tokenizer, err));
    CR_TRY_OUT(status, length_limit(gguf, copy.max_seq_length, &limit, err));
    show.tokenizer = tokenizer;
    status = run(&show, limit, err);
out:
    cr_buf_free(&show.text);
    cr_buf_free(&show.errors);
    cr_tokenizer_close(tokenizer);
    cr_gguf_close(gguf);
    return status;
}
