/* help: texts made from the tables of commands and options, on standard output. */
#ifndef CR_CLI_HELP_H
#define CR_CLI_HELP_H

#include "runtime/cli/commands.h"

void cr_cli_help(void);
void cr_cli_help_command(const struct cr_cli_command *command);
void cr_cli_manual(void); /* section 1, in mdoc */

/* Script that completes commands, flags and their words. Only bash is known. Errors: CR_E_USAGE. */
cr_status cr_cli_completion(const char *shell, struct cr_error *err);

void cr_cli_version(void);

#endif
