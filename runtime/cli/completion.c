#include <string.h>

#include "runtime/cli/help.h"
#include "runtime/cli/message.h"
#include "runtime/cli/output.h"

static bool offered(const struct cr_cli_option *option, unsigned command)
{
    return (option->commands & command) != 0;
}

/* Words after `--flag`: the fixed ones of the table; files otherwise. */
static void print_words_case(const struct cr_cli_option *option)
{
    cr_cli_print("    --%s) words=\"", option->name);
    for (const char *p = option->value; *p != '\0'; p++) {
        cr_cli_print("%c", *p == '|' ? ' ' : *p);
    }
    cr_cli_print("\" ;;\n");
}

static void print_command_case(const struct cr_cli_command *command)
{
    cr_cli_print("        %s) words=\"", command->name);
    const char *separator = "";
    for (int id = 0; id < CR_CLI_N_OPTIONS; id++) {
        if (offered(&cr_cli_options[id], command->bit)) {
            cr_cli_print("%s--%s", separator, cr_cli_options[id].name);
            separator = " ";
        }
    }
    cr_cli_print("\" ;;\n");
}

cr_status cr_cli_completion(const char *shell, struct cr_error *err)
{
    if (strcmp(shell, "bash") != 0) {
        return cr_cli_fail(err, CR_E_USAGE, "--completion: expected bash, got \"%s\"", cr_cli_quote(shell));
    }
    cr_cli_print("# bash completion for credence\n_credence()\n{\n"
                 "    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words=\n"
                 "    COMPREPLY=()\n    case $before in\n    credence) words=\"");
    for (size_t i = 0; i < cr_cli_n_commands; i++) {
        cr_cli_print("%s ", cr_cli_commands[i].name);
    }
    cr_cli_print("--help --version --man --completion\" ;;\n    --completion) words=\"bash\" ;;\n");
    for (int id = 0; id < CR_CLI_N_OPTIONS; id++) {
        enum cr_cli_kind kind = cr_cli_options[id].kind;
        if (kind == CR_CLI_WORD || kind == CR_CLI_WORDS) {
            print_words_case(&cr_cli_options[id]);
        }
    }
    cr_cli_print("    esac\n    if [[ -z $words && $current == -* ]]; then\n        case ${COMP_WORDS[1]} in\n");
    for (size_t i = 0; i < cr_cli_n_commands; i++) {
        print_command_case(&cr_cli_commands[i]);
    }
    cr_cli_print("        esac\n    fi\n    [[ -n $words ]] && COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
                 "}\ncomplete -o default -F _credence credence\n");
    return CR_OK;
}
