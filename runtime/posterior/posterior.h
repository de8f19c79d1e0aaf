/* posterior: an adapter as it is looked at afterwards: one set of parameters, or a distribution to draw sets from.
 *
 * Opened from what `-a` names: a directory with posterior.safetensors or a checkpoint of a method that has one gives
 * draws; every other adapter is a point. A draw is a function of (seed, stream, sample) and the tensor, and of nothing
 * else: the same for any threads, batches and neighbours. An open posterior is read-only but for cr_posterior_prune.
 */
#ifndef CR_POSTERIOR_POSTERIOR_H
#define CR_POSTERIOR_POSTERIOR_H

#include "runtime/adapter/files.h"
#include "runtime/posterior/ivon.h"
#include "runtime/posterior/laplace_set.h"
#include "runtime/posterior/sets_file.h"
#include "runtime/posterior/swag.h"

/* Draws where the user says nothing. Source: IVON-LoRA's evaluation. */
enum { CR_POSTERIOR_SAMPLES = 10 };

/* What was read beside an adapter. */
enum cr_posterior_kind {
    CR_POSTERIOR_POINT, /* nothing */
    CR_POSTERIOR_IVON,
    CR_POSTERIOR_SWAG,
    CR_POSTERIOR_BLOB,
    CR_POSTERIOR_LAPLACE,
    CR_POSTERIOR_PREFIX,   /* vertices */
    CR_POSTERIOR_ENSEMBLE, /* members */
    CR_POSTERIOR_TASKS,    /* sets of bora */
    CR_POSTERIOR_KINDS
};

/* The method of a kind, NULL for a point. */
const char *cr_posterior_kind_name(enum cr_posterior_kind kind);

struct cr_posterior {
    enum cr_posterior_kind kind;
    struct cr_adapter *adapter; /* owned: params are the mean, or the point; of a prefix all vertices, whose draws are
                                 * weights for every text and layer, never a set of parameters */
    struct cr_adapter_base base;
    float *hess;         /* owned: [n_params] of ivon */
    struct cr_swag swag; /* owned: of swag */
    double swag_scale;
    struct cr_own_head swag_head; /* owned */
    struct cr_weight_sets sets;   /* owned: of ensemble and bora, the first is the adapter; n 0 = none */
    float *sigma;                 /* owned: [n_params] of blob */
    double prior_std;
    struct cr_laplace_set laplace; /* owned: of laplace */
    struct cr_rng_ops rng;
    struct cr_dplr_ops dplr;
    struct cr_ivon_group groups[CR_IVON_GROUPS];
    struct cr_ivon_part *parts; /* owned: of ivon and blob */
    size_t n_parts;
    struct cr_ivon_ops ops;
    char *label; /* owned: printable path */
};

struct cr_posterior_draw {
    uint64_t seed;
    uint32_t stream;    /* which of several posteriors of one mixture */
    uint32_t sample;    /* from 0 */
    double temperature; /* of the variance */
};

/* params of an ensemble are its first member. model NULL: shapes are trusted (export). Errors: those of cr_adapter_load
 * and cr_adapter_read; CR_E_INPUT for a posterior that is of another adapter, base or method, or whose variances make
 * no sense. Returns owned. */
cr_status cr_posterior_open(const char *path, const struct cr_model *model, bool allow_inexact,
                            const struct cr_host *host, enum cr_tier tier, struct cr_posterior **out,
                            struct cr_error *err);
void cr_posterior_close(struct cr_posterior *posterior); /* NULL is fine */

/* No set of weights is drawn: the adapter itself is one. Sets of tasks and vertices are asked for apart. */
static inline bool cr_posterior_is_point(const struct cr_posterior *posterior)
{
    return posterior->kind == CR_POSTERIOR_POINT || posterior->kind == CR_POSTERIOR_PREFIX ||
           posterior->kind == CR_POSTERIOR_TASKS;
}

/* Members are what they are: nothing is drawn, and no one set stands for them. */
static inline bool cr_posterior_is_ensemble(const struct cr_posterior *posterior)
{
    return posterior->kind == CR_POSTERIOR_ENSEMBLE;
}

/* A set of weights for each of several tasks, and the common one, which is the point. */
static inline bool cr_posterior_has_tasks(const struct cr_posterior *posterior)
{
    return posterior->kind == CR_POSTERIOR_TASKS;
}

/* A prefix of several vertices. */
static inline bool cr_posterior_is_simplex(const struct cr_posterior *posterior)
{
    return posterior->adapter->prefix != NULL && posterior->adapter->prefix->n_vertices > 1;
}

/* What is known of the label rows that the adapter was trained with, where it has some. */
static inline const struct cr_own_head *cr_posterior_head(const struct cr_posterior *posterior)
{
    return posterior->sets.n > 0 ? &posterior->sets.head : &posterior->swag_head;
}

/* out [adapter->n_params] = one draw, or the point. Draw k of an ensemble is member k, of tasks set k, which it must
 * have.
 * Errors: CR_E_MEMORY. */
cr_status cr_posterior_draw(const struct cr_posterior *posterior, const struct cr_posterior_draw *draw, float *out,
                            struct cr_error *err);

/* Leaves out the `share` (0 to below 1) of the entries that are least sure to differ from 0: ivon.h. Of anything
 * but ivon: CR_E_USAGE. */
cr_status cr_posterior_prune(struct cr_posterior *posterior, double share, struct cr_error *err);

#endif
