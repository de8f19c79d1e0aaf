#include <string.h>

#include "runtime/cli/help.h"
#include "runtime/cli/output.h"

/* Text as mdoc wants it: a backslash doubled, a dash that stays a dash, no request at the start of a line. */
static void print_text(const char *text)
{
    for (size_t i = 0; text[i] != '\0'; i++) {
        if ((i == 0 || text[i - 1] == '\n') && (text[i] == '.' || text[i] == '\'')) {
            cr_cli_print("\\&");
        }
        const char *as = text[i] == '\\' ? "\\e" : text[i] == '-' ? "\\-" : NULL;
        if (as != NULL) {
            cr_cli_print("%s", as);
        } else {
            cr_cli_print("%c", text[i]);
        }
    }
}

static void print_item(const struct cr_cli_option *option)
{
    cr_cli_print(".It ");
    if (option->letter != 0) {
        cr_cli_print("Fl %c , ", option->letter);
    }
    cr_cli_print("Fl \\-%s", option->name);
    if (option->alias != NULL) {
        cr_cli_print(" , Fl \\-%s", option->alias);
    }
    if (option->value != NULL) {
        cr_cli_print(" Ar %s", option->value);
    }
    cr_cli_print("\n");
    print_text(option->help);
    if (option->initial != NULL) {
        cr_cli_print(" (default: ");
        print_text(option->initial);
        cr_cli_print(")");
    }
    cr_cli_print(".\n");
}

static void print_list(unsigned command, bool common)
{
    cr_cli_print(".Bl -tag -width Ds\n");
    for (int id = 0; id < CR_CLI_N_OPTIONS; id++) {
        const struct cr_cli_option *option = &cr_cli_options[id];
        if ((option->commands & command) != 0 && (option->commands == CR_CLI_EVERY) == common) {
            print_item(option);
        }
    }
    cr_cli_print(".El\n");
}

static bool has_own_options(unsigned command)
{
    for (int id = 0; id < CR_CLI_N_OPTIONS; id++) {
        const struct cr_cli_option *option = &cr_cli_options[id];
        if ((option->commands & command) != 0 && option->commands != CR_CLI_EVERY) {
            return true;
        }
    }
    return false;
}

static void print_command(const struct cr_cli_command *command)
{
    cr_cli_print(".Ss credence %s", command->name);
    cr_cli_print(command->operands[0] != '\0' ? " %s\n" : "%s\n", command->operands);
    print_text(command->summary);
    cr_cli_print(".\n");
    print_text(command->detail);
    if (has_own_options(command->bit)) {
        print_list(command->bit, false);
    }
}

void cr_cli_manual(void)
{
    cr_cli_print(".Dd $Mdocdate$\n.Dt CREDENCE 1\n.Os\n.Sh NAME\n.Nm credence\n"
                 ".Nd fine\\-tune quantised language models on a CPU\n"
                 ".Sh SYNOPSIS\n.Nm\n.Ar command\n.Op Ar flags\n.Sh DESCRIPTION\n"
                 "Trains low\\-rank adapters for a model that stays in its GGUF blocks, and says how sure the result "
                 "is.\n.Sh COMMANDS\n");
    for (size_t i = 0; i < cr_cli_n_commands; i++) {
        print_command(&cr_cli_commands[i]);
    }
    cr_cli_print(".Ss Flags of every command\n");
    print_list(CR_CLI_EVERY, true);
    cr_cli_print(".Sh ENVIRONMENT\n.Bl -tag -width Ds\n"
                 ".It Ev CREDENCE_CPU\nInstruction set to stay within, as\n.Fl \\-cpu .\n"
                 ".It Ev OMP_NUM_THREADS\nThreads when\n.Fl \\-threads\nis not given.\n"
                 ".It Ev OMP_WAIT_POLICY\n.Dq passive\nlets OpenMP's threads sleep while they wait, "
                 "for shared machines.\n"
                 ".It Ev NO_COLOR\nNo colours.\n.El\n"
                 ".Sh EXIT STATUS\n.Bl -tag -width Ds -compact\n"
                 ".It 0\ndone\n.It 2\nusage\n.It 3\nbad input file\n.It 4\ninput or output failed\n.It 5\nmemory\n"
                 ".It 6\ntraining diverged\n.It 7\nstopped by a signal after a checkpoint\n"
                 ".It 8\noutput busy, or a resume would not be exact\n.El\n");
}
