/* host: the program's side of a call into the library: threads, tier, messages, progress, the wish to stop. */
#ifndef CR_CLI_HOST_H
#define CR_CLI_HOST_H

#include "credence/credence.h"
#include "runtime/cli/args.h"

struct cr_cli_host {
    struct cr_host host; /* give &host to the library */
    bool quiet;
    bool live;           /* standard error is a terminal: one line, rewritten */
    size_t live_columns; /* of the line that stands there now, 0 = none */
    double last_s;       /* when it was written */
};

/* Takes --threads (else OMP_NUM_THREADS), --cpu (else CREDENCE_CPU), --memory, --verbose, --quiet. Errors: CR_E_USAGE
 * for a tier that is unknown or missing on this machine. */
cr_status cr_cli_host_init(struct cr_cli_host *host, const struct cr_cli_args *args, struct cr_error *err);

/* Ends the line of progress, if one stands. */
void cr_cli_host_finish(struct cr_cli_host *host);

/* Notes and warnings, as the library's log callback does; ctx is the host. */
void cr_cli_log(void *ctx, enum cr_log_level level, const char *line);

/* True when colours are welcome on this descriptor: a terminal, not a dumb one, and NO_COLOR unset or empty. */
bool cr_cli_color(int fd);

#endif
