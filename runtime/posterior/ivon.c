#include "runtime/posterior/ivon.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"

struct cr_ivon_part *cr_ivon_parts_of(const struct cr_adapter *adapter, size_t *n_parts)
{
    size_t n_slots = (size_t)adapter->n_layers * CR_N_PROJ;
    struct cr_ivon_part *parts = cr_alloc(2 * n_slots, sizeof *parts);
    size_t n = 0;
    for (size_t i = 0; i < n_slots && parts != NULL; i++) {
        const struct cr_lora *slot = &adapter->slots[i];
        if (slot->rank > 0) {
            parts[n++] = (struct cr_ivon_part){.begin = (size_t)(slot->a - adapter->params),
                                               .n = (size_t)slot->rank * slot->n_in,
                                               .tensor = 2 * slot->tensor_id,
                                               .group = CR_IVON_GROUP_A};
            parts[n++] = (struct cr_ivon_part){.begin = (size_t)(slot->b - adapter->params),
                                               .n = (size_t)slot->rank * slot->n_out,
                                               .tensor = 2 * slot->tensor_id + 1,
                                               .group = CR_IVON_GROUP_B};
        }
    }
    *n_parts = n;
    return parts;
}

static size_t n_chunks(size_t n)
{
    return n / CR_IVON_CHUNK + (n % CR_IVON_CHUNK != 0);
}

uint64_t cr_ivon_bytes(uint64_t n, uint64_t n_parts, const struct cr_ivon_settings *settings, bool merges)
{
    uint64_t arrays = settings->n_samples > 1 || merges ? 5 : 3;
    uint64_t items = n / CR_IVON_CHUNK + n_parts;
    return arrays * n * sizeof(float) + n_parts * sizeof(struct cr_ivon_part) +
           items * (sizeof(struct cr_ivon_item) + sizeof(struct cr_ivon_stats));
}

cr_status cr_ivon_check_hess(const float *hess, const struct cr_ivon_part *parts, size_t n_parts,
                             const struct cr_ivon_group *groups, struct cr_error *err)
{
    for (const struct cr_ivon_part *part = parts; part < parts + n_parts; part++) {
        float decay = (float)groups[part->group].weight_decay;
        for (size_t i = part->begin; i < part->begin + part->n; i++) {
            if (!isfinite(hess[i]) || !(hess[i] + decay > 0)) {
                return cr_fail(err, CR_E_INPUT, "curvature of parameter %zu is %g, with weight decay above 0 expected",
                               i, (double)hess[i]);
            }
        }
    }
    return CR_OK;
}

static cr_status check_group(const struct cr_ivon_group *g, struct cr_error *err)
{
    bool good = cr_ivon_takes(g->ess) && cr_ivon_takes(g->hess_init) && g->clip_radius > 0 && g->weight_decay >= 0 &&
                isfinite(g->weight_decay) && g->beta1 >= 0 && g->beta1 < 1 && g->beta2 >= 0 && g->beta2 <= 1 &&
                g->lr_factor >= 0 && isfinite(g->lr_factor);
    return good ? CR_OK
                : cr_fail(err, CR_E_USAGE,
                          "ivon: ess %g, hess_init %g, clip_radius %g, weight_decay %g, beta1 %g, beta2 %g: ess "
                          "and hess_init in [2^-126, 2^126], clip_radius above 0, the decay from 0, beta1 from 0 to "
                          "below 1 and beta2 from 0 to 1 expected",
                          g->ess, g->hess_init, g->clip_radius, g->weight_decay, g->beta1, g->beta2);
}

/* One item a chunk: a part's items follow each other. */
static void make_items(struct cr_ivon *ivon)
{
    size_t at = 0;
    for (size_t p = 0; p < ivon->n_parts; p++) {
        size_t n = ivon->parts[p].n, first = at;
        for (size_t begin = 0; begin < n; begin += CR_IVON_CHUNK) {
            ivon->items[at] = (struct cr_ivon_item){.part = (uint32_t)p,
                                                    .n_stats = (uint32_t)first,
                                                    .begin = begin,
                                                    .end = n - begin > CR_IVON_CHUNK ? begin + CR_IVON_CHUNK : n};
            at++;
        }
    }
}

static cr_status allocate(struct cr_ivon *ivon, bool averages, struct cr_error *err)
{
    ivon->parts = cr_alloc(ivon->n_parts, sizeof *ivon->parts);
    ivon->items = cr_alloc(ivon->n_items, sizeof *ivon->items);
    ivon->stats = cr_alloc(ivon->n_items, sizeof *ivon->stats);
    ivon->mean = cr_alloc(ivon->n, sizeof *ivon->mean);
    ivon->momentum = cr_zalloc(ivon->n, sizeof *ivon->momentum);
    ivon->hess = cr_zalloc(ivon->n, sizeof *ivon->hess);
    if (averages) {
        ivon->avg_grad = cr_zalloc(ivon->n, sizeof *ivon->avg_grad);
        ivon->avg_curv = cr_zalloc(ivon->n, sizeof *ivon->avg_curv);
    }
    bool made = ivon->parts != NULL && ivon->items != NULL && ivon->stats != NULL && ivon->mean != NULL &&
                ivon->momentum != NULL && ivon->hess != NULL &&
                (!averages || (ivon->avg_grad != NULL && ivon->avg_curv != NULL));
    return made ? CR_OK : cr_fail(err, CR_E_MEMORY, "no memory for the posterior of %zu parameters", ivon->n);
}

cr_status cr_ivon_init(struct cr_ivon *ivon, const float *start, size_t n, const struct cr_ivon_part *parts,
                       size_t n_parts, const struct cr_ivon_settings *settings, bool merges, enum cr_tier tier,
                       const struct cr_parallel *parallel, struct cr_error *err)
{
    struct cr_ivon made = {.parallel = parallel, .settings = *settings, .n = n, .n_parts = n_parts};
    for (int g = 0; g < CR_IVON_GROUPS; g++) {
        CR_TRY(check_group(&settings->groups[g], err));
    }
    if (settings->n_samples < 1) {
        return cr_fail(err, CR_E_USAGE, "ivon: no samples, expected at least 1");
    }
    CR_TRY(cr_ivon_ops_init(&made.ops, tier));
    for (size_t p = 0; p < n_parts; p++) {
        made.n_items += n_chunks(parts[p].n);
        made.n_elements += parts[p].n;
    }
    cr_status status = allocate(&made, settings->n_samples > 1 || merges, err);
    if (status != CR_OK) {
        cr_ivon_deinit(&made);
        return status;
    }
    memcpy(made.parts, parts, n_parts * sizeof *parts);
    memcpy(made.mean, start, n * sizeof *start);
    make_items(&made);
    for (size_t p = 0; p < n_parts; p++) {
        for (size_t i = 0; i < parts[p].n; i++) {
            made.hess[parts[p].begin + i] = (float)settings->groups[parts[p].group].hess_init;
        }
    }
    *ivon = made;
    return CR_OK;
}

void cr_ivon_deinit(struct cr_ivon *ivon)
{
    cr_free(ivon->parts);
    cr_free(ivon->items);
    cr_free(ivon->stats);
    cr_free(ivon->mean);
    cr_free(ivon->momentum);
    cr_free(ivon->hess);
    cr_free(ivon->avg_grad);
    cr_free(ivon->avg_curv);
    memset(ivon, 0, sizeof *ivon);
}

static struct cr_noise noise_of(const struct cr_ivon *ivon, uint64_t step, uint32_t sample)
{
    const struct cr_ivon_settings *s = &ivon->settings;
    return (struct cr_noise){.key = {(uint32_t)s->seed, CR_NOISE_TRAINING ^ (uint32_t)(s->seed >> 32)},
                             .step = (uint32_t)step,
                             .sample = s->worker * s->n_samples + sample};
}

/* One call for all parts: arguments of the whole vector, moved to the part of each item. */
struct task {
    const struct cr_ivon *ivon;
    cr_ivon_fn *fn;
    struct cr_ivon_args args; /* pointers to element 0 of the vector; group settings unset */
    double lr;
};

static float *moved(float *base, size_t by)
{
    return base != NULL ? base + by : NULL;
}

static const float *moved_const(const float *base, size_t by)
{
    return base != NULL ? base + by : NULL;
}

static void run_item(const struct task *task, const struct cr_ivon_item *item)
{
    const struct cr_ivon *ivon = task->ivon;
    const struct cr_ivon_part *part = &ivon->parts[item->part];
    const struct cr_ivon_group *group = &ivon->settings.groups[part->group];
    struct cr_ivon_args a = task->args;
    a.mean = moved(a.mean, part->begin);
    a.momentum = moved(a.momentum, part->begin);
    a.hess = moved(a.hess, part->begin);
    a.grad = moved_const(a.grad, part->begin);
    a.avg_grad = moved(a.avg_grad, part->begin);
    a.avg_curv = moved(a.avg_curv, part->begin);
    a.eps = moved_const(a.eps, part->begin);
    a.eps_next = moved_const(a.eps_next, part->begin);
    a.next = moved(a.next, part->begin);
    a.noise.tensor = a.noise_next.tensor = part->tensor;
    a.stats = a.stats != NULL ? a.stats + item->n_stats : NULL;
    a.ess = group->ess;
    a.weight_decay = group->weight_decay;
    a.beta1 = group->beta1;
    a.beta2 = group->beta2;
    a.hess_init = group->hess_init;
    a.clip_radius = group->clip_radius;
    a.lr = task->lr * group->lr_factor;
    task->fn(&a, item->begin, item->end);
}

static void run_items(void *arg, size_t begin, size_t end, int worker)
{
    (void)worker;
    const struct task *task = arg;
    for (size_t i = begin; i < end; i++) {
        run_item(task, &task->ivon->items[i]);
    }
}

static void run(struct task *task)
{
    const struct cr_parallel *parallel = task->ivon->parallel;
    parallel->run(parallel->ctx, run_items, task, task->ivon->n_items, 1);
}

static struct task task_of(const struct cr_ivon *ivon, cr_ivon_fn *fn)
{
    return (struct task){.ivon = ivon,
                         .fn = fn,
                         .args = {.mean = ivon->mean,
                                  .momentum = ivon->momentum,
                                  .hess = ivon->hess,
                                  .avg_grad = ivon->avg_grad,
                                  .avg_curv = ivon->avg_curv,
                                  .eps = ivon->eps,
                                  .eps_next = ivon->eps,
                                  .grad_scale = 1,
                                  .clip = 1,
                                  .sample = 1,
                                  .gradsq = ivon->settings.gradsq,
                                  .debias = ivon->settings.debias,
                                  .rescale_lr = ivon->settings.rescale_lr}};
}

void cr_ivon_perturb(const struct cr_ivon *ivon, uint64_t step, uint32_t sample, float *next)
{
    struct task task = task_of(ivon, ivon->ops.perturb);
    task.args.noise_next = noise_of(ivon, step, sample);
    task.args.next = next;
    run(&task);
}

void cr_ivon_accumulate(struct cr_ivon *ivon, uint64_t step, uint32_t sample, const float *grad, float *next)
{
    struct task task = task_of(ivon, ivon->ops.accumulate);
    task.args.grad = grad;
    task.args.sample = sample + 1;
    task.args.noise = noise_of(ivon, step, sample);
    task.args.noise_next = noise_of(ivon, step, sample + 1);
    task.args.next = next;
    run(&task);
}

struct cr_ivon_counts cr_ivon_step(struct cr_ivon *ivon, uint64_t step, const float *grad, double lr, double clip,
                                   float *next)
{
    struct task task = task_of(ivon, ivon->ops.step);
    uint32_t last = ivon->settings.n_samples - 1;
    struct cr_ivon_counts counts = {.min_hess = (double)INFINITY};
    task.args.grad = grad;
    task.args.sample = last + 1;
    task.args.noise = noise_of(ivon, step, last);
    task.args.noise_next = noise_of(ivon, step + 1, 0);
    task.args.next = next;
    task.args.stats = ivon->stats;
    task.args.clip = clip;
    task.args.t = ++ivon->t;
    task.lr = lr;
    run(&task);
    for (size_t i = 0; i < ivon->n_items; i++) {
        const struct cr_ivon_stats *s = &ivon->stats[i];
        counts.sum_hess += s->sum_hess;
        counts.min_hess = (double)s->min_hess < counts.min_hess ? (double)s->min_hess : counts.min_hess;
        counts.n_clipped += s->n_clipped;
    }
    return counts;
}

cr_status cr_ivon_merge_drivers(struct cr_ivon *const *workers, size_t n_workers, struct cr_error *err)
{
    float **arrays = cr_alloc(2 * n_workers, sizeof *arrays);
    if (arrays == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the arrays of %zu workers", n_workers);
    }
    for (size_t w = 0; w < n_workers; w++) {
        arrays[w] = workers[w]->avg_grad;
        arrays[n_workers + w] = workers[w]->avg_curv;
    }
    cr_status status = cr_ivon_merge_checked(arrays, arrays + n_workers, n_workers, 0, workers[0]->n, err);
    cr_free(arrays);
    return status;
}
