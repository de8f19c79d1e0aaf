#include <unistd.h>

#include "runtime/cli/commands.h"
#include "runtime/cli/output.h"

cr_status cr_cli_run_data(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err)
{
    (void)host;
    struct cr_data_options options = {
        .size = sizeof options,
        .model = cr_cli_text(args, CR_CLI_MODEL),
        .data = cr_cli_text(args, CR_CLI_DATA),
        .max_seq_length = (uint32_t)cr_cli_uint(args, CR_CLI_MAX_SEQ_LENGTH, 0),
        .on_long_skip = cr_cli_is(args, CR_CLI_ON_LONG, "skip"),
        .train_on_prompt = cr_cli_is(args, CR_CLI_MASK_PROMPT, "no"),
        .color = cr_cli_color(STDOUT_FILENO),
        .chat_template = cr_cli_text(args, CR_CLI_CHAT_TEMPLATE),
        .system = cr_cli_text(args, CR_CLI_SYSTEM),
        .normalize = cr_cli_text(args, CR_CLI_NORMALIZE),
    };
    return cr_data_show(&options, cr_cli_emit, NULL, err);
}
