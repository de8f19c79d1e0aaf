/* conflicts: flags that exclude each other, among themselves and by the method. */
#ifndef CR_CLI_CONFLICTS_H
#define CR_CLI_CONFLICTS_H

#include "runtime/cli/args.h"

/* Leaves values of the configuration file aside that a flag on the command line excludes, and says so by args->note. */
void cr_cli_overrule(struct cr_cli_args *args);

/* finetune: no two flags that exclude each other. Errors: CR_E_USAGE naming both. */
cr_status cr_cli_check_pairs(const struct cr_cli_args *args, struct cr_error *err);

/* finetune: no flag that is of another method than the one that runs. Errors: CR_E_USAGE naming both. */
cr_status cr_cli_check_method(const struct cr_cli_args *args, const char *method, struct cr_error *err);

#endif
