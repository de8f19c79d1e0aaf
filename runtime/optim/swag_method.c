/* swag as a method of the training loop: AdamW, and from some step on snapshots of its weights at a rate of their own.
 *
 * The engine always works on the training weights; the mean of the snapshots is what validation and files show once
 * there is one. Adam's moments are kept throughout: also where the snapshots start from the weights of the best
 * validation before them, which are kept meanwhile where the training weights will be while the mean is shown.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/core/host.h"
#include "runtime/optim/adamw_method.h"
#include "runtime/optim/own_rows.h"
#include "runtime/optim/swag_options.h"
#include "runtime/posterior/swag_file.h"
#include "runtime/posterior/swag_scale.h"

/* Share of the covariance where nothing chooses: arXiv 1902.02476. */
#define PAPER_SCALE 0.5

struct learner {
    struct cr_adamw adamw;
    struct cr_adapter *adapter; /* borrowed */
    const struct cr_parallel *parallel;
    struct cr_dplr_ops ops;
    struct cr_swag swag;
    struct cr_swag_plan plan;
    struct cr_swag_head head;
    struct cr_own_rows rows;
    bool from_best;               /* the snapshots start from the weights of the best validation before them */
    bool back;                    /* training has gone back there, which is still to be said */
    double scale;                 /* 0 until it is chosen */
    struct cr_swag_scales trials; /* best 0: the scale was given, or nothing was held out */
    uint64_t seed;
    double (*own_lr)(const void *schedule, uint64_t step);
    const void *schedule;
    float *moments; /* owned: mean, mean_low, m2 [3n] */
    float *theta;   /* owned: training weights while the mean is shown; before the first snapshot the best */
    bool shown;
};

static uint64_t result_bytes(const struct cr_finetune_options *o, uint64_t n_params)
{
    return cr_swag_result_bytes(o->swag_rank, n_params);
}

static uint64_t state_bytes(const struct cr_finetune_options *o, uint64_t n_params, uint64_t n_slots)
{
    (void)n_slots;
    uint64_t rows = (uint64_t)o->swag_rank * n_params * sizeof(uint16_t);
    return cr_adamw_bytes((size_t)n_params) + 4 * n_params * sizeof(float) + 2 * rows; /* once more to be written */
}

static void destroy(void *state)
{
    struct learner *l = state;
    if (l != NULL) {
        cr_adamw_deinit(&l->adamw);
        cr_free(l->moments);
        cr_free(l->theta);
        cr_free(l->swag.rows);
        cr_own_rows_deinit(&l->rows);
        cr_free(l);
    }
}

static cr_status init(void *learner, const struct cr_method_setup *setup, struct cr_error *err)
{
    struct learner *l = learner;
    const struct cr_finetune_options *o = setup->options;
    size_t n = setup->adapter->n_params;
    if (o->head_lr > 0 && setup->adapter->n_labels == 0) {
        return cr_fail(err, CR_E_USAGE,
                       "--head-lr %g: label rows are trained for questions with choices, not for texts", o->head_lr);
    }
    CR_TRY(cr_swag_options_plan(setup, &l->plan, err));
    CR_TRY(cr_swag_options_from_best(setup, &l->plan, &l->from_best, err));
    CR_TRY(cr_own_rows_init(&l->rows, setup, err));
    CR_TRY(cr_dplr_ops_init(&l->ops, setup->tier));
    CR_TRY(cr_adamw_init(&l->adamw, n, setup->tier, setup->parallel, err));
    l->moments = cr_zalloc(n, 3 * sizeof *l->moments);
    l->theta = cr_alloc(n, sizeof *l->theta);
    l->swag = (struct cr_swag){.n_params = n, .row_stride = n, .n_rows = o->swag_rank};
    l->swag.rows = cr_zalloc((size_t)o->swag_rank * n, sizeof *l->swag.rows);
    if (l->moments == NULL || l->theta == NULL || l->swag.rows == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %u snapshots of %zu weights", o->swag_rank, n);
    }
    l->swag.mean = l->moments;
    l->swag.mean_low = l->moments + n;
    l->swag.m2 = l->moments + 2 * n;
    l->adapter = setup->adapter;
    l->parallel = setup->parallel;
    l->own_lr = setup->own_lr;
    l->schedule = setup->schedule;
    l->scale = o->swag_scale;
    l->seed = o->seed;
    l->adamw.weight_decay = o->weight_decay;
    l->adamw.max_norm = o->max_grad_norm;
    l->head.layout = sizeof l->head;
    l->head.n_rows = o->swag_rank;
    return CR_OK;
}

static cr_status create(const struct cr_method_setup *setup, void **state, struct cr_error *err)
{
    return cr_learner_make(sizeof(struct learner), init, destroy, setup, state, err);
}

static size_t bytes_of(const struct learner *l)
{
    return l->swag.n_params * sizeof(float);
}

static void show_training(struct learner *l)
{
    if (l->shown) {
        memcpy(l->adapter->params, l->theta, bytes_of(l));
        l->shown = false;
    }
}

/* The weights that the snapshots will start from are still needed. */
static bool keeps_best(const struct learner *l)
{
    return l->head.best_step > 0 && l->swag.n == 0;
}

/* An update at `start` has not been yet: a step that was stopped in its middle goes back once more, to the same. */
static void begin_pass(void *state, uint64_t step, uint32_t pass)
{
    struct learner *l = state;
    (void)pass;
    show_training(l);
    if (step == l->plan.start && keeps_best(l)) {
        memcpy(l->adapter->params, l->theta, bytes_of(l));
        l->back = true;
    }
}

static void evaluated(void *state, uint64_t step, double nll)
{
    struct learner *l = state;
    bool better = isfinite(nll) && (l->head.best_step == 0 || nll < l->head.best_nll);
    if (l->from_best && step <= l->plan.start && better) {
        memcpy(l->theta, l->adapter->params, bytes_of(l)); /* nothing else is shown before the first snapshot */
        l->head.best_step = step;
        l->head.best_nll = nll;
    }
}

static double lr(const void *state, uint64_t step)
{
    const struct learner *l = state;
    return step < l->plan.start ? l->own_lr(l->schedule, step)
                                : cr_swag_lr(&l->plan, step, l->own_lr(l->schedule, l->plan.start));
}

static void update(void *state, const struct cr_method_step *step)
{
    struct learner *l = state;
    cr_own_rows_step(&l->rows, &l->adamw, step);
    if (cr_swag_due(&l->plan, step->step, l->swag.n)) {
        cr_swag_collect(&l->swag, &l->ops, l->parallel, l->adapter->params);
        l->head.n = l->swag.n;
    }
}

static void show_point(void *state)
{
    struct learner *l = state;
    if (l->swag.n > 0) {
        if (!l->shown) {
            memcpy(l->theta, l->adapter->params, bytes_of(l));
        }
        memcpy(l->adapter->params, l->swag.mean, bytes_of(l));
        l->shown = true;
    }
}

static const float *training(const struct learner *l)
{
    return l->shown ? l->theta : l->adapter->params;
}

static const float *point(const void *state)
{
    const struct learner *l = state;
    return l->swag.n > 0 ? l->swag.mean : training(l);
}

/* One snapshot says nothing of a spread. */
static bool ready(const void *state)
{
    return ((const struct learner *)state)->swag.n >= 2;
}

static size_t rows_bytes(const struct learner *l)
{
    return (size_t)l->swag.n_rows * l->swag.row_stride * sizeof *l->swag.rows;
}

static size_t sections(const void *state, struct cr_checkpoint_section *out)
{
    const struct learner *l = state;
    out[0] = (struct cr_checkpoint_section){CR_CKPT_OPTIMISER, l->adamw.state, cr_adamw_state_bytes(&l->adamw)};
    out[1] = (struct cr_checkpoint_section){CR_CKPT_METHOD, &l->head, sizeof l->head};
    out[2] = (struct cr_checkpoint_section){CR_CKPT_TRAINED, training(l), bytes_of(l)};
    out[3] = (struct cr_checkpoint_section){CR_CKPT_MOMENTS, l->moments, 3 * bytes_of(l)};
    out[4] = (struct cr_checkpoint_section){CR_CKPT_DEVIATIONS, l->swag.rows, rows_bytes(l)};
    if (keeps_best(l)) {
        out[5] = (struct cr_checkpoint_section){CR_CKPT_START, l->theta, bytes_of(l)};
        return 6;
    }
    return 5;
}

static cr_status restore(void *state, const float *weights, const struct cr_checkpoint *checkpoint,
                         struct cr_error *err)
{
    struct learner *l = state;
    struct cr_swag_head head;
    const struct cr_checkpoint_section *optimiser = cr_checkpoint_find(checkpoint, CR_CKPT_OPTIMISER);
    (void)weights; /* the mean, which stands among the moments too */
    CR_TRY(cr_checkpoint_get(checkpoint, CR_CKPT_METHOD, NULL, &head, sizeof head, err));
    if (optimiser == NULL || head.layout != sizeof head || head.n_rows != l->swag.n_rows ||
        head.n > cr_swag_snapshots(&l->plan)) {
        return cr_fail(err, CR_E_INPUT,
                       "%" PRIu64 " snapshots of rank %" PRIu64 ", expected at most %" PRIu64 " of rank %u", head.n,
                       head.n_rows, cr_swag_snapshots(&l->plan), l->swag.n_rows);
    }
    CR_TRY(cr_adamw_restore(&l->adamw, optimiser->data, optimiser->bytes, err));
    CR_TRY(cr_checkpoint_get(checkpoint, CR_CKPT_TRAINED, NULL, l->adapter->params, bytes_of(l), err));
    CR_TRY(cr_checkpoint_get(checkpoint, CR_CKPT_MOMENTS, NULL, l->moments, 3 * bytes_of(l), err));
    CR_TRY(cr_checkpoint_get(checkpoint, CR_CKPT_DEVIATIONS, NULL, l->swag.rows, rows_bytes(l), err));
    l->shown = false;
    l->head = head;
    l->swag.n = head.n;
    if (keeps_best(l)) {
        CR_TRY(cr_checkpoint_get(checkpoint, CR_CKPT_START, NULL, l->theta, bytes_of(l), err));
        CR_TRY(cr_checkpoint_finite("best weight", l->theta, l->swag.n_params, err));
    }
    CR_TRY(cr_checkpoint_finite("trained weight", l->adapter->params, l->swag.n_params, err));
    return cr_swag_check(&l->swag, err);
}

static void take_result(const void *state, void *result)
{
    const struct learner *l = state;
    cr_swag_pack(&l->swag, result);
}

static void put_result(void *state, const void *result)
{
    struct learner *l = state;
    cr_swag_unpack(&l->swag, result);
    l->head.n = l->swag.n;
}

static double scale_of(const struct learner *l)
{
    return l->scale > 0 ? l->scale : l->trials.best > 0 ? l->trials.best : PAPER_SCALE;
}

static cr_status tune(void *state, const struct cr_method_trial *trial, struct cr_error *err)
{
    struct learner *l = state;
    if (!ready(l)) {
        return CR_OK;
    }
    show_point(l); /* keeps the training weights, which draws are about to overwrite */
    CR_TRY(cr_own_rows_trial(&l->rows, trial, err));
    if (l->scale > 0) {
        return CR_OK;
    }
    struct cr_swag_candidate candidate = {&l->swag, &l->ops, l->parallel, l->seed, l->adapter->params};
    return cr_swag_choose_scale(&candidate, trial, &l->trials, err);
}

static void announce(const void *state, const struct cr_host *host)
{
    const struct learner *l = state;
    uint64_t n = cr_swag_snapshots(&l->plan);
    cr_host_log(host, CR_LOG_INFO,
                "swag: %" PRIu64 " snapshots, one every %" PRIu64 " steps after step %" PRIu64 ", rate %g%s%s", n,
                l->plan.every, l->plan.start, l->plan.lr, l->from_best ? ", from the best validation before on" : "",
                l->rows.model != NULL ? ", label rows trained" : "");
    if (l->rows.model != NULL) {
        cr_host_log(
            host, CR_LOG_INFO,
            "swag: the adapter beside posterior.safetensors is without the trained label rows, for which PEFT has no "
            "place here, and there is no adapter.gguf; export writes what there is a form for");
    }
    if (l->rows.options->swag_from_best == CR_AUTO && !l->from_best) {
        cr_host_log(host, CR_LOG_WARNING,
                    "swag: no validation in the first %" PRIu64
                    " steps: snapshots start from the last weights, not the best",
                    l->plan.start);
    }
    if (n <= l->swag.n_rows) {
        cr_host_log(host, CR_LOG_WARNING,
                    "swag: %" PRIu64 " snapshots, of which the first has no deviation, give rank %" PRIu64 " of %u", n,
                    n - 1, l->swag.n_rows);
    }
}

static void watch(void *state, const struct cr_host *host)
{
    struct learner *l = state;
    if (l->back) {
        cr_host_log(host, CR_LOG_INFO, "swag: back to the weights of step %" PRIu64 ", validation loss %.4f",
                    l->head.best_step, l->head.best_nll);
        l->back = false;
    }
}

static void facts(const void *state, json_t *object)
{
    const struct learner *l = state;
    double sum = 0;
    for (size_t i = 0; i < l->swag.n_params && l->swag.n > 0; i++) {
        sum += (double)l->swag.m2[i] / (double)l->swag.n;
    }
    json_object_set_new(object, "snapshots", json_integer((json_int_t)l->swag.n));
    json_object_set_new(object, "every", json_integer((json_int_t)l->plan.every));
    json_object_set_new(object, "rank", json_integer(cr_swag_rank(&l->swag)));
    json_object_set_new(object, "head", json_string(l->rows.model != NULL ? "trained" : "frozen"));
    cr_head_nll_record(&l->rows.nll, object);
    if (l->head.best_step > 0) {
        json_object_set_new(object, "from_step", json_integer((json_int_t)l->head.best_step));
    }
    json_object_set_new(object, "scale", json_real(scale_of(l)));
    if (l->trials.best > 0) {
        json_t *list = json_array();
        for (int i = 0; i < 2; i++) {
            json_array_append_new(list, json_pack("{s:f,s:f}", "scale", l->trials.scale[i], "nll", l->trials.nll[i]));
        }
        json_object_set_new(object, "scales_tried", list);
    }
    json_object_set_new(object, "sigma", json_real(sqrt(sum / (double)l->adapter->n_trainable)));
}

static cr_status write(const void *state, const struct cr_posterior_about *about, const char *dir, struct cr_error *err)
{
    const struct learner *l = state;
    return cr_swag_write(&l->swag, scale_of(l), l->rows.nll, about, dir, err);
}

const struct cr_method cr_method_swag = {
    .name = "swag",
    .check = cr_swag_options_check,
    .own_rows = cr_swag_options_own_rows,
    .settings = cr_swag_options_record,
    .state_bytes = state_bytes,
    .result_bytes = result_bytes,
    .create = create,
    .destroy = destroy,
    .begin_pass = begin_pass,
    .lr = lr,
    .update = update,
    .show_point = show_point,
    .point = point,
    .ready = ready,
    .evaluated = evaluated,
    .sections = sections,
    .restore = restore,
    .take_result = take_result,
    .put_result = put_result,
    .tune = tune,
    .tune_passes = 2 * CR_SWAG_TRIAL_DRAWS, /* those of trained label rows are not counted */
    .announce = announce,
    .watch = watch,
    .facts = facts,
    .write = write,
};
