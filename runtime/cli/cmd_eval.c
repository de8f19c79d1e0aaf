#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/cli/commands.h"
#include "runtime/cli/message.h"
#include "runtime/cli/output.h"
#include "runtime/cli/settings.h"

static void fill_options(const struct cr_cli_args *args, struct cr_eval_options *o)
{
    cr_eval_options_init(o);
    o->model = cr_cli_text(args, CR_CLI_MODEL);
    o->data = cr_cli_text(args, CR_CLI_DATA);
    o->adapters = cr_cli_texts(args, CR_CLI_ADAPTER, &o->n_adapters);
    o->ood = cr_cli_text(args, CR_CLI_OOD);
    o->calibrate = cr_cli_text(args, CR_CLI_CALIBRATE);
    o->json = cr_cli_text(args, CR_CLI_JSON);
    o->no_examples = cr_cli_given(args, CR_CLI_NO_EXAMPLES);
    o->report = cr_cli_text(args, CR_CLI_REPORT);
    o->chat_template = cr_cli_text(args, CR_CLI_CHAT_TEMPLATE);
    o->system = cr_cli_text(args, CR_CLI_SYSTEM);
    o->normalize = cr_cli_text(args, CR_CLI_NORMALIZE);
    o->batch_size = (uint32_t)cr_cli_uint(args, CR_CLI_BATCH_SIZE, o->batch_size);
    o->max_seq_length = (uint32_t)cr_cli_uint(args, CR_CLI_MAX_SEQ_LENGTH, o->max_seq_length);
    o->seed = cr_cli_uint(args, CR_CLI_SEED, o->seed);
    o->samples = (uint32_t)cr_cli_uint(args, CR_CLI_SAMPLES, 0);
    o->mean = cr_cli_given(args, CR_CLI_MEAN);
    o->vertex_set = cr_cli_given(args, CR_CLI_VERTEX);
    o->vertex = (uint32_t)cr_cli_uint(args, CR_CLI_VERTEX, 0);
    o->weights = cr_cli_given(args, CR_CLI_WEIGHTS);
    o->mc_dropout = cr_cli_given(args, CR_CLI_MC_DROPOUT);
    o->posterior_temperature = cr_cli_real(args, CR_CLI_POSTERIOR_TEMPERATURE, 0);
    o->prune = cr_cli_real(args, CR_CLI_PRUNE, 0);
    o->on_long_skip = cr_cli_is(args, CR_CLI_ON_LONG, "skip");
    o->train_on_prompt = cr_cli_is(args, CR_CLI_MASK_PROMPT, "no");
    o->strict_task = cr_cli_given(args, CR_CLI_STRICT_TASK);
    o->allow_inexact = cr_cli_given(args, CR_CLI_ALLOW_INEXACT);
}

/* A figure in a column; a dash where it does not apply. */
static void print_figure(double value, int width, int decimals)
{
    if (isfinite(value)) {
        cr_cli_print(" %*.*f", width, decimals, value);
    } else {
        cr_cli_print(" %*s", width, "-");
    }
}

static void print_row(const char *name, const struct cr_group_metrics *m, bool classification, int width)
{
    cr_cli_print("%-*s %8llu", width, name, (unsigned long long)m->n);
    if (classification) {
        print_figure(m->accuracy, 9, 4);
        print_figure(m->nll, 8, 4);
        print_figure(m->ece, 8, 4);
        print_figure(m->brier, 8, 4);
        print_figure(m->auroc_error, 12, 4);
    } else {
        print_figure(m->nll, 8, 4);
        print_figure(m->perplexity, 11, 3);
    }
    cr_cli_print("\n");
}

/* The rows again at the fitted temperature. */
static void print_calibrated(const struct cr_eval_result *r, int width)
{
    cr_cli_print("calibrated: temperature %.4f, fitted on %llu examples (their NLL %.4f, raw %.4f)\n", r->temperature,
                 (unsigned long long)r->n_calibration, r->calibration_nll[1], r->calibration_nll[0]);
    for (size_t i = 0; i < r->n_groups; i++) {
        print_row(cr_cli_quote(r->groups[i].task), &r->calibrated[1 + i], true, width);
    }
    print_row("all", &r->calibrated[0], true, width);
}

static void print_result(const struct cr_eval_result *r)
{
    int width = 4;
    for (size_t i = 0; i < r->n_groups; i++) {
        int n = (int)strlen(cr_cli_quote(r->groups[i].task));
        width = n > width ? n : width;
    }
    cr_cli_print("%-*s %8s", width, "task", r->classification ? "n" : "tokens");
    cr_cli_print(r->classification ? "  accuracy      NLL      ECE    Brier  AUROC error\n"
                                   : "      NLL  perplexity\n");
    for (size_t i = 0; i < r->n_groups; i++) {
        print_row(cr_cli_quote(r->groups[i].task), &r->groups[i], r->classification, width);
    }
    print_row("all", &r->all, r->classification, width);
    if (r->calibrated != NULL) {
        print_calibrated(r, width);
    }
    if (r->n_members > 1 && r->classification) {
        cr_cli_print("%zu sets of weights: entropy %.4f, of which %.4f by their disagreement (mutual information); "
                     "%.2f %% answer otherwise than their mean\n",
                     r->n_members, r->all.entropy, r->all.mutual_information, 100 * r->all.disagreement);
    } else if (r->samples > 1 && r->classification) {
        cr_cli_print("%u draws of the linearised model: entropy %.4f, of which %.4f by their disagreement (mutual "
                     "information)\n",
                     r->samples, r->all.entropy, r->all.mutual_information);
    } else if (r->n_members > 1) {
        cr_cli_print("%zu sets of weights\n", r->n_members);
    }
    if (r->n_global > 0) {
        cr_cli_print("%llu examples of unknown tasks, answered by the tasks' common adapter\n",
                     (unsigned long long)r->n_global);
    }
    if (r->has_ood) {
        cr_cli_print("elsewhere: %llu examples, AUROC %.4f, average precision %.4f, entropy %.4f against %.4f\n",
                     (unsigned long long)r->ood.n_out, r->ood.auroc, r->ood.average_precision, r->ood.mean_out,
                     r->ood.mean_in);
    }
    cr_cli_print("method %s, %llu tokens in %.1f s (%.0f tokens/s)\n", r->method, (unsigned long long)r->tokens,
                 r->seconds, r->tok_s);
}

cr_status cr_cli_run_eval(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err)
{
    struct cr_eval_options options;
    struct cr_eval_result result = {0};
    fill_options(args, &options);
    char *settings = cr_cli_settings_json(args);
    if (settings == NULL) {
        return cr_cli_fail(err, CR_E_MEMORY, "no memory for the settings");
    }
    options.settings_json = settings;
    cr_status status = cr_eval(&options, &host->host, &result, err);
    cr_cli_host_finish(host, status);
    if (result.n_members > 0) { /* known, also where a file of it could not be written */
        print_result(&result);
    }
    cr_eval_result_deinit(&result);
    free(settings);
    return status;
}

/* ctx: the host when its line of progress may stand on the same terminal, else NULL. */
static bool print_line(void *ctx, const char *line)
{
    if (ctx != NULL) {
        cr_cli_host_finish(ctx, CR_OK);
    }
    return cr_cli_emit(NULL, line, strlen(line)) && cr_cli_emit(NULL, "\n", 1);
}

cr_status cr_cli_run_predict(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err)
{
    struct cr_eval_options options;
    fill_options(args, &options);
    return cr_predict(&options, &host->host, print_line, isatty(STDOUT_FILENO) ? host : NULL, err);
}
