/* output_dir: which files of a directory belong to what finetune, laplace and export write there, so that none of them
 * is an input that the call needs, and none is left from a run before it.
 *
 * The files of an adapter and its posterior are those of all three; sets of weights lie one directory deeper
 * (members/00, tasks/NAME). A run of finetune has its journal, held-out examples and checkpoints besides.
 */
#ifndef CR_POSTERIOR_OUTPUT_DIR_H
#define CR_POSTERIOR_OUTPUT_DIR_H

#include <stdbool.h>

#include "runtime/core/error.h"

/* Without the first no run is finished; from CR_OUTPUT_OF_ADAPTER on they are those of one adapter. */
enum { CR_OUTPUT_OF_ADAPTER = 2, CR_OUTPUT_N = 5 };
extern const char *const cr_output_names[CR_OUTPUT_N];

/* An input and the option that named it; path may be NULL. */
struct cr_output_input {
    const char *flag, *path;
};

/* Refuses inputs that a call with this output directory would write over or remove. A finetune run (`run`) leaves
 * valid.jsonl alone when --valid is that file. dir need not exist yet. Errors: CR_E_USAGE naming both, CR_E_MEMORY. */
cr_status cr_output_keep_inputs(const char *dir, bool run, const struct cr_output_input *inputs, size_t n,
                                struct cr_error *err);

/* Refuses an output file that is, or would be, one that an adapter's directory is read from. path may be NULL.
 * Errors: CR_E_USAGE naming it, CR_E_MEMORY. */
cr_status cr_output_keep_adapter(const char *adapter, const char *flag, const char *path, struct cr_error *err);

/* Removes the files of an adapter and its posterior that a run before left; what is not ours stays. With the lock held.
 * Errors: CR_E_IO, CR_E_MEMORY. */
cr_status cr_output_clear(const char *dir, struct cr_error *err);

/* Prepares the directory, takes its lock and clears it: from here to cr_dir_unlock(*lock_fd) it is the caller's.
 * Errors: those of cr_dir_prepare_output, cr_dir_lock and cr_output_clear; then nothing is held. */
cr_status cr_output_take(const char *dir, bool force, int *lock_fd, struct cr_error *err);

#endif
