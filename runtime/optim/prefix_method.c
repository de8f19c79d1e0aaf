/* prefix as a method of the training loop: AdamW on the vertices of learned prefixes and of label rows, at a point of
 * the simplex that every text draws anew for each layer in each step (arXiv 2310.15793; one vertex is prefix tuning).
 *
 * Validation looks at each text several times, each time at other points; what predicts is the centroid.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/core/host.h"
#include "runtime/model/simplex.h"
#include "runtime/optim/adamw.h"
#include "runtime/posterior/prefix_file.h"

/* Points between a vertex and the centroid at which the finished result is looked at: half way, and the vertex. */
enum { PATH_STEPS = 2, DRAWS_MAX = 1000 };

struct learner {
    struct cr_adamw adamw;
    struct cr_adapter *adapter; /* borrowed */
    uint64_t seed;
    double lr, lr_head;
    uint32_t valid_draws;
    /* the point that passes see: `fixed` for every text and layer, or one that each draws */
    bool draws;
    double fixed[CR_PREFIX_VERTICES_MAX];
    uint32_t stream, draw;
    double path[CR_PREFIX_VERTICES_MAX][PATH_STEPS], centroid; /* loss on held-out texts; NaN: not measured */
};

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
    if (!(o->lr_head > 0 && isfinite(o->lr_head))) {
        return cr_fail(err, CR_E_USAGE, "rate of the label rows %g, expected a number above 0", o->lr_head);
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
    json_object_set_new(object, "lr-head", json_real(o->lr_head));
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

static void weights(const void *ctx, uint32_t member, uint32_t example, uint32_t layer, double *lambda)
{
    const struct learner *l = ctx;
    uint32_t n = l->adapter->prefix->n_vertices;
    (void)member;
    if (!l->draws) {
        memcpy(lambda, l->fixed, n * sizeof *lambda);
        return;
    }
    struct cr_simplex_point point = {
        .seed = l->seed, .stream = l->stream, .draw = l->draw, .example = example, .layer = layer};
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
    cr_simplex_centroid(l->adapter->prefix->n_vertices, l->fixed);
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
    const struct cr_finetune_options *o = setup->options;
    struct learner *l = cr_zalloc(1, sizeof *l);
    if (l == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for an optimiser");
    }
    cr_status status = cr_adamw_init(&l->adamw, setup->adapter->n_params, setup->tier, setup->parallel, err);
    if (status != CR_OK) {
        cr_free(l);
        return status;
    }
    l->adamw.weight_decay = o->weight_decay;
    l->adamw.max_norm = o->max_grad_norm;
    l->adapter = setup->adapter;
    l->adapter->prefix->weights = weights;
    l->adapter->prefix->ctx = l;
    l->seed = o->seed;
    l->lr = o->lr;
    l->lr_head = o->lr_head;
    l->valid_draws = o->valid_draws;
    l->centroid = (double)NAN;
    show_point(l);
    *state = l;
    return CR_OK;
}

static uint32_t n_passes(const void *state)
{
    (void)state;
    return 1;
}

static void begin_pass(void *state, uint64_t step, uint32_t pass)
{
    (void)pass;
    show_draw(state, CR_SIMPLEX_TRAINING, (uint32_t)step);
}

static void end_pass(void *state, uint64_t step, uint32_t pass)
{
    (void)state;
    (void)step;
    (void)pass;
}

/* The label rows follow the course of the rate at a scale of their own. */
static void update(void *state, const struct cr_method_step *step)
{
    struct learner *l = state;
    const struct cr_prefix *prefix = l->adapter->prefix;
    const struct cr_adamw_group groups[] = {{cr_prefix_rows_floats(prefix), step->lr},
                                            {cr_prefix_floats(prefix), step->lr * (l->lr_head / l->lr)}};
    cr_adamw_step_groups(&l->adamw, l->adapter->params, l->adapter->grads, step->norm, groups, 2);
}

static uint32_t n_looks(const void *state)
{
    const struct learner *l = state;
    return l->adapter->prefix->n_vertices > 1 ? l->valid_draws : 0;
}

static void look(void *state, uint32_t number)
{
    show_draw(state, CR_SIMPLEX_VALIDATION, number);
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

static cr_status restore(void *state, const float *params, const struct cr_checkpoint *checkpoint, struct cr_error *err)
{
    struct learner *l = state;
    const struct cr_checkpoint_section *section = cr_checkpoint_find(checkpoint, CR_CKPT_OPTIMISER);
    if (section == NULL) {
        return cr_fail(err, CR_E_INPUT, "optimiser state missing");
    }
    CR_TRY(cr_adamw_restore(&l->adamw, section->data, section->bytes, err));
    memmove(l->adapter->params, params, l->adapter->n_params * sizeof *params);
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

/* Loss at a fixed point. */
static cr_status measure(const struct cr_method_trial *trial, double *each, double *out, struct cr_error *err)
{
    double sum = 0;
    CR_TRY(trial->nll(trial->ctx, each, err));
    for (uint64_t i = 0; i < trial->n_targets; i++) {
        sum += each[i];
    }
    *out = sum / (double)trial->n_targets;
    return CR_OK;
}

/* Nothing is decided: the loss from each vertex to the centroid says whether the simplex is flat between them. */
static cr_status tune(void *state, const struct cr_method_trial *trial, struct cr_error *err)
{
    struct learner *l = state;
    uint32_t n = l->adapter->prefix->n_vertices;
    double *each = cr_alloc(trial->n_targets, sizeof *each);
    if (each == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the losses of %" PRIu64 " targets", trial->n_targets);
    }
    show_point(l);
    cr_status status = measure(trial, each, &l->centroid, err);
    for (uint32_t j = 0; j < n && n > 1; j++) {
        for (int i = 0; i < PATH_STEPS && status == CR_OK; i++) {
            double share = (i + 1.0) / PATH_STEPS;
            for (uint32_t v = 0; v < n; v++) {
                l->fixed[v] = (1 - share) / n + (v == j ? share : 0);
            }
            status = measure(trial, each, &l->path[j][i], err);
        }
    }
    show_point(l);
    cr_free(each);
    return status;
}

static void announce(const void *state, const struct cr_host *host)
{
    const struct learner *l = state;
    const struct cr_prefix *p = l->adapter->prefix;
    char validation[48] = "the centroid";
    if (n_looks(l) > 0) {
        snprintf(validation, sizeof validation, "%" PRIu32 " draw%s a text", n_looks(l), n_looks(l) == 1 ? "" : "s");
    }
    cr_host_log(host, CR_LOG_INFO,
                "prefix: %" PRIu32 " %s of %" PRIu32 " rows a layer%s, %zu weights; validation at %s", p->n_vertices,
                p->n_vertices == 1 ? "vertex" : "vertices", p->n_rows, p->n_labels > 0 ? " and of label rows" : "",
                l->adapter->n_trainable, validation);
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
    const struct cr_prefix *p = l->adapter->prefix;
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
    .state_bytes = state_bytes,
    .result_bytes = result_bytes,
    .create = create,
    .destroy = destroy,
    .n_passes = n_passes,
    .begin_pass = begin_pass,
    .end_pass = end_pass,
    .update = update,
    .show_point = show_point,
    .n_looks = n_looks,
    .look = look,
    .point = point,
    .sections = sections,
    .restore = restore,
    .take_result = take_result,
    .put_result = put_result,
    .tune = tune,
    .announce = announce,
    .facts = facts,
    .write = write,
};
