/* valid.jsonl: the lines that a run held out of its data file, so that `eval --calibrate` and `laplace --valid` can use
 * the same ones. */
#include <string.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/data/lines.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "runtime/train/train.h"

/* The lines of the held-out examples, in the order of the file whatever theirs is. */
static cr_status copy_lines(const struct cr_train *train, struct cr_lines *lines, struct cr_buf *out,
                            struct cr_error *err)
{
    const char *text;
    size_t n, at = 0;
    bool *held_out = cr_zalloc(train->data.n, sizeof *held_out);
    if (held_out == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the held-out lines");
    }
    for (size_t i = 0; i < train->n_valid; i++) {
        held_out[train->valid_pool[i]] = true;
    }
    while (at < train->data.n && cr_lines_next(lines, &text, &n)) {
        if (lines->number == train->data.examples[at].line && held_out[at++]) {
            cr_buf_append(out, text, n);
            cr_buf_putc(out, '\n');
        }
    }
    cr_free(held_out);
    return out->failed ? cr_fail(err, CR_E_MEMORY, "no memory for the held-out lines") : CR_OK;
}

/* The data file as it was read for the run. */
static cr_status open_again(const struct cr_train *train, struct cr_lines *lines, struct cr_error *err)
{
    const char *data = train->options.data;
    char shown[CR_ESCAPE_BYTES];
    CR_TRY(cr_lines_open(data, lines, err));
    struct cr_hash128 hash = cr_xxh3_128(lines->data, lines->n_bytes);
    return hash.high == train->data.digest[0] && hash.low == train->data.digest[1]
               ? CR_OK
               : cr_fail(err, CR_E_INPUT, "%s has changed since it was read",
                         cr_escape(shown, sizeof shown, data, strlen(data)));
}

/* Writes what is wanted unless the file holds it already. */
static cr_status bring(const char *path, const struct cr_buf *wanted, struct cr_error *err)
{
    uint8_t *there = NULL;
    size_t n = 0;
    struct cr_error why;
    cr_status status = cr_file_read(path, wanted->n, &there, &n, &why);
    bool same = status == CR_OK && n == wanted->n && memcmp(there, wanted->data, n) == 0;
    cr_free(there);
    if (status == CR_E_MEMORY) {
        return cr_fail(err, status, "%s", why.message);
    }
    return same ? CR_OK : cr_file_write(path, wanted->data, wanted->n, err);
}

static cr_status write_lines(const struct cr_train *train, const char *path, struct cr_error *err)
{
    struct cr_lines lines = {0};
    struct cr_buf wanted = {0};
    struct cr_error why = {0};
    char shown[CR_ESCAPE_BYTES];
    cr_status status = open_again(train, &lines, &why);
    if (status == CR_OK) {
        status = copy_lines(train, &lines, &wanted, err);
        status = status == CR_OK ? bring(path, &wanted, err) : status;
    } else if (status == CR_E_MEMORY) {
        cr_fail(err, status, "%s", why.message);
    } else { /* the run itself has its copy */
        cr_host_log(train->host, CR_LOG_WARNING, "%s: no %s", why.message,
                    cr_escape(shown, sizeof shown, path, strlen(path)));
        unlink(path);
        status = CR_OK;
    }
    cr_buf_free(&wanted);
    cr_lines_close(&lines);
    return status;
}

cr_status cr_train_write_held_out(const struct cr_train *train, struct cr_error *err)
{
    cr_status status = CR_OK;
    char *path = cr_path_join(train->options.output, "valid.jsonl");
    if (path == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a path");
    }
    if (train->valid == &train->data && train->n_valid > 0) {
        status = write_lines(train, path, err);
    } else if (train->shared && !cr_same_file(path, train->options.valid)) {
        unlink(path); /* of a run before this one */
    }
    cr_free(path);
    return status;
}
