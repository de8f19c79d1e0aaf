#include "runtime/tokenizer/normalize.h"

#include <stdint.h>
#include <utf8proc.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/core/error.h"
#include "runtime/core/utf8.h"

/* Normalises a run of well-formed UTF-8 of n bytes. */
static cr_status compose(const char *run, size_t n, struct cr_buf *out, struct cr_error *err)
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
    if (n_bytes < 0) {
        status = cr_fail(err, CR_E_INPUT, "text cannot be normalised: %s", utf8proc_errmsg(n_bytes));
    } else {
        cr_buf_append(out, points, (size_t)n_bytes);
    }
    cr_free(points);
    return status;
}

cr_status cr_text_nfc(const char *text, size_t n, struct cr_buf *out, struct cr_error *err)
{
    cr_buf_reserve(out, n); /* most texts keep their length */
    for (size_t i = 0; i < n && !out->failed;) {
        size_t run = cr_utf8_run(text + i, n - i);
        if (run > 0) {
            CR_TRY(compose(text + i, run, out, err));
        } else {
            run = 1;
            cr_buf_putc(out, text[i]);
        }
        i += run;
    }
    return out->failed ? cr_fail(err, CR_E_MEMORY, "no memory to normalise a text of %zu bytes", n) : CR_OK;
}
