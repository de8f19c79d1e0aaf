/* valid.jsonl: the lines that a run held out of its data file, so that `eval --calibrate` and `laplace --valid` can use
 * the same ones. */
#include <string.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/data/lines.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "runtime/train/train.h"

/* The lines of the held-out examples, in the order of the file whatever theirs is. */
static cr_status copy_lines(const struct cr_train *train, struct cr_lines *lines, struct cr_file_writer *out,
                            struct cr_error *err)
{
    const char *text;
    size_t n, at = 0;
    bool *held_out = cr_zalloc(train->data.n, sizeof *held_out);
    cr_status status = held_out != NULL ? CR_OK : cr_fail(err, CR_E_MEMORY, "no memory for the held-out lines");
    for (size_t i = 0; i < train->n_valid && status == CR_OK; i++) {
        held_out[train->valid_pool[i]] = true;
    }
    while (status == CR_OK && at < train->data.n && cr_lines_next(lines, &text, &n)) {
        if (lines->number != train->data.examples[at].line) {
            continue;
        }
        if (held_out[at++]) {
            CR_TRY_OUT(status, cr_file_writer_write(out, text, n, err));
            CR_TRY_OUT(status, cr_file_writer_write(out, "\n", 1, err));
        }
    }
out:
    cr_free(held_out);
    return status;
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

cr_status cr_train_write_held_out(const struct cr_train *train, struct cr_error *err)
{
    struct cr_lines lines = {0};
    struct cr_file_writer out = {0};
    struct cr_error why = {0};
    char shown[CR_ESCAPE_BYTES];
    cr_status status = CR_OK;
    char *path = cr_path_join(train->options.output, "valid.jsonl");
    if (path == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a path");
    }
    if (!cr_same_file(path, train->options.valid)) {
        unlink(path); /* of a run before this one */
    }
    if (train->valid != &train->data || train->n_valid == 0) {
        goto out;
    }
    status = open_again(train, &lines, &why);
    if (status == CR_E_MEMORY) {
        cr_fail(err, status, "%s", why.message);
        goto out;
    }
    if (status != CR_OK) { /* the run itself has its copy */
        cr_host_log(train->host, CR_LOG_WARNING, "%s: no %s", why.message,
                    cr_escape(shown, sizeof shown, path, strlen(path)));
        status = CR_OK;
        goto out;
    }
    CR_TRY_OUT(status, cr_file_writer_open(&out, path, err));
    CR_TRY_OUT(status, copy_lines(train, &lines, &out, err));
    CR_TRY_OUT(status, cr_file_writer_commit(&out, err));
out:
    cr_file_writer_abort(&out);
    cr_lines_close(&lines);
    cr_free(path);
    return status;
}
