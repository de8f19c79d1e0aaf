/* checkpoint_dir: the checkpoints of a directory: which is the newest, which may go. */
#ifndef CR_TRAIN_CHECKPOINT_DIR_H
#define CR_TRAIN_CHECKPOINT_DIR_H

#include "credence/credence.h"
#include "runtime/io/checkpoint.h"

/* dir/step-%08d.cck. Returns owned, NULL when memory cannot be had. */
char *cr_checkpoint_path(const char *dir, uint64_t step);

/* The newest intact checkpoint of this run in dir; files that are damaged or misnamed are passed over with a warning.
 * When dir holds intact checkpoints of exactly one other run and none of this one, its newest is returned: the caller
 * compares settings. *others: there are some of other runs than the returned one's. *path is owned and *checkpoint open
 * on success.
 * Errors: CR_E_INPUT when there is none, CR_E_BUSY when several other runs have some, CR_E_IO. */
cr_status cr_checkpoint_newest(const char *dir, uint64_t run_id, const struct cr_host *host, char **path,
                               struct cr_checkpoint *checkpoint, bool *others, struct cr_error *err);

/* After the commit of `step`: removes checkpoints of this run older than the newest `keep`, never the committed one
 * nor files of other runs. With `fresh` (first commit of a run that starts over) also removes those with a higher step.
 */
void cr_checkpoint_retain(const char *dir, uint64_t run_id, uint64_t step, uint32_t keep, bool fresh);

/* Removes temporary files that a dead process left in dir. Call with the lock of the output held. */
void cr_checkpoint_sweep(const char *dir);

#endif
