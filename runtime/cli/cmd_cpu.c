#include "runtime/cli/commands.h"
#include "runtime/cli/output.h"

cr_status cr_cli_run_cpu(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err)
{
    (void)args;
    return cr_cpu_report(&host->host, cr_cli_emit, NULL, err);
}
