/* prefix as a method of the training loop: AdamW on the vertices of learned prefixes and of label rows, at a point of
 * the simplex that every text draws anew for each layer in each step (arXiv 2310.15793; one vertex is prefix tuning).
 *
 * Validation looks at each text several times, each time at other points; what predicts is the centroid.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/error.h"
#include "runtime/core/host.h"
#include "runtime/model/simplex.h"
#include "runtime/optim/adamw_method.h"
#include "runtime/optim/trial.h"
#include "runtime/posterior/prefix_file.h"

/* Rate of the label rows unless one is given: they hold much of what the model knows, and start where it has them. */
#define HEAD_LR 2e-4

/* Points between a vertex and the centroid at which the finished result is looked at: half way, and the vertex. */
enum { PATH_STEPS = 2, DRAWS_MAX = 1000 };

struct learner {
    struct cr_learner base; /* first: the state of a method that is AdamW alone */
    /* the point that passes see: `fixed` for every text and layer, or one that each draws */
    bool draws;
    double fixed[CR_PREFIX_VERTICES_MAX];
    uint32_t stream, draw;
    double path[CR_PREFIX_VERTICES_MAX][PATH_STEPS], centroid; /* loss on held-out texts; NaN: not measured */
};

static double head_lr(const struct cr_finetune_options *o)
{
    return o->head_lr > 0 ? o->head_lr : HEAD_LR;
}

static cr_status check(const struct cr_finetune_options *o, struct cr_error *err)
{
    struct cr_finetune_options plain;
    cr_finetune_options_init(&plain);
    if (o->vertices < 1 || o->vertices > CR_PREFIX_VERTICES_MAX) {
        return cr_fail(err, CR_E_USAGE, "--vertices %u, expected 1 to %d", o->vertices, CR_PREFIX_VERTICES_MAX);
    }
    if (o->prefix_length < 1 || o->prefix_length > CR_PREFIX_ROWS_MAX) {
        return cr_fail(err, CR_E_USAGE, "--prefix-length %u, expected 1 to %d", o->prefix_length, CR_PREFIX_ROWS_MAX);
    }
    if (o->valid_draws > DRAWS_MAX) {
        return cr_fail(err, CR_E_USAGE, "--valid-draws %u, expected 0 to %d", o->valid_draws, DRAWS_MAX);
    }
    if (!(o->head_lr >= 0 && isfinite(o->head_lr))) {
        return cr_fail(err, CR_E_USAGE, "--head-lr %g, expected a number above 0", o->head_lr);
    }
    if (o->rank != plain.rank || o->alpha > 0 || o->dropout > 0 ||
        (o->targets != NULL && strcmp(o->targets, plain.targets) != 0)) {
        return cr_fail(err, CR_E_USAGE,
                       "rank, alpha, dropout and targets are of low-rank adapters: --method prefix trains rows of keys "
                       "and values (--prefix-length) and has none");
    }
    if (o->adapter != NULL) {
        return cr_fail(err, CR_E_USAGE, "--adapter: --method prefix starts from training texts, not from an adapter");
    }
    return CR_OK;
}

static void settings(const struct cr_finetune_options *o, json_t *object)
{
    json_object_set_new(object, "vertices", json_integer(o->vertices));
    json_object_set_new(object, "prefix-length", json_integer(o->prefix_length));
    json_object_set_new(object, "valid-draws", json_integer(o->valid_draws));
    json_object_set_new(object, "head-lr", json_real(head_lr(o)));
}

static void weights(const void *ctx, uint32_t member, uint32_t example, uint32_t layer, double *lambda)
{
    const struct learner *l = ctx;
    uint32_t n = l->base.adapter->prefix->n_vertices;
    (void)member;
    if (!l->draws) {
        memcpy(lambda, l->fixed, n * sizeof *lambda);
        return;
    }
    struct cr_simplex_point point = {
        .seed = l->base.options->seed, .stream = l->stream, .draw = l->draw, .example = example, .layer = layer};
    cr_simplex_weights(&point, n, lambda);
}

static void show_draw(struct learner *l, uint32_t stream, uint32_t draw)
{
    l->draws = true;
    l->stream = stream;
    l->draw = draw;
}

static void show_point(void *state)
{
    struct learner *l = state;
    l->draws = false;
    cr_simplex_centroid(l->base.adapter->prefix->n_vertices, l->fixed);
}

static cr_status init(void *learner, const struct cr_method_setup *setup, struct cr_error *err)
{
    struct learner *l = learner;
    CR_TRY(cr_learner_init(&l->base, setup, err));
    setup->adapter->prefix->weights = weights;
    setup->adapter->prefix->ctx = l;
    l->centroid = (double)NAN;
    show_point(l);
    return CR_OK;
}

static cr_status create(const struct cr_method_setup *setup, void **state, struct cr_error *err)
{
    return cr_learner_make(sizeof(struct learner), init, cr_learner_destroy, setup, state, err);
}

static void begin_pass(void *state, uint64_t step, uint32_t pass)
{
    (void)pass;
    show_draw(state, CR_SIMPLEX_TRAINING, (uint32_t)step);
}

/* The label rows follow the course of the rate at a scale of their own. */
static void update(void *state, const struct cr_method_step *step)
{
    struct learner *l = state;
    const struct cr_prefix *prefix = l->base.adapter->prefix;
    const struct cr_finetune_options *o = l->base.options;
    const struct cr_adamw_group groups[] = {{cr_prefix_rows_floats(prefix), step->lr},
                                            {cr_prefix_floats(prefix), step->lr * (head_lr(o) / o->lr)}};
    cr_adamw_step_groups(&l->base.adamw, l->base.adapter->params, l->base.adapter->grads, step->norm, groups, 2);
}

static uint32_t n_looks(const void *state)
{
    const struct learner *l = state;
    return l->base.adapter->prefix->n_vertices > 1 ? l->base.options->valid_draws : 0;
}

static void look(void *state, uint32_t number)
{
    show_draw(state, CR_SIMPLEX_VALIDATION, number);
}

/* Nothing is decided: the loss from each vertex to the centroid says whether the simplex is flat between them. */
static cr_status tune(void *state, const struct cr_method_trial *trial, struct cr_error *err)
{
    struct learner *l = state;
    uint32_t n = l->base.adapter->prefix->n_vertices;
    show_point(l);
    cr_status status = cr_trial_mean(trial, &l->centroid, err);
    for (uint32_t j = 0; j < n && n > 1; j++) {
        for (int i = 0; i < PATH_STEPS && status == CR_OK; i++) {
            double share = (i + 1.0) / PATH_STEPS;
            for (uint32_t v = 0; v < n; v++) {
                l->fixed[v] = (1 - share) / n + (v == j ? share : 0);
            }
            status = cr_trial_mean(trial, &l->path[j][i], err);
        }
    }
    show_point(l);
    return status;
}

static void announce(const void *state, const struct cr_host *host)
{
    const struct learner *l = state;
    const struct cr_prefix *p = l->base.adapter->prefix;
    char validation[48] = "the centroid";
    if (n_looks(l) > 0) {
        snprintf(validation, sizeof validation, "%" PRIu32 " draw%s a text", n_looks(l), n_looks(l) == 1 ? "" : "s");
    }
    cr_host_log(host, CR_LOG_INFO,
                "prefix: %" PRIu32 " %s of %" PRIu32 " rows a layer%s, %zu weights; validation at %s", p->n_vertices,
                p->n_vertices == 1 ? "vertex" : "vertices", p->n_rows, p->n_labels > 0 ? " and of label rows" : "",
                l->base.adapter->n_trainable, validation);
    if (p->n_labels > 0) {
        cr_host_log(host, CR_LOG_INFO,
                    "prefix: a PEFT directory has no place for label rows: the output's has the "
                    "centroid's rows alone, the label rows are in its posterior.safetensors");
    }
}

/* Mean of the squared cosine over the pairs of vertices: 0 when they stand at right angles. */
static double mean_cosine2(const struct cr_prefix *p)
{
    double sum = 0;
    for (uint32_t i = 0; i < p->n_vertices; i++) {
        for (uint32_t j = i + 1; j < p->n_vertices; j++) {
            struct cr_simplex_dots dots = {0};
            for (uint32_t layer = 0; layer < p->n_layers; layer++) {
                cr_simplex_dots_f32(p->params + cr_prefix_at(p, layer, i), p->params + cr_prefix_at(p, layer, j),
                                    2 * cr_prefix_tensor(p), &dots);
            }
            sum += cr_simplex_cos2(&dots);
        }
    }
    return sum / (p->n_vertices * (p->n_vertices - 1) / 2.0);
}

static void facts(const void *state, json_t *object)
{
    const struct learner *l = state;
    const struct cr_prefix *p = l->base.adapter->prefix;
    json_object_set_new(object, "vertices", json_integer(p->n_vertices));
    json_object_set_new(object, "rows", json_integer(p->n_rows));
    json_object_set_new(object, "label_rows", json_integer(p->n_labels));
    if (p->n_vertices > 1) {
        json_object_set_new(object, "cosine2", json_real(mean_cosine2(p)));
    }
    if (!isfinite(l->centroid)) {
        return;
    }
    json_t *path = json_array();
    for (uint32_t j = 0; j < p->n_vertices && p->n_vertices > 1; j++) {
        for (int i = 0; i < PATH_STEPS; i++) {
            json_array_append_new(path, json_pack("{s:i,s:f,s:f}", "vertex", (int)j, "share", (i + 1.0) / PATH_STEPS,
                                                  "nll", l->path[j][i]));
        }
    }
    json_object_set_new(object, "centroid_nll", json_real(l->centroid));
    json_object_set_new(object, "path", path);
}

static cr_status write(const void *state, const struct cr_posterior_about *about, const char *dir, struct cr_error *err)
{
    (void)state;
    return cr_prefix_file_write(about, dir, err);
}

const struct cr_method cr_method_prefix = {
    .name = "prefix",
    .prefix = true,
    .check = check,
    .settings = settings,
    .state_bytes = cr_learner_state_bytes,
    .result_bytes = cr_learner_result_bytes,
    .create = create,
    .destroy = cr_learner_destroy,
    .begin_pass = begin_pass,
    .update = update,
    .show_point = show_point,
    .n_looks = n_looks,
    .look = look,
    .point = cr_learner_point,
    .sections = cr_learner_sections,
    .restore = cr_learner_restore,
    .take_result = cr_learner_take_result,
    .put_result = cr_learner_put_result,
    .tune = tune,
    .announce = announce,
    .facts = facts,
    .write = write,
};
