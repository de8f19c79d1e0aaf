/* train_test: a directory with a tiny model and data, and runs of cr_finetune in it. */
#ifndef CR_TESTS_TRAIN_TEST_H
#define CR_TESTS_TRAIN_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "credence/credence.h"

enum { CR_TRAIN_CHOICES = 30, CR_TRAIN_TEXTS = 12 };

/* Makes the directory with model.gguf, choices.jsonl (answer = last letter of the question), other.jsonl (the same
 * kind, other questions), texts.jsonl. Aborts the test on failure. */
void cr_train_dir_make(void);
void cr_train_dir_drop(void);

/* "dir/name"; four results are kept. */
const char *cr_train_path(const char *name);
const char *cr_train_kept(const char *name); /* the same; eight of these are kept */
bool cr_train_exists(const char *name);

/* Owned bytes of a file (cr_free); the test fails when it cannot be read. */
uint8_t *cr_train_bytes(const char *name, size_t *n);
void cr_train_write(const char *name, const void *data, size_t n);
bool cr_train_same(const char *a, const char *b);

/* One digest of names and contents of all files below dir/name. */
uint64_t cr_train_tree_digest(const char *name);

struct cr_train_run {
    struct cr_finetune_options options;
    struct cr_host host;
    struct cr_finetune_result result;
    struct cr_error err;
    long stop_at; /* stop once this many training steps were reported; -1 = never */
    bool stop_in_validate;
    long stop_at_poll; /* the so manyth question whether to stop is answered yes; 0 = none */
    long n_polls;
    long n_steps_seen, n_reports, n_warnings;
    bool in_validate;
    char last_warning[256];
};

/* Choices, batch 4 x accumulation 1, output dir/name, save every 2, report every 2, rate 5e-3, serial. */
void cr_train_run_init(struct cr_train_run *run, const char *output);
cr_status cr_train_run_go(struct cr_train_run *run);

/* The same with the outcome asserted; a failure must be one line that holds `part`. */
void cr_train_must(struct cr_train_run *run);
void cr_train_must_fail(struct cr_train_run *run, cr_status want, const char *part);

/* On so many OpenMP threads. */
void cr_train_must_on(struct cr_train_run *run, int n_threads);

/* MiB that the run is predicted to take, asked in a process of its own: what runs before left in the heap would count.
 */
double cr_train_predicted_mb(struct cr_train_run *run);

/* Stops the run after so many training steps; the next one resumes it. */
void cr_train_stop(struct cr_train_run *run, long n_steps);

/* A run set up by init, but for one option, is refused with a line that holds `part`. */
#define CR_TRAIN_REFUSE(run, init, field, value, part)                                                                 \
    do {                                                                                                               \
        init(&(run), "out");                                                                                           \
        (run).options.field = (value);                                                                                 \
        cr_train_must_fail(&(run), CR_E_USAGE, part);                                                                  \
    } while (0)

/* Everything that a resume has to bring back: nine steps with dropout, accumulation, warm-up, decay, evaluations, best
 * parameters. */
void cr_train_full_init(struct cr_train_run *run, const char *output);

/* Each of the files is the same in both outputs. */
void cr_train_same_files(const char *a, const char *b, const char *const *names, size_t n);

/* The three adapter files of two outputs are equal. */
void cr_train_same_outputs(const char *a, const char *b);

/* train.jsonl without the fields that depend on the clock. Owned. */
char *cr_train_journal(const char *output);
void cr_train_same_journals(const char *a, const char *b);

#endif
