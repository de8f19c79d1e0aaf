/* read: the work behind cr_dataset_open, with a choice of what happens at a bad line. */
#ifndef CR_DATA_READ_H
#define CR_DATA_READ_H

#include "runtime/data/dataset.h"
#include "runtime/data/encode.h"

/* What was left out, and the kinds met. */
struct cr_read_counts {
    uint64_t skipped[CR_ENCODE_N_SKIPS]; /* by reason */
    uint64_t kinds[4];                   /* by enum cr_example_kind, kept examples */
    uint64_t n_bad;                      /* lines handed to on_error */
};

/* on_error (may be NULL: the first bad line ends the reading) is told of each line that is CR_E_INPUT; reading goes
 * on while it returns true. With on_error a file without examples is CR_OK and out->n = 0. counts may be NULL. */
cr_status cr_dataset_read(const char *path, const struct cr_tokenizer *tokenizer,
                          const struct cr_dataset_options *options, const struct cr_host *host,
                          bool (*on_error)(void *ctx, const char *message), void *ctx, struct cr_read_counts *counts,
                          struct cr_dataset *out, struct cr_error *err);

#endif
