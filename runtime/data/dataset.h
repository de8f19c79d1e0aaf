/* dataset: a JSONL file as token ids, loss positions, choices and tasks (kinds and texts: design of the program).
 *
 * One file holds one loss family: choices (classification by label tokens) or texts (prompt/completion, messages,
 * text: next-token loss on the target tokens). A line of the other family is CR_E_INPUT.
 */
#ifndef CR_DATA_DATASET_H
#define CR_DATA_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "credence/credence.h"
#include "runtime/tokenizer/tokenizer.h"

enum cr_example_kind { CR_EXAMPLE_CHOICE, CR_EXAMPLE_PROMPT, CR_EXAMPLE_MESSAGES, CR_EXAMPLE_TEXT };

struct cr_example {
    const int32_t *ids;  /* borrows from the dataset */
    const uint8_t *mask; /* [n_ids] 1 = target token: its prediction from the token before carries loss. Choice: NULL */
    uint32_t n_ids;      /* >= 1; texts >= 2 */
    uint32_t n_targets;  /* choice: 1 */
    uint32_t n_lead;     /* first tokens that are the template's own, the same in every example where it is not 0: they
                          * may be computed once for several (token_batch.h) */
    enum cr_example_kind kind;
    uint32_t n_choices; /* choice: 2 ... CR_LABELS_MAX */
    uint32_t answer;    /* choice: 0-based */
    bool unanswered;    /* choice: the file says no answer (answer is 0) */
    int32_t task;       /* index into task_names, -1 = none */
    uint64_t line;      /* 1-based line of the file */
    bool truncated;
};

enum { CR_LABELS_MAX = 26 };

struct cr_dataset {
    struct cr_example *examples;
    size_t n;
    bool classification;
    int32_t label_ids[CR_LABELS_MAX]; /* tokens " A", " B", ... */
    uint32_t n_labels;                /* largest n_choices of the file; 0 for texts */
    char **task_names;
    size_t n_tasks;
    uint64_t n_tokens, n_targets;
    uint32_t max_ids; /* longest example */
    uint32_t n_lead;  /* largest of the examples */
    bool whole;       /* none shares its lead, whatever its n_lead says */
    uint64_t n_truncated, n_skipped, n_duplicates, n_dropped_bytes;
    uint64_t digest[2]; /* XXH3-128 of the file's bytes */
    void *storage;      /* owned blocks behind ids, masks, names */
};

struct cr_dataset_options {
    uint32_t max_seq_length; /* tokens */
    bool on_long_skip, train_on_prompt;
    bool answer_optional;      /* questions may have no answer */
    const char *chat_template; /* NULL = from the model */
    const char *system, *normalize;
};

/* The longest example, tokens: `given`, which may not exceed the context of the model, or when it is 0 the context, at
 * most 2048. context 0: the model file says none. Errors: CR_E_USAGE. */
cr_status cr_dataset_limit(uint32_t given, uint32_t context, uint32_t *limit, struct cr_error *err);

/* Reads and tokenises a whole file. Returns owned: cr_dataset_close. Errors: CR_E_IO, CR_E_INPUT naming file and
 * line, CR_E_MEMORY. Counts (truncated, skipped, duplicates, dropped bytes) are reported through host->log. */
cr_status cr_dataset_open(const char *path, const struct cr_tokenizer *tokenizer,
                          const struct cr_dataset_options *options, const struct cr_host *host, struct cr_dataset *out,
                          struct cr_error *err);
void cr_dataset_close(struct cr_dataset *dataset);

/* The same examples, none of which shares its lead: where tokens that look alike are not (dropout, signs of their own,
 * learned prefixes), or are wanted one by one. Borrows all that the dataset owns, or takes its place. */
struct cr_dataset cr_dataset_whole(const struct cr_dataset *dataset);

/* Of the training file, where no other file is given for validation. */
#define CR_HELD_OUT_SHARE 0.1

/* Seeded stratified split (by answer and task; texts: by task): `held_out` indices get about `fraction` of the
 * examples, at most half of them and at least one, `kept` the rest with one or more of every stratum, both ascending.
 * An example that is alone in its stratum is kept, so nothing is held out where each is the only one of its answer;
 * tasks are left out of account where each is the only one of its task and answer. Arrays of dataset->n provided by the
 * caller; counts returned. */
void cr_dataset_split(const struct cr_dataset *dataset, uint64_t seed, double fraction, uint32_t *kept, size_t *n_kept,
                      uint32_t *held_out, size_t *n_held_out);

#endif
