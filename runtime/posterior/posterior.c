#include "runtime/posterior/posterior.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/core/host.h"
#include "runtime/posterior/blob_file.h"
#include "runtime/posterior/ivon_file.h"
#include "runtime/posterior/joined.h"
#include "runtime/posterior/members.h"
#include "runtime/posterior/prefix_file.h"
#include "runtime/posterior/swag_file.h"

static cr_status read_ivon(struct cr_posterior *p, const char *path, bool directory, enum cr_tier tier,
                           struct cr_error *err)
{
    p->hess = cr_zalloc(p->adapter->n_params, sizeof *p->hess);
    p->parts = cr_ivon_parts_of(p->adapter, &p->n_parts);
    if (p->hess == NULL || p->parts == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a posterior of %zu parameters", p->adapter->n_params);
    }
    CR_TRY(cr_ivon_ops_init(&p->ops, tier));
    return directory ? cr_ivon_read(path, p->adapter, &p->base, p->hess, p->groups, err)
                     : cr_ivon_read_checkpoint(path, p->adapter, p->hess, p->groups, err);
}

static cr_status read_blob(struct cr_posterior *p, const char *path, enum cr_tier tier, struct cr_error *err)
{
    p->sigma = cr_zalloc(p->adapter->n_params, sizeof *p->sigma);
    p->parts = cr_ivon_parts_of(p->adapter, &p->n_parts);
    if (p->sigma == NULL || p->parts == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a posterior of %zu parameters", p->adapter->n_params);
    }
    CR_TRY(cr_rng_ops_init(&p->rng, tier));
    return cr_blob_read(path, p->adapter, &p->base, p->sigma, &p->prior_std, err);
}

/* The sets that act, in place of those that were trained. */
static cr_status join(struct cr_posterior *p, struct cr_error *err)
{
    struct cr_adapter *joined = NULL, *first = NULL;
    cr_status status = CR_OK;
    CR_TRY(cr_adapter_repeat(&p->adapter, p->sets.n, err));
    memcpy(p->adapter->params, p->sets.values, p->adapter->n_params * sizeof *p->sets.values);
    CR_TRY(cr_joined_create(p->adapter, false, &joined, err));
    CR_TRY_OUT(status, cr_adapter_assemble(joined->slots, joined->n_layers, false, &first, err));
    cr_adapter_inherit(first, joined);
    memcpy(first->params, joined->params, first->n_params * sizeof *first->params);
    cr_free(p->sets.values);
    p->sets.values = joined->params;
    joined->params = NULL;
    cr_adapter_destroy(p->adapter);
    p->adapter = first;
out:
    cr_adapter_destroy(joined);
    return status;
}

static cr_status read_tasks(struct cr_posterior *p, const char *path, bool checkpoint, struct cr_error *err)
{
    if (!checkpoint) {
        return cr_tasks_read(path, &p->adapter, &p->base, &p->sets, err);
    }
    CR_TRY(cr_weight_sets_read_checkpoint(path, p->adapter, &p->sets, err));
    return p->sets.joined ? join(p, err) : CR_OK;
}

static const char *const kind_names[CR_POSTERIOR_KINDS] = {
    [CR_POSTERIOR_IVON] = "ivon",         [CR_POSTERIOR_SWAG] = "swag",     [CR_POSTERIOR_BLOB] = "blob",
    [CR_POSTERIOR_LAPLACE] = "laplace",   [CR_POSTERIOR_PREFIX] = "prefix", [CR_POSTERIOR_TASKS] = "bora",
    [CR_POSTERIOR_ENSEMBLE] = "ensemble",
};

const char *cr_posterior_kind_name(enum cr_posterior_kind kind)
{
    return kind_names[kind];
}

/* A method with a posterior names it in its adapter. */
static enum cr_posterior_kind kind_of(const struct cr_adapter *adapter)
{
    enum cr_posterior_kind kind = CR_POSTERIOR_POINT + 1;
    while (kind < CR_POSTERIOR_KINDS && strcmp(adapter->method, kind_names[kind]) != 0) {
        kind++;
    }
    return kind == CR_POSTERIOR_KINDS || (kind == CR_POSTERIOR_PREFIX && adapter->prefix == NULL) ? CR_POSTERIOR_POINT
                                                                                                  : kind;
}

/* Those whose checkpoints hold what is answered with; of the others a checkpoint is the point alone. */
static bool checkpoints_have(enum cr_posterior_kind kind)
{
    return kind == CR_POSTERIOR_IVON || kind == CR_POSTERIOR_PREFIX || kind == CR_POSTERIOR_ENSEMBLE ||
           kind == CR_POSTERIOR_TASKS;
}

/* p->kind from a directory or a checkpoint. */
static cr_status read_kind(struct cr_posterior *p, const char *path, bool directory, enum cr_tier tier,
                           struct cr_error *err)
{
    switch (p->kind) {
    case CR_POSTERIOR_IVON:
        return read_ivon(p, path, directory, tier, err);
    case CR_POSTERIOR_SWAG:
        CR_TRY(cr_dplr_ops_init(&p->dplr, tier));
        return cr_swag_read(path, &p->adapter, &p->base, &p->swag, &p->swag_scale, &p->swag_head, err);
    case CR_POSTERIOR_BLOB:
        return read_blob(p, path, tier, err);
    case CR_POSTERIOR_LAPLACE:
        CR_TRY(cr_rng_ops_init(&p->rng, tier));
        return cr_laplace_read(path, p->adapter, &p->base, &p->laplace, err);
    case CR_POSTERIOR_PREFIX:
        return directory ? cr_prefix_file_read(path, &p->base, &p->adapter, err) : CR_OK;
    case CR_POSTERIOR_ENSEMBLE:
        return directory ? cr_members_read(path, &p->adapter, &p->base, &p->sets, err)
                         : cr_weight_sets_read_checkpoint(path, p->adapter, &p->sets, err);
    case CR_POSTERIOR_TASKS:
        return read_tasks(p, path, !directory, err);
    default:
        return CR_OK;
    }
}

/* What there is beside the adapter; what should be there and is not, is said. */
static cr_status read_spread(struct cr_posterior *p, const char *path, const struct cr_host *host, enum cr_tier tier,
                             struct cr_error *err)
{
    struct stat info;
    bool directory = stat(path, &info) == 0 && S_ISDIR(info.st_mode), file = false;
    if (directory) {
        CR_TRY(cr_posterior_present(path, &file, err));
    }
    enum cr_posterior_kind kind = kind_of(p->adapter);
    if (file && kind == CR_POSTERIOR_POINT) {
        return cr_fail(err, CR_E_INPUT, "%s: %s beside an adapter of method \"%s\", which has none", p->label,
                       CR_POSTERIOR_FILE, p->adapter->method);
    }
    if (file || (directory && kind == CR_POSTERIOR_ENSEMBLE) ||
        (!directory && checkpoints_have(kind) && cr_checkpoint_sniff(path))) {
        p->kind = kind;
        return read_kind(p, path, directory, tier, err);
    }
    if (kind != CR_POSTERIOR_POINT && (directory || !checkpoints_have(kind))) {
        cr_host_log(host, CR_LOG_WARNING, "%s: no %s beside the adapter: its mean alone", p->label, CR_POSTERIOR_FILE);
    }
    return CR_OK;
}

static cr_status open_adapter(struct cr_posterior *p, const char *path, const struct cr_model *model,
                              bool allow_inexact, const struct cr_host *host, struct cr_error *err)
{
    if (model == NULL) {
        return cr_adapter_read(path, NULL, false, &p->adapter, &p->base, err);
    }
    cr_adapter_base_of(model, &p->base);
    return cr_adapter_load(path, model, false, allow_inexact, host, &p->adapter, err);
}

/* The adapter at the path, or the first member of the ensemble there. */
static cr_status open_first(struct cr_posterior *p, const char *path, const struct cr_model *model, bool allow_inexact,
                            const struct cr_host *host, struct cr_error *err)
{
    char *member = NULL;
    CR_TRY(cr_members_first(path, &member, err));
    cr_status status = open_adapter(p, member != NULL ? member : path, model, allow_inexact, host, err);
    if (status == CR_OK && member != NULL) {
        cr_adapter_set_method(p->adapter, "ensemble", strlen("ensemble"));
    }
    cr_free(member);
    CR_TRY(status);
    bool beside = false;
    if (strcmp(p->adapter->method, CR_HEADLESS_SWAG) == 0) {
        CR_TRY(cr_posterior_present(path, &beside, err));
    }
    if (beside) {
        cr_adapter_set_method(p->adapter, "swag", strlen("swag")); /* its label rows are beside it */
    }
    return CR_OK;
}

cr_status cr_posterior_open(const char *path, const struct cr_model *model, bool allow_inexact,
                            const struct cr_host *host, enum cr_tier tier, struct cr_posterior **out,
                            struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    struct cr_posterior *p = cr_zalloc(1, sizeof *p);
    cr_status status = CR_OK;
    if (p != NULL) {
        p->swag_head.nll = (struct cr_head_nll){(double)NAN, (double)NAN};
        p->label = cr_strdup(cr_escape(shown, sizeof shown, path, strlen(path)));
    }
    if (p == NULL || p->label == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for a posterior");
        goto out;
    }
    CR_TRY_OUT(status, open_first(p, path, model, allow_inexact, host, err));
    CR_TRY_OUT(status, read_spread(p, path, host, tier, err));
    if (cr_headless(p->adapter)) {
        cr_host_log(host, CR_LOG_WARNING, "%s: trained with label rows of its own, which are not here", p->label);
    }
    if (model != NULL && p->adapter->n_labels > 0 && p->adapter->n_embd != model->config.n_embd) {
        status = cr_fail(err, CR_E_INPUT, "%s: label rows of width %u, the model has %u", p->label, p->adapter->n_embd,
                         model->config.n_embd);
    }
out:
    if (status == CR_OK) {
        *out = p;
    } else {
        cr_posterior_close(p);
    }
    return status;
}

void cr_posterior_close(struct cr_posterior *posterior)
{
    if (posterior != NULL) {
        cr_adapter_destroy(posterior->adapter);
        cr_free(posterior->hess);
        cr_free(posterior->sigma);
        cr_laplace_set_free(&posterior->laplace);
        cr_swag_free(&posterior->swag);
        cr_own_head_free(&posterior->swag_head);
        cr_weight_sets_free(&posterior->sets);
        cr_free(posterior->parts);
        cr_free(posterior->label);
        cr_free(posterior);
    }
}

/* One call over all parts: the normals of the deviations couple them. */
static cr_status draw_swag(const struct cr_posterior *p, const struct cr_posterior_draw *draw, float *out,
                           struct cr_error *err)
{
    float *coef = cr_alloc(cr_swag_held(&p->swag), sizeof *coef);
    if (coef == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a draw");
    }
    struct cr_swag_draws draws = {.scale = p->swag_scale * draw->temperature,
                                  .seed = cr_members_seed(draw->seed, draw->stream),
                                  .first_sample = draw->sample,
                                  .n_samples = 1};
    cr_swag_sample(&p->swag, &p->dplr, NULL, &draws, coef, out, p->swag.n_params);
    cr_free(coef);
    return CR_OK;
}

cr_status cr_posterior_draw(const struct cr_posterior *p, const struct cr_posterior_draw *draw, float *out,
                            struct cr_error *err)
{
    const float *mean = p->adapter->params;
    if (p->kind == CR_POSTERIOR_SWAG) {
        return draw_swag(p, draw, out, err);
    }
    if (p->sets.n > 0) {
        mean = p->sets.values + draw->sample * p->adapter->n_params;
    }
    memcpy(out, mean, p->adapter->n_params * sizeof *out);
    if (p->kind == CR_POSTERIOR_IVON) {
        struct cr_ivon_draw d = {.mean = mean,
                                 .hess = p->hess,
                                 .parts = p->parts,
                                 .n_parts = p->n_parts,
                                 .groups = p->groups,
                                 .temperature = draw->temperature,
                                 .seed = draw->seed,
                                 .stream = draw->stream,
                                 .sample = draw->sample};
        cr_ivon_draw(&p->ops, &d, out);
    } else if (p->kind == CR_POSTERIOR_LAPLACE) {
        struct cr_laplace_sample d = {.mean = mean,
                                      .temperature = draw->temperature,
                                      .seed = draw->seed,
                                      .stream = draw->stream,
                                      .sample = draw->sample};
        cr_laplace_set_draw(&p->laplace, &p->rng, &d, out);
    } else if (p->kind == CR_POSTERIOR_BLOB) {
        struct cr_blob_draw d = {.mean = mean,
                                 .sigma = p->sigma,
                                 .parts = p->parts,
                                 .n_parts = p->n_parts,
                                 .temperature = draw->temperature,
                                 .seed = draw->seed,
                                 .stream = draw->stream,
                                 .sample = draw->sample};
        cr_blob_draw(&p->rng, &d, out);
    }
    return CR_OK;
}

cr_status cr_posterior_prune(struct cr_posterior *p, double share, struct cr_error *err)
{
    size_t n;
    if (p->kind != CR_POSTERIOR_IVON) {
        return cr_fail(err, CR_E_USAGE, "--prune: %s is no posterior of ivon, whose variances say what to prune",
                       p->label);
    }
    return cr_ivon_prune(p->adapter->params, p->hess, p->parts, p->n_parts, p->groups, share, &n, err);
}
