/* ensemble as a method of the training loop: M members that differ in where they start and in their dropout.
 *
 * One vector of all members: AdamW, the joint clip and the checkpoint see it as one long adapter. The loop gives every
 * micro-batch to every member and asks for the mean of their losses.
 */
#include <math.h>
#include <string.h>

#include "credence/kernels/rng.h"
#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/core/host.h"
#include "runtime/optim/adamw_method.h"
#include "runtime/optim/own_rows.h"
#include "runtime/posterior/members.h"
#include "runtime/posterior/sets_file.h"

/* Standard deviation of normal starts where none is said: the paper's. */
#define NORMAL_GAIN 0.02

/* Purpose of the normals of label rows in the key. */
enum { ROWS_STREAM = 0x68656164 };

struct learner {
    struct cr_learner base; /* first: the state of a method that is AdamW alone */
    struct cr_own_rows rows;
};

static const char *const init_names[] = {
    [CR_MEMBERS_PEFT] = "peft", [CR_MEMBERS_XAVIER] = "xavier", [CR_MEMBERS_NORMAL] = "normal"};

static const char *init_name(const struct cr_finetune_options *o)
{
    return o->member_init != NULL ? o->member_init : init_names[CR_MEMBERS_XAVIER];
}

/* The number of names when it is none of them. */
static int init_of(const struct cr_finetune_options *o)
{
    int init = 0;
    while (init <= CR_MEMBERS_NORMAL && strcmp(init_names[init], init_name(o)) != 0) {
        init++;
    }
    return init;
}

static double gain_of(const struct cr_finetune_options *o)
{
    return o->init_gain > 0 ? o->init_gain : init_of(o) == CR_MEMBERS_NORMAL ? NORMAL_GAIN : 1;
}

static cr_status check(const struct cr_finetune_options *o, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    if (o->members < 1 || o->members > CR_WEIGHT_SETS_MAX) {
        return cr_fail(err, CR_E_USAGE, "--members %u, expected 1 to %d", o->members, CR_WEIGHT_SETS_MAX);
    }
    if (!(o->init_gain >= 0) || !isfinite(o->init_gain)) {
        return cr_fail(err, CR_E_USAGE, "--init-gain %g, expected a number above 0", o->init_gain);
    }
    if (init_of(o) > CR_MEMBERS_NORMAL) {
        return cr_fail(err, CR_E_USAGE, "start of members \"%s\" unknown, expected peft, xavier or normal",
                       cr_escape(shown, sizeof shown, o->member_init, strlen(o->member_init)));
    }
    if (!(o->head_noise >= 0) || !isfinite(o->head_noise)) {
        return cr_fail(err, CR_E_USAGE, "noise of the members' label rows %g, expected a number of at least 0",
                       o->head_noise);
    }
    if (o->head_lr > 0 && !o->member_heads) {
        return cr_fail(
            err, CR_E_USAGE,
            "--head-lr %g: the members share the label rows of the model, frozen; --preset paper trains rows of "
            "their own",
            o->head_lr);
    }
    return o->adapter == NULL
               ? CR_OK
               : cr_fail(err, CR_E_USAGE, "--adapter: the members of an ensemble start apart, not from one adapter");
}

static void settings(const struct cr_finetune_options *o, json_t *object)
{
    json_object_set_new(object, "members", json_integer(o->members));
    json_object_set_new(object, "member-init", json_string(init_name(o)));
    json_object_set_new(object, "init-gain", json_real(gain_of(o)));
    if (o->member_heads) {
        json_object_set_new(object, "head-lr", json_real(o->head_lr > 0 ? o->head_lr : o->lr));
        json_object_set_new(object, "head-noise", json_real(o->head_noise));
    }
}

static bool own_rows(const struct cr_finetune_options *o, bool choices)
{
    (void)choices;
    return o->member_heads;
}

static uint32_t n_sets(const struct cr_finetune_options *o, size_t n_tasks)
{
    (void)n_tasks;
    return o->members;
}

/* Label rows of a member around the model's. */
static void scatter_rows(const struct cr_rng_ops *rng, const struct cr_finetune_options *o, const float *model,
                         struct cr_adapter *member, uint32_t m)
{
    size_t n = cr_own_rows_n(member);
    float *rows = member->params + cr_adapter_rows_begin(member);
    uint64_t seed = cr_members_seed(o->seed, m);
    struct cr_noise noise = {.key = {(uint32_t)seed, (uint32_t)(seed >> 32) ^ (uint32_t)ROWS_STREAM}};
    cr_members_near_rows(rng, &noise, model, o->head_noise, n, rows);
}

/* The adapter holds M copies of a start whose B is 0. */
static void start(const struct cr_method_setup *setup, const float *model_rows)
{
    const struct cr_finetune_options *o = setup->options;
    struct cr_rng_ops rng;
    cr_rng_ops_init(&rng, setup->tier);
    for (uint32_t m = 0; m < setup->adapter->n_sets; m++) {
        struct cr_adapter member = cr_adapter_set(setup->adapter, m);
        for (uint32_t i = 0; i < member.n_layers * CR_N_PROJ; i++) {
            const struct cr_lora *slot = &member.slots[i];
            if (slot->rank > 0) {
                cr_members_start(&rng, (enum cr_members_init)init_of(o), gain_of(o), cr_members_seed(o->seed, m),
                                 slot->tensor_id, slot->rank, slot->n_in, slot->a);
            }
        }
        if (member.n_labels > 0) {
            scatter_rows(&rng, o, model_rows, &member, m);
        }
    }
}

static void destroy(void *state)
{
    struct learner *l = state;
    if (l != NULL) {
        cr_own_rows_deinit(&l->rows);
        cr_learner_destroy(state);
    }
}

static cr_status init(void *learner, const struct cr_method_setup *setup, struct cr_error *err)
{
    struct learner *l = learner;
    CR_TRY(cr_own_rows_init(&l->rows, setup, err));
    start(setup, l->rows.model);
    return cr_learner_init(&l->base, setup, err);
}

static cr_status create(const struct cr_method_setup *setup, void **state, struct cr_error *err)
{
    return cr_learner_make(sizeof(struct learner), init, destroy, setup, state, err);
}

static void update(void *state, const struct cr_method_step *step)
{
    struct learner *l = state;
    cr_own_rows_step(&l->rows, &l->base.adamw, step);
}

/* Nothing is decided. */
static cr_status tune(void *state, const struct cr_method_trial *trial, struct cr_error *err)
{
    return cr_own_rows_trial(&((struct learner *)state)->rows, trial, err);
}

static void announce(const void *state, const struct cr_host *host)
{
    const struct cr_learner *l = state;
    cr_host_log(host, CR_LOG_INFO, "ensemble: %u members of %zu weights, start %s, gain %g, %s", l->adapter->n_sets,
                l->adapter->n_trainable / l->adapter->n_sets, init_name(l->options), gain_of(l->options),
                l->options->member_heads ? "label rows of their own" : "shared frozen head");
}

static void facts(const void *state, json_t *object)
{
    const struct learner *l = state;
    json_object_set_new(object, "members", json_integer(l->base.adapter->n_sets));
    json_object_set_new(object, "head", json_string(l->rows.model != NULL ? "own" : "frozen"));
    cr_head_nll_record(&l->rows.nll, object);
}

static cr_status write(const void *state, const struct cr_posterior_about *about, const char *dir, struct cr_error *err)
{
    const struct learner *l = state;
    const struct cr_finetune_options *o = l->base.options;
    return cr_members_write(about, init_name(o), gain_of(o), l->rows.nll, dir, err);
}

const struct cr_method cr_method_ensemble = {
    .name = "ensemble",
    .check = check,
    .scale = 1,
    .own_rows = own_rows,
    .n_sets = n_sets,
    .settings = settings,
    .state_bytes = cr_learner_state_bytes,
    .result_bytes = cr_learner_result_bytes,
    .create = create,
    .destroy = destroy,
    .update = update,
    .point = cr_learner_point,
    .sections = cr_learner_sections,
    .restore = cr_learner_restore,
    .take_result = cr_learner_take_result,
    .put_result = cr_learner_put_result,
    .tune = tune,
    .tune_passes = 2,
    .announce = announce,
    .facts = facts,
    .write = write,
    .no_adapter = true,
};
