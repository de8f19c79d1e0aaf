/* commands: what the program can do, one function each. */
#ifndef CR_CLI_COMMANDS_H
#define CR_CLI_COMMANDS_H

#include "runtime/cli/args.h"
#include "runtime/cli/host.h"

struct cr_cli_command {
    const char *name;
    unsigned bit;
    const char *operands; /* as usage says them, "" = none */
    size_t min_operands, max_operands;
    const char *summary; /* one line */
    const char *detail;  /* a paragraph for help; lines end in \n */
    bool polls;          /* its work asks host.stop: the first signal only requests a stop */
    cr_status (*run)(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err);
};

extern const struct cr_cli_command cr_cli_commands[];
extern const size_t cr_cli_n_commands;

/* NULL when there is none of that name. */
const struct cr_cli_command *cr_cli_command_find(const char *name);

cr_status cr_cli_run_finetune(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err);
cr_status cr_cli_run_eval(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err);
cr_status cr_cli_run_predict(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err);
cr_status cr_cli_run_export(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err);
cr_status cr_cli_run_compare(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err);
cr_status cr_cli_run_info(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err);
cr_status cr_cli_run_data(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err);
cr_status cr_cli_run_tokenize(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err);
cr_status cr_cli_run_laplace(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err);
cr_status cr_cli_run_cpu(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err);

#endif
