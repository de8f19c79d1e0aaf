/* signals: a first request to stop is noted and polled, a second one ends the process. */
#ifndef CR_CLI_SIGNALS_H
#define CR_CLI_SIGNALS_H

#include <stdbool.h>

/* SIGPIPE and SIGXFSZ are ignored (the failed write is reported instead); SIGBUS from a mapped file that was cut ends
 * the program with the exit code of CR_E_IO and a line that names the file. Call once, first. */
void cr_cli_signals_init(void);

/* From here on SIGINT, SIGTERM and SIGHUP set a flag, unless the parent had them ignored; the second of them exits
 * with 128 + its number. */
void cr_cli_signals_catch(void);

bool cr_cli_signals_pending(void);

#endif
