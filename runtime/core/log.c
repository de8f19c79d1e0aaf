#include "runtime/core/log.h"

#include <stdarg.h>
#include <stdio.h>

void cr_log(const struct cr_log *log, enum cr_log_level level, const char *format, ...)
{
    if (log == NULL || log->line == NULL || level > log->max_level) {
        return;
    }
    char line[1024];
    va_list ap;
    va_start(ap, format);
    vsnprintf(line, sizeof line, format, ap);
    va_end(ap);
    log->line(log->ctx, level, line);
}
