#include <math.h>

#include "runtime/cli/commands.h"
#include "runtime/cli/output.h"

cr_status cr_cli_run_laplace(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err)
{
    struct cr_laplace_options options = {
        .size = sizeof options,
        .model = cr_cli_text(args, CR_CLI_MODEL),
        .data = cr_cli_text(args, CR_CLI_DATA),
        .adapter = cr_cli_text(args, CR_CLI_ADAPTER),
        .output = cr_cli_text(args, CR_CLI_OUTPUT),
        .valid = cr_cli_text(args, CR_CLI_VALID),
        .prior_precision = cr_cli_real(args, CR_CLI_PRIOR_PRECISION, 0),
        .max_seq_length = (uint32_t)cr_cli_uint(args, CR_CLI_MAX_SEQ_LENGTH, 0),
        .on_long_skip = cr_cli_is(args, CR_CLI_ON_LONG, "skip"),
        .normalize = cr_cli_text(args, CR_CLI_NORMALIZE),
        .force = cr_cli_given(args, CR_CLI_FORCE),
        .allow_inexact = cr_cli_given(args, CR_CLI_ALLOW_INEXACT),
        .seed = cr_cli_uint(args, CR_CLI_SEED, 0),
        .no_valid = cr_cli_given(args, CR_CLI_NO_VALID),
    };
    struct cr_laplace_result r = {0};
    cr_status status = cr_laplace(&options, &host->host, &r, err);
    cr_cli_host_finish(host, status);
    if (status != CR_OK) {
        return status;
    }
    cr_cli_print("curvature of %llu examples, %llu tokens, in %.1f s\n", (unsigned long long)r.n_examples,
                 (unsigned long long)r.tokens, r.seconds);
    cr_cli_print("prior precision %g, log-likelihood %.4f, evidence %.4f\n", r.prior_precision, r.log_likelihood,
                 r.evidence);
    if (isfinite(r.valid_nll[0])) {
        cr_cli_print("validation NLL %.4f, of the point %.4f\n", r.valid_nll[1], r.valid_nll[0]);
    }
    cr_cli_print("posterior: %s\n", options.output);
    return CR_OK;
}
