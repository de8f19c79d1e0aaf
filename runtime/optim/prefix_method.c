/* prefix as a method of the training loop: AdamW on the vertices of learned prefixes and of label rows, at a point of
 * the simplex that every text draws anew for each layer in each step (arXiv 2310.15793; one vertex is prefix tuning),
 * or that texts or layers share (arXiv 2102.10472).
 *
 * With a cosine weight each step also descends on the squared cosine between two of the vertices (arXiv 2102.10472),
 * over all of their numbers, label rows included.
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

/* Who shares a point in a step: bits of the number that a word of --lambda-per has here. */
enum { BY_LAYERS = 1, BY_TEXTS = 2 };
static const char *const per_names[] = {
    [0] = "text-layer", [BY_LAYERS] = "text", [BY_TEXTS] = "layer", [BY_TEXTS | BY_LAYERS] = "step"};
enum { N_PER = sizeof per_names / sizeof per_names[0] };

struct learner {
    struct cr_learner base; /* first: the state of a method that is AdamW alone */
    /* the point that passes see: `fixed` for every text and layer, or one that each draws */
    bool draws;
    unsigned shared; /* of drawn ones */
    double fixed[CR_PREFIX_VERTICES_MAX];
    uint32_t stream, draw;
    double path[CR_PREFIX_VERTICES_MAX][PATH_STEPS], centroid; /* loss on held-out texts; NaN: not measured */
};

static double head_lr(const struct cr_finetune_options *o)
{
    return o->head_lr > 0 ? o->head_lr : HEAD_LR;
}

static const char *per_name(const struct cr_finetune_options *o)
{
    return o->lambda_per != NULL ? o->lambda_per : per_names[0];
}

/* N_PER when the word is none of them. */
static unsigned sharing(const struct cr_finetune_options *o)
{
    unsigned shared = 0;
    while (shared < N_PER && strcmp(per_names[shared], per_name(o)) != 0) {
        shared++;
    }
    return shared;
}

static bool trains_by_text(const struct cr_finetune_options *o)
{
    return o->vertices > 1 && (sharing(o) & BY_TEXTS) == 0;
}

static bool looks_by_text(const struct cr_finetune_options *o)
{
    return o->vertices > 1 && o->valid_draws > 0;
}

static cr_status check_simplex(const struct cr_finetune_options *o, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    if (sharing(o) == N_PER) {
        return cr_fail(err, CR_E_USAGE, "--lambda-per \"%s\" unknown, expected text-layer, text, layer or step",
                       cr_escape(shown, sizeof shown, o->lambda_per, strlen(o->lambda_per)));
    }
    if (!(o->cosine_weight >= 0 && isfinite(o->cosine_weight))) {
        return cr_fail(err, CR_E_USAGE, "--cosine-weight %g, expected a number of at least 0", o->cosine_weight);
    }
    return o->cosine_weight > 0 && o->vertices < 2
               ? cr_fail(err, CR_E_USAGE, "--cosine-weight %g: one vertex makes no angle; --vertices 2 or more do",
                         o->cosine_weight)
               : CR_OK;
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
    CR_TRY(check_simplex(o, err));
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
    if (sharing(o) != 0) { /* what is not said is as it was before one could say it: such a run goes on */
        json_object_set_new(object, "lambda-per", json_string(per_name(o)));
    }
    if (o->cosine_weight > 0) {
        json_object_set_new(object, "cosine-weight", json_real(o->cosine_weight));
    }
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
    struct cr_simplex_point point = {.seed = l->base.options->seed,
                                     .stream = l->stream,
                                     .draw = l->draw,
                                     .example = (l->shared & BY_TEXTS) != 0 ? CR_SIMPLEX_ALL : example,
                                     .layer = (l->shared & BY_LAYERS) != 0 ? CR_SIMPLEX_ALL : layer};
    cr_simplex_weights(&point, n, lambda);
}

static void show_draw(struct learner *l, uint32_t stream, uint32_t draw, unsigned shared)
{
    l->draws = true;
    l->stream = stream;
    l->draw = draw;
    l->shared = shared;
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
    setup->adapter->prefix->one_point = (sharing(setup->options) & BY_LAYERS) != 0;
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
    struct learner *l = state;
    (void)pass;
    show_draw(l, CR_SIMPLEX_TRAINING, (uint32_t)step, sharing(l->base.options));
}

/* The numbers of a vertex lie in pieces: a layer's keys and values each, then its label rows. Returns where. */
static size_t piece(const struct cr_prefix *p, uint32_t number, uint32_t vertex, size_t *n)
{
    size_t head = (size_t)p->n_labels * p->n_embd;
    *n = number < p->n_layers ? 2 * cr_prefix_tensor(p) : head;
    return number < p->n_layers ? cr_prefix_at(p, number, vertex) : cr_prefix_rows_floats(p) + vertex * head;
}

static struct cr_simplex_dots dots_of(const struct cr_prefix *p, uint32_t n_pieces, size_t i, size_t j)
{
    struct cr_simplex_dots dots = {0};
    for (uint32_t k = 0; k < n_pieces; k++) {
        size_t n, u = piece(p, k, (uint32_t)i, &n), v = piece(p, k, (uint32_t)j, &n);
        cr_simplex_dots_f32(p->params + u, p->params + v, n, &dots);
    }
    return dots;
}

/* The term's gradient, once a step, in that of its pair. */
static void regularise(void *state)
{
    struct learner *l = state;
    const struct cr_prefix *p = l->base.adapter->prefix;
    double weight = l->base.options->cosine_weight;
    if (!(weight > 0)) {
        return;
    }
    size_t i, j;
    struct cr_simplex_point point = {.seed = l->base.options->seed, .stream = CR_SIMPLEX_TRAINING, .draw = l->draw};
    cr_simplex_pair(&point, p->n_vertices, &i, &j);
    struct cr_simplex_dots dots = dots_of(p, p->n_layers + 1, i, j);
    for (uint32_t k = 0; k <= p->n_layers; k++) {
        size_t n, u = piece(p, k, (uint32_t)i, &n), v = piece(p, k, (uint32_t)j, &n);
        cr_simplex_cos2_grad_f32(&dots, weight, p->params + u, p->params + v, n, p->grads + u, p->grads + v);
    }
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

/* Each text's own in any case: a held-out text is no part of a step. */
static void look(void *state, uint32_t number)
{
    struct learner *l = state;
    show_draw(l, CR_SIMPLEX_VALIDATION, number, sharing(l->base.options) & BY_LAYERS);
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

/* Mean of the squared cosine over the pairs of vertices, of their first pieces: 0 when they stand at right angles. */
static double mean_cosine2(const struct cr_prefix *p, uint32_t n_pieces)
{
    double sum = 0;
    for (uint32_t i = 0; i < p->n_vertices; i++) {
        for (uint32_t j = i + 1; j < p->n_vertices; j++) {
            struct cr_simplex_dots dots = dots_of(p, n_pieces, i, j);
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
        double weight = l->base.options->cosine_weight;
        json_object_set_new(object, "lambda_per", json_string(per_name(l->base.options)));
        json_object_set_new(object, "cosine2", json_real(mean_cosine2(p, p->n_layers)));
        if (weight > 0) { /* what the steps descend on beside the loss: over label rows as well */
            json_object_set_new(object, "cosine_term", json_real(weight * mean_cosine2(p, p->n_layers + 1)));
        }
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
    .trains_by_text = trains_by_text,
    .looks_by_text = looks_by_text,
    .begin_pass = begin_pass,
    .regularise = regularise,
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
