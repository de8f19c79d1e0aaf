#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/cli/commands.h"
#include "runtime/cli/message.h"
#include "runtime/cli/output.h"
#include "runtime/cli/settings.h"

/* Operands taken apart. */
struct operands {
    struct cr_compare_entry *entries; /* owned */
    const char **files;               /* owned: of all entries */
    size_t n_files;
};

/* What stands behind the files whose answers are taken at their fitted temperature. */
#define CALIBRATED "@calibrated"

static bool cut_ending(char *text, const char *ending)
{
    size_t n = strlen(text), n_ending = strlen(ending);
    if (n < n_ending || strcmp(text + n - n_ending, ending) != 0) {
        return false;
    }
    text[n - n_ending] = '\0';
    return true;
}

/* [NAME=]FILE[,FILE...][@calibrated]: cuts the operand in place. One that is a file as it stands is no list. */
static void take_operand(char *operand, struct cr_compare_entry *entry, struct operands *o)
{
    char *sign = strchr(operand, '=');
    entry->files = &o->files[o->n_files];
    entry->calibrated = access(operand, F_OK) != 0 && cut_ending(operand, CALIBRATED);
    if (access(operand, F_OK) == 0) {
        o->files[o->n_files++] = operand;
        entry->n_files = 1;
        return;
    }
    if (sign != NULL && sign > operand && memchr(operand, '/', (size_t)(sign - operand)) == NULL) {
        *sign = '\0';
        entry->name = operand;
        operand = sign + 1;
    }
    for (char *file = operand; file != NULL; entry->n_files++) {
        char *comma = strchr(file, ',');
        o->files[o->n_files++] = file;
        if (comma != NULL) {
            *comma++ = '\0';
        }
        file = comma;
    }
}

static cr_status take_operands(const struct cr_cli_args *args, struct operands *o, struct cr_error *err)
{
    size_t n_files = args->n_operands;
    for (size_t i = 0; i < args->n_operands; i++) {
        for (const char *c = args->operands[i]; *c != '\0'; c++) {
            n_files += *c == ',';
        }
    }
    o->entries = calloc(args->n_operands, sizeof *o->entries);
    o->files = calloc(n_files, sizeof *o->files);
    if (o->entries == NULL || o->files == NULL) {
        return cr_cli_fail(err, CR_E_MEMORY, "no memory for %zu names", n_files);
    }
    for (size_t i = 0; i < args->n_operands; i++) {
        take_operand(args->operands[i], &o->entries[i], o);
    }
    return CR_OK;
}

cr_status cr_cli_run_compare(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err)
{
    struct cr_compare_options options;
    struct operands operands = {0};
    char *settings = cr_cli_settings_json(args);
    cr_status status = settings != NULL ? take_operands(args, &operands, err)
                                        : cr_cli_fail(err, CR_E_MEMORY, "no memory for the settings");
    if (status == CR_OK) {
        cr_compare_options_init(&options);
        options.entries = operands.entries;
        options.n_entries = args->n_operands;
        options.in_domain = cr_cli_text(args, CR_CLI_IN_DOMAIN);
        options.margin_accuracy = cr_cli_real(args, CR_CLI_MARGIN_ACCURACY, 0);
        options.margin_nll = cr_cli_real(args, CR_CLI_MARGIN_NLL, 0);
        options.json = cr_cli_text(args, CR_CLI_JSON);
        options.report = cr_cli_text(args, CR_CLI_REPORT);
        options.charts = cr_cli_text(args, CR_CLI_CHARTS);
        options.seed = cr_cli_uint(args, CR_CLI_SEED, 0);
        options.settings_json = settings;
        status = cr_compare(&options, &host->host, cr_cli_emit, NULL, err);
    }
    free(operands.entries);
    free(operands.files);
    free(settings);
    return status;
}
