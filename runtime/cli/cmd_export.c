#include "runtime/cli/commands.h"
#include "runtime/cli/output.h"

cr_status cr_cli_run_export(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err)
{
    struct cr_export_options options = {
        .size = sizeof options,
        .model = cr_cli_text(args, CR_CLI_MODEL),
        .adapter = cr_cli_text(args, CR_CLI_ADAPTER),
        .format = cr_cli_given(args, CR_CLI_FORMAT) ? cr_cli_text(args, CR_CLI_FORMAT) : "peft",
        .output = cr_cli_text(args, CR_CLI_OUTPUT),
        .force = cr_cli_given(args, CR_CLI_FORCE),
        .allow_inexact = cr_cli_given(args, CR_CLI_ALLOW_INEXACT),
        .mean = cr_cli_given(args, CR_CLI_MEAN),
        .sample_set = cr_cli_given(args, CR_CLI_SAMPLE),
        .sample = (uint32_t)cr_cli_uint(args, CR_CLI_SAMPLE, 0),
        .seed = cr_cli_uint(args, CR_CLI_SEED, 0),
        .posterior_temperature = cr_cli_real(args, CR_CLI_POSTERIOR_TEMPERATURE, 0),
        .member_set = cr_cli_given(args, CR_CLI_MEMBER),
        .member = (uint32_t)cr_cli_uint(args, CR_CLI_MEMBER, 0),
        .drop_head = cr_cli_given(args, CR_CLI_DROP_HEAD),
        .task = cr_cli_text(args, CR_CLI_TASK),
        .prune = cr_cli_real(args, CR_CLI_PRUNE, 0),
    };
    cr_status status = cr_export(&options, &host->host, err);
    if (status == CR_OK && !host->quiet) {
        cr_cli_print("%s: %s\n", options.format, options.output);
    }
    return status;
}
