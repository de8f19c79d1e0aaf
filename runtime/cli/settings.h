/* settings: the flags of a run, as given, as one JSON object for the record. */
#ifndef CR_CLI_SETTINGS_H
#define CR_CLI_SETTINGS_H

#include "runtime/cli/args.h"

/* Returns owned (free), NULL when memory cannot be had. Numbers are numbers, switches true, values of a flag that was
 * repeated a list; bytes that are not UTF-8 become U+FFFD. --config is left out: its flags are here, so that what is
 * recorded can be given as such a file. */
char *cr_cli_settings_json(const struct cr_cli_args *args);

#endif
