#include "runtime/core/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/utf8.h"

cr_status cr_fail(struct cr_error *err, cr_status status, const char *format, ...)
{
    if (err != NULL) {
        va_list ap;
        va_start(ap, format);
        vsnprintf(err->message, sizeof err->message, format, ap);
        va_end(ap);
        err->status = status;
    }
    return status;
}

cr_status cr_fail_prefix(struct cr_error *err, cr_status status, const char *format, ...)
{
    if (err != NULL) {
        char inner[sizeof err->message];
        memcpy(inner, err->message, sizeof inner);
        va_list ap;
        va_start(ap, format);
        int n = vsnprintf(err->message, sizeof err->message, format, ap);
        va_end(ap);
        size_t used = n < 0 ? 0 : (size_t)n < sizeof err->message ? (size_t)n : sizeof err->message - 1;
        size_t room = sizeof err->message - used;
        if (room > 2) {
            size_t length = strnlen(inner, room - 3);
            memcpy(err->message + used, ": ", 2);
            memcpy(err->message + used + 2, inner, length);
            err->message[used + 2 + length] = '\0';
        }
        err->status = status;
    }
    return status;
}

/* Length of a well-formed, printable character at s (n bytes left), 0 when there is none. */
static size_t printable_length(const char *s, size_t n)
{
    unsigned length = cr_utf8_length(s, n);
    uint32_t code = length > 0 ? cr_utf8_decode(s, length) : 0;
    bool control = code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x200e || code == 0x200f ||
                   (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
    return control ? 0 : length;
}

char *cr_escape(char *dst, size_t dst_bytes, const char *src, size_t n)
{
    const unsigned char *s = (const unsigned char *)src;
    size_t limit = n > 200 ? 200 : n;
    size_t out = 0;
    size_t i = 0;
    while (i < limit && out + 8 < dst_bytes) {
        size_t length = printable_length(src + i, limit - i);
        if (length == 0) {
            out += (size_t)snprintf(dst + out, dst_bytes - out, s[i] == '\n' ? "\\n" : "\\x%02x", s[i]);
            i++;
        } else if (s[i] == '\\' || s[i] == '"') {
            dst[out++] = '\\';
            dst[out++] = (char)s[i++];
        } else {
            memcpy(dst + out, s + i, length);
            out += length;
            i += length;
        }
    }
    if (i < n && out + 4 <= dst_bytes) {
        memcpy(dst + out, "...", 3);
        out += 3;
    }
    if (dst_bytes > 0) {
        dst[out < dst_bytes ? out : dst_bytes - 1] = '\0';
    }
    return dst;
}
