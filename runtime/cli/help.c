#include "runtime/cli/help.h"

#include <stdio.h>
#include <string.h>

#include "credence/credence.h"
#include "runtime/cli/output.h"

enum { NAME_COLUMNS = 34, LINE_COLUMNS = 108 };

void cr_cli_help(void)
{
    cr_cli_print("usage: credence COMMAND [FLAG ...]\n\n"
                 "Fine-tunes quantised language models (GGUF) on a CPU and says how sure they are.\n\n");
    for (size_t i = 0; i < cr_cli_n_commands; i++) {
        cr_cli_print("  %-10s %s\n", cr_cli_commands[i].name, cr_cli_commands[i].summary);
    }
    cr_cli_print("\ncredence COMMAND --help tells the flags of a command. Also: --version, --man, --completion bash.\n"
                 "Exit codes: 0 done, 2 usage, 3 bad input file, 4 input/output, 5 memory, 6 diverged,\n"
                 "7 stopped after a checkpoint, 8 output busy or resume not exact.\n");
}

/* Prints text broken at spaces, the first line at column `column`. */
static void print_wrapped(const char *text, size_t column)
{
    size_t at = NAME_COLUMNS;
    cr_cli_print("%*s", column < NAME_COLUMNS ? (int)(NAME_COLUMNS - column) : 0, "");
    if (column >= NAME_COLUMNS) {
        cr_cli_print("\n%*s", NAME_COLUMNS, "");
    }
    while (*text != '\0') {
        size_t n = strcspn(text, " ");
        if (at + n > LINE_COLUMNS && at > NAME_COLUMNS) {
            cr_cli_print("\n%*s", NAME_COLUMNS, "");
            at = NAME_COLUMNS;
        }
        size_t spaces = strspn(text + n, " ");
        cr_cli_print("%.*s", (int)(n + spaces), text);
        at += n + spaces;
        text += n + spaces;
    }
    cr_cli_print("\n");
}

static void print_option(const struct cr_cli_option *option, unsigned command)
{
    char left[96];
    char right[320];
    char letter[5] = "    ";
    if (option->letter != 0) {
        snprintf(letter, sizeof letter, "-%c, ", option->letter);
    }
    int n = snprintf(left, sizeof left, "  %s--%s", letter, option->name);
    if (option->alias != NULL) {
        n += snprintf(left + n, sizeof left - (size_t)n, ", --%s", option->alias);
    }
    if (option->value != NULL) {
        n += snprintf(left + n, sizeof left - (size_t)n, " %s", option->value);
    }
    const char *note = (option->required & command) != 0 ? " (required)" : "";
    snprintf(right, sizeof right, option->initial != NULL ? "%s%s [%s]" : "%s%s", option->help, note, option->initial);
    cr_cli_print("%s", left);
    print_wrapped(right, (size_t)n + 1);
}

static void print_options(unsigned command, bool common)
{
    for (int id = 0; id < CR_CLI_N_OPTIONS; id++) {
        const struct cr_cli_option *option = &cr_cli_options[id];
        bool is_common = option->commands == CR_CLI_EVERY;
        if ((option->commands & command) != 0 && is_common == common) {
            print_option(option, command);
        }
    }
}

void cr_cli_help_command(const struct cr_cli_command *command)
{
    cr_cli_print("usage: credence %s [FLAG ...]%s%s\n\n%s.\n", command->name, command->operands[0] == '\0' ? "" : " ",
                 command->operands, command->summary);
    if (command->detail[0] != '\0') {
        cr_cli_print("%s", command->detail);
    }
    cr_cli_print("\n");
    print_options(command->bit, false);
    cr_cli_print("\nEvery command takes:\n");
    print_options(command->bit, true);
}

void cr_cli_version(void)
{
    struct cr_cpu cpu;
    cr_cpu_detect(&cpu);
    cr_cli_print("%s\nprocessor: %s\ntiers: scalar", cr_version_text(), cpu.name[0] != '\0' ? cpu.name : "unknown");
    for (int tier = 1; tier < 32; tier++) {
        if ((cpu.features >> tier & 1) != 0) {
            cr_cli_print(" %s", cr_tier_name((enum cr_tier)tier));
        }
    }
    cr_cli_print(" (best: %s)\n", cr_tier_name(cpu.tier));
}
