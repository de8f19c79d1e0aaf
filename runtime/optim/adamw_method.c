/* adamw as a method of the training loop: one set of parameters, the same for the engine and for the result. */
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/optim/adamw_method.h"

uint64_t cr_learner_state_bytes(const struct cr_finetune_options *o, uint64_t n_params, uint64_t n_slots)
{
    (void)o;
    (void)n_slots;
    return cr_adamw_bytes((size_t)n_params);
}

uint64_t cr_learner_result_bytes(const struct cr_finetune_options *o, uint64_t n_params)
{
    (void)o;
    return n_params * sizeof(float);
}

void cr_learner_destroy(void *state)
{
    struct cr_learner *l = state;
    if (l != NULL) {
        cr_adamw_deinit(&l->adamw);
        cr_free(l);
    }
}

cr_status cr_learner_init(void *learner, const struct cr_method_setup *setup, struct cr_error *err)
{
    struct cr_learner *l = learner;
    CR_TRY(cr_adamw_init(&l->adamw, setup->adapter->n_params, setup->tier, setup->parallel, err));
    l->adapter = setup->adapter;
    l->options = setup->options;
    l->adamw.weight_decay = setup->options->weight_decay;
    l->adamw.max_norm = setup->options->max_grad_norm;
    return CR_OK;
}

cr_status cr_learner_make(size_t bytes, cr_learner_init_fn *init, void (*destroy)(void *learner),
                          const struct cr_method_setup *setup, void **state, struct cr_error *err)
{
    void *learner = cr_zalloc(1, bytes);
    if (learner == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for an optimiser");
    }
    cr_status status = init(learner, setup, err);
    if (status == CR_OK) {
        *state = learner;
    } else {
        destroy(learner);
    }
    return status;
}

static cr_status create(const struct cr_method_setup *setup, void **state, struct cr_error *err)
{
    return cr_learner_make(sizeof(struct cr_learner), cr_learner_init, cr_learner_destroy, setup, state, err);
}

void cr_learner_update(void *state, const struct cr_method_step *step)
{
    struct cr_learner *l = state;
    cr_adamw_step(&l->adamw, l->adapter->params, l->adapter->grads, step->norm, step->lr);
}

const float *cr_learner_point(const void *state)
{
    return ((const struct cr_learner *)state)->adapter->params;
}

size_t cr_learner_sections(const void *state, struct cr_checkpoint_section *out)
{
    const struct cr_learner *l = state;
    out[0] = (struct cr_checkpoint_section){CR_CKPT_OPTIMISER, l->adamw.state, cr_adamw_state_bytes(&l->adamw)};
    return 1;
}

cr_status cr_learner_restore(void *state, const float *weights, const struct cr_checkpoint *checkpoint,
                             struct cr_error *err)
{
    struct cr_learner *l = state;
    const struct cr_checkpoint_section *section = cr_checkpoint_find(checkpoint, CR_CKPT_OPTIMISER);
    if (section == NULL) {
        return cr_fail(err, CR_E_INPUT, "optimiser state missing");
    }
    CR_TRY(cr_adamw_restore(&l->adamw, section->data, section->bytes, err));
    memmove(l->adapter->params, weights, l->adapter->n_params * sizeof *weights);
    return CR_OK;
}

void cr_learner_take_result(const void *state, void *result)
{
    const struct cr_adapter *adapter = ((const struct cr_learner *)state)->adapter;
    memcpy(result, adapter->params, adapter->n_params * sizeof *adapter->params);
}

void cr_learner_put_result(void *state, const void *result)
{
    struct cr_adapter *adapter = ((struct cr_learner *)state)->adapter;
    memcpy(adapter->params, result, adapter->n_params * sizeof *adapter->params);
}

const struct cr_method cr_method_adamw = {
    .name = "adamw",
    .state_bytes = cr_learner_state_bytes,
    .result_bytes = cr_learner_result_bytes,
    .create = create,
    .destroy = cr_learner_destroy,
    .update = cr_learner_update,
    .point = cr_learner_point,
    .sections = cr_learner_sections,
    .restore = cr_learner_restore,
    .take_result = cr_learner_take_result,
    .put_result = cr_learner_put_result,
};
