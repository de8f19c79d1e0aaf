#include "runtime/cli/conflicts.h"

#include <stdio.h>
#include <string.h>

#include "runtime/cli/message.h"

/* For finetune; an adapter that goes on keeps its shape. */
static const enum cr_cli_option_id pairs[][2] = {
    {CR_CLI_EPOCHS, CR_CLI_STEPS}, {CR_CLI_VALID, CR_CLI_NO_VALID}, {CR_CLI_RESUME, CR_CLI_FORCE},
    {CR_CLI_ADAPTER, CR_CLI_RANK}, {CR_CLI_ADAPTER, CR_CLI_ALPHA},  {CR_CLI_ADAPTER, CR_CLI_TARGETS},
};

/* Further ones, of other commands, whose own checks refuse them on a line. */
static const enum cr_cli_option_id further[][2] = {
    {CR_CLI_VALID, CR_CLI_NO_VALID}, {CR_CLI_VALID, CR_CLI_PRIOR_PRECISION},
    {CR_CLI_MEAN, CR_CLI_SAMPLES},   {CR_CLI_MEAN, CR_CLI_POSTERIOR_TEMPERATURE},
    {CR_CLI_MEAN, CR_CLI_SAMPLE},
};

enum { N_PAIRS = sizeof pairs / sizeof pairs[0], N_FURTHER = sizeof further / sizeof further[0] };

static bool is_of_method(const struct cr_cli_option *option, const char *method)
{
    return (option->method == NULL || cr_cli_word_in(option->method, method)) &&
           (option->except == NULL || strcmp(option->except, method) != 0);
}

static bool from_line(const struct cr_cli_args *args, enum cr_cli_option_id id)
{
    return args->values[id].given && !args->values[id].from_file;
}

static void leave_aside(struct cr_cli_args *args, enum cr_cli_option_id id, enum cr_cli_option_id winner)
{
    if (args->note != NULL) {
        char line[256];
        snprintf(line, sizeof line, "--%s on the command line: --%s of the configuration file is left aside",
                 cr_cli_options[winner].name, cr_cli_options[id].name);
        args->note(args->note_ctx, line);
    }
    cr_cli_value_drop(&args->values[id]);
}

static void settle(struct cr_cli_args *args, enum cr_cli_option_id a, enum cr_cli_option_id b)
{
    if (from_line(args, a) && args->values[b].from_file) {
        leave_aside(args, b, a);
    } else if (from_line(args, b) && args->values[a].from_file) {
        leave_aside(args, a, b);
    }
}

void cr_cli_overrule(struct cr_cli_args *args)
{
    for (size_t i = 0; args->commands == CR_CLI_FINETUNE && i < N_PAIRS; i++) {
        settle(args, pairs[i][0], pairs[i][1]);
    }
    for (size_t i = 0; args->commands != CR_CLI_FINETUNE && i < N_FURTHER; i++) {
        settle(args, further[i][0], further[i][1]);
    }
    for (int id = 0; from_line(args, CR_CLI_METHOD) && id < CR_CLI_N_OPTIONS; id++) {
        if (args->values[id].from_file && !is_of_method(&cr_cli_options[id], cr_cli_text(args, CR_CLI_METHOD))) {
            leave_aside(args, (enum cr_cli_option_id)id, CR_CLI_METHOD);
        }
    }
}

cr_status cr_cli_check_pairs(const struct cr_cli_args *args, struct cr_error *err)
{
    for (size_t i = 0; i < N_PAIRS; i++) {
        if (cr_cli_given(args, pairs[i][0]) && cr_cli_given(args, pairs[i][1])) {
            return cr_cli_fail(err, CR_E_USAGE, "finetune: --%s and --%s exclude each other",
                               cr_cli_options[pairs[i][0]].name, cr_cli_options[pairs[i][1]].name);
        }
    }
    return CR_OK;
}

cr_status cr_cli_check_method(const struct cr_cli_args *args, const char *method, struct cr_error *err)
{
    for (int id = 0; id < CR_CLI_N_OPTIONS; id++) {
        const struct cr_cli_option *option = &cr_cli_options[id];
        if (!cr_cli_given(args, (enum cr_cli_option_id)id) || is_of_method(option, method)) {
            continue;
        }
        return option->except != NULL && strcmp(option->except, method) == 0
                   ? cr_cli_fail(err, CR_E_USAGE, "finetune: --%s has no meaning for --method %s", option->name, method)
                   : cr_cli_fail(err, CR_E_USAGE, "finetune: --%s belongs to --method %s, not to %s", option->name,
                                 option->method, method);
    }
    return CR_OK;
}
