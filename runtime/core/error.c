#include "runtime/core/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

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

/* Length of a valid, printable UTF-8 sequence at s (n bytes left), 0 when there is none. */
static size_t printable_length(const unsigned char *s, size_t n)
{
    if (s[0] < 0x80) {
        return s[0] >= 0x20 && s[0] != 0x7f;
    }
    size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || length > n) {
        return 0;
    }
    uint32_t code = s[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | (s[i] & 0x3f);
    }
    static const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    bool control = code < 0xa0 || code == 0x200e || code == 0x200f || (code >= 0x2028 && code <= 0x202e) ||
                   (code >= 0x2066 && code <= 0x2069);
    bool valid = code >= smallest[length] && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
    return valid && !control ? length : 0;
}

char *cr_escape(char *dst, size_t dst_bytes, const char *src, size_t n)
{
    const unsigned char *s = (const unsigned char *)src;
    size_t limit = n > 200 ? 200 : n;
    size_t out = 0;
    size_t i = 0;
    while (i < limit && out + 8 < dst_bytes) {
        size_t length = printable_length(s + i, limit - i);
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
