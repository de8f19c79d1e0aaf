#include "runtime/cli/commands.h"
#include "runtime/cli/output.h"

cr_status cr_cli_run_info(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err)
{
    (void)host;
    return cr_info(args->operands[0], cr_cli_emit, NULL, err);
}
