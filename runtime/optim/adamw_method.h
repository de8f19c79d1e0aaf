/* adamw_method: AdamW over all parameters of an adapter as the parts of a method (runtime/posterior/method.h), for
 * methods whose step is that and nothing else. Private to runtime/optim.
 */
#ifndef CR_OPTIM_ADAMW_METHOD_H
#define CR_OPTIM_ADAMW_METHOD_H

#include "runtime/optim/adamw.h"
#include "runtime/posterior/method.h"

struct cr_learner {
    struct cr_adamw adamw;
    struct cr_adapter *adapter;                /* borrowed */
    const struct cr_finetune_options *options; /* borrowed */
};

uint64_t cr_learner_state_bytes(const struct cr_finetune_options *o, uint64_t n_params, uint64_t n_slots);
uint64_t cr_learner_result_bytes(const struct cr_finetune_options *o, uint64_t n_params);

/* `create` of any method: a struct of so many bytes, zeroed, which init fills; when that fails destroy gets what there
 * is. */
typedef cr_status cr_learner_init_fn(void *learner, const struct cr_method_setup *setup, struct cr_error *err);
cr_status cr_learner_make(size_t bytes, cr_learner_init_fn *init, void (*destroy)(void *learner),
                          const struct cr_method_setup *setup, void **state, struct cr_error *err);

/* In a struct that begins with a learner: cr_learner_destroy frees it whole. */
cr_status cr_learner_init(void *learner, const struct cr_method_setup *setup, struct cr_error *err);
void cr_learner_destroy(void *state);
void cr_learner_update(void *state, const struct cr_method_step *step);
const float *cr_learner_point(const void *state);
size_t cr_learner_sections(const void *state, struct cr_checkpoint_section *out);
cr_status cr_learner_restore(void *state, const float *weights, const struct cr_checkpoint *checkpoint,
                             struct cr_error *err);
void cr_learner_take_result(const void *state, void *result);
void cr_learner_put_result(void *state, const void *result);

#endif
