/* own_rows: label rows trained with the matrices before them, in every set of an adapter: AdamW at a rate of their own,
 * and what they are worth. Private to runtime/optim.
 */
#ifndef CR_OPTIM_OWN_ROWS_H
#define CR_OPTIM_OWN_ROWS_H

#include "runtime/optim/adamw.h"
#include "runtime/posterior/method.h"
#include "runtime/posterior/own_head.h"

/* Zeroed, or of an adapter without label rows: steps are AdamW's, trials do nothing. */
struct cr_own_rows {
    struct cr_adapter *adapter;                /* borrowed */
    const struct cr_finetune_options *options; /* borrowed: lr, head_lr */
    struct cr_adamw_group *groups;             /* owned: [2 n_sets] matrices and label rows */
    float *model;                              /* owned: the rows that every set starts from */
    struct cr_head_nll nll;
};

/* The adapter holds the model's rows. Errors: CR_E_MEMORY. */
cr_status cr_own_rows_init(struct cr_own_rows *rows, const struct cr_method_setup *setup, struct cr_error *err);
void cr_own_rows_deinit(struct cr_own_rows *rows); /* zeroed: no effect */

size_t cr_own_rows_n(const struct cr_adapter *adapter); /* floats of a set's label rows, without gap */

/* The step of all sets; label rows at head_lr where the run's rate is lr, and in proportion elsewhere. */
void cr_own_rows_step(struct cr_own_rows *rows, struct cr_adamw *adamw, const struct cr_method_step *step);

/* rows->nll of what stands in the parameters, and of the same with the model's rows; they are as before afterwards: a
 * file of another program is without the rows, and this says what that costs. Errors: CR_E_MEMORY, those of the trial.
 */
cr_status cr_own_rows_trial(struct cr_own_rows *rows, const struct cr_method_trial *trial, struct cr_error *err);

#endif
