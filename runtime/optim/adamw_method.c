/* adamw as a method of the training loop: one set of parameters, the same for the engine and for the result. */
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/optim/adamw.h"
#include "runtime/posterior/method.h"

struct learner {
    struct cr_adamw adamw;
    struct cr_adapter *adapter; /* borrowed */
};

static cr_status check(const struct cr_finetune_options *o, struct cr_error *err)
{
    (void)o;
    (void)err;
    return CR_OK;
}

static uint64_t state_bytes(const struct cr_finetune_options *o, uint64_t n_params, uint64_t n_slots)
{
    (void)o;
    (void)n_slots;
    return cr_adamw_bytes((size_t)n_params);
}

static uint64_t result_bytes(const struct cr_finetune_options *o, uint64_t n_params)
{
    (void)o;
    return n_params * sizeof(float);
}

static void destroy(void *state)
{
    struct learner *l = state;
    if (l != NULL) {
        cr_adamw_deinit(&l->adamw);
        cr_free(l);
    }
}

static cr_status create(const struct cr_method_setup *setup, void **state, struct cr_error *err)
{
    struct learner *l = cr_zalloc(1, sizeof *l);
    if (l == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for an optimiser");
    }
    cr_status status = cr_adamw_init(&l->adamw, setup->adapter->n_params, setup->tier, setup->parallel, err);
    if (status != CR_OK) {
        cr_free(l);
        return status;
    }
    l->adapter = setup->adapter;
    l->adamw.weight_decay = setup->options->weight_decay;
    l->adamw.max_norm = setup->options->max_grad_norm;
    *state = l;
    return CR_OK;
}

static uint32_t n_passes(const void *state)
{
    (void)state;
    return 1;
}

static void pass(void *state, uint64_t step, uint32_t number)
{
    (void)state;
    (void)step;
    (void)number;
}

static void update(void *state, const struct cr_method_step *step)
{
    struct learner *l = state;
    cr_adamw_step(&l->adamw, l->adapter->params, l->adapter->grads, step->norm, step->lr);
}

static void show_point(void *state)
{
    (void)state;
}

static const float *point(const void *state)
{
    return ((const struct learner *)state)->adapter->params;
}

static size_t sections(const void *state, struct cr_checkpoint_section *out)
{
    const struct learner *l = state;
    out[0] = (struct cr_checkpoint_section){CR_CKPT_OPTIMISER, l->adamw.state, cr_adamw_state_bytes(&l->adamw)};
    return 1;
}

static cr_status restore(void *state, const float *weights, const struct cr_checkpoint *checkpoint,
                         struct cr_error *err)
{
    struct learner *l = state;
    const struct cr_checkpoint_section *section = cr_checkpoint_find(checkpoint, CR_CKPT_OPTIMISER);
    if (section == NULL) {
        return cr_fail(err, CR_E_INPUT, "optimiser state missing");
    }
    CR_TRY(cr_adamw_restore(&l->adamw, section->data, section->bytes, err));
    memmove(l->adapter->params, weights, l->adapter->n_params * sizeof *weights);
    return CR_OK;
}

static void take_result(const void *state, void *result)
{
    const struct cr_adapter *adapter = ((const struct learner *)state)->adapter;
    memcpy(result, adapter->params, adapter->n_params * sizeof *adapter->params);
}

static void put_result(void *state, const void *result)
{
    struct cr_adapter *adapter = ((struct learner *)state)->adapter;
    memcpy(adapter->params, result, adapter->n_params * sizeof *adapter->params);
}

const struct cr_method cr_method_adamw = {
    .name = "adamw",
    .check = check,
    .state_bytes = state_bytes,
    .result_bytes = result_bytes,
    .create = create,
    .destroy = destroy,
    .n_passes = n_passes,
    .begin_pass = pass,
    .end_pass = pass,
    .update = update,
    .show_point = show_point,
    .point = point,
    .sections = sections,
    .restore = restore,
    .take_result = take_result,
    .put_result = put_result,
};
