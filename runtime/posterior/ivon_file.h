/* ivon_file: the posterior of an ivon run in files: mean and h of every entry, ess and weight decay of both groups. */
#ifndef CR_POSTERIOR_IVON_FILE_H
#define CR_POSTERIOR_IVON_FILE_H

#include "runtime/posterior/ivon.h"
#include "runtime/posterior/posterior_file.h"

struct cr_ivon_posterior {
    const float *mean, *hess;           /* [n_params] */
    const struct cr_ivon_group *groups; /* [CR_IVON_GROUPS] */
    uint64_t t;
};

cr_status cr_ivon_write(const struct cr_ivon_posterior *posterior, const struct cr_posterior_about *about,
                        const char *dir, struct cr_error *err);

/* Fills hess [n_params] (gaps untouched) and ess and weight_decay of the groups from dir/posterior.safetensors, whose
 * means must be the adapter's parameters, or from an ivon checkpoint. h + wd > 0 afterwards. */
cr_status cr_ivon_read(const char *dir, const struct cr_adapter *adapter, const struct cr_adapter_base *base,
                       float *hess, struct cr_ivon_group *groups, struct cr_error *err);
cr_status cr_ivon_read_checkpoint(const char *path, const struct cr_adapter *adapter, float *hess,
                                  struct cr_ivon_group *groups, struct cr_error *err);

#endif
