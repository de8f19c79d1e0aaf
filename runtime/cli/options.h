/* options: the one table of flags, from which parsing, help, the man page and completion are made.
 *
 * A flag belongs to some commands, has a kind that says how its text is checked, and is given at most once unless it
 * repeats. Texts of values are borrowed from argv or owned by the arguments (those of a configuration file).
 */
#ifndef CR_CLI_OPTIONS_H
#define CR_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "credence/status.h"

enum cr_cli_option_id {
    CR_CLI_MODEL,
    CR_CLI_DATA,
    CR_CLI_OUTPUT,
    CR_CLI_ADAPTER,
    CR_CLI_METHOD,
    CR_CLI_PRESET,
    CR_CLI_RANK,
    CR_CLI_ALPHA,
    CR_CLI_DROPOUT,
    CR_CLI_TARGETS,
    CR_CLI_EPOCHS,
    CR_CLI_STEPS,
    CR_CLI_BATCH_SIZE,
    CR_CLI_GRAD_ACCUMULATION_STEPS,
    CR_CLI_LR,
    CR_CLI_LR_SCHEDULE,
    CR_CLI_WARMUP,
    CR_CLI_WEIGHT_DECAY,
    CR_CLI_MAX_GRAD_NORM,
    CR_CLI_MAX_SEQ_LENGTH,
    CR_CLI_ON_LONG,
    CR_CLI_MASK_PROMPT,
    CR_CLI_CHAT_TEMPLATE,
    CR_CLI_SYSTEM,
    CR_CLI_NORMALIZE,
    CR_CLI_VALID,
    CR_CLI_NO_VALID,
    CR_CLI_KEEP,
    CR_CLI_PATIENCE,
    CR_CLI_EVAL_EVERY,
    CR_CLI_SAVE_EVERY,
    CR_CLI_REPORT_EVERY,
    CR_CLI_RESUME,
    CR_CLI_ALLOW_INEXACT,
    CR_CLI_GRAD_CHECKPOINT,
    CR_CLI_DRY_RUN,
    CR_CLI_TRACE,
    CR_CLI_ESS,
    CR_CLI_HESS_INIT,
    CR_CLI_CLIP_RADIUS,
    CR_CLI_MC_SAMPLES,
    CR_CLI_SWAG_START,
    CR_CLI_SWAG_EVERY,
    CR_CLI_SWAG_RANK,
    CR_CLI_SWAG_LR,
    CR_CLI_SWAG_SCHEDULE,
    CR_CLI_SWAG_HEAD,
    CR_CLI_SWAG_FROM,
    CR_CLI_PRIOR_STD,
    CR_CLI_KL_LR,
    CR_CLI_PRIOR_PRECISION,
    CR_CLI_MEMBERS,
    CR_CLI_INIT_GAIN,
    CR_CLI_TAU,
    CR_CLI_BORA_MODE,
    CR_CLI_VERTICES,
    CR_CLI_PREFIX_LENGTH,
    CR_CLI_VALID_DRAWS,
    CR_CLI_HEAD_LR,
    CR_CLI_LAMBDA_PER,
    CR_CLI_COSINE_WEIGHT,
    CR_CLI_SAMPLES,
    CR_CLI_MEAN,
    CR_CLI_VERTEX,
    CR_CLI_POSTERIOR_TEMPERATURE,
    CR_CLI_WEIGHTS,
    CR_CLI_MC_DROPOUT,
    CR_CLI_PRUNE,
    CR_CLI_OOD,
    CR_CLI_CALIBRATE,
    CR_CLI_JSON,
    CR_CLI_NO_EXAMPLES,
    CR_CLI_REPORT,
    CR_CLI_CHARTS,
    CR_CLI_IN_DOMAIN,
    CR_CLI_MARGIN_ACCURACY,
    CR_CLI_MARGIN_NLL,
    CR_CLI_FORMAT,
    CR_CLI_SAMPLE,
    CR_CLI_MEMBER,
    CR_CLI_DROP_HEAD,
    CR_CLI_TASK,
    CR_CLI_STRICT_TASK,
    CR_CLI_JSONL,
    CR_CLI_SPECIAL,
    CR_CLI_BOS,
    CR_CLI_THREADS,
    CR_CLI_THREADS_BY,
    CR_CLI_CPU,
    CR_CLI_SEED,
    CR_CLI_MEMORY,
    CR_CLI_CONFIG,
    CR_CLI_VERBOSE,
    CR_CLI_QUIET,
    CR_CLI_FORCE,
    CR_CLI_HELP,
    CR_CLI_VERSION,
    CR_CLI_N_OPTIONS
};

enum cr_cli_kind {
    CR_CLI_SWITCH, /* no value */
    CR_CLI_TEXT,
    CR_CLI_INPUT,  /* path that is read */
    CR_CLI_OUTPUT_PATH,
    CR_CLI_WORD,   /* one of the words of `value` */
    CR_CLI_WORDS,  /* comma list of them */
    CR_CLI_UINT,
    CR_CLI_REAL,
    CR_CLI_SIZE
};

/* Commands a flag belongs to: `bit` of their lines in cr_cli_commands. */
enum {
    CR_CLI_FINETUNE = 1u << 0,
    CR_CLI_EVAL = 1u << 1,
    CR_CLI_PREDICT = 1u << 2,
    CR_CLI_EXPORT = 1u << 3,
    CR_CLI_COMPARE = 1u << 4,
    CR_CLI_INFO = 1u << 5,
    CR_CLI_DATA_SHOW = 1u << 6,
    CR_CLI_TOKENIZE = 1u << 7,
    CR_CLI_CPU_REPORT = 1u << 8,
    CR_CLI_LAPLACE = 1u << 9,
    CR_CLI_EVERY = (1u << 10) - 1
};

struct cr_cli_option {
    const char *name;    /* long form without dashes */
    const char *alias;   /* a second long form, or NULL */
    char letter;         /* short form, 0 = none */
    bool open_min;       /* min itself is not allowed */
    bool open_max;
    bool empty;          /* an empty value means something */
    enum cr_cli_kind kind;
    unsigned commands;
    unsigned required;   /* commands that cannot do without */
    unsigned repeats;    /* commands that take it more than once (texts) */
    const char *value;   /* name of the value in help; words joined by | for the kinds of words */
    double min, max;     /* numbers; max 0 = none */
    const char *initial; /* default, as help says it; NULL = none */
    const char *help;
    const char *method;  /* those it belongs to, with | between, NULL = all */
    const char *except;  /* the one it has no meaning for, NULL = none */
};

extern const struct cr_cli_option cr_cli_options[CR_CLI_N_OPTIONS];

/* Place of a long name or alias among the flags of these commands, CR_CLI_N_OPTIONS when there is none. */
enum cr_cli_option_id cr_cli_option_find(const char *name, size_t n, unsigned commands);

/* What the value must be, for messages and help: "a whole number from 1 to 256". Returns dst. */
char *cr_cli_option_expects(const struct cr_cli_option *option, char *dst, size_t dst_bytes);

#endif
