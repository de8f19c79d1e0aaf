/* credence: the program. Everything it can do is in the table of commands; this file chooses and reports. */
#include <stdio.h>
#include <string.h>

#include "runtime/cli/commands.h"
#include "runtime/cli/conflicts.h"
#include "runtime/cli/help.h"
#include "runtime/cli/message.h"
#include "runtime/cli/nearest.h"
#include "runtime/cli/output.h"
#include "runtime/cli/signals.h"

static cr_status unknown_command(const char *word, struct cr_error *err)
{
    const char *near = NULL;
    size_t limit = 2;
    for (size_t i = 0; i < cr_cli_n_commands && word[0] != '-'; i++) {
        size_t edits = cr_cli_edits(word, strlen(word), cr_cli_commands[i].name);
        if (edits <= limit) {
            limit = edits;
            near = cr_cli_commands[i].name;
        }
    }
    if (near != NULL) {
        return cr_cli_fail(err, CR_E_USAGE, "unknown command \"%s\" (did you mean %s?)", cr_cli_quote(word), near);
    }
    return cr_cli_fail(err, CR_E_USAGE, "%s \"%s\" (see credence --help)",
                       word[0] == '-' ? "expected a command, got" : "unknown command", cr_cli_quote(word));
}

static void print_note(void *ctx, const char *line)
{
    (void)ctx;
    cr_cli_complain(line);
}

static cr_status run_parsed(const struct cr_cli_command *command, struct cr_cli_args *args, struct cr_error *err)
{
    if (cr_cli_given(args, CR_CLI_HELP)) {
        cr_cli_help_command(command);
        return CR_OK;
    }
    if (cr_cli_given(args, CR_CLI_VERSION)) {
        cr_cli_version();
        return CR_OK;
    }
    if (!cr_cli_given(args, CR_CLI_QUIET)) {
        args->note = print_note;
    }
    cr_status status = cr_cli_args_read_config(args, err);
    if (status == CR_OK) {
        cr_cli_overrule(args);
        status = cr_cli_args_check(args, err);
    }
    if (status != CR_OK) {
        return status;
    }
    if (args->n_operands > command->max_operands) {
        return cr_cli_fail(err, CR_E_USAGE, "%s: unexpected argument \"%s\"", command->name,
                           cr_cli_quote(args->operands[command->max_operands]));
    }
    if (args->n_operands < command->min_operands) {
        return cr_cli_fail(err, CR_E_USAGE, "%s: %s is missing", command->name, command->operands);
    }
    struct cr_cli_host host = {0};
    status = cr_cli_host_init(&host, args, err);
    if (status == CR_OK) {
        if (command->polls) {
            cr_cli_signals_catch();
        }
        status = command->run(args, &host, err);
        cr_cli_host_finish(&host, status);
    }
    return status;
}

static cr_status run_command(const struct cr_cli_command *command, int argc, char **argv, struct cr_error *err)
{
    struct cr_cli_args args = {0};
    cr_status status = cr_cli_args_parse(&args, command->name, command->bit, argc, argv, err);
    if (status == CR_OK) {
        status = run_parsed(command, &args, err);
    }
    cr_cli_args_deinit(&args);
    return status;
}

/* The words that stand in the place of a command. *taken = 0 when argv[1] is none of them. */
static cr_status run_global(int argc, char **argv, int *taken, struct cr_error *err)
{
    const char *word = argv[1];
    bool completes = strcmp(word, "--completion") == 0;
    *taken = completes ? 3 : 2;
    if (completes && argc < 3) {
        return cr_cli_fail(err, CR_E_USAGE, "--completion needs a value (bash)");
    }
    if (argc <= *taken) {
        if (completes) {
            return cr_cli_completion(argv[2], err);
        }
        if (strcmp(word, "--version") == 0) {
            cr_cli_version();
            return CR_OK;
        }
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
            cr_cli_help();
            return CR_OK;
        }
        if (strcmp(word, "--man") == 0) {
            cr_cli_manual();
            return CR_OK;
        }
    }
    *taken = 0;
    return CR_OK;
}

static cr_status dispatch(int argc, char **argv, struct cr_error *err)
{
    if (argc < 2) {
        return cr_cli_fail(err, CR_E_USAGE, "expected a command (see credence --help)");
    }
    int taken;
    cr_status status = run_global(argc, argv, &taken, err);
    if (taken != 0) {
        return status;
    }
    const struct cr_cli_command *command = cr_cli_command_find(argv[1]);
    if (command == NULL && strcmp(argv[1], "help") == 0 && argc == 3) { /* credence help COMMAND */
        command = cr_cli_command_find(argv[2]);
        if (command != NULL) {
            cr_cli_help_command(command);
            return CR_OK;
        }
        return unknown_command(argv[2], err);
    }
    return command == NULL ? unknown_command(argv[1], err) : run_command(command, argc - 1, argv + 1, err);
}

int main(int argc, char **argv)
{
    struct cr_error err = {0};
    cr_cli_output_guard();
    cr_cli_signals_init();
    cr_status status = dispatch(argc, argv, &err);
    struct cr_error lost = {0};
    if (cr_cli_output_finish(&lost) != CR_OK && (status == CR_OK || status == CR_E_IO)) {
        err = lost;
        status = lost.status;
    }
    if (status != CR_OK) {
        cr_cli_complain(err.message);
    }
    return -status;
}
