#include "runtime/eval/sets.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/eval/linear.h"
#include "runtime/model/simplex.h"

static cr_status refuse_samples(const struct cr_eval_options *o, const char *label, struct cr_error *err)
{
    return cr_fail(err, CR_E_USAGE, "--samples %u: %s is one set of weights, which has no more than 1 sample",
                   o->samples, label);
}

/* All members of an ensemble, or the first ones. */
static cr_status members_of(const struct cr_eval_options *o, const struct cr_posterior *p, uint32_t *samples,
                            struct cr_error *err)
{
    const char *flag = o->mean                        ? "--mean"
                       : o->posterior_temperature > 0 ? "--posterior-temperature"
                       : o->prune > 0                 ? "--prune"
                       : o->mc_dropout                ? "--mc-dropout"
                                                      : NULL;
    if (flag != NULL) {
        return cr_fail(err, CR_E_USAGE,
                       "%s: %s is an ensemble, whose members answer as they are; --samples 1 takes the first of them",
                       flag, p->label);
    }
    if (o->samples > p->sets.n) {
        return cr_fail(err, CR_E_USAGE, "--samples %u: the ensemble %s has %u members", o->samples, p->label,
                       p->sets.n);
    }
    *samples = o->samples > 0 ? o->samples : p->sets.n;
    return CR_OK;
}

/* Sets that a prefix gives: its centroid where nothing is said. */
static cr_status samples_of_prefix(const struct cr_eval_options *o, const struct cr_posterior *p, uint32_t *samples,
                                   struct cr_error *err)
{
    uint32_t n = p->adapter->prefix->n_vertices;
    if (o->n_adapters > 1) {
        return cr_fail(err, CR_E_USAGE, "-a %s is a prefix, which answers alone: no mixture with other adapters",
                       p->label);
    }
    if (o->posterior_temperature > 0 || o->prune > 0 || o->mc_dropout) {
        return cr_fail(err, CR_E_USAGE, "--%s: %s is a prefix, whose draws have no variance and no dropout",
                       o->mc_dropout  ? "mc-dropout"
                       : o->prune > 0 ? "prune"
                                      : "posterior-temperature",
                       p->label);
    }
    if (o->vertex_set && o->vertex >= n) {
        return cr_fail(err, CR_E_USAGE, "--vertex %u: %s has %u, counted from 0", o->vertex, p->label, n);
    }
    if (n == 1 && o->samples > 1) {
        return refuse_samples(o, p->label, err);
    }
    *samples = o->samples > 0 ? o->samples : 1;
    return CR_OK;
}

/* Whether the linearised model answers. */
static bool is_linear(const struct cr_eval_options *o, const struct cr_posterior *p)
{
    return p->kind == CR_POSTERIOR_LAPLACE && !o->mean && !o->weights;
}

/* Sets that an adapter gives. */
static cr_status samples_of(const struct cr_eval_options *o, const struct cr_posterior *p, uint32_t *samples,
                            struct cr_error *err)
{
    if (o->weights && p->kind != CR_POSTERIOR_LAPLACE) {
        return cr_fail(err, CR_E_USAGE, "--weights: %s is no Laplace posterior, which could do without", p->label);
    }
    if (p->adapter->prefix != NULL) {
        return samples_of_prefix(o, p, samples, err);
    }
    if (o->vertex_set) {
        return cr_fail(err, CR_E_USAGE, "--vertex %u: %s is no prefix", o->vertex, p->label);
    }
    bool point = cr_posterior_is_point(p);
    bool dropout = o->mc_dropout && !o->mean;
    if (cr_posterior_is_ensemble(p)) {
        return members_of(o, p, samples, err);
    }
    if (point && (o->posterior_temperature > 0 || o->prune > 0)) {
        return cr_fail(err, CR_E_USAGE, "%s: %s is one set of weights, not a posterior",
                       o->prune > 0 ? "--prune" : "--posterior-temperature", p->label);
    }
    if (cr_posterior_has_tasks(p) && !o->mean && (dropout || o->n_adapters > 1)) {
        return cr_fail(err, CR_E_USAGE, "%s: %s has an adapter for each task; --mean takes the common one",
                       dropout ? "--mc-dropout" : "-a", p->label);
    }
    if (dropout && !(p->adapter->dropout > 0)) {
        return cr_fail(err, CR_E_USAGE, "--mc-dropout: %s was trained without dropout", p->label);
    }
    if (dropout && !point) {
        return cr_fail(err, CR_E_USAGE, "--mc-dropout: %s is a posterior, which is drawn from", p->label);
    }
    if (point && !dropout && o->samples > 1) {
        return refuse_samples(o, p->label, err);
    }
    bool one = o->mean || (point && !dropout) || is_linear(o, p);
    *samples = one ? 1 : o->samples > 0 ? o->samples : CR_POSTERIOR_SAMPLES;
    return CR_OK;
}

static void set_method(struct cr_sets *sets, const struct cr_posterior *p, bool dropout)
{
    const char *method = dropout ? "mc-dropout" : p->adapter->method[0] != '\0' ? p->adapter->method : "lora";
    bool other = sets->method[0] != '\0' && strcmp(sets->method, method) != 0;
    snprintf(sets->method, sizeof sets->method, "%s", other ? "mixture" : method);
}

/* The largest rank of each place for every member, so that the engine has room for any set. */
static cr_status make_hull(struct cr_sets *sets, struct cr_error *err)
{
    sets->n_slots = (size_t)sets->posteriors[0]->adapter->n_layers * CR_N_PROJ;
    sets->slots = cr_zalloc(sets->n_shown * sets->n_slots, sizeof *sets->slots);
    sets->noise = cr_zalloc(sets->n_shown, sizeof *sets->noise);
    if (sets->slots == NULL || sets->noise == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the shapes of an adapter");
    }
    for (size_t a = 0; a < sets->n_posteriors; a++) {
        if (sets->posteriors[a]->adapter->n_labels > 0 && sets->rows == NULL) {
            sets->rows = cr_zalloc(sets->n_shown, sizeof *sets->rows);
            if (sets->rows == NULL) {
                return cr_fail(err, CR_E_MEMORY, "no memory for the label rows of %zu sets", sets->n_shown);
            }
        }
        for (size_t i = 0; i < sets->n_slots; i++) {
            const struct cr_lora *slot = &sets->posteriors[a]->adapter->slots[i];
            if (slot->rank > sets->slots[i].rank) {
                sets->slots[i] = *slot;
            }
        }
    }
    for (size_t m = 1; m < sets->n_shown; m++) {
        memcpy(sets->slots + m * sets->n_slots, sets->slots, sets->n_slots * sizeof *sets->slots);
    }
    return CR_OK;
}

/* Weights of a text's mixture in a layer. */
static void weigh(const void *ctx, uint32_t member, uint32_t example, uint32_t layer, double *lambda)
{
    const struct cr_sets_prefix *p = ctx;
    if (!p->draws) {
        memcpy(lambda, p->fixed, p->seen.n_vertices * sizeof *lambda);
        return;
    }
    struct cr_simplex_point point = {.seed = p->seed,
                                     .stream = CR_SIMPLEX_TEST,
                                     .draw = (uint32_t)p->first + member,
                                     .example = example,
                                     .layer = p->seen.one_point ? CR_SIMPLEX_ALL : layer};
    cr_simplex_weights(&point, p->seen.n_vertices, lambda);
}

static void show_prefix(const struct cr_eval_options *o, const struct cr_prefix *prefix, struct cr_sets_prefix *p)
{
    p->seen = *prefix;
    p->seen.weights = weigh;
    p->seen.ctx = p;
    p->draws = o->samples > 0 && !o->mean && prefix->n_vertices > 1;
    p->seed = o->seed;
    cr_simplex_centroid(prefix->n_vertices, p->fixed);
    if (o->vertex_set) {
        memset(p->fixed, 0, sizeof p->fixed);
        p->fixed[o->vertex] = 1;
    }
}

cr_status cr_sets_open(const struct cr_eval_options *o, const struct cr_model *model, enum cr_tier tier,
                       const struct cr_host *host, struct cr_sets *sets, struct cr_error *err)
{
    sets->samples = 1;
    sets->n = 1;
    sets->n_shown = 1;
    sets->temperature = o->posterior_temperature > 0 ? o->posterior_temperature : 1;
    if (o->n_adapters == 0) {
        snprintf(sets->method, sizeof sets->method, "base");
        return o->samples > 1 ? refuse_samples(o, "the base model", err) : CR_OK;
    }
    sets->posteriors = cr_zalloc(o->n_adapters, sizeof(struct cr_posterior *));
    if (sets->posteriors == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %zu adapters", o->n_adapters);
    }
    for (size_t a = 0; a < o->n_adapters; a++) {
        uint32_t samples = 0;
        CR_TRY(cr_posterior_open(o->adapters[a], model, o->allow_inexact, host, tier, &sets->posteriors[a], err));
        sets->n_posteriors++;
        CR_TRY(samples_of(o, sets->posteriors[a], &samples, err));
        if (a > 0 && samples != sets->samples) {
            return cr_fail(err, CR_E_USAGE,
                           "-a %s gives %u sets of weights, %s gives %u: a mixture needs as many of each (--mean: 1)",
                           sets->posteriors[a]->label, samples, sets->posteriors[0]->label, sets->samples);
        }
        if (is_linear(o, sets->posteriors[a])) {
            if (o->n_adapters > 1) {
                return cr_fail(err, CR_E_USAGE,
                               "-a %s: the linearised model of a Laplace posterior answers alone; --weights or --mean "
                               "makes it a part of a mixture",
                               sets->posteriors[a]->label);
            }
            sets->logit_draws = o->samples > 0 ? o->samples : CR_LINEAR_DRAWS;
        }
        sets->samples = samples;
        set_method(sets, sets->posteriors[a], o->mc_dropout && !o->mean);
        if (o->prune > 0) {
            CR_TRY(cr_posterior_prune(sets->posteriors[a], o->prune, err));
        }
    }
    sets->n = (size_t)sets->samples * sets->n_posteriors;
    sets->n_shown = sets->n < CR_SETS_SHOWN ? sets->n : CR_SETS_SHOWN;
    sets->by_task = cr_posterior_has_tasks(sets->posteriors[0]) && !o->mean;
    if (sets->posteriors[0]->adapter->prefix != NULL) {
        show_prefix(o, sets->posteriors[0]->adapter->prefix, &sets->prefix);
    }
    if (sets->by_task) {
        sets->n_shown = sets->posteriors[0]->sets.n;
    }
    return make_hull(sets, err);
}

size_t cr_sets_items(const struct cr_sets *sets)
{
    return sets->by_task ? sets->n_shown : sets->n;
}

uint32_t cr_sets_of_task(const struct cr_sets *sets, const char *task)
{
    return task != NULL ? cr_weight_sets_find(&sets->posteriors[0]->sets, task) : 0;
}

uint64_t cr_sets_bytes(const struct cr_sets *sets)
{
    uint64_t bytes = sets->n_shown * sets->n_slots * sizeof(struct cr_lora);
    for (size_t a = 0; a < sets->n_posteriors && cr_sets_prefix(sets) == NULL; a++) {
        bytes += (sets->by_task ? sets->n_shown : sets->samples) *
                 (sets->posteriors[a]->adapter->n_params * sizeof(float) + sets->n_slots * sizeof(struct cr_lora));
    }
    return bytes;
}

/* A copy of the slots that points into params. */
static void point_into(struct cr_lora *slots, size_t n, const struct cr_adapter *adapter, float *params)
{
    for (size_t i = 0; i < n; i++) {
        slots[i] = adapter->slots[i];
        if (slots[i].rank > 0) {
            slots[i].a = params + (adapter->slots[i].a - adapter->params);
            slots[i].b = params + (adapter->slots[i].b - adapter->params);
        }
    }
}

cr_status cr_sets_draw(const struct cr_eval_options *o, struct cr_sets *sets, struct cr_error *err)
{
    size_t n_items = cr_sets_items(sets);
    sets->items = cr_zalloc(n_items, sizeof *sets->items);
    if (sets->items == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %zu sets of weights", sets->n);
    }
    for (size_t i = 0; i < n_items && sets->n_posteriors > 0 && cr_sets_prefix(sets) == NULL; i++) {
        uint32_t from = (uint32_t)(i % sets->n_posteriors);
        uint32_t sample = (uint32_t)(i / sets->n_posteriors);
        const struct cr_posterior *p = sets->posteriors[from];
        struct cr_set *set = &sets->items[i];
        set->params = cr_alloc(p->adapter->n_params, sizeof *set->params);
        set->slots = cr_alloc(sets->n_slots, sizeof *set->slots);
        if (set->params == NULL || set->slots == NULL) {
            return cr_fail(err, CR_E_MEMORY, "no memory for %zu sets of %zu weights: fewer --samples need less",
                           sets->n, p->adapter->n_params);
        }
        if (!sets->by_task && (o->mean || cr_posterior_is_point(p) || sets->logit_draws > 0)) {
            memcpy(set->params, p->adapter->params, p->adapter->n_params * sizeof *set->params);
        } else {
            struct cr_posterior_draw draw = {
                .seed = o->seed, .stream = from, .sample = sample, .temperature = sets->temperature};
            CR_TRY(cr_posterior_draw(p, &draw, set->params, err));
        }
        if (o->mc_dropout && !o->mean) {
            set->noise = (struct cr_engine_noise){
                .dropout = p->adapter->dropout, .seed = o->seed ^ CR_NOISE_DRAW, .step = (uint32_t)i};
        }
        point_into(set->slots, sets->n_slots, p->adapter, set->params);
    }
    return CR_OK;
}

void cr_sets_close(struct cr_sets *sets)
{
    for (size_t i = 0; sets->items != NULL && i < cr_sets_items(sets); i++) {
        cr_free(sets->items[i].params);
        cr_free(sets->items[i].slots);
    }
    for (size_t a = 0; a < sets->n_posteriors; a++) {
        cr_posterior_close(sets->posteriors[a]);
    }
    cr_free(sets->items);
    cr_free(sets->posteriors);
    cr_free(sets->slots);
    cr_free(sets->noise);
    cr_free(sets->rows);
    memset(sets, 0, sizeof *sets);
}

void cr_sets_show(struct cr_sets *sets, size_t first, size_t n, struct cr_engine *engine)
{
    if (sets->n_posteriors == 0 || cr_sets_prefix(sets) != NULL) {
        sets->prefix.first = first;
        return;
    }
    for (size_t m = 0; m < n; m++) {
        const struct cr_set *set = &sets->items[first + m];
        memcpy(sets->slots + m * sets->n_slots, set->slots, sets->n_slots * sizeof *sets->slots);
        sets->noise[m] = set->noise;
        const struct cr_adapter *adapter = sets->posteriors[(first + m) % sets->n_posteriors]->adapter;
        if (adapter->n_labels > 0) {
            sets->rows[m].rows = set->params + cr_adapter_rows_begin(adapter);
        } else if (sets->rows != NULL) {
            sets->rows[m].rows = NULL;
        }
    }
    cr_engine_dropout(engine, sets->noise);
}
