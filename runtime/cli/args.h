/* args: the words of one command line, and of its configuration file, checked against the table of options. */
#ifndef CR_CLI_ARGS_H
#define CR_CLI_ARGS_H

#include "runtime/cli/options.h"

struct cr_cli_value {
    bool given;
    bool from_file;   /* by --config */
    const char *text; /* as given; NULL for switches */
    char *owned;      /* behind text when it came from a file, as are all of texts then */
    uint64_t integer; /* UINT and SIZE */
    double real;
    const char **texts; /* owned: all values of a flag that repeats; NULL while there is one */
    size_t n_texts;
};

struct cr_cli_args {
    const char *command;
    unsigned commands; /* its bit */
    struct cr_cli_value values[CR_CLI_N_OPTIONS];
    char **operands; /* borrows argv, which it reorders */
    size_t n_operands;
    void (*note)(void *ctx, const char *line); /* hears of flags that win over the file; may be NULL */
    void *note_ctx;
};

/* Reads argv[1 ... argc-1] (argv[0] is the command) and then the file of --config. After --help and --version nothing
 * is required. Errors: CR_E_USAGE; what cr_config_read returns. Deinit in any case. */
cr_status cr_cli_args_parse(struct cr_cli_args *args, const char *command, unsigned commands, int argc, char **argv,
                            struct cr_error *err);
cr_status cr_cli_args_read_config(struct cr_cli_args *args, struct cr_error *err);

/* Required flags are there; no output is also an input or another output. Errors: CR_E_USAGE. */
cr_status cr_cli_args_check(const struct cr_cli_args *args, struct cr_error *err);
void cr_cli_args_deinit(struct cr_cli_args *args);

/* As if the flag had not been given. */
void cr_cli_value_drop(struct cr_cli_value *value);

/* Whether a word is one of those joined by |. */
bool cr_cli_word_in(const char *words, const char *word);

static inline bool cr_cli_given(const struct cr_cli_args *args, enum cr_cli_option_id id)
{
    return args->values[id].given;
}

/* Whether the value of a flag of one word is this word; false when it was not given. Any word but those of the flag is
 * a mistake of the program, which ends by abort() with a line that names both, whether or not the flag was given. */
bool cr_cli_is(const struct cr_cli_args *args, enum cr_cli_option_id id, const char *word);

/* The value of a flag, or `otherwise` when it was not given. */
static inline const char *cr_cli_text(const struct cr_cli_args *args, enum cr_cli_option_id id)
{
    return args->values[id].given ? args->values[id].text : NULL;
}

/* All values of a flag that may repeat; *n = 0 when it was not given. */
static inline const char *const *cr_cli_texts(const struct cr_cli_args *args, enum cr_cli_option_id id, size_t *n)
{
    const struct cr_cli_value *value = &args->values[id];
    *n = !value->given ? 0 : value->n_texts > 0 ? value->n_texts : 1;
    return value->n_texts > 0 ? value->texts : &value->text;
}

static inline uint64_t cr_cli_uint(const struct cr_cli_args *args, enum cr_cli_option_id id, uint64_t otherwise)
{
    return args->values[id].given ? args->values[id].integer : otherwise;
}

static inline double cr_cli_real(const struct cr_cli_args *args, enum cr_cli_option_id id, double otherwise)
{
    return args->values[id].given ? args->values[id].real : otherwise;
}

#endif
