#include "runtime/core/host.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void cr_host_log(const struct cr_host *host, enum cr_log_level level, const char *format, ...)
{
    if (host == NULL || host->log == NULL) {
        return;
    }
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    host->log(host->ctx, level, line);
}

struct cr_progress cr_progress_of(const char *phase)
{
    return (struct cr_progress){.phase = phase,
                                .loss = (double)NAN,
                                .lr = (double)NAN,
                                .grad_norm = (double)NAN,
                                .tok_s = (double)NAN,
                                .eta_s = (double)NAN};
}

void cr_host_progress(const struct cr_host *host, const struct cr_progress *progress)
{
    if (host != NULL && host->progress != NULL) {
        host->progress(host->ctx, progress);
    }
}

bool cr_host_stopped(const struct cr_host *host)
{
    return host != NULL && host->stop != NULL && host->stop(host->ctx);
}

bool cr_host_verbose(const struct cr_host *host, const char *word)
{
    size_t n = strlen(word);
    const char *list = host != NULL ? host->verbose : NULL;
    while (list != NULL && *list != '\0') {
        size_t length = strcspn(list, ",");
        if (length == n && memcmp(list, word, n) == 0) {
            return true;
        }
        list += length + (list[length] == ',');
    }
    return false;
}
