/* own_head: label rows trained along with an adapter (rows of the output matrix for questions with choices), as files
 * have them: posterior.safetensors holds them as tensors lm_head.label_rows, the tokens they are of as credence.labels,
 * and nll, nll_model_head: the mean NLL of held-out examples with them and with the model's rows, where there were any.
 *
 * Adapter files have no place for them beside a base whose head is its embedding. Such a file says so by its method.
 */
#ifndef CR_POSTERIOR_OWN_HEAD_H
#define CR_POSTERIOR_OWN_HEAD_H

#include "runtime/posterior/posterior_file.h"

/* What adapters are that have lost their label rows: a member of an ensemble, the mean or a draw of swag. */
#define CR_HEADLESS_MEMBER "headless-member"
#define CR_HEADLESS_SWAG "headless-swag"

bool cr_headless(const struct cr_adapter *adapter);

/* Mean NLL of held-out examples; NaN: not known. */
struct cr_head_nll {
    double own, model;
};

struct cr_own_head {
    int32_t *label_ids; /* owned: [n_labels of the adapter] tokens; NULL without rows, or not known */
    struct cr_head_nll nll;
};

/* Puts what is known among the numbers of a posterior, or the facts of a run. */
void cr_head_nll_record(const struct cr_head_nll *nll, json_t *object);

/* Of an adapter that has its label rows already (cr_posterior_file_add_rows); all unknown where it has none. Errors:
 * CR_E_INPUT, CR_E_MEMORY. */
cr_status cr_own_head_read(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                           struct cr_own_head *out, struct cr_error *err);
void cr_own_head_free(struct cr_own_head *head); /* zeroed: no effect */

#endif
