/* bora as a method of the training loop: an adapter a task, held together by a Gaussian prior with a learned mean.
 *
 *   mean over documents of their NLL + tau / N * sum_d penalty(theta_d - Theta)       N documents in the training part
 *
 * With the plain distance the first term is as in the authors' program: sum_d N_d / N * mean over tokens of their NLL.
 *
 * One vector: Theta, then theta_1 ... theta_D. AdamW moves the theta_d; Theta of the squared distance is their mean,
 * its optimum given all of them, after every step, and of the plain distance it is moved too. Without a prior (tau 0)
 * nothing would move it, and it is their mean whatever the distance. Mode "global": Theta alone. Mode "joined": Theta
 * and theta_d act together (posterior/joined.h), and the penalty is that of theta_d alone.
 */
#include <math.h>
#include <string.h>

#include "credence/kernels/rng.h"
#include "runtime/adapter/layout.h"
#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/core/host.h"
#include "runtime/io/json.h"
#include "runtime/optim/adamw_method.h"
#include "runtime/optim/bora_options.h"
#include "runtime/posterior/bora.h"
#include "runtime/posterior/joined.h"
#include "runtime/posterior/members.h"
#include "runtime/posterior/sets_file.h"

/* Purpose of the normals in the key. */
enum { START_STREAM = 0x626f7261 };

struct learner {
    struct cr_learner base; /* first: the state of a method that is AdamW alone */
    const struct cr_parallel *parallel;
    enum cr_bora_prior prior;
    double weight;             /* tau / N */
    size_t n_set;              /* numbers of one set */
    size_t first;              /* of those that AdamW moves */
    uint32_t n_tasks;          /* 0: Theta alone */
    char *const *names;        /* borrowed: [n_tasks] */
    char *recorded;            /* owned: the names as JSON */
    struct cr_adapter *joined; /* owned: what acts in mode "joined", else NULL */
};

static uint32_t n_sets(const struct cr_finetune_options *o, size_t n_tasks)
{
    return cr_bora_mode_is(o, "global") ? 1 : n_tasks > 0 ? 1 + (uint32_t)n_tasks : 0;
}

/* Matrix A or B of slot item / 2 in every set. A worker has whole slots: their numbers are no one else's. */
static void matrix_of(const struct learner *l, size_t item, size_t *begin, size_t *n)
{
    const struct cr_lora *slot = &l->base.adapter->slots[item / 2];
    bool b = item % 2 != 0;
    *begin = slot->rank > 0 ? (size_t)((b ? slot->b : slot->a) - l->base.adapter->params) : 0;
    *n = (size_t)slot->rank * (b ? slot->n_out : slot->n_in);
}

static void pull(void *arg, size_t first, size_t end, int worker)
{
    const struct learner *l = arg;
    const float *params = l->base.adapter->params;
    float *grads = l->base.adapter->grads;
    (void)worker;
    for (size_t item = 2 * first; item < 2 * end; item++) {
        size_t begin, n;
        matrix_of(l, item, &begin, &n);
        for (uint32_t d = 1; d <= l->n_tasks && n > 0; d++) {
            size_t at = d * l->n_set + begin;
            const float *mean = l->joined != NULL ? NULL : params + begin;
            bool moves = mean != NULL && l->prior == CR_BORA_NORM;
            cr_bora_pull_f32(l->prior, l->weight, params + at, mean, n, grads + at, moves ? grads + begin : NULL);
        }
    }
}

static void center_slots(void *arg, size_t first, size_t end, int worker)
{
    const struct learner *l = arg;
    float *params = l->base.adapter->params;
    const float *theta[CR_WEIGHT_SETS_MAX];
    (void)worker;
    for (size_t item = 2 * first; item < 2 * end; item++) {
        size_t begin, n;
        matrix_of(l, item, &begin, &n);
        for (uint32_t d = 0; d < l->n_tasks; d++) {
            theta[d] = params + (d + 1) * l->n_set + begin;
        }
        if (n > 0) {
            cr_bora_center_f32(theta, l->n_tasks, n, params + begin);
        }
    }
}

static void fill_joined(void *arg, size_t first, size_t end, int worker)
{
    const struct learner *l = arg;
    (void)worker;
    for (size_t slot = first; slot < end; slot++) {
        cr_joined_fill(l->joined, l->base.adapter, slot);
    }
}

static void gather_joined(void *arg, size_t first, size_t end, int worker)
{
    const struct learner *l = arg;
    (void)worker;
    for (size_t slot = first; slot < end; slot++) {
        cr_joined_gather(l->joined, l->base.adapter, slot);
    }
}

static void for_slots(struct learner *l, cr_task_fn *fn)
{
    l->parallel->run(l->parallel->ctx, fn, l, (size_t)l->base.adapter->n_layers * CR_N_PROJ, 1);
}

/* Theta where it has a closed form. */
static void center(struct learner *l)
{
    if (l->first > 0) {
        for_slots(l, center_slots);
    }
}

/* theta_d around Theta, which the adapter holds D + 1 times. */
static void start(struct learner *l, const struct cr_rng_ops *rng)
{
    const struct cr_finetune_options *o = l->base.options;
    float *params = l->base.adapter->params;
    for (size_t item = 0; o->bora_spread > 0 && item < (size_t)l->base.adapter->n_layers * CR_N_PROJ * 2; item++) {
        size_t begin, n;
        matrix_of(l, item, &begin, &n);
        for (uint32_t d = 1; d <= l->n_tasks && n > 0; d++) {
            struct cr_noise noise = {.key = {(uint32_t)o->seed, (uint32_t)(o->seed >> 32) ^ (uint32_t)START_STREAM},
                                     .sample = d,
                                     .tensor = (uint32_t)item};
            cr_members_near(rng, &noise, params + begin, o->bora_spread, n, params + d * l->n_set + begin);
        }
    }
    center(l);
}

static void destroy(void *state)
{
    struct learner *l = state;
    if (l != NULL) {
        cr_adamw_deinit(&l->base.adamw);
        cr_adapter_destroy(l->joined);
        cr_free(l->recorded);
        cr_free(l);
    }
}

static cr_status record_names(struct learner *l, struct cr_error *err)
{
    json_t *names = cr_tasks_json(l->names, l->n_tasks, l->joined != NULL);
    l->recorded = cr_json_dumps(names, JSON_COMPACT);
    json_decref(names);
    return l->recorded != NULL ? CR_OK : cr_fail(err, CR_E_MEMORY, "no memory for the names of %u tasks", l->n_tasks);
}

static cr_status init(void *learner, const struct cr_method_setup *setup, struct cr_error *err)
{
    struct learner *l = learner;
    struct cr_adapter *adapter = setup->adapter;
    struct cr_rng_ops rng;
    cr_rng_ops_init(&rng, setup->tier);
    l->base.adapter = adapter;
    l->base.options = setup->options;
    l->parallel = setup->parallel;
    l->prior = cr_bora_is_norm(setup->options) ? CR_BORA_NORM : CR_BORA_SQ;
    l->weight = setup->options->tau / (double)setup->n_examples;
    l->n_set = adapter->n_params / adapter->n_sets;
    l->n_tasks = adapter->n_sets - 1;
    l->names = setup->task_names;
    bool joined = cr_bora_mode_is(setup->options, "joined");
    bool closed = l->prior == CR_BORA_SQ || l->weight == 0;
    l->first = l->n_tasks > 0 && closed && !joined ? l->n_set : 0;
    start(l, &rng);
    if (joined && adapter->rank > CR_RANK_MAX / 2) {
        return cr_fail(err, CR_E_USAGE, "--rank %u: joined adapters have twice the rank, at most %d", adapter->rank,
                       CR_RANK_MAX);
    }
    if (joined) {
        CR_TRY(cr_joined_create(adapter, true, &l->joined, err));
    }
    CR_TRY(record_names(l, err));
    CR_TRY(cr_adamw_init(&l->base.adamw, adapter->n_params - l->first, setup->tier, setup->parallel, err));
    l->base.adamw.weight_decay = setup->options->weight_decay;
    l->base.adamw.max_norm = setup->options->max_grad_norm;
    return CR_OK;
}

static cr_status create(const struct cr_method_setup *setup, void **state, struct cr_error *err)
{
    return cr_learner_make(sizeof(struct learner), init, destroy, setup, state, err);
}

static struct cr_adapter *acting(const void *state)
{
    return ((const struct learner *)state)->joined;
}

static uint32_t rank_factor(const struct cr_finetune_options *o)
{
    return cr_bora_mode_is(o, "joined") ? 2 : 1;
}

static uint64_t state_bytes(const struct cr_finetune_options *o, uint64_t n_params, uint64_t n_slots)
{
    uint64_t joined =
        cr_bora_mode_is(o, "joined") ? 4 * n_params * sizeof(float) : 0; /* twice the numbers, and gradients */
    return cr_learner_state_bytes(o, n_params, n_slots) + joined;
}

static void show_point(void *state)
{
    struct learner *l = state;
    if (l->joined != NULL) {
        for_slots(l, fill_joined);
    }
}

static void begin_pass(void *state, uint64_t step, uint32_t pass)
{
    struct learner *l = state;
    (void)step;
    (void)pass;
    show_point(state);
    if (l->joined != NULL) {
        memset(l->joined->grads, 0, l->joined->n_params * sizeof *l->joined->grads);
    }
}

static void regularise(void *state)
{
    struct learner *l = state;
    if (l->joined != NULL) {
        for_slots(l, gather_joined);
    }
    if (l->weight > 0 && l->n_tasks > 0) {
        for_slots(l, pull);
    }
}

static void update(void *state, const struct cr_method_step *step)
{
    struct learner *l = state;
    const struct cr_adapter *adapter = l->base.adapter;
    cr_adamw_step(&l->base.adamw, adapter->params + l->first, adapter->grads + l->first, step->norm, step->lr);
    center(l);
}

static size_t sections(const void *state, struct cr_checkpoint_section *out)
{
    const struct learner *l = state;
    size_t n = cr_learner_sections(state, out);
    out[n] = (struct cr_checkpoint_section){CR_CKPT_METHOD, l->recorded, strlen(l->recorded)};
    return n + 1;
}

static cr_status restore(void *state, const float *weights, const struct cr_checkpoint *checkpoint,
                         struct cr_error *err)
{
    const struct learner *l = state;
    const struct cr_checkpoint_section *names = cr_checkpoint_find(checkpoint, CR_CKPT_METHOD);
    if (names == NULL || names->bytes != strlen(l->recorded) || memcmp(names->data, l->recorded, names->bytes) != 0) {
        return cr_fail(err, CR_E_INPUT, "the tasks are not those of the data");
    }
    return cr_learner_restore(state, weights, checkpoint, err);
}

static void announce(const void *state, const struct cr_host *host)
{
    const struct learner *l = state;
    if (l->n_tasks == 0) {
        cr_host_log(host, CR_LOG_INFO, "bora: one adapter for all tasks");
        return;
    }
    cr_host_log(host, CR_LOG_INFO, "bora: %u tasks of %zu weights%s, tau %g%s", l->n_tasks,
                l->base.adapter->n_trainable / l->base.adapter->n_sets,
                l->joined != NULL ? ", each beside the common one" : "", l->base.options->tau,
                l->base.options->tau > 0             ? ""
                : l->base.options->max_grad_norm > 0 ? " (no prior, but --max-grad-norm clips the tasks together)"
                                                     : " (no prior: tasks apart)");
}

static void facts(const void *state, json_t *object)
{
    const struct learner *l = state;
    const float *params = l->base.adapter->params;
    json_t *distances = json_object();
    for (uint32_t d = 1; d <= l->n_tasks; d++) {
        const float *mean = l->joined != NULL ? NULL : params;
        double half = cr_bora_pull_f32(CR_BORA_SQ, 0, params + d * l->n_set, mean, l->n_set, NULL, NULL);
        json_object_set_new(distances, l->names[d - 1], json_real(sqrt(2 * half)));
    }
    json_object_set_new(object, "tasks", json_integer(l->n_tasks));
    json_object_set_new(object, "tau", json_real(l->base.options->tau));
    json_object_set_new(object, "distance", distances);
}

static cr_status write(const void *state, const struct cr_posterior_about *about, const char *dir, struct cr_error *err)
{
    const struct learner *l = state;
    return cr_tasks_write(about, l->names, l->base.options->tau, cr_bora_is_norm(l->base.options) ? "norm" : "sq", dir,
                          err);
}

const struct cr_method cr_method_bora = {
    .name = "bora",
    .check = cr_bora_check,
    .own_rate = true,
    .sharing = CR_BY_TASK,
    .tokens_by_task = cr_bora_is_norm,
    .n_sets = n_sets,
    .resolve = cr_bora_resolve,
    .settings = cr_bora_record,
    .state_bytes = state_bytes,
    .result_bytes = cr_learner_result_bytes,
    .create = create,
    .destroy = destroy,
    .acting = acting,
    .rank_factor = rank_factor,
    .begin_pass = begin_pass,
    .regularise = regularise,
    .update = update,
    .show_point = show_point,
    .point = cr_learner_point,
    .sections = sections,
    .restore = restore,
    .take_result = cr_learner_take_result,
    .put_result = cr_learner_put_result,
    .announce = announce,
    .facts = facts,
    .write = write,
};
