/* run_summary: what summary.json of a finetune run says to those that come after the run. */
#ifndef CR_POSTERIOR_RUN_SUMMARY_H
#define CR_POSTERIOR_RUN_SUMMARY_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/core/error.h"

struct cr_run_summary {
    char run_id[17];
    char data[33]; /* digest of the data file, as cr_hex_128 writes it */
    bool splits;   /* some of its examples were held out, by cr_dataset_split with this seed */
    uint64_t seed;
    uint64_t n_train, n_valid; /* examples */
};

/* *found false, and *out as it was: dir has no such file, or one that is no run's. Errors: CR_E_MEMORY. */
cr_status cr_run_summary_read(const char *dir, struct cr_run_summary *out, bool *found, struct cr_error *err);

#endif
