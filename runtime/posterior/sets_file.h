/* sets_file: several sets of weights of one shape in files: the members of an ensemble, the tasks of bora.
 *
 * Ensemble: posterior.safetensors holds .member0, .member1 ...; its numbers are members, init and gain, and of label
 * rows of the members' own those of own_head.h. No one set stands for all, so none lies beside it: members/00,
 * members/01 ... are PEFT directories of one member each, without label rows.
 *
 * bora: .mean, which is the adapter beside the file, and .task0, .task1 ...; its numbers are the names of the tasks,
 * tau and the prior. tasks/NAME are PEFT directories of one task each; bytes of a name other than letters, digits, '_',
 * '-' and '.' (not the first) are written %XX there. With tasks, the first set is the common one.
 */
#ifndef CR_POSTERIOR_SETS_FILE_H
#define CR_POSTERIOR_SETS_FILE_H

#include "runtime/posterior/own_head.h"

/* Most members or tasks: far beyond any run, and no number in a file makes us allocate more. */
enum { CR_WEIGHT_SETS_MAX = 1024 };

/* What an adapter that is one member says it is, unless it has lost label rows of its own (own_head.h). */
#define CR_MEMBER_METHOD "ensemble-member"

/* And one that is the common one, or that of a task. */
#define CR_COMMON_METHOD "bora-mean"
#define CR_TASK_METHOD "bora-task"

struct cr_weight_sets {
    uint32_t n;              /* 0 = there are none */
    float *values;           /* owned: [n][n_params of one set] */
    json_t *names;           /* owned: of the tasks, a list of n - 1 strings; NULL: members */
    struct cr_own_head head; /* owned: of members with label rows of their own */
    bool joined;             /* as read from a checkpoint: each task's acts beside the common one (joined.h) */
};

/* about->adapter holds the members. */
cr_status cr_members_write(const struct cr_posterior_about *about, const char *init, double gain,
                           struct cr_head_nll nll, const char *dir, struct cr_error *err);

/* *path: dir/members/00 where dir is the output of an ensemble, owned; NULL where it is not. Errors: CR_E_MEMORY. */
cr_status cr_members_first(const char *dir, char **path, struct cr_error *err);

/* *adapter: the first member, from cr_members_first; gets the label rows that the posterior has of it. */
cr_status cr_members_read(const char *dir, struct cr_adapter **adapter, const struct cr_adapter_base *base,
                          struct cr_weight_sets *sets, struct cr_error *err);

/* about->adapter holds the common set and those of the tasks. */
cr_status cr_tasks_write(const struct cr_posterior_about *about, char *const *names, double tau, const char *prior,
                         const char *dir, struct cr_error *err);

/* *adapter: the one in dir. */
cr_status cr_tasks_read(const char *dir, struct cr_adapter **adapter, const struct cr_adapter_base *base,
                        struct cr_weight_sets *sets, struct cr_error *err);

/* {"joined", "tasks": names}, owned: what a checkpoint holds as CR_CKPT_METHOD. */
json_t *cr_tasks_json(char *const *names, size_t n, bool joined);

/* The set of a task, 0 when there is none of that name. */
uint32_t cr_weight_sets_find(const struct cr_weight_sets *sets, const char *task);

/* The weights of a checkpoint, whose first set is adapter, and the names of its tasks where it has any. */
cr_status cr_weight_sets_read_checkpoint(const char *path, const struct cr_adapter *adapter,
                                         struct cr_weight_sets *sets, struct cr_error *err);
void cr_weight_sets_free(struct cr_weight_sets *sets); /* zeroed: no effect */

#endif
