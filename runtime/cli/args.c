#include "runtime/cli/args.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "credence/credence.h"
#include "runtime/cli/message.h"
#include "runtime/cli/nearest.h"
#include "runtime/cli/values.h"

enum { LONG_BASE = 256 }; /* getopt's value of long flag i is LONG_BASE + i */

/* Whether n bytes are one of the words joined by |. */
static bool is_among(const char *words, const char *text, size_t n)
{
    for (const char *word = words;;) {
        size_t length = strcspn(word, "|");
        if (length == n && memcmp(word, text, n) == 0) {
            return true;
        }
        if (word[length] == '\0') {
            return false;
        }
        word += length + 1;
    }
}

bool cr_cli_word_in(const char *words, const char *word)
{
    return is_among(words, word, strlen(word));
}

bool cr_cli_is(const struct cr_cli_args *args, enum cr_cli_option_id id, const char *word)
{
    const struct cr_cli_option *option = &cr_cli_options[id];
    if (option->kind != CR_CLI_WORD || !cr_cli_word_in(option->value, word)) {
        fprintf(stderr, "credence: --%s has no word \"%s\"\n", option->name, word);
        abort();
    }
    return args->values[id].given && strcmp(args->values[id].text, word) == 0;
}

static bool words_valid(const char *words, const char *list)
{
    for (;;) {
        size_t n = strcspn(list, ",");
        if (!is_among(words, list, n)) {
            return false;
        }
        if (list[n] == '\0') {
            return true;
        }
        list += n + 1;
    }
}

static bool in_range(const struct cr_cli_option *option, double value)
{
    bool above = option->open_min ? value > option->min : value >= option->min;
    bool below = option->max <= 0 || (option->open_max ? value < option->max : value <= option->max);
    return above && below;
}

/* Checks value->text and fills the number behind it. */
static bool convert(const struct cr_cli_option *option, struct cr_cli_value *value)
{
    switch (option->kind) {
    case CR_CLI_UINT:
        return cr_cli_parse_uint(value->text, &value->integer) && in_range(option, (double)value->integer);
    case CR_CLI_REAL:
        return cr_cli_parse_real(value->text, &value->real) && in_range(option, value->real);
    case CR_CLI_SIZE:
        return cr_cli_parse_size(value->text, &value->integer) && value->integer > 0;
    case CR_CLI_WORD:
        return cr_cli_word_in(option->value, value->text);
    case CR_CLI_WORDS:
        return words_valid(option->value, value->text);
    case CR_CLI_SWITCH:
        return true;
    case CR_CLI_TEXT:
    case CR_CLI_INPUT:
    case CR_CLI_OUTPUT_PATH:
        break;
    }
    return option->empty || value->text[0] != '\0';
}

/* Checks one flag and its value. */
static cr_status read_value(const struct cr_cli_args *args, enum cr_cli_option_id id, struct cr_cli_value *value,
                            struct cr_error *err)
{
    const struct cr_cli_option *option = &cr_cli_options[id];
    if (!convert(option, value)) {
        char expects[160];
        return cr_cli_fail(err, CR_E_USAGE, "%s: --%s: expected %s, got \"%s\"", args->command, option->name,
                           cr_cli_option_expects(option, expects, sizeof expects), cr_cli_quote(value->text));
    }
    value->given = true;
    return CR_OK;
}

static cr_status unknown_flag(const struct cr_cli_args *args, const char *word, struct cr_error *err)
{
    const char *name = word + strspn(word, "-");
    size_t n = strcspn(name, "=");
    const char *near = word[1] == '-' ? cr_cli_nearest_option(name, n, args->commands) : NULL;
    if (near != NULL) {
        return cr_cli_fail(err, CR_E_USAGE, "%s: unknown flag %s (did you mean --%s?)", args->command,
                           cr_cli_quote(word), near);
    }
    bool elsewhere = cr_cli_option_find(name, n, CR_CLI_EVERY) != CR_CLI_N_OPTIONS;
    return cr_cli_fail(err, CR_E_USAGE, "%s: %s %s (see credence %s --help)", args->command,
                       elsewhere ? "this command does not take" : "unknown flag", cr_cli_quote(word), args->command);
}

/* getopt's tables for the flags of a command. Returns the number of long entries. */
static int build_tables(unsigned commands, struct option *longs, int *ids, char *shorts)
{
    int n = 0;
    strcpy(shorts, "-:"); /* operands in place, missing values told apart */
    for (int id = 0; id < CR_CLI_N_OPTIONS; id++) {
        const struct cr_cli_option *option = &cr_cli_options[id];
        if ((option->commands & commands) == 0) {
            continue;
        }
        int has_value = option->kind == CR_CLI_SWITCH ? no_argument : required_argument;
        const char *names[2] = {option->name, option->alias};
        for (int i = 0; i < 2 && names[i] != NULL; i++) {
            longs[n] = (struct option){names[i], has_value, NULL, LONG_BASE + n};
            ids[n++] = id;
        }
        if (option->letter != 0) {
            size_t end = strlen(shorts);
            snprintf(shorts + end, 3, "%c%s", option->letter, has_value == required_argument ? ":" : "");
        }
    }
    longs[n] = (struct option){0};
    return n;
}

static int id_of_letter(int letter, unsigned commands)
{
    for (int id = 0; id < CR_CLI_N_OPTIONS; id++) {
        if (cr_cli_options[id].letter == letter && (cr_cli_options[id].commands & commands) != 0) {
            return id;
        }
    }
    return CR_CLI_N_OPTIONS;
}

/* One more value of a flag that has some. */
static cr_status add_text(struct cr_cli_value *value, const char *text, struct cr_error *err)
{
    size_t n = value->n_texts > 0 ? value->n_texts : 1;
    const char **texts = realloc(value->texts, (n + 1) * sizeof *texts);
    if (texts == NULL) {
        return cr_cli_fail(err, CR_E_MEMORY, "no memory for %zu values of a flag", n + 1);
    }
    texts[0] = value->text;
    texts[n] = text;
    value->texts = texts;
    value->n_texts = n + 1;
    return CR_OK;
}

static cr_status take_flag(struct cr_cli_args *args, enum cr_cli_option_id id, const char *text, struct cr_error *err)
{
    bool again = args->values[id].given;
    if (again && (cr_cli_options[id].repeats & args->commands) == 0) {
        return cr_cli_fail(err, CR_E_USAGE, "%s: --%s is given twice", args->command, cr_cli_options[id].name);
    }
    struct cr_cli_value value = {.text = text};
    cr_status status = read_value(args, id, &value, err);
    if (status == CR_OK && again) {
        return add_text(&args->values[id], text, err);
    }
    if (status == CR_OK) {
        args->values[id] = value;
    }
    return status;
}

/* getopt takes unambiguous beginnings of long names; here a name is written out. */
static bool spelled_out(const char *word, const char *name)
{
    size_t n = strcspn(word, "=");
    return strncmp(word, "--", 2) == 0 && n - 2 == strlen(name) && strncmp(word + 2, name, n - 2) == 0;
}

cr_status cr_cli_args_parse(struct cr_cli_args *args, const char *command, unsigned commands, int argc, char **argv,
                            struct cr_error *err)
{
    struct option longs[2 * CR_CLI_N_OPTIONS + 1];
    int ids[2 * CR_CLI_N_OPTIONS];
    char shorts[2 * CR_CLI_N_OPTIONS + 3];
    args->command = command;
    args->commands = commands;
    args->operands = argv + 1; /* filled from the front, behind what getopt has read */
    build_tables(commands, longs, ids, shorts);
    opterr = 0;
    optind = 1;
    for (;;) {
        const char *word = optind < argc ? argv[optind] : "";
        int code = getopt_long(argc, argv, shorts, longs, NULL);
        if (code == -1) {
            break;
        }
        if (code == 1) {
            args->operands[args->n_operands++] = optarg;
            continue;
        }
        bool is_long = code >= LONG_BASE || (code == ':' && optopt >= LONG_BASE);
        int entry = is_long ? (code == ':' ? optopt : code) - LONG_BASE : -1;
        int id = is_long ? ids[entry] : id_of_letter(code == ':' ? optopt : code, commands);
        if (code == '?' && optopt >= LONG_BASE) {
            return cr_cli_fail(err, CR_E_USAGE, "%s: --%s takes no value", command, longs[optopt - LONG_BASE].name);
        }
        if (code == '?' || (is_long && !spelled_out(word, longs[entry].name))) {
            return unknown_flag(args, word, err);
        }
        if (code == ':') {
            return cr_cli_fail(err, CR_E_USAGE, "%s: --%s needs a value (%s)", command, cr_cli_options[id].name,
                               cr_cli_options[id].value);
        }
        cr_status status = take_flag(args, (enum cr_cli_option_id)id, optarg, err);
        if (status != CR_OK) {
            return status;
        }
    }
    while (optind < argc) {
        args->operands[args->n_operands++] = argv[optind++];
    }
    return CR_OK;
}

/* "first,text", or text alone. Returns owned, NULL when memory cannot be had. */
static char *join_texts(const char *first, const char *text)
{
    size_t bytes = (first != NULL ? strlen(first) + 1 : 0) + strlen(text) + 1;
    char *joined = malloc(bytes);
    if (joined != NULL) {
        snprintf(joined, bytes, "%s%s%s", first != NULL ? first : "", first != NULL ? "," : "", text);
    }
    return joined;
}

/* The text of a value from the file, further elements of a list behind the ones before where the flag is a comma list.
 */
static cr_status copy_text(const struct cr_cli_option *option, const struct cr_cli_value *before, const char *text,
                           struct cr_cli_value *value, struct cr_error *err)
{
    if (option->kind == CR_CLI_SWITCH) {
        return strcmp(text, "no") == 0 || strcmp(text, "yes") == 0
                   ? CR_OK
                   : cr_cli_fail(err, CR_E_USAGE, "\"%s\": expected true or false, got \"%s\"", option->name,
                                 cr_cli_quote(text));
    }
    value->owned = join_texts(before != NULL ? before->text : NULL, text);
    value->text = value->owned;
    return value->owned != NULL ? CR_OK
                                : cr_cli_fail(err, CR_E_MEMORY, "no memory for the value of \"%s\"", option->name);
}

static void note_loser(const struct cr_cli_args *args, enum cr_cli_option_id id, const char *text)
{
    const char *winner = args->values[id].text;
    if (cr_cli_options[id].kind != CR_CLI_SWITCH && strcmp(winner, text) != 0 && args->note != NULL) {
        char line[512];
        snprintf(line, sizeof line, "--%s %s on the command line wins over %s in the configuration file",
                 cr_cli_options[id].name, cr_cli_quote(winner), cr_cli_quote(text));
        args->note(args->note_ctx, line);
    }
}

/* Takes value->owned. `more`: a further element of one list. */
static cr_status take_from_file(struct cr_cli_args *args, enum cr_cli_option_id id, struct cr_cli_value *value,
                                bool more, struct cr_error *err)
{
    const struct cr_cli_option *option = &cr_cli_options[id];
    struct cr_cli_value *current = &args->values[id];
    bool repeats = (option->repeats & args->commands) != 0;
    cr_status status = read_value(args, id, value, err);
    if (status == CR_OK && current->given && !current->from_file) {
        note_loser(args, id, value->text);
    } else if (status == CR_OK && current->given && !more) {
        status = cr_cli_fail(err, CR_E_USAGE, "\"%s\" is given twice", option->name);
    } else if (status == CR_OK && current->given && repeats) {
        status = add_text(current, value->owned, err);
        value->owned = status == CR_OK ? NULL : value->owned;
    } else if (status == CR_OK) {
        free(current->owned); /* of the list so far */
        *current = *value;
        value->owned = NULL;
    }
    free(value->owned);
    return status;
}

/* A value of a configuration file: a cr_config_set. */
static cr_status set_from_file(void *ctx, const char *key, size_t place, const char *text, struct cr_error *err)
{
    struct cr_cli_args *args = ctx;
    enum cr_cli_option_id id = cr_cli_option_find(key, strlen(key), args->commands);
    if (id == CR_CLI_N_OPTIONS || id == CR_CLI_CONFIG || id == CR_CLI_HELP || id == CR_CLI_VERSION) {
        const char *near = id == CR_CLI_N_OPTIONS ? cr_cli_nearest_option(key, strlen(key), args->commands) : NULL;
        return cr_cli_fail(err, CR_E_USAGE, "unknown key \"%s\" for %s%s%s", cr_cli_quote(key), args->command,
                           near == NULL ? "" : "; nearest is ", near == NULL ? "" : near);
    }
    const struct cr_cli_option *option = &cr_cli_options[id];
    bool more = place > 0;
    bool repeats = (option->repeats & args->commands) != 0;
    if (more && !repeats && option->kind != CR_CLI_TEXT && option->kind != CR_CLI_WORDS) {
        return cr_cli_fail(err, CR_E_USAGE, "\"%s\": one value expected, got a list", option->name);
    }
    struct cr_cli_value value = {.from_file = true};
    bool joins = more && !repeats && args->values[id].from_file;
    cr_status status = copy_text(option, joins ? &args->values[id] : NULL, text, &value, err);
    if (status != CR_OK || (option->kind == CR_CLI_SWITCH && strcmp(text, "no") == 0)) {
        return status;
    }
    return take_from_file(args, id, &value, more, err);
}

cr_status cr_cli_args_read_config(struct cr_cli_args *args, struct cr_error *err)
{
    const char *path = cr_cli_text(args, CR_CLI_CONFIG);
    return path == NULL ? CR_OK : cr_config_read(path, set_from_file, args, err);
}

void cr_cli_value_drop(struct cr_cli_value *value)
{
    for (size_t i = 1; value->from_file && i < value->n_texts; i++) {
        free((char *)(uintptr_t)value->texts[i]); /* the first is `owned` */
    }
    free(value->owned);
    free(value->texts);
    *value = (struct cr_cli_value){0};
}

void cr_cli_args_deinit(struct cr_cli_args *args)
{
    for (int id = 0; id < CR_CLI_N_OPTIONS; id++) {
        cr_cli_value_drop(&args->values[id]);
    }
}
