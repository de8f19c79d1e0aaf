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
    bool started;        /* work goes on: notes are printed at once */
    char held[2048];     /* notes from before, lines with \n: a refusal is then one line, not a story */
    size_t n_held;
};

/* Takes --threads (else OMP_NUM_THREADS), --threads-by, --cpu (else CREDENCE_CPU), --memory, --verbose, --quiet.
 * Errors: CR_E_USAGE for a tier that is unknown or missing on this machine. */
cr_status cr_cli_host_init(struct cr_cli_host *host, const struct cr_cli_args *args, struct cr_error *err);

/* Ends the line of progress, if one stands. Notes still held are printed when the work succeeded, else dropped. */
void cr_cli_host_finish(struct cr_cli_host *host, cr_status status);

/* True when colours are welcome on this descriptor: a terminal, not a dumb one, and NO_COLOR unset or empty. */
bool cr_cli_color(int fd);

#endif
