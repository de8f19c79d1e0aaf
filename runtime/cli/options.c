#include "runtime/cli/options.h"

#include <stdio.h>
#include <string.h>

static bool same(const char *name, const char *text, size_t n)
{
    return name != NULL && strlen(name) == n && memcmp(name, text, n) == 0;
}

enum cr_cli_option_id cr_cli_option_find(const char *name, size_t n, unsigned commands)
{
    for (int id = 0; id < CR_CLI_N_OPTIONS; id++) {
        const struct cr_cli_option *option = &cr_cli_options[id];
        if ((option->commands & commands) != 0 && (same(option->name, name, n) || same(option->alias, name, n))) {
            return (enum cr_cli_option_id)id;
        }
    }
    return CR_CLI_N_OPTIONS;
}

static void expects_uint(const struct cr_cli_option *option, char *dst, size_t dst_bytes)
{
    snprintf(dst, dst_bytes, "a whole number from %.0f to %.0f", option->min, option->max);
}

static void expects_real(const struct cr_cli_option *option, char *dst, size_t dst_bytes)
{
    const char *from = option->open_min ? "above" : option->max > 0 ? "from" : "of at least";
    int n = snprintf(dst, dst_bytes, "a number %s %g", from, option->min);
    if (option->max > 0) {
        snprintf(dst + n, dst_bytes - (size_t)n, option->open_max ? " to below %.10g" : " to %.10g", option->max);
    }
}

char *cr_cli_option_expects(const struct cr_cli_option *option, char *dst, size_t dst_bytes)
{
    switch (option->kind) {
    case CR_CLI_UINT:
        expects_uint(option, dst, dst_bytes);
        break;
    case CR_CLI_REAL:
        expects_real(option, dst, dst_bytes);
        break;
    case CR_CLI_SIZE:
        snprintf(dst, dst_bytes, "a size above 0 such as 800M or 2.5G");
        break;
    case CR_CLI_WORD:
        snprintf(dst, dst_bytes, strchr(option->value, '|') != NULL ? "one of %s" : "%s", option->value);
        break;
    case CR_CLI_WORDS:
        snprintf(dst, dst_bytes, "a comma list of %s", option->value);
        break;
    case CR_CLI_SWITCH:
        snprintf(dst, dst_bytes, "yes or no");
        break;
    case CR_CLI_TEXT:
    case CR_CLI_INPUT:
    case CR_CLI_OUTPUT_PATH:
        snprintf(dst, dst_bytes, "a text that is not empty");
        break;
    }
    return dst;
}
