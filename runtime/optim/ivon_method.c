/* ivon as a method of the training loop: the engine works on a perturbed copy, everything else on the mean. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/core/host.h"
#include "runtime/io/json.h"
#include "runtime/optim/adamw_method.h"
#include "runtime/optim/ivon_options.h"
#include "runtime/optim/norm2.h"
#include "runtime/posterior/ivon_file.h"
#include "runtime/posterior/method.h"

/* Share of the updates at the clip radius from which only the sign of the momentum counts, and the mean spread, against
 * that of the start, from which the posterior says nothing: when a warning is due. Over at least so many steps. */
#define SATURATED 0.999
#define COLLAPSED 0.1
enum { WATCHED_STEPS = 20 };

/* Numbers that a resume brings back: a section of a checkpoint as they lie. */
struct head {
    uint64_t layout; /* sizeof this struct */
    uint64_t t, n_updates, n_clipped;
    double sum_hess; /* after the last step */
    uint64_t zero[3];
};

struct learner {
    struct cr_ivon ivon;
    struct cr_norm2 norm2; /* of averaged gradients; where several samples are to be clipped */
    struct head head;
    struct cr_adapter *adapter; /* borrowed */
    uint64_t n_targets;
    double max_norm, std_a; /* of the A that training begins with */
    uint64_t step;          /* and pass whose point stands in params */
    uint32_t pass;
    bool perturbed;
    bool warned_clip, warned_spread;
    uint64_t watched_t, watched_updates, watched_clipped;
};

/* Whether the norm that clips is one that no single pass knows. */
static bool clips_average(const struct cr_ivon_settings *s, double max_norm)
{
    return s->n_samples > 1 && max_norm > 0;
}

static uint64_t state_bytes(const struct cr_finetune_options *o, uint64_t n_params, uint64_t n_slots)
{
    struct cr_ivon_settings s = cr_ivon_settings_of(o);
    return sizeof(struct learner) + cr_ivon_bytes(n_params, 2 * n_slots, &s, false) +
           (clips_average(&s, o->max_grad_norm) ? cr_norm2_bytes((size_t)n_params) : 0);
}

static uint64_t result_bytes(const struct cr_finetune_options *o, uint64_t n_params)
{
    (void)o;
    return 2 * n_params * sizeof(float);
}

/* Root mean square of the entries of all A: with mean 0 their standard deviation. */
static double std_of_a(const float *params, const struct cr_ivon *ivon)
{
    double sum = 0;
    size_t n = 0;
    for (size_t p = 0; p < ivon->n_parts; p++) {
        const struct cr_ivon_part *part = &ivon->parts[p];
        for (size_t i = part->begin; part->group == CR_IVON_GROUP_A && i < part->begin + part->n; i++) {
            sum += (double)params[i] * (double)params[i];
        }
        n += part->group == CR_IVON_GROUP_A ? part->n : 0;
    }
    return n > 0 ? sqrt(sum / (double)n) : 0;
}

static void destroy(void *state)
{
    struct learner *l = state;
    if (l != NULL) {
        cr_ivon_deinit(&l->ivon);
        cr_norm2_deinit(&l->norm2);
        cr_free(l);
    }
}

static cr_status init(void *learner, const struct cr_method_setup *setup, struct cr_error *err)
{
    struct learner *l = learner;
    size_t n_parts = 0;
    struct cr_ivon_part *parts = cr_ivon_parts_of(setup->adapter, &n_parts);
    if (parts == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the parts of an adapter");
    }
    struct cr_ivon_settings s = cr_ivon_settings_of(setup->options);
    cr_status status = cr_ivon_init(&l->ivon, setup->adapter->params, setup->adapter->n_params, parts, n_parts, &s,
                                    false, setup->tier, setup->parallel, err);
    cr_free(parts);
    if (status == CR_OK && clips_average(&s, setup->options->max_grad_norm)) {
        status = cr_norm2_init(&l->norm2, setup->adapter->n_params, setup->tier, setup->parallel, err);
    }
    if (status != CR_OK) {
        return status;
    }
    l->head.layout = sizeof l->head;
    l->adapter = setup->adapter;
    l->n_targets = setup->n_targets;
    l->max_norm = setup->options->max_grad_norm;
    l->std_a = std_of_a(setup->adapter->params, &l->ivon);
    return CR_OK;
}

static cr_status create(const struct cr_method_setup *setup, void **state, struct cr_error *err)
{
    return cr_learner_make(sizeof(struct learner), init, destroy, setup, state, err);
}

static uint32_t n_passes(const void *state)
{
    return ((const struct learner *)state)->ivon.settings.n_samples;
}

static void perturbed_for(struct learner *l, uint64_t step, uint32_t pass)
{
    l->step = step;
    l->pass = pass;
    l->perturbed = true;
}

static void begin_pass(void *state, uint64_t step, uint32_t pass)
{
    struct learner *l = state;
    if (!l->perturbed || l->step != step || l->pass != pass) {
        cr_ivon_perturb(&l->ivon, step, pass, l->adapter->params);
        perturbed_for(l, step, pass);
    }
}

static void end_pass(void *state, uint64_t step, uint32_t pass)
{
    struct learner *l = state;
    if (pass + 1 < l->ivon.settings.n_samples) { /* the last one goes with the update */
        cr_ivon_accumulate(&l->ivon, step, pass, l->adapter->grads, l->adapter->params);
        perturbed_for(l, step, pass + 1);
    }
}

/* What the momentum takes in is the mean of the samples' gradients, and its norm is the one that may be too large:
 * below the samples' own, whose noise cancels. It is known once the last sample is in the averages too. */
static void update(void *state, const struct cr_method_step *step)
{
    struct learner *l = state;
    const float *last = l->adapter->grads;
    double norm = step->norm;
    if (clips_average(&l->ivon.settings, l->max_norm)) {
        cr_ivon_accumulate(&l->ivon, step->step, l->ivon.settings.n_samples - 1, last, NULL);
        norm = sqrt(cr_norm2_of(&l->norm2, l->ivon.avg_grad));
        last = NULL;
    }
    struct cr_ivon_counts counts =
        cr_ivon_step(&l->ivon, step->step, last, step->lr, cr_clip_factor(norm, l->max_norm), l->adapter->params);
    perturbed_for(l, step->step + 1, 0);
    l->head.t = l->ivon.t;
    l->head.n_updates += l->ivon.n_elements;
    l->head.n_clipped += counts.n_clipped;
    l->head.sum_hess = counts.sum_hess;
}

static void show_point(void *state)
{
    struct learner *l = state;
    memcpy(l->adapter->params, l->ivon.mean, l->ivon.n * sizeof *l->ivon.mean);
    l->perturbed = false;
}

static const float *point(const void *state)
{
    return ((const struct learner *)state)->ivon.mean;
}

static size_t sections(const void *state, struct cr_checkpoint_section *out)
{
    const struct learner *l = state;
    size_t bytes = l->ivon.n * sizeof(float);
    out[0] = (struct cr_checkpoint_section){CR_CKPT_OPTIMISER, l->ivon.momentum, bytes};
    out[1] = (struct cr_checkpoint_section){CR_CKPT_HESSIAN, l->ivon.hess, bytes};
    out[2] = (struct cr_checkpoint_section){CR_CKPT_METHOD, &l->head, sizeof l->head};
    return 3;
}

static cr_status restore(void *state, const float *weights, const struct cr_checkpoint *checkpoint,
                         struct cr_error *err)
{
    struct learner *l = state;
    struct cr_ivon *ivon = &l->ivon;
    size_t bytes = ivon->n * sizeof(float);
    struct head head;
    CR_TRY(cr_checkpoint_get(checkpoint, CR_CKPT_METHOD, "counts", &head, sizeof head, err));
    if (head.layout != sizeof head) {
        return cr_fail(err, CR_E_INPUT, "section %u: layout %" PRIu64 ", expected %zu", CR_CKPT_METHOD, head.layout,
                       sizeof head);
    }
    if (head.n_clipped > head.n_updates) {
        return cr_fail(err, CR_E_INPUT, "section %u: %" PRIu64 " updates clipped, of %" PRIu64, CR_CKPT_METHOD,
                       head.n_clipped, head.n_updates);
    }
    CR_TRY(cr_checkpoint_get(checkpoint, CR_CKPT_OPTIMISER, "momentum", ivon->momentum, bytes, err));
    CR_TRY(cr_checkpoint_get(checkpoint, CR_CKPT_HESSIAN, "curvature", ivon->hess, bytes, err));
    CR_TRY(cr_checkpoint_finite("momentum", ivon->momentum, ivon->n, err));
    CR_TRY(cr_ivon_check_hess(ivon->hess, ivon->parts, ivon->n_parts, ivon->settings.groups, err));
    memcpy(ivon->mean, weights, bytes);
    l->head = head;
    ivon->t = head.t;
    l->watched_t = head.t;
    l->watched_updates = head.n_updates;
    l->watched_clipped = head.n_clipped;
    show_point(l);
    return CR_OK;
}

static void take_result(const void *state, void *result)
{
    const struct cr_ivon *ivon = &((const struct learner *)state)->ivon;
    memcpy(result, ivon->mean, ivon->n * sizeof(float));
    memcpy((float *)result + ivon->n, ivon->hess, ivon->n * sizeof(float));
}

static void put_result(void *state, const void *result)
{
    struct learner *l = state;
    memcpy(l->ivon.mean, result, l->ivon.n * sizeof(float));
    memcpy(l->ivon.hess, (const float *)result + l->ivon.n, l->ivon.n * sizeof(float));
    l->perturbed = false;
}

static double sigma_of(const struct cr_ivon_group *g, double hess)
{
    return 1 / sqrt(g->ess * (hess + g->weight_decay));
}

static double sigma0(const struct learner *l)
{
    const struct cr_ivon_group *a = &l->ivon.settings.groups[CR_IVON_GROUP_A];
    return sigma_of(a, a->hess_init);
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : (double)NAN;
}

static void announce(const void *state, const struct cr_host *host)
{
    const struct learner *l = state;
    const struct cr_ivon_group *a = &l->ivon.settings.groups[CR_IVON_GROUP_A];
    cr_host_log(host, CR_LOG_INFO,
                "ivon: ess %g, %g times the %" PRIu64 " targets; sigma0 %.4g, %.3g times the spread of A; prior %s",
                a->ess, ratio(a->ess, (double)l->n_targets), l->n_targets, sigma0(l), ratio(sigma0(l), l->std_a),
                a->weight_decay > 0 ? "proper" : "improper (weight decay 0)");
}

static double clipped_share(uint64_t n_clipped, uint64_t n_updates)
{
    return ratio((double)n_clipped, (double)n_updates);
}

/* After the last step. */
static double mean_hess(const struct learner *l)
{
    const struct cr_ivon_group *a = &l->ivon.settings.groups[CR_IVON_GROUP_A];
    return l->head.t > 0 ? l->head.sum_hess / (double)l->ivon.n_elements : a->hess_init;
}

static void conclude(const void *state, const struct cr_host *host)
{
    const struct learner *l = state;
    const struct cr_ivon_group *a = &l->ivon.settings.groups[CR_IVON_GROUP_A];
    cr_host_log(
        host, CR_LOG_INFO,
        "ivon: sigma0 %.4g, %.3g times the spread of A; ess %g, %g times the targets; %.2f %% of the updates were "
        "cut at the clip radius %g; the spread ends at %.3g of sigma0",
        sigma0(l), ratio(sigma0(l), l->std_a), a->ess, ratio(a->ess, (double)l->n_targets),
        100 * clipped_share(l->head.n_clipped, l->head.n_updates), a->clip_radius,
        sigma_of(a, mean_hess(l)) / sigma0(l));
}

/* Of the result, which may be an earlier step's. Returns the mean. */
static double scan_hess(const struct cr_ivon *ivon, double *least)
{
    double sum = 0;
    *least = (double)INFINITY;
    for (size_t p = 0; p < ivon->n_parts; p++) {
        for (size_t i = ivon->parts[p].begin; i < ivon->parts[p].begin + ivon->parts[p].n; i++) {
            double h = (double)ivon->hess[i];
            sum += h;
            *least = h < *least ? h : *least;
        }
    }
    return sum / (double)ivon->n_elements;
}

/* Each warning once in a run. */
static void watch(void *state, const struct cr_host *host)
{
    struct learner *l = state;
    const struct cr_ivon_group *a = &l->ivon.settings.groups[CR_IVON_GROUP_A];
    if (l->head.t < l->watched_t + WATCHED_STEPS) {
        return;
    }
    double share = clipped_share(l->head.n_clipped - l->watched_clipped, l->head.n_updates - l->watched_updates);
    double spread = sigma_of(a, mean_hess(l)) / sigma0(l);
    if (share >= SATURATED && !l->warned_clip) {
        l->warned_clip = true;
        cr_host_log(host, CR_LOG_WARNING,
                    "ivon: %.2f %% of the updates are cut at the clip radius %g: only the sign of the momentum counts; "
                    "a larger --clip-radius with a smaller --lr lets the curvature speak",
                    100 * share, a->clip_radius);
    }
    if (spread < COLLAPSED && !l->warned_spread) {
        l->warned_spread = true;
        cr_host_log(
            host, CR_LOG_WARNING,
            "ivon: the variance collapses: the spread is %.3g of sigma0 %.4g (mean curvature %.3g, hess-init %g); "
            "a larger --hess-init or a smaller --ess keeps it",
            spread, sigma0(l), mean_hess(l), a->hess_init);
    }
    l->watched_t = l->head.t;
    l->watched_updates = l->head.n_updates;
    l->watched_clipped = l->head.n_clipped;
}

static void facts(const void *state, json_t *object)
{
    const struct learner *l = state;
    const struct cr_ivon_group *a = &l->ivon.settings.groups[CR_IVON_GROUP_A];
    double least, mean = scan_hess(&l->ivon, &least);
    json_object_set_new(object, "sigma0", cr_json_finite(sigma0(l)));
    json_object_set_new(object, "sigma0_over_std_a", cr_json_finite(ratio(sigma0(l), l->std_a)));
    json_object_set_new(object, "ess_per_target", cr_json_finite(ratio(a->ess, (double)l->n_targets)));
    json_object_set_new(object, "clipped_share", cr_json_finite(clipped_share(l->head.n_clipped, l->head.n_updates)));
    json_object_set_new(object, "hess_mean", cr_json_finite(mean));
    json_object_set_new(object, "hess_min", cr_json_finite(least));
    json_object_set_new(object, "sigma", cr_json_finite(sigma_of(a, mean)));
    json_object_set_new(object, "prior", json_string(a->weight_decay > 0 ? "proper" : "improper: weight decay 0"));
}

static cr_status write(const void *state, const struct cr_posterior_about *about, const char *dir, struct cr_error *err)
{
    const struct cr_ivon *ivon = &((const struct learner *)state)->ivon;
    const struct cr_ivon_posterior posterior = {
        .mean = ivon->mean, .hess = ivon->hess, .groups = ivon->settings.groups, .t = ivon->t};
    return cr_ivon_write(&posterior, about, dir, err);
}

const struct cr_method cr_method_ivon = {
    .name = "ivon",
    .check = cr_ivon_check,
    .resolve = cr_ivon_resolve,
    .settings = cr_ivon_record,
    .state_bytes = state_bytes,
    .result_bytes = result_bytes,
    .create = create,
    .destroy = destroy,
    .n_passes = n_passes,
    .begin_pass = begin_pass,
    .end_pass = end_pass,
    .update = update,
    .show_point = show_point,
    .point = point,
    .sections = sections,
    .restore = restore,
    .take_result = take_result,
    .put_result = put_result,
    .announce = announce,
    .conclude = conclude,
    .watch = watch,
    .facts = facts,
    .write = write,
};
