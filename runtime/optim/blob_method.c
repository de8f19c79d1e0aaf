/* blob as a method of the training loop: A of every pair is a Gaussian, B a point (runtime/posterior/blob.h).
 *
 * The engine reads mu and B as an ordinary adapter and adds noise E sigma with signs of every token's own; E is drawn
 * once a step and serves all its micro-batches. A step is AdamW on the NLL over mu, B and rho, then plain descent on pi
 * KL over mu and rho, at a rate that follows the schedule of the run.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/core/host.h"
#include "runtime/optim/adamw_method.h"
#include "runtime/posterior/blob.h"
#include "runtime/posterior/blob_file.h"

/* Second words of keys: noise of training, start of rho. */
enum { NOISE = 0x626c6f62, RHO = 0x72686f30 };

/* The KL has its say in the last steps of a cycle, and none at the end of a run, where the rate is 0: short runs get
 * shorter cycles. (The authors' run of 5,000 steps has 15.) */
enum { MIN_CYCLES = 4 };

#define ADAM_EPS 1e-6 /* of the authors' program */

struct learner {
    struct cr_adamw adamw, adamw_rho;
    struct cr_adapter *adapter; /* borrowed */
    struct cr_ivon_part *parts; /* owned */
    size_t n_parts, n;
    struct cr_rng_ops rng;
    float *rho, *noise, *grad; /* owned: [n] each, 0 but for A; grad of the noise, then of rho */
    uint64_t seed, cycle;
    double prior_std, kl_lr, lr;
    bool paper; /* its preset, of which a part is not here */
};

static cr_status check(const struct cr_finetune_options *o, struct cr_error *err)
{
    if (o->dropout > 0) {
        return cr_fail(err, CR_E_USAGE,
                       "--dropout %g: method blob disturbs its inputs by noise of its own, not by masks", o->dropout);
    }
    if (!(o->prior_std > 0 && isfinite(o->prior_std))) {
        return cr_fail(err, CR_E_USAGE, "--prior-std %g, expected a number above 0", o->prior_std);
    }
    if (!(o->kl_lr >= 0 && isfinite(o->kl_lr))) {
        return cr_fail(err, CR_E_USAGE, "--kl-lr %g, expected 0 or a number above it", o->kl_lr);
    }
    return o->rho_init > 0 && o->rho_init <= 1
               ? CR_OK
               : cr_fail(err, CR_E_USAGE, "rho_init %g, expected a number above 0, at most 1", o->rho_init);
}

static void settings(const struct cr_finetune_options *o, json_t *object)
{
    json_object_set_new(object, "prior-std", json_real(o->prior_std));
    json_object_set_new(object, "kl-lr", json_real(o->kl_lr));
    json_object_set_new(object, "rho-init", json_real(o->rho_init));
}

static uint64_t state_bytes(const struct cr_finetune_options *o, uint64_t n_params, uint64_t n_slots)
{
    (void)o;
    return 2 * cr_adamw_bytes((size_t)n_params) + 3 * n_params * sizeof(float) +
           2 * n_slots * sizeof(struct cr_ivon_part);
}

static uint64_t result_bytes(const struct cr_finetune_options *o, uint64_t n_params)
{
    (void)o;
    return 2 * n_params * sizeof(float);
}

static void destroy(void *state)
{
    struct learner *l = state;
    if (l != NULL) {
        cr_adamw_deinit(&l->adamw);
        cr_adamw_deinit(&l->adamw_rho);
        cr_free(l->parts);
        cr_free(l->rho);
        cr_free(l->noise);
        cr_free(l->grad);
        cr_free(l);
    }
}

/* The parts of A, in order. */
static const struct cr_ivon_part *next_part(const struct learner *l, const struct cr_ivon_part *part)
{
    const struct cr_ivon_part *end = l->parts + l->n_parts;
    for (part = part != NULL ? part + 1 : l->parts; part < end; part++) {
        if (part->group == CR_IVON_GROUP_A) {
            return part;
        }
    }
    return NULL;
}

static cr_status allocate(struct learner *l, const struct cr_method_setup *setup, struct cr_error *err)
{
    CR_TRY(cr_rng_ops_init(&l->rng, setup->tier));
    CR_TRY(cr_adamw_init(&l->adamw, l->n, setup->tier, setup->parallel, err));
    CR_TRY(cr_adamw_init(&l->adamw_rho, l->n, setup->tier, setup->parallel, err));
    l->parts = cr_ivon_parts_of(setup->adapter, &l->n_parts);
    l->rho = cr_zalloc(l->n, sizeof *l->rho);
    l->noise = cr_zalloc(l->n, sizeof *l->noise);
    l->grad = cr_zalloc(l->n, sizeof *l->grad);
    return l->parts != NULL && l->rho != NULL && l->noise != NULL && l->grad != NULL
               ? CR_OK
               : cr_fail(err, CR_E_MEMORY, "no memory for the noise of %zu weights", l->n);
}

/* Noise and its gradient lie where A and its gradient lie. */
static void show_noise(const struct learner *l)
{
    struct cr_adapter *adapter = l->adapter;
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        struct cr_lora *slot = &adapter->slots[i];
        if (slot->rank > 0) {
            slot->noise = l->noise + (slot->a - adapter->params);
            slot->grad_noise = l->grad + (slot->a - adapter->params);
        }
    }
}

static cr_status init(void *learner, const struct cr_method_setup *setup, struct cr_error *err)
{
    struct learner *l = learner;
    const struct cr_finetune_options *o = setup->options;
    uint64_t batch = (uint64_t)o->batch_size * o->grad_accumulation_steps;
    l->adapter = setup->adapter;
    l->n = setup->adapter->n_params;
    CR_TRY(allocate(l, setup, err));
    l->adamw.weight_decay = o->weight_decay;
    l->adamw.max_norm = l->adamw_rho.max_norm = o->max_grad_norm;
    l->adamw.eps = l->adamw_rho.eps = ADAM_EPS;
    l->seed = o->seed;
    l->prior_std = o->prior_std;
    l->kl_lr = o->kl_lr;
    l->paper = o->preset != NULL;
    l->lr = o->lr;
    l->cycle = cr_blob_cycle(setup->n_examples, batch);
    if (l->cycle > setup->n_steps / MIN_CYCLES) {
        l->cycle = setup->n_steps >= MIN_CYCLES ? setup->n_steps / MIN_CYCLES : 1;
    }
    for (const struct cr_ivon_part *part = next_part(l, NULL); part != NULL; part = next_part(l, part)) {
        const uint32_t key[2] = {(uint32_t)l->seed, RHO ^ part->tensor};
        cr_blob_rho_start(key, o->rho_init, l->rho + part->begin, part->n);
    }
    show_noise(l);
    return CR_OK;
}

static cr_status create(const struct cr_method_setup *setup, void **state, struct cr_error *err)
{
    return cr_learner_make(sizeof(struct learner), init, destroy, setup, state, err);
}

/* E of the step into l->noise. */
static void draw(struct learner *l, uint64_t step)
{
    for (const struct cr_ivon_part *part = next_part(l, NULL); part != NULL; part = next_part(l, part)) {
        struct cr_noise noise = {.key = {(uint32_t)l->seed, NOISE}, .step = (uint32_t)step, .tensor = part->tensor};
        l->rng.normals(&noise, l->noise + part->begin, 0, part->n);
    }
}

static void begin_pass(void *state, uint64_t step, uint32_t pass)
{
    struct learner *l = state;
    (void)pass;
    draw(l, step);
    cr_blob_noise_f32(l->noise, l->rho, l->n, l->noise);
    memset(l->grad, 0, l->n * sizeof *l->grad);
}

/* From the noise to rho, in place: 2 rho E times it. */
static void end_pass(void *state, uint64_t step, uint32_t pass)
{
    struct learner *l = state;
    (void)pass;
    draw(l, step);
    for (size_t i = 0; i < l->n; i++) {
        l->grad[i] = (float)(2 * (double)l->rho[i] * (double)l->noise[i] * (double)l->grad[i]);
    }
}

static double norm2_of(const struct learner *l)
{
    double sum = 0;
    for (size_t i = 0; i < l->n; i++) {
        sum += (double)l->grad[i] * (double)l->grad[i];
    }
    return sum;
}

static void update(void *state, const struct cr_method_step *step)
{
    struct learner *l = state;
    double norm2 = norm2_of(l);
    if (!isfinite(norm2)) { /* the loop has looked at the other gradients only */
        memset(l->grad, 0, l->n * sizeof *l->grad);
        norm2 = 0;
    }
    double norm = sqrt(step->norm * step->norm + norm2);
    double rate = l->kl_lr * step->lr / l->lr * cr_blob_pi(step->step, l->cycle);
    float *mu = l->adapter->params;
    cr_adamw_step(&l->adamw, mu, l->adapter->grads, norm, step->lr);
    cr_adamw_step(&l->adamw_rho, l->rho, l->grad, norm, step->lr);
    for (const struct cr_ivon_part *part = next_part(l, NULL); part != NULL; part = next_part(l, part)) {
        float *m = mu + part->begin, *rho = l->rho + part->begin;
        cr_blob_kl_f32(m, rho, part->n, l->prior_std, -rate, m, rho);
    }
}

static const float *point(const void *state)
{
    return ((const struct learner *)state)->adapter->params;
}

static size_t sections(const void *state, struct cr_checkpoint_section *out)
{
    const struct learner *l = state;
    const struct cr_adamw *rho = &l->adamw_rho;
    out[0] = (struct cr_checkpoint_section){CR_CKPT_OPTIMISER, l->adamw.state, cr_adamw_state_bytes(&l->adamw)};
    out[1] = (struct cr_checkpoint_section){CR_CKPT_SPREAD, l->rho, l->n * sizeof *l->rho};
    out[2] = (struct cr_checkpoint_section){CR_CKPT_SPREAD_OPTIMISER, rho->state, cr_adamw_state_bytes(rho)};
    return 3;
}

static cr_status restore(void *state, const float *weights, const struct cr_checkpoint *checkpoint,
                         struct cr_error *err)
{
    struct learner *l = state;
    size_t adam_bytes = cr_adamw_state_bytes(&l->adamw);
    const void *adamw = NULL, *adamw_rho = NULL;
    CR_TRY(cr_checkpoint_require(checkpoint, CR_CKPT_OPTIMISER, NULL, adam_bytes, &adamw, err));
    CR_TRY(cr_checkpoint_require(checkpoint, CR_CKPT_SPREAD_OPTIMISER, NULL, adam_bytes, &adamw_rho, err));
    CR_TRY(cr_checkpoint_get(checkpoint, CR_CKPT_SPREAD, NULL, l->rho, l->n * sizeof *l->rho, err));
    CR_TRY(cr_adamw_restore(&l->adamw, adamw, adam_bytes, err));
    CR_TRY(cr_adamw_restore(&l->adamw_rho, adamw_rho, adam_bytes, err));
    memmove(l->adapter->params, weights, l->n * sizeof *weights);
    return cr_checkpoint_finite("rho of weight", l->rho, l->n, err);
}

static void take_result(const void *state, void *result)
{
    const struct learner *l = state;
    memcpy(result, l->adapter->params, l->n * sizeof(float));
    memcpy((float *)result + l->n, l->rho, l->n * sizeof(float));
}

static void put_result(void *state, const void *result)
{
    struct learner *l = state;
    memcpy(l->adapter->params, result, l->n * sizeof(float));
    memcpy(l->rho, (const float *)result + l->n, l->n * sizeof(float));
}

static void announce(const void *state, const struct cr_host *host)
{
    const struct learner *l = state;
    cr_host_log(host, CR_LOG_INFO, "blob: prior sigma %g, weight of the KL in cycles of %" PRIu64 " steps, rate %g",
                l->prior_std, l->cycle, l->kl_lr);
    if (l->paper) {
        cr_host_log(host, CR_LOG_WARNING, "blob: the paper adapts the output head too, which is not built");
    }
}

static void facts(const void *state, json_t *object)
{
    const struct learner *l = state;
    double sigma2 = 0, mean2 = 0, kl = 0;
    size_t n = 0;
    for (const struct cr_ivon_part *part = next_part(l, NULL); part != NULL; part = next_part(l, part)) {
        for (size_t i = part->begin; i < part->begin + part->n; i++) {
            double rho = (double)l->rho[i], mu = (double)l->adapter->params[i];
            sigma2 += rho * rho * rho * rho;
            mean2 += mu * mu;
        }
        kl += cr_blob_kl_f32(l->adapter->params + part->begin, l->rho + part->begin, part->n, l->prior_std, 0, NULL,
                             NULL);
        n += part->n;
    }
    json_object_set_new(object, "sigma", json_real(sqrt(sigma2 / (double)n)));
    json_object_set_new(object, "sigma_over_rms_a", json_real(sqrt(sigma2 / mean2)));
    json_object_set_new(object, "kl", json_real(kl));
    json_object_set_new(object, "prior_std", json_real(l->prior_std));
    json_object_set_new(object, "kl_cycle", json_integer((json_int_t)l->cycle));
}

static cr_status write(const void *state, const struct cr_posterior_about *about, const char *dir, struct cr_error *err)
{
    const struct learner *l = state;
    float *sigma = l->noise; /* drawn anew before it is used again */
    for (size_t i = 0; i < l->n; i++) {
        sigma[i] = l->rho[i] * l->rho[i];
    }
    return cr_blob_write(l->adapter->params, sigma, l->prior_std, about, dir, err);
}

const struct cr_method cr_method_blob = {
    .name = "blob",
    .flipout = true,
    .check = check,
    .settings = settings,
    .state_bytes = state_bytes,
    .result_bytes = result_bytes,
    .create = create,
    .destroy = destroy,
    .begin_pass = begin_pass,
    .end_pass = end_pass,
    .update = update,
    .point = point,
    .sections = sections,
    .restore = restore,
    .take_result = take_result,
    .put_result = put_result,
    .announce = announce,
    .facts = facts,
    .write = write,
};
