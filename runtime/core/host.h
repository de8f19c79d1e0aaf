/* Talking to the caller of a job: every callback of struct cr_host is optional, and so is the struct itself. */
#ifndef CR_CORE_HOST_H
#define CR_CORE_HOST_H

#include <stdbool.h>

#include "credence/credence.h"

/* One line, printf form, cut at 1023 bytes. Bytes from files must have gone through cr_escape. */
void cr_host_log(const struct cr_host *host, enum cr_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Progress of a phase without a number yet. */
struct cr_progress cr_progress_of(const char *phase);

void cr_host_progress(const struct cr_host *host, const struct cr_progress *progress);

/* Whether the caller asked for this word of struct cr_host's `verbose`. */
bool cr_host_verbose(const struct cr_host *host, const char *word);

/* True once the caller wants the work to end. */
bool cr_host_stopped(const struct cr_host *host);

#endif
