/* message: the program's own failures and the one line it prints for each. */
#ifndef CR_CLI_MESSAGE_H
#define CR_CLI_MESSAGE_H

#include <stddef.h>

#include "credence/status.h"

/* Writes the message (printf form) into err and returns status. */
cr_status cr_cli_fail(struct cr_error *err, cr_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A word of the user as it may stand in a message: bytes other than printable ASCII become \xNN, cut after 100.
 * Writes into one of four rotating buffers: valid until the fourth call after. */
const char *cr_cli_quote(const char *word);

/* "credence: message" and a line feed on standard error, in one write. */
void cr_cli_complain(const char *message);

#endif
