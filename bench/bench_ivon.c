/* ivon entries: the fused step with one sample, by both estimates of the Hessian, with and without the perturbed
 * weights of the next step; a further sample; a perturbation alone. Shape: D parameters. */
#include <math.h>
#include <stdio.h>

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "bench/shapes.h"
#include "credence/kernels/ivon.h"

enum op { PERTURB, ACCUMULATE, STEP };

struct state {
    struct cr_ivon_args args;
    struct cr_ivon_ops ops;
    enum op op;
    size_t n;
};

static void *open_state(const struct cr_bench_entry *entry)
{
    size_t n = entry->shape[0];
    struct state *s = cr_bench_memory(sizeof *s);
    cr_bench_reseed();
    cr_ivon_ops_init(&s->ops, entry->tier);
    s->op = (enum op)entry->shape[1];
    s->n = n;
    s->args = (struct cr_ivon_args){.mean = cr_bench_floats(n, -1, 1),
                                    .momentum = cr_bench_floats(n, -1e-3f, 1e-3f),
                                    .hess = cr_bench_floats(n, 5e-4f, 2e-3f),
                                    .grad = cr_bench_floats(n, -1e-2f, 1e-2f),
                                    .noise = {{1, 2}, 3, 0, 4},
                                    .noise_next = {{1, 2}, 4, 0, 4},
                                    .lr = 0.03,
                                    .ess = 1e7,
                                    .weight_decay = 1e-6,
                                    .beta1 = 0.9,
                                    .beta2 = 0.99999,
                                    .hess_init = 1e-3,
                                    .clip_radius = 1e-3,
                                    .grad_scale = 0.5,
                                    .clip = 1,
                                    .t = 10,
                                    .sample = 1,
                                    .gradsq = entry->type,
                                    .debias = true,
                                    .rescale_lr = true};
    if (s->op == ACCUMULATE) {
        s->args.avg_grad = cr_bench_memory(n * sizeof(float));
        s->args.avg_curv = cr_bench_memory(n * sizeof(float));
    }
    s->args.next = entry->flag ? cr_bench_memory(n * sizeof(float)) : NULL;
    s->args.stats = cr_bench_memory((n / CR_IVON_CHUNK + 1) * sizeof *s->args.stats);
    return s;
}

static void part(void *arg, size_t begin, size_t end, int worker)
{
    struct state *s = arg;
    (void)worker;
    (s->op == PERTURB ? s->ops.perturb : s->op == ACCUMULATE ? s->ops.accumulate : s->ops.step)(&s->args, begin, end);
}

static void run(void *state)
{
    struct state *s = state;
    cr_bench_over(part, s, s->n, 4 * CR_IVON_CHUNK);
}

/* One element before the run, and what the formulas of ivon.h make of it. */
struct element {
    size_t at;
    double mean, momentum, hess;
};

static bool check_next(const struct state *s, size_t at, double mean, double slack, double hess, char *message,
                       size_t message_bytes)
{
    const struct cr_ivon_args *a = &s->args;
    if (a->next == NULL) {
        return true;
    }
    double noise = (double)cr_normal_at(&a->noise_next, at) / sqrt(a->ess * (hess + a->weight_decay));
    return cr_bench_near("next", at, (double)a->next[at], mean + noise,
                         slack + 0x1p-24 * (16 * fabs(noise) + fabs(mean + noise)), message, message_bytes);
}

static bool check_step(const struct state *s, const struct element *e, char *message, size_t message_bytes)
{
    const struct cr_ivon_args *a = &s->args;
    const double u = 0x1p-24;
    double g = a->grad_scale * (double)a->grad[e->at], sum = e->hess + a->weight_decay;
    double f = a->gradsq ? a->ess * g * g : sqrt(a->ess * sum) * (double)cr_normal_at(&a->noise, e->at) * g;
    double d = (1 - a->beta2) * (f - e->hess), hess = e->hess + d * (1 + d / (2 * sum));
    double m = a->beta1 * e->momentum + (1 - a->beta1) * g;
    double m_terms = fabs(a->beta1 * e->momentum) + fabs((1 - a->beta1) * g);
    double debias = 1 / (1 - pow(a->beta1, (double)a->t)), rate = a->lr * (a->hess_init + a->weight_decay);
    double x = (m * debias + a->weight_decay * e->mean) / (hess + a->weight_decay);
    double x_terms = (m_terms * debias + fabs(a->weight_decay * e->mean)) / (hess + a->weight_decay);
    double mean = e->mean - rate * fmin(fmax(x, -a->clip_radius), a->clip_radius);
    double d_terms = (1 - a->beta2) * (fabs(f) + fabs(e->hess)) * (1 + fabs(d / sum));
    double hess_bound = 2 * u * fabs(hess) + 14 * u * d_terms;
    double change = rate * x_terms * (16 * u + hess_bound / (hess + a->weight_decay)),
           mean_bound = 2 * u * fabs(e->mean) + change;
    return cr_bench_near("momentum", e->at, (double)a->momentum[e->at], m, 4 * u * m_terms, message, message_bytes) &&
           cr_bench_near("hess", e->at, (double)a->hess[e->at], hess, hess_bound, message, message_bytes) &&
           cr_bench_near("mean", e->at, (double)a->mean[e->at], mean, mean_bound, message, message_bytes) &&
           check_next(s, e->at, mean, mean_bound, hess, message, message_bytes);
}

/* The first sample's averages are its own statistics. */
static bool check_accumulate(const struct state *s, size_t at, char *message, size_t message_bytes)
{
    const struct cr_ivon_args *a = &s->args;
    double g = a->grad_scale * (double)a->grad[at], c = (a->gradsq ? g : (double)cr_normal_at(&a->noise, at)) * g;
    return cr_bench_near("avg_grad", at, (double)a->avg_grad[at], g, 0x1p-23 * fabs(g), message, message_bytes) &&
           cr_bench_near("avg_curv", at, (double)a->avg_curv[at], c, 0x1p-22 * fabs(c), message, message_bytes);
}

static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    enum { N = 64 };
    struct element elements[N];
    for (int i = 0; i < N; i++) {
        size_t at = i == 0 ? s->n - 1 : cr_bench_below(s->n);
        elements[i] =
            (struct element){at, (double)s->args.mean[at], (double)s->args.momentum[at], (double)s->args.hess[at]};
    }
    run(s);
    for (int i = 0; i < N; i++) {
        const struct element *e = &elements[i];
        bool good = s->op == STEP ? check_step(s, e, message, message_bytes)
                                  : check_next(s, e->at, e->mean, 0, e->hess, message, message_bytes) &&
                                        (s->op == PERTURB || check_accumulate(s, e->at, message, message_bytes));
        if (!good) {
            return false;
        }
    }
    return true;
}

static void entry(enum cr_tier tier, enum op op, bool gradsq, bool next, size_t n, bool tour)
{
    static const char *const ops[] = {"perturb", "accumulate", "step"};
    static const double bytes[] = {8, 12, 28}, flops[] = {3, 2, 16};
    struct cr_bench_entry e = {.open = open_state,
                               .verify = verify,
                               .run = run,
                               .tier = tier,
                               .type = gradsq,
                               .flag = next,
                               .tour = tour,
                               .shape = {n, op}};
    double n_normals = (op != PERTURB && !gradsq) + next;
    e.bytes = (bytes[op] + (next ? 4 : 0) + (next && op == ACCUMULATE ? 8 : 0)) * (double)n;
    e.flops = (flops[op] + 23 * n_normals + (next && op != PERTURB ? 3 : 0)) * (double)n;
    e.work = n_normals * (double)n;
    e.unit = n_normals > 0 ? cr_bench_normals(tier) : CR_UNIT_NONE;
    e.memory = cr_bench_level((op == STEP ? 16 : 12) * (double)n + (next ? 4 : 0) * (double)n);
    e.items = (double)n;
    snprintf(e.name, sizeof e.name, "ivon/%s/%s%s/D%zu/%s", ops[op], gradsq ? "gradsq" : "price",
             next && op != PERTURB ? "_next" : "", n, cr_tier_name(tier));
    cr_bench_register(&e);
}

static void table(enum cr_tier tier, void *out)
{
    cr_ivon_ops_init(out, tier);
}

void cr_bench_ivon(const enum cr_tier *tiers, size_t n_tiers)
{
    enum cr_tier own[CR_BENCH_TIERS];
    size_t n = cr_bench_tiers(own, tiers, n_tiers, table, sizeof(struct cr_ivon_ops));
    for (size_t t = 0; t < n; t++) {
        const size_t sizes[] = {4 * CR_IVON_CHUNK, cr_bench_lora_parameters(&cr_bench_models[CR_BENCH_SMOLLM2], 16),
                                cr_bench_lora_parameters(&cr_bench_models[CR_BENCH_LLAMA_1B], 16)};
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            bool best = t + 1 == n && i < 2;
            entry(own[t], STEP, false, true, sizes[i], best);
            entry(own[t], STEP, false, false, sizes[i], best && i == 1);
            entry(own[t], STEP, true, true, sizes[i], best && i == 1);
            entry(own[t], STEP, true, false, sizes[i], best && i == 1);
            entry(own[t], ACCUMULATE, false, true, sizes[i], best && i == 1);
            entry(own[t], ACCUMULATE, false, false, sizes[i], false);
            entry(own[t], PERTURB, false, true, sizes[i], false);
        }
    }
}
