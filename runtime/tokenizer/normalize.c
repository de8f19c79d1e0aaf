#include "runtime/tokenizer/normalize.h"

#include <stdint.h>
#include <string.h>
#include <utf8proc.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/core/utf8.h"

struct output {
    char *bytes;
    size_t n;
    size_t capacity;
};

static cr_status append(struct output *out, const char *bytes, size_t n, struct cr_error *err)
{
    if (n > out->capacity - out->n) {
        size_t capacity = out->n + n + out->capacity;
        char *grown = cr_realloc(out->bytes, out->capacity, capacity, 1);
        if (grown == NULL) {
            return cr_fail(err, CR_E_MEMORY, "no memory to normalise a text");
        }
        out->bytes = grown;
        out->capacity = capacity;
    }
    if (n > 0) {
        memcpy(out->bytes + out->n, bytes, n);
    }
    out->n += n;
    return CR_OK;
}

/* Normalises a run of well-formed UTF-8 of n bytes. */
static cr_status compose(const char *run, size_t n, struct output *out, struct cr_error *err)
{
    const utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    const utf8proc_uint8_t *bytes = (const utf8proc_uint8_t *)run;
    utf8proc_ssize_t count = utf8proc_decompose(bytes, (utf8proc_ssize_t)n, NULL, 0, options);
    if (count < 0) {
        return cr_fail(err, CR_E_INPUT, "text cannot be normalised: %s", utf8proc_errmsg(count));
    }
    /* reencode writes the UTF-8 bytes over the code points and a terminator behind them. */
    utf8proc_int32_t *points = cr_alloc((size_t)count + 1, sizeof *points);
    if (points == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory to normalise a text of %zu bytes", n);
    }
    cr_status status = CR_OK;
    count = utf8proc_decompose(bytes, (utf8proc_ssize_t)n, points, count, options);
    utf8proc_ssize_t n_bytes = count < 0 ? count : utf8proc_reencode(points, count, options);
    status = n_bytes < 0 ? cr_fail(err, CR_E_INPUT, "text cannot be normalised: %s", utf8proc_errmsg(n_bytes))
                         : append(out, (const char *)points, (size_t)n_bytes, err);
    cr_free(points);
    return status;
}

cr_status cr_text_nfc(const char *text, size_t n, char **out, size_t *n_out, struct cr_error *err)
{
    cr_status status = CR_OK;
    struct output built = {cr_alloc(n, 1), 0, n};
    if (built.bytes == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory to normalise a text of %zu bytes", n);
    }
    for (size_t i = 0; i < n;) {
        size_t run = cr_utf8_run(text + i, n - i);
        if (run > 0) {
            CR_TRY_OUT(status, compose(text + i, run, &built, err));
        } else {
            run = 1;
            CR_TRY_OUT(status, append(&built, text + i, 1, err));
        }
        i += run;
    }
    *out = built.bytes;
    *n_out = built.n;
    built.bytes = NULL;
out:
    cr_free(built.bytes);
    return status;
}
