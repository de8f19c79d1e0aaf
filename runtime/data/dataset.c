#include "runtime/data/dataset.h"

#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/core/host.h"
#include "runtime/data/lines.h"
#include "runtime/data/read.h"
#include "runtime/data/store.h"
#include "runtime/io/hash.h"

/* Lines between two looks at host->stop: a few milliseconds of work. */
enum { STOP_EVERY = 64 };

/* Where nothing is said, whatever the context: memory grows with the longest example. */
enum { DEFAULT_LENGTH = 2048 };

struct reader {
    const char *shown; /* the path, printable */
    const struct cr_host *host;
    struct cr_encoder encoder;
    struct cr_store *store;
    struct cr_read_counts counts;
    bool any, classification;
    uint64_t n_lines, n_truncated, n_dropped_bytes, n_targets;
    uint32_t max_ids, n_lead, n_labels;
};

cr_status cr_dataset_limit(uint32_t given, uint32_t context, uint32_t *limit, struct cr_error *err)
{
    if (context > 0 && given > context) {
        return cr_fail(err, CR_E_USAGE, "--max-seq-length %u is above the context of the model, %u", given, context);
    }
    *limit = given > 0 ? given : context > 0 && context < DEFAULT_LENGTH ? context : DEFAULT_LENGTH;
    return CR_OK;
}

/* One loss a file: choices and texts do not mix. */
static cr_status check_family(struct reader *reader, const struct cr_line *line, struct cr_error *err)
{
    bool classification = line->kind == CR_EXAMPLE_CHOICE;
    if (reader->any && reader->classification != classification) {
        return cr_fail(err, CR_E_INPUT,
                       "the line is %s, the lines before it %s: one file holds either choices or texts",
                       cr_example_kind_name(line->kind), reader->classification ? "choices" : "texts");
    }
    reader->any = true;
    reader->classification = classification;
    return CR_OK;
}

static cr_status check_answer(const struct reader *reader, const struct cr_line *line, struct cr_error *err)
{
    bool missing = line->kind == CR_EXAMPLE_CHOICE && !line->answered && !reader->encoder.options->answer_optional;
    return missing ? cr_fail(err, CR_E_INPUT, "field \"answer\" is missing") : CR_OK;
}

static cr_status add_example(struct reader *reader, const struct cr_line *line, uint64_t number,
                             const struct cr_encoded *encoded, struct cr_error *err)
{
    const struct cr_encoder *encoder = &reader->encoder;
    struct cr_example example = {.n_ids = (uint32_t)encoder->ids.n,
                                 .n_targets = encoded->n_targets,
                                 .n_lead = encoded->n_lead,
                                 .kind = line->kind,
                                 .n_choices = line->n_choices,
                                 .answer = line->answer,
                                 .unanswered = line->kind == CR_EXAMPLE_CHOICE && !line->answered,
                                 .task = -1,
                                 .line = number,
                                 .truncated = encoded->truncated};
    if (line->task.bytes != NULL) {
        CR_TRY(cr_store_task(reader->store, line->task.bytes, line->task.n, &example.task, err));
    }
    CR_TRY(cr_store_add(reader->store, &example, encoder->ids.ids, reader->classification ? NULL : encoder->loss.ids,
                        err));
    reader->counts.kinds[line->kind]++;
    reader->n_targets += encoded->n_targets;
    reader->n_truncated += encoded->truncated;
    reader->n_dropped_bytes += encoded->n_dropped_bytes;
    reader->n_lead = example.n_lead > reader->n_lead ? example.n_lead : reader->n_lead;
    reader->max_ids = example.n_ids > reader->max_ids ? example.n_ids : reader->max_ids;
    reader->n_labels = example.n_choices > reader->n_labels ? example.n_choices : reader->n_labels;
    return CR_OK;
}

static cr_status read_line(struct reader *reader, const char *text, size_t n_bytes, uint64_t number,
                           struct cr_error *err)
{
    struct cr_line line = {0};
    struct cr_encoded encoded = {0};
    cr_status status = CR_OK;
    CR_TRY_OUT(status, cr_line_parse(text, n_bytes, &line, err));
    CR_TRY_OUT(status, check_family(reader, &line, err));
    CR_TRY_OUT(status, check_answer(reader, &line, err));
    CR_TRY_OUT(status, cr_encode_line(&reader->encoder, &line, &encoded, err));
    if (encoded.skip != CR_ENCODE_KEPT) {
        reader->counts.skipped[encoded.skip]++;
    } else {
        CR_TRY_OUT(status, add_example(reader, &line, number, &encoded, err));
    }
out:
    cr_line_deinit(&line);
    return status == CR_OK ? CR_OK : cr_fail_prefix(err, status, "%s:%llu", reader->shown, (unsigned long long)number);
}

static cr_status read_lines(struct reader *reader, struct cr_lines *lines,
                            bool (*on_error)(void *ctx, const char *message), void *ctx, struct cr_error *err)
{
    const char *text;
    size_t n_bytes;
    struct cr_error line_error = {0};
    while (cr_lines_next(lines, &text, &n_bytes)) {
        cr_status status = read_line(reader, text, n_bytes, lines->number, &line_error);
        if (status == CR_E_INPUT && on_error != NULL) {
            reader->counts.n_bad++;
            if (!on_error(ctx, line_error.message)) {
                break;
            }
        } else if (status != CR_OK) {
            return cr_fail(err, status, "%s", line_error.message);
        }
        reader->n_lines++;
        if (reader->n_lines % STOP_EVERY == 0 && cr_host_stopped(reader->host)) {
            return cr_fail(err, CR_E_STOPPED, "%s: stopped while reading line %llu", reader->shown,
                           (unsigned long long)lines->number);
        }
    }
    return CR_OK;
}

static cr_status refuse_empty(const struct reader *reader, struct cr_error *err)
{
    if (reader->n_lines == 0) {
        return cr_fail(err, CR_E_INPUT, "%s: no examples (the file is empty or holds blank lines only)", reader->shown);
    }
    return cr_fail(err, CR_E_INPUT,
                   "%s: no examples left: of %llu lines %llu are longer than %u tokens and %llu have no target token "
                   "within them",
                   reader->shown, (unsigned long long)reader->n_lines,
                   (unsigned long long)reader->counts.skipped[CR_ENCODE_LONG], reader->encoder.options->max_seq_length,
                   (unsigned long long)reader->counts.skipped[CR_ENCODE_NO_TARGET]);
}

static void report(const struct reader *reader, uint64_t n_duplicates)
{
    const struct cr_host *host = reader->host;
    const char *shown = reader->shown;
    uint32_t limit = reader->encoder.options->max_seq_length;
    unsigned long long n = reader->store->n_examples;
    if (reader->n_truncated > 0) {
        cr_host_log(host, CR_LOG_WARNING, "%s: %llu of %llu examples cut to %u tokens", shown,
                    (unsigned long long)reader->n_truncated, n, limit);
    }
    if (reader->counts.skipped[CR_ENCODE_LONG] > 0) {
        cr_host_log(host, CR_LOG_WARNING, "%s: %llu examples longer than %u tokens skipped", shown,
                    (unsigned long long)reader->counts.skipped[CR_ENCODE_LONG], limit);
    }
    if (reader->counts.skipped[CR_ENCODE_NO_TARGET] > 0) {
        cr_host_log(host, CR_LOG_WARNING, "%s: %llu examples without a target token within %u tokens skipped", shown,
                    (unsigned long long)reader->counts.skipped[CR_ENCODE_NO_TARGET], limit);
    }
    if (n_duplicates > 0) {
        cr_host_log(host, CR_LOG_WARNING, "%s: %llu of %llu examples repeat an earlier one", shown,
                    (unsigned long long)n_duplicates, n);
    }
    if (reader->n_dropped_bytes > 0) {
        cr_host_log(host, CR_LOG_WARNING, "%s: %llu bytes without a token in the vocabulary dropped", shown,
                    (unsigned long long)reader->n_dropped_bytes);
    }
}

/* Hands the store over to the data set. */
static void publish(const struct reader *reader, struct cr_store *store, struct cr_hash128 digest,
                    uint64_t n_duplicates, struct cr_dataset *out)
{
    cr_store_finish(store);
    memset(out, 0, sizeof *out);
    out->examples = store->examples;
    out->n = store->n_examples;
    out->classification = reader->classification;
    memcpy(out->label_ids, reader->encoder.label_ids, sizeof out->label_ids);
    out->n_labels = reader->n_labels;
    out->task_names = store->names;
    out->n_tasks = store->n_names;
    out->n_tokens = store->n_ids;
    out->n_targets = reader->n_targets;
    out->max_ids = reader->max_ids;
    out->n_lead = reader->n_lead;
    out->n_truncated = reader->n_truncated;
    out->n_skipped = reader->counts.skipped[CR_ENCODE_LONG] + reader->counts.skipped[CR_ENCODE_NO_TARGET];
    out->n_duplicates = n_duplicates;
    out->n_dropped_bytes = reader->n_dropped_bytes;
    out->digest[0] = digest.high;
    out->digest[1] = digest.low;
    out->storage = store;
}

cr_status cr_dataset_read(const char *path, const struct cr_tokenizer *tokenizer,
                          const struct cr_dataset_options *options, const struct cr_host *host,
                          bool (*on_error)(void *ctx, const char *message), void *ctx, struct cr_read_counts *counts,
                          struct cr_dataset *out, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    struct reader reader = {.shown = cr_escape(shown, sizeof shown, path, strlen(path)), .host = host};
    struct cr_lines lines = {0};
    cr_status status = CR_OK;
    CR_TRY(cr_encoder_init(&reader.encoder, tokenizer, options, err));
    reader.store = cr_zalloc(1, sizeof *reader.store);
    if (reader.store == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "%s: out of memory", shown);
        goto out;
    }
    CR_TRY_OUT(status, cr_lines_open(path, &lines, err));
    struct cr_hash128 digest = cr_xxh3_128(lines.data, lines.n_bytes);
    CR_TRY_OUT(status, read_lines(&reader, &lines, on_error, ctx, err));
    if (reader.store->n_examples == 0 && on_error == NULL) {
        status = refuse_empty(&reader, err);
        goto out;
    }
    uint64_t n_duplicates = cr_store_count_duplicates(reader.store);
    report(&reader, n_duplicates);
    if (counts != NULL) {
        *counts = reader.counts;
    }
    publish(&reader, reader.store, digest, n_duplicates, out);
    reader.store = NULL;
out:
    cr_lines_close(&lines);
    cr_encoder_deinit(&reader.encoder);
    if (reader.store != NULL) {
        cr_store_deinit(reader.store);
        cr_free(reader.store);
    }
    return status;
}

cr_status cr_dataset_open(const char *path, const struct cr_tokenizer *tokenizer,
                          const struct cr_dataset_options *options, const struct cr_host *host, struct cr_dataset *out,
                          struct cr_error *err)
{
    return cr_dataset_read(path, tokenizer, options, host, NULL, NULL, NULL, out, err);
}

void cr_dataset_close(struct cr_dataset *dataset)
{
    if (dataset->storage != NULL) {
        cr_store_deinit(dataset->storage);
        cr_free(dataset->storage);
    }
    memset(dataset, 0, sizeof *dataset);
}

struct cr_dataset cr_dataset_whole(const struct cr_dataset *dataset)
{
    struct cr_dataset whole = *dataset;
    whole.whole = true;
    whole.n_lead = 0;
    return whole;
}
