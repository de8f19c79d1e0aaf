/* ivon: the template of the vector tiers, in blocks of the noise stream. A block of fewer than CR_RNG_BLOCK elements,
 * at the end of the arrays, is worked on in a padded copy. */
#ifndef CR_IVON_LANES_H
#define CR_IVON_LANES_H

#include <string.h>

#include "kernels/common/tiers.h"
#include "kernels/ivon/ivon_scalars.h"
#include "kernels/rng/normal_lanes.h"

enum { BLOCK = CR_RNG_BLOCK, VECTORS = NORMAL_VECTORS };

/* What a step does, fixed when its loop is built: which estimate, and where the statistics come from. */
enum source { SINGLE, AVERAGED, GIVEN };

/* A range at work: the arguments, their scalars and the streams. */
struct job {
    const struct cr_ivon_args *args;
    struct ivon_scalars c;
    struct normal_stream noise, noise_next;
    bool draws, draws_next, emits;
};

static enum source source_of(const struct cr_ivon_args *a)
{
    return a->grad == NULL ? GIVEN : a->sample > 1 ? AVERAGED : SINGLE;
}

static void start(struct job *job, const struct cr_ivon_args *args, size_t begin, bool perturbs_only)
{
    uint32_t block = (uint32_t)(begin / BLOCK);
    job->args = args;
    job->c = ivon_scalars_of(args);
    job->emits = args->next != NULL || args->next_high != NULL;
    job->draws = !perturbs_only && args->grad != NULL && !args->gradsq && args->eps == NULL;
    job->draws_next = job->emits && args->eps_next == NULL;
    if (job->draws) {
        normal_stream_start(&job->noise, &args->noise, block);
    }
    if (job->draws_next) {
        normal_stream_start(&job->noise_next, &args->noise_next, block);
    }
}

/* The vector of `next` at element i. */
CR_INLINE void emit(const struct cr_ivon_args *a, const struct ivon_scalars *c, lanes mean, lanes inverse, lanes eps,
                    size_t i)
{
    lanes next = lanes_fused(eps, lanes_sqrt(inverse * c->inv_ess), mean);
    if (a->next != NULL) {
        lanes_storeu(a->next + i, next);
    }
    if (a->next_high != NULL) {
        lanes_u high = lanes_to_bf16(next);
        lanes_store_low(a->next_high + i, high);
        lanes_store_low(a->next_low + i, lanes_to_bf16(next - lanes_bf16_even(high)));
    }
}

/* eps of a block: drawn, or given from element `at`. */
CR_INLINE void eps_block(bool draw, struct normal_stream *stream, const struct cr_noise *noise, uint32_t block,
                         const float *given, size_t at, lanes eps[VECTORS])
{
    if (draw) {
        normal_stream_next(stream, noise, block, eps);
    } else if (given != NULL) {
        for (size_t v = 0; v < VECTORS; v++) {
            eps[v] = lanes_loadu(given + at + v * LANES_N);
        }
    }
}

/* Block functions: `a` holds the arrays (the arguments, or a padded copy of their tail), whose element `at` is the
 * first one of stream block `block`. */
CR_INLINE void perturb_block(struct job *job, const struct cr_ivon_args *a, size_t at, uint32_t block)
{
    struct ivon_scalars c = job->c;
    lanes eps[VECTORS] = {{0}};
    eps_block(job->draws_next, &job->noise_next, &job->args->noise_next, block, a->eps_next, at, eps);
    for (size_t v = 0; v < VECTORS; v++) {
        size_t i = at + v * LANES_N;
        emit(a, &c, lanes_loadu(a->mean + i), 1.0f / (lanes_loadu(a->hess + i) + c.decay), eps[v], i);
    }
}

/* The statistics of the sample, the earlier ones included. */
CR_INLINE void sample_at(const struct cr_ivon_args *a, const struct ivon_scalars *c, bool gradsq, enum source source,
                         lanes eps, size_t i, lanes *grad, lanes *curv)
{
    if (source == GIVEN) {
        *grad = lanes_loadu(a->avg_grad + i);
        *curv = lanes_loadu(a->avg_curv + i);
        return;
    }
    lanes g = lanes_loadu(a->grad + i) * c->scale;
    lanes x = (gradsq ? g : eps) * g;
    if (source == AVERAGED) {
        lanes old_g = lanes_loadu(a->avg_grad + i), old_x = lanes_loadu(a->avg_curv + i);
        g = lanes_fused(g - old_g, lanes_splat(c->inv_sample), old_g);
        x = lanes_fused(x - old_x, lanes_splat(c->inv_sample), old_x);
    }
    *grad = g;
    *curv = x;
}

CR_INLINE void accumulate_block(struct job *job, const struct cr_ivon_args *a, size_t at, uint32_t block)
{
    struct ivon_scalars c = job->c;
    lanes eps[VECTORS] = {{0}};
    eps_block(job->draws, &job->noise, &job->args->noise, block, a->eps, at, eps);
    for (size_t v = 0; v < VECTORS; v++) {
        lanes g, x;
        sample_at(a, &c, a->gradsq, source_of(a), eps[v], at + v * LANES_N, &g, &x);
        lanes_storeu(a->avg_grad + at + v * LANES_N, g);
        lanes_storeu(a->avg_curv + at + v * LANES_N, x);
    }
    if (job->emits) {
        perturb_block(job, a, at, block);
    }
}

struct sums {
    lanes hess[VECTORS], least;
    lanes_i clipped; /* minus the number */
};

/* h', from the statistics' curv. */
CR_INLINE lanes new_hess(const struct ivon_scalars *c, bool gradsq, lanes h, lanes curv)
{
    lanes a = h + c->decay;
    lanes f = curv * (gradsq ? lanes_splat(c->ess) : lanes_sqrt(a * c->ess));
    lanes d = (f - h) * c->rest2;
    return lanes_fused(d, lanes_fused(lanes_splat(0.5f), d / a, lanes_splat(1.0f)), h);
}

/* Updates the vector at element i and puts the new mean and 1 / (h' + wd) where emit finds them. */
CR_INLINE void update(const struct cr_ivon_args *args, const struct ivon_scalars *c, lanes g, lanes h, size_t i,
                      lanes *mean, lanes *inverse, lanes *direction)
{
    lanes old = lanes_loadu(args->mean + i);
    lanes m = lanes_fused(lanes_splat(c->rest1), g, lanes_loadu(args->momentum + i) * c->beta1);
    *inverse = 1.0f / (h + c->decay);
    lanes x = lanes_fused(lanes_splat(c->decay), old, m * c->debias) * *inverse;
    /* the bound stands first: NaN stays */
    lanes cut = lanes_max(lanes_splat(-c->radius), lanes_min(lanes_splat(c->radius), x));
    *mean = lanes_fused(lanes_splat(-c->rate), cut, old);
    *direction = x;
    lanes_storeu(args->momentum + i, m);
    lanes_storeu(args->hess + i, h);
    lanes_storeu(args->mean + i, *mean);
}

/* n: elements of the block that exist; only they count in the statistics. */
CR_INLINE void step_block(struct job *job, const struct cr_ivon_args *a, bool gradsq, enum source source, size_t at,
                          uint32_t block, size_t n, struct sums *sums)
{
    struct ivon_scalars c = job->c;
    lanes eps[VECTORS] = {{0}}, mean[VECTORS], inverse[VECTORS];
    if (!gradsq && source != GIVEN) {
        eps_block(job->draws, &job->noise, &job->args->noise, block, a->eps, at, eps);
    }
    for (size_t v = 0; v < VECTORS; v++) {
        size_t i = at + v * LANES_N;
        lanes g, curv, direction;
        sample_at(a, &c, gradsq, source, eps[v], i, &g, &curv);
        lanes h = new_hess(&c, gradsq, lanes_loadu(a->hess + i), curv);
        update(a, &c, g, h, i, &mean[v], &inverse[v], &direction);
        lanes_i live = lanes_splat_i(-1);
        if (n < BLOCK) {
            live = lanes_greater_i(lanes_splat_i((int)n - (int)v * LANES_N), (lanes_i)lanes_iota());
            h = lanes_select(live, h, lanes_splat(__builtin_inff()));
        }
        sums->hess[v] += (lanes)((lanes_i)h & live);
        sums->least = lanes_min(h, sums->least);
        sums->clipped += lanes_greater(lanes_abs(direction), lanes_splat(c.radius)) & live;
    }
    if (job->emits) {
        eps_block(job->draws_next, &job->noise_next, &job->args->noise_next, block, a->eps_next, at, eps);
        for (size_t v = 0; v < VECTORS; v++) {
            emit(a, &c, mean[v], inverse[v], eps[v], at + v * LANES_N);
        }
    }
}

/* A padded copy of the last arrays' fewer than BLOCK elements. */
struct tail {
    struct cr_ivon_args args;
    float mean[BLOCK], momentum[BLOCK], hess[BLOCK], grad[BLOCK], avg_grad[BLOCK], avg_curv[BLOCK], eps[BLOCK],
        eps_next[BLOCK], next[BLOCK];
    uint16_t high[BLOCK], low[BLOCK];
};

static float *copied(float *copy, const float *from, size_t at, size_t n, float pad)
{
    if (from == NULL) {
        return NULL;
    }
    memcpy(copy, from + at, n * sizeof *copy);
    for (size_t i = n; i < BLOCK; i++) {
        copy[i] = pad;
    }
    return copy;
}

static void tail_begin(struct tail *t, const struct cr_ivon_args *a, size_t at, size_t n)
{
    bool averages = source_of(a) != SINGLE; /* before the first sample they hold nothing */
    t->args = *a;
    t->args.mean = copied(t->mean, a->mean, at, n, 0);
    t->args.momentum = copied(t->momentum, a->momentum, at, n, 0);
    t->args.hess = copied(t->hess, a->hess, at, n, 1);
    t->args.grad = copied(t->grad, a->grad, at, n, 0);
    t->args.avg_grad = averages ? copied(t->avg_grad, a->avg_grad, at, n, 0) : t->avg_grad;
    t->args.avg_curv = averages ? copied(t->avg_curv, a->avg_curv, at, n, 0) : t->avg_curv;
    t->args.eps = copied(t->eps, a->eps, at, n, 0);
    t->args.eps_next = copied(t->eps_next, a->eps_next, at, n, 0);
    t->args.next = a->next != NULL ? t->next : NULL;
    t->args.next_high = a->next_high != NULL ? t->high : NULL;
    t->args.next_low = a->next_low != NULL ? t->low : NULL;
}

static void tail_next(const struct tail *t, const struct cr_ivon_args *a, size_t at, size_t n)
{
    if (a->next != NULL) {
        memcpy(a->next + at, t->next, n * sizeof *t->next);
    }
    if (a->next_high != NULL) {
        memcpy(a->next_high + at, t->high, n * sizeof *t->high);
        memcpy(a->next_low + at, t->low, n * sizeof *t->low);
    }
}

static void perturb(const struct cr_ivon_args *args, size_t begin, size_t end)
{
    struct job job;
    size_t at = begin;
    start(&job, args, begin, true);
    for (; end - at >= BLOCK; at += BLOCK) {
        perturb_block(&job, args, at, (uint32_t)(at / BLOCK));
    }
    if (at < end) {
        struct tail tail;
        struct cr_ivon_args few = *args;
        few.momentum = NULL;
        few.grad = few.eps = NULL;
        few.avg_grad = few.avg_curv = NULL;
        tail_begin(&tail, &few, at, end - at);
        perturb_block(&job, &tail.args, 0, (uint32_t)(at / BLOCK));
        tail_next(&tail, args, at, end - at);
    }
}

static void accumulate(const struct cr_ivon_args *args, size_t begin, size_t end)
{
    struct job job;
    size_t at = begin;
    start(&job, args, begin, false);
    for (; end - at >= BLOCK; at += BLOCK) {
        accumulate_block(&job, args, at, (uint32_t)(at / BLOCK));
    }
    if (at < end) {
        struct tail tail;
        struct cr_ivon_args few = *args;
        few.momentum = NULL;
        if (!job.emits) { /* not read, as in whole blocks: another thread may write them */
            few.mean = few.hess = NULL;
        }
        tail_begin(&tail, &few, at, end - at);
        accumulate_block(&job, &tail.args, 0, (uint32_t)(at / BLOCK));
        memcpy(args->avg_grad + at, tail.avg_grad, (end - at) * sizeof *tail.avg_grad);
        memcpy(args->avg_curv + at, tail.avg_curv, (end - at) * sizeof *tail.avg_curv);
        tail_next(&tail, args, at, end - at);
    }
}

static void write_stats(struct cr_ivon_stats *stats, const struct sums *sums)
{
    float chain[BLOCK], least[LANES_N];
    int32_t clipped[LANES_N];
    memcpy(chain, sums->hess, sizeof chain);
    memcpy(least, &sums->least, sizeof least);
    memcpy(clipped, &sums->clipped, sizeof clipped);
    *stats = (struct cr_ivon_stats){.min_hess = least[0]};
    for (size_t i = 0; i < BLOCK; i++) {
        stats->sum_hess += (double)chain[i];
    }
    for (size_t i = 0; i < LANES_N; i++) {
        stats->min_hess = least[i] < stats->min_hess ? least[i] : stats->min_hess;
        stats->n_clipped -= (uint32_t)clipped[i];
    }
}

static void step_tail(struct job *job, size_t at, size_t n, struct sums *sums)
{
    struct tail tail;
    const struct cr_ivon_args *args = job->args;
    tail_begin(&tail, args, at, n);
    step_block(job, &tail.args, args->gradsq, source_of(args), 0, (uint32_t)(at / BLOCK), n, sums);
    memcpy(args->mean + at, tail.mean, n * sizeof *tail.mean);
    memcpy(args->momentum + at, tail.momentum, n * sizeof *tail.momentum);
    memcpy(args->hess + at, tail.hess, n * sizeof *tail.hess);
    tail_next(&tail, args, at, n);
}

/* Whole blocks of [at, stop): returns where they end. */
CR_INLINE size_t step_blocks(struct job *job, bool gradsq, enum source source, size_t at, size_t stop,
                             struct sums *sums)
{
    for (; stop - at >= BLOCK; at += BLOCK) {
        step_block(job, job->args, gradsq, source, at, (uint32_t)(at / BLOCK), BLOCK, sums);
    }
    return at;
}

/* The one-sample steps have loops of their own. */
static size_t step_whole(struct job *job, size_t at, size_t stop, struct sums *sums)
{
    bool gradsq = job->args->gradsq;
    enum source source = source_of(job->args);
    if (source != SINGLE) {
        return step_blocks(job, gradsq, source, at, stop, sums);
    }
    return gradsq ? step_blocks(job, true, SINGLE, at, stop, sums) : step_blocks(job, false, SINGLE, at, stop, sums);
}

static void step(const struct cr_ivon_args *args, size_t begin, size_t end)
{
    struct job job;
    start(&job, args, begin, false);
    for (size_t at = begin; at < end;) {
        size_t chunk = at / CR_IVON_CHUNK, stop = end - at > CR_IVON_CHUNK ? at + CR_IVON_CHUNK : end;
        struct sums sums = {.least = lanes_splat(__builtin_inff())};
        at = step_whole(&job, at, stop, &sums);
        if (at < stop) {
            step_tail(&job, at, stop - at, &sums);
            at = stop;
        }
        if (args->stats != NULL) {
            write_stats(&args->stats[chunk], &sums);
        }
    }
}

static void fill(struct cr_ivon_ops *ops)
{
    static const struct cr_ivon_ops table = {.perturb = perturb, .accumulate = accumulate, .step = step};
    *ops = table;
}

#endif
