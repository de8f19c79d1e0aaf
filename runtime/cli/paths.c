#include <string.h>
#include <sys/stat.h>

#include "credence/credence.h"
#include "runtime/cli/args.h"
#include "runtime/cli/message.h"

static bool is_path(const struct cr_cli_args *args, int id, enum cr_cli_kind kind)
{
    return args->values[id].given && cr_cli_options[id].kind == kind;
}

/* Two names of one file or directory. Names that cannot be asked about are compared as texts. */
static bool same_file(const char *a, const char *b)
{
    struct stat first, second;
    if (stat(a, &first) == 0 && stat(b, &second) == 0) {
        return first.st_dev == second.st_dev && first.st_ino == second.st_ino && !S_ISCHR(first.st_mode);
    }
    return strcmp(a, b) == 0;
}

/* True when the path is any value of the flag. */
static bool among(const struct cr_cli_args *args, int id, const char *path)
{
    size_t n;
    const char *const *texts = cr_cli_texts(args, (enum cr_cli_option_id)id, &n);
    for (size_t i = 0; i < n; i++) {
        if (same_file(path, texts[i])) {
            return true;
        }
    }
    return false;
}

/* The file of flags is an input that the library knows nothing of. */
static cr_status keep_config(const struct cr_cli_args *args, struct cr_error *err)
{
    const char *output = cr_cli_text(args, CR_CLI_OUTPUT), *config = cr_cli_text(args, CR_CLI_CONFIG);
    return output != NULL && config != NULL ? cr_output_check(output, "--config", config, err) : CR_OK;
}

cr_status cr_cli_args_check(const struct cr_cli_args *args, struct cr_error *err)
{
    for (int id = 0; id < CR_CLI_N_OPTIONS; id++) {
        const struct cr_cli_option *option = &cr_cli_options[id];
        if ((option->required & args->commands) != 0 && !args->values[id].given) {
            return cr_cli_fail(err, CR_E_USAGE, "%s: --%s %s is missing", args->command, option->name, option->value);
        }
        if (!is_path(args, id, CR_CLI_OUTPUT_PATH)) {
            continue;
        }
        for (int other = 0; other < CR_CLI_N_OPTIONS; other++) {
            bool input = is_path(args, other, CR_CLI_INPUT);
            bool earlier_output = other < id && is_path(args, other, CR_CLI_OUTPUT_PATH);
            if ((input || earlier_output) && among(args, other, args->values[id].text)) {
                return cr_cli_fail(err, CR_E_USAGE, "%s: --%s and --%s are the same: \"%s\"", args->command,
                                   option->name, cr_cli_options[other].name, cr_cli_quote(args->values[id].text));
            }
        }
    }
    return keep_config(args, err);
}
