/* adamw entries: the fused step, and the norm of the gradient. Shape: D parameters. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "bench/shapes.h"
#include "credence/kernels/adamw.h"

struct state {
    struct cr_adamw_args args;
    struct cr_adamw_ops ops;
    bool norm;
    size_t n;
};

static void *open_state(const struct cr_bench_entry *entry)
{
    size_t n = entry->shape[0];
    struct state *s = cr_bench_memory(sizeof *s);
    cr_bench_reseed();
    cr_adamw_ops_init(&s->ops, entry->tier);
    s->norm = entry->flag;
    s->n = n;
    s->args = (struct cr_adamw_args){.w = cr_bench_floats(n, -1, 1),
                                     .m = cr_bench_floats(n, -1e-3f, 1e-3f),
                                     .v = cr_bench_floats(n, 1e-6f, 1e-4f),
                                     .grad = cr_bench_floats(n, -1e-2f, 1e-2f),
                                     .partial = cr_bench_memory((n / CR_ADAMW_CHUNK + 1) * sizeof(double)),
                                     .lr = 1e-4,
                                     .beta1 = 0.9,
                                     .beta2 = 0.999,
                                     .eps = 1e-8,
                                     .weight_decay = 0.01,
                                     .clip = 0.5,
                                     .t = 10};
    return s;
}

static void part(void *arg, size_t begin, size_t end, int worker)
{
    struct state *s = arg;
    (void)worker;
    (s->norm ? s->ops.norm2 : s->ops.step)(&s->args, begin, end);
}

static void run(void *state)
{
    struct state *s = state;
    cr_bench_over(part, s, s->n, 4 * CR_ADAMW_CHUNK);
}

static bool check_norm(const struct state *s, char *message, size_t message_bytes)
{
    for (size_t begin = 0; begin < s->n; begin += CR_ADAMW_CHUNK) {
        size_t end = s->n - begin < CR_ADAMW_CHUNK ? s->n : begin + CR_ADAMW_CHUNK;
        double sum = 0;
        for (size_t i = begin; i < end; i++) {
            sum += (double)s->args.grad[i] * (double)s->args.grad[i];
        }
        double got = s->args.partial[begin / CR_ADAMW_CHUNK];
        if (!cr_bench_near("partial", begin / CR_ADAMW_CHUNK, got, sum, CR_ADAMW_CHUNK * 0x1p-52 * sum, message,
                           message_bytes)) {
            return false;
        }
    }
    return true;
}

/* Sixty-four random parameters; 8 roundings of the terms, as adamw.h says. */
static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    const struct cr_adamw_args *a = &s->args;
    enum { N = 64 };
    size_t at[N];
    double w[N], m[N], v[N];
    for (int i = 0; i < N; i++) {
        at[i] = i == 0 ? s->n - 1 : cr_bench_below(s->n);
        w[i] = (double)a->w[at[i]];
        m[i] = (double)a->m[at[i]];
        v[i] = (double)a->v[at[i]];
    }
    run(s);
    if (s->norm) {
        return check_norm(s, message, message_bytes);
    }
    for (int i = 0; i < N; i++) {
        double g = a->clip * (double)a->grad[at[i]], unit = 8 * 0x1p-24, t = (double)a->t;
        double first = a->beta1 * m[i] + (1 - a->beta1) * g, second = a->beta2 * v[i] + (1 - a->beta2) * g * g;
        double sum1 = fabs(a->beta1 * m[i]) + fabs((1 - a->beta1) * g);
        double scale = sqrt(second / (1 - pow(a->beta2, t))) + a->eps, rate = a->lr / (1 - pow(a->beta1, t));
        double kept = w[i] * (1 - a->lr * a->weight_decay), want = kept - rate * first / scale;
        if (!cr_bench_near("m", at[i], (double)a->m[at[i]], first, unit * sum1, message, message_bytes) ||
            !cr_bench_near("v", at[i], (double)a->v[at[i]], second, unit * second, message, message_bytes) ||
            !cr_bench_near("w", at[i], (double)a->w[at[i]], want, unit * (fabs(kept) + rate * sum1 / scale), message,
                           message_bytes)) {
            return false;
        }
    }
    return true;
}

static void entry(enum cr_tier tier, bool norm, size_t n, bool tour)
{
    struct cr_bench_entry e = {
        .open = open_state, .verify = verify, .run = run, .tier = tier, .flag = norm, .tour = tour, .shape = {n}};
    e.flops = (norm ? 2 : 14) * (double)n;
    e.bytes = (norm ? 4 : 28) * (double)n;
    e.memory = cr_bench_level((norm ? 4 : 16) * (double)n);
    e.items = (double)n;
    snprintf(e.name, sizeof e.name, "adamw/%s/f32/D%zu/%s", norm ? "norm2" : "step", n, cr_tier_name(tier));
    cr_bench_register(&e);
}

static void table(enum cr_tier tier, void *out)
{
    cr_adamw_ops_init(out, tier);
}

void cr_bench_adamw(const enum cr_tier *tiers, size_t n_tiers)
{
    enum cr_tier own[CR_BENCH_TIERS];
    size_t n = cr_bench_tiers(own, tiers, n_tiers, table, sizeof(struct cr_adamw_ops));
    for (size_t t = 0; t < n; t++) {
        const size_t sizes[] = {4 * CR_ADAMW_CHUNK, cr_bench_lora_parameters(&cr_bench_models[CR_BENCH_SMOLLM2], 16),
                                cr_bench_lora_parameters(&cr_bench_models[CR_BENCH_LLAMA_1B], 16)};
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            entry(own[t], false, sizes[i], t + 1 == n);
            entry(own[t], true, sizes[i], t + 1 == n && i == 2);
        }
    }
}
