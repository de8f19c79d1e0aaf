#include "runtime/cli/message.h"

#include <stdarg.h>
#include <stdio.h>

enum { QUOTED_BYTES = 100 };

cr_status cr_cli_fail(struct cr_error *err, cr_status status, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vsnprintf(err->message, sizeof err->message, format, ap);
    va_end(ap);
    err->status = status;
    return status;
}

const char *cr_cli_quote(const char *word)
{
    static char buffers[4][4 * QUOTED_BYTES + 8];
    static unsigned next;
    char *dst = buffers[next++ % 4];
    size_t n = 0;
    size_t i = 0;
    for (; word[i] != '\0' && i < QUOTED_BYTES; i++) {
        unsigned char c = (unsigned char)word[i];
        n += (size_t)sprintf(dst + n, c >= 0x20 && c < 0x7f ? "%c" : "\\x%02x", c);
    }
    sprintf(dst + n, "%s", word[i] == '\0' ? "" : "...");
    return dst;
}

void cr_cli_complain(const char *message)
{
    fprintf(stderr, "credence: %s\n", message);
}
