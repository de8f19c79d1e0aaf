#include "runtime/model/describe.h"

#include <inttypes.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/core/error.h"

enum { MAX_TYPES = 64, VALUE_BYTES = 72 };

bool cr_gguf_is_adapter(const struct cr_gguf *gguf)
{
    const char *text = NULL;
    size_t n = 0;
    return cr_gguf_str(gguf, "general.type", false, &text, &n, NULL) == CR_OK && n == 7 &&
           memcmp(text, "adapter", 7) == 0;
}

bool cr_gguf_is_vocabulary(const struct cr_gguf *gguf)
{
    return cr_gguf_n_tensors(gguf) == 0 && cr_gguf_find(gguf, "tokenizer.ggml.tokens", NULL);
}

static const char *kind_of(const struct cr_gguf *gguf)
{
    return cr_gguf_is_adapter(gguf) ? "adapter" : cr_gguf_is_vocabulary(gguf) ? "vocabulary without weights" : "model";
}

/* Number and bytes of tensors of each type, in order of their ids. */
static void put_tensors(const struct cr_gguf *gguf, struct cr_buf *text)
{
    uint64_t n[MAX_TYPES] = {0}, bytes[MAX_TYPES] = {0}, all_bytes = 0;
    double values = 0;
    for (size_t i = 0; i < cr_gguf_n_tensors(gguf); i++) {
        const struct cr_gguf_tensor *t = cr_gguf_tensor_at(gguf, i);
        if (t->type >= 0 && t->type < MAX_TYPES) {
            n[t->type]++;
            bytes[t->type] += t->bytes;
        }
        all_bytes += t->bytes;
        values += (double)t->ne[0] * (double)t->ne[1] * (double)t->ne[2] * (double)t->ne[3];
    }
    for (int type = 0; type < MAX_TYPES; type++) {
        const struct cr_qtype_info *info = n[type] > 0 ? cr_qtype_info(type) : NULL;
        if (info != NULL) {
            cr_buf_printf(text, "tensors    %" PRIu64 " of type %s, %.1f MiB%s\n", n[type], info->name,
                          (double)bytes[type] / (1 << 20), info->computes ? "" : " (cannot be computed with)");
        }
    }
    if (values > 0) {
        cr_buf_printf(text, "weights    %.1f million, %.2f bits each\n", values / 1e6,
                      8.0 * (double)all_bytes / values);
    }
}

static void put_string(struct cr_buf *text, const char *s, size_t n)
{
    char escaped[CR_ESCAPE_BYTES];
    size_t shown = n > VALUE_BYTES ? VALUE_BYTES : n;
    cr_buf_printf(text, "\"%s\"", cr_escape(escaped, sizeof escaped, s, shown));
    if (shown < n) {
        cr_buf_printf(text, "... (%zu bytes)", n);
    }
}

static void put_value(struct cr_buf *text, const struct cr_gguf_value *v)
{
    int64_t integer;
    double real;
    if (v->type == CR_GGUF_STRING) {
        put_string(text, (const char *)v->data, (size_t)v->n);
    } else if (v->type == CR_GGUF_ARRAY) {
        cr_buf_printf(text, "%" PRIu64 " x %s", v->n, cr_gguf_type_name(v->item_type));
    } else if (v->type == CR_GGUF_BOOL) {
        cr_buf_puts(text, *v->data != 0 ? "true" : "false");
    } else if (cr_gguf_scalar_int(v, &integer)) {
        cr_buf_printf(text, "%" PRId64, integer);
    } else if (cr_gguf_scalar_float(v, &real)) {
        cr_buf_printf(text, "%g", real);
    } else {
        cr_buf_puts(text, cr_gguf_type_name(v->type));
    }
}

void cr_gguf_describe(const struct cr_gguf *gguf, struct cr_buf *text)
{
    char escaped[CR_ESCAPE_BYTES];
    cr_buf_printf(text, "file       GGUF version %" PRIu32 ", %" PRIu64 " bytes\n", cr_gguf_version(gguf),
                  cr_gguf_file_bytes(gguf));
    cr_buf_printf(text, "kind       %s\n", kind_of(gguf));
    put_tensors(gguf, text);
    if (cr_gguf_trailing_bytes(gguf) > 0) {
        cr_buf_printf(text, "note       %" PRIu64 " bytes behind the last tensor\n", cr_gguf_trailing_bytes(gguf));
    }
    cr_buf_puts(text, "keys\n");
    for (size_t i = 0; i < cr_gguf_n_kv(gguf); i++) {
        struct cr_gguf_value v;
        const char *key = cr_gguf_key(gguf, i);
        cr_gguf_value_at(gguf, i, &v);
        cr_buf_printf(text, "  %s: ", cr_escape(escaped, sizeof escaped, key, strlen(key)));
        put_value(text, &v);
        cr_buf_putc(text, '\n');
    }
}
