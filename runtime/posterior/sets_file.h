/* sets_file: several sets of weights of one shape in files: the members of an ensemble.
 *
 * Ensemble: posterior.safetensors holds .member0, .member1 ...; its numbers are members, init and gain. No one set
 * stands for all, so none lies beside it: members/00, members/01 ... are PEFT directories of one member each.
 */
#ifndef CR_POSTERIOR_SETS_FILE_H
#define CR_POSTERIOR_SETS_FILE_H

#include "runtime/posterior/posterior_file.h"

/* Most members or tasks: far beyond any run, and no number in a file makes us allocate more. */
enum { CR_WEIGHT_SETS_MAX = 1024 };

/* What an adapter that is one member says it is. */
#define CR_MEMBER_METHOD "ensemble-member"

struct cr_weight_sets {
    uint32_t n;    /* 0 = there are none */
    float *values; /* owned: [n][n_params of one set] */
};

/* about->adapter holds the members. */
cr_status cr_members_write(const struct cr_posterior_about *about, const char *init, double gain, const char *dir,
                           struct cr_error *err);

/* dir/members/00 where dir is the output of an ensemble. Owned; NULL when it is not, or without memory. */
char *cr_members_first(const char *dir);

/* adapter: the first member, from cr_members_first. */
cr_status cr_members_read(const char *dir, const struct cr_adapter *adapter, const struct cr_adapter_base *base,
                          struct cr_weight_sets *sets, struct cr_error *err);

/* The weights of a checkpoint, whose first set is adapter. */
cr_status cr_weight_sets_read_checkpoint(const char *path, const struct cr_adapter *adapter,
                                         struct cr_weight_sets *sets, struct cr_error *err);
void cr_weight_sets_free(struct cr_weight_sets *sets); /* zeroed: no effect */

#endif
