/* The examples that a page shows in their own words. */
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/host.h"
#include "runtime/data/line.h"
#include "runtime/data/lines.h"
#include "runtime/io/hash.h"
#include "runtime/metrics/metrics.h"
#include "runtime/review/review_parts.h"

enum { SHOWN = 12, TEXT_BYTES = 700, ANSWER_BYTES = 160 };

/* Higher is more worth showing. Texts: NLL a token. */
static double weight(const struct cr_outcomes *outcomes, const struct cr_outcome *o)
{
    return outcomes->classification ? o->confidence : o->nll / (double)o->n_targets;
}

/* The SHOWN heaviest, earlier ones first among equals. Returns their number. */
static size_t choose(const struct cr_outcomes *outcomes, const struct cr_outcome **chosen)
{
    size_t n = 0;
    for (size_t i = 0; i < outcomes->n; i++) {
        const struct cr_outcome *o = &outcomes->items[i];
        if (outcomes->classification && o->correct) {
            continue;
        }
        size_t at = n;
        while (at > 0 && weight(outcomes, o) > weight(outcomes, chosen[at - 1])) {
            at--;
        }
        if (at == SHOWN) {
            continue;
        }
        n = n < SHOWN ? n + 1 : SHOWN;
        memmove(&chosen[at + 1], &chosen[at], (n - 1 - at) * sizeof *chosen);
        chosen[at] = o;
    }
    return n;
}

/* At most max_bytes of a text, cut before a character. */
static size_t cut(const char *text, size_t n, size_t max_bytes)
{
    if (n <= max_bytes) {
        return n;
    }
    while (max_bytes > 0 && ((unsigned char)text[max_bytes] & 0xc0) == 0x80) {
        max_bytes--;
    }
    return max_bytes;
}

/* One of the line's choices, cut. */
static cr_status set_answer(struct cr_kept *kept, const struct cr_line *line, uint32_t choice,
                            struct cr_report_saying *out, struct cr_error *err)
{
    struct cr_line_text text = choice < line->n_choices ? cr_line_choice(line, choice) : (struct cr_line_text){"?", 1};
    out->text_bytes = cut(text.bytes, text.n, ANSWER_BYTES);
    char *copy = cr_strndup(text.bytes, out->text_bytes);
    CR_TRY(cr_kept_add(kept, copy, err));
    out->text = copy;
    return CR_OK;
}

/* The words of a text example in one piece. */
static void put_words(struct cr_buf *out, const struct cr_line *line)
{
    switch (line->kind) {
    case CR_EXAMPLE_CHOICE:
        cr_buf_append(out, line->question.bytes, line->question.n);
        break;
    case CR_EXAMPLE_PROMPT:
        cr_buf_append(out, line->prompt.bytes, line->prompt.n);
        cr_buf_puts(out, " \xe2\x86\x92 ");
        cr_buf_append(out, line->completion.bytes, line->completion.n);
        break;
    case CR_EXAMPLE_MESSAGES:
        for (size_t i = 0; i < cr_line_n_messages(line); i++) {
            struct cr_line_text role, content;
            cr_line_message(line, i, &role, &content);
            cr_buf_puts(out, i > 0 ? "\n" : "");
            cr_buf_append(out, role.bytes, role.n);
            cr_buf_puts(out, ": ");
            cr_buf_append(out, content.bytes, content.n);
        }
        break;
    case CR_EXAMPLE_TEXT:
        cr_buf_append(out, line->text.bytes, line->text.n);
        break;
    }
}

static cr_status set_words(const struct cr_review_source *source, struct cr_kept *kept, const struct cr_line *line,
                           const struct cr_outcome *o, struct cr_report_example *out, struct cr_error *err)
{
    struct cr_buf words = {0};
    put_words(&words, line);
    size_t n = words.data != NULL ? cut(words.data, words.n, TEXT_BYTES) : 0;
    out->cut = n < words.n;
    out->text_bytes = n;
    CR_TRY(cr_kept_text(kept, &words, &out->text, err));
    if (line->kind != CR_EXAMPLE_CHOICE) {
        return CR_OK;
    }
    struct cr_report_saying *said = cr_zalloc(source->n, sizeof *said);
    CR_TRY(cr_kept_add(kept, said, err));
    for (size_t v = 0; v < source->n; v++) {
        const struct cr_outcome *own = &source->outcomes[v]->items[o - source->outcomes[0]->items];
        said[v].who = source->names != NULL ? source->names[v] : NULL;
        said[v].p = own->confidence;
        said[v].wrong = !own->correct;
        CR_TRY(set_answer(kept, line, own->prediction, &said[v], err));
    }
    out->said = said;
    out->n_said = source->n;
    out->right.p = cr_probability(o->nll);
    return set_answer(kept, line, line->answer, &out->right, err);
}

/* Walks the data file once more and picks the lines of the chosen examples. */
static cr_status read_words(const struct cr_review_source *source, const struct cr_outcome *const *chosen, size_t n,
                            struct cr_lines *lines, struct cr_kept *kept, struct cr_report_example *out,
                            struct cr_error *err)
{
    const char *text;
    size_t n_bytes;
    while (cr_lines_next(lines, &text, &n_bytes)) {
        for (size_t i = 0; i < n; i++) {
            struct cr_line line = {0};
            if (out[i].line != lines->number || cr_line_parse(text, n_bytes, &line, NULL) != CR_OK) {
                continue;
            }
            cr_status status = set_words(source, kept, &line, chosen[i], &out[i], err);
            cr_line_deinit(&line);
            CR_TRY(status);
        }
    }
    return CR_OK;
}

cr_status cr_review_examples(const struct cr_review_source *source, const struct cr_host *host, struct cr_kept *kept,
                             struct cr_report *report, struct cr_error *err)
{
    const struct cr_outcome *chosen[SHOWN + 1];
    struct cr_lines lines = {0};
    struct cr_error why = {0};
    char hex[33];
    size_t n = choose(source->outcomes[0], chosen);
    struct cr_report_example *examples = cr_zalloc(n, sizeof *examples);
    CR_TRY(cr_kept_add(kept, examples, err));
    for (size_t i = 0; i < n; i++) {
        const struct cr_outcome *o = chosen[i];
        examples[i] = (struct cr_report_example){.task = o->task >= 0 ? source->task_names[o->task] : NULL,
                                                 .line = o->line,
                                                 .text = "",
                                                 .nll = o->nll / (double)o->n_targets};
    }
    report->examples = examples;
    report->n_examples = n;
    if (n == 0) {
        return CR_OK;
    }
    cr_status status = cr_lines_open(source->data, &lines, &why);
    if (status == CR_OK) {
        if (strcmp(cr_hex_128(hex, cr_xxh3_128(lines.data, lines.n_bytes)), source->data_hash) == 0) {
            status = read_words(source, chosen, n, &lines, kept, examples, err);
            cr_lines_close(&lines);
            return status;
        }
        cr_fail(&why, CR_E_IO, "the data file changed meanwhile");
        cr_lines_close(&lines);
    }
    if (status == CR_E_MEMORY) {
        return cr_fail(err, status, "%s", why.message);
    }
    cr_host_log(host, CR_LOG_WARNING, "report without examples: %s", why.message);
    report->n_examples = 0;
    report->no_examples = "Not shown: the data file has changed since, or cannot be read.";
    return CR_OK;
}
