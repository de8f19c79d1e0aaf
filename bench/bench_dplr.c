/* dplr entries: draws for one sample and for sixteen, with K = 20 rows and with none, one snapshot collected, and the
 * totals of a density. Shape: D parameters, K rows, S samples. */
#include <math.h>
#include <stdio.h>

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "bench/shapes.h"
#include "credence/kernels/dplr.h"
#include "kernels/common/half.h"

enum op { SAMPLE, DENSITY, COLLECT };

struct state {
    struct cr_dplr_args args;
    struct cr_dplr_collect_args collect;
    struct cr_dplr_ops ops;
    enum op op;
    size_t n;
    char *scratch; /* [threads] CR_DPLR_SCRATCH_BYTES */
};

static uint16_t *rows(size_t n)
{
    float *values = cr_bench_floats(n, -1e-2f, 1e-2f);
    uint16_t *out = cr_bench_memory(n * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        out[i] = cr_f32_to_bf16(values[i]);
    }
    return out;
}

static void *open_state(const struct cr_bench_entry *entry)
{
    size_t n = entry->shape[0], n_rows = entry->shape[1], n_samples = entry->shape[2];
    struct state *s = cr_bench_memory(sizeof *s);
    cr_bench_reseed();
    cr_dplr_ops_init(&s->ops, entry->tier);
    s->op = (enum op)entry->type;
    s->n = n;
    if (s->op == COLLECT) {
        s->collect = (struct cr_dplr_collect_args){.w = cr_bench_floats(n, -1, 1),
                                                   .mean = cr_bench_floats(n, -1, 1),
                                                   .mean_low = cr_bench_floats(n, -1e-9f, 1e-9f),
                                                   .m2 = cr_bench_floats(n, 0, 1),
                                                   .row = cr_bench_memory(n * sizeof(uint16_t)),
                                                   .n = 7};
        return s;
    }
    s->args = (struct cr_dplr_args){.mean = cr_bench_floats(n, -1, 1),
                                    .var = cr_bench_floats(n, 1e-6f, 1e-4f),
                                    .rows = n_rows > 0 ? rows(n * n_rows) : NULL,
                                    .row_stride = n,
                                    .n_rows = n_rows,
                                    .var_scale = 0.5,
                                    .var_floor = 1e-30,
                                    .noise = {{1, 2}, 3, 0, 4},
                                    .n_samples = n_samples};
    if (s->op == SAMPLE) {
        s->args.coef = n_rows > 0 ? cr_bench_floats(n_rows * n_samples, -1, 1) : NULL;
        s->args.out = cr_bench_memory(n * n_samples * sizeof(float));
        s->args.out_stride = n;
    } else {
        size_t n_chunks = (n + CR_DPLR_CHUNK - 1) / CR_DPLR_CHUNK;
        s->args.x = cr_bench_floats(n, -1, 1);
        s->args.sums = cr_bench_memory(n_chunks * cr_dplr_n_sums(n_rows) * sizeof(double));
        s->scratch = cr_bench_memory((size_t)cr_bench_threads() * CR_DPLR_SCRATCH_BYTES);
    }
    return s;
}

static void part(void *arg, size_t begin, size_t end, int worker)
{
    struct state *s = arg;
    if (s->op == SAMPLE) {
        s->ops.sample(&s->args, begin, end);
    } else if (s->op == COLLECT) {
        s->ops.collect(&s->collect, begin, end);
    } else {
        s->ops.density(&s->args, begin, end, s->scratch + (size_t)worker * CR_DPLR_SCRATCH_BYTES);
    }
}

static void run(void *state)
{
    struct state *s = state;
    cr_bench_over(part, s, s->n, 4 * CR_DPLR_CHUNK);
}

static bool check_sample(const struct state *s, size_t e, size_t sample, char *message, size_t message_bytes)
{
    const struct cr_dplr_args *a = &s->args;
    struct cr_noise noise = a->noise;
    noise.sample += (uint32_t)sample;
    double own = sqrt(a->var_scale * (double)a->var[e]) * (double)cr_normal_at(&noise, e), sum = 0, terms = 0;
    for (size_t k = 0; k < a->n_rows; k++) {
        double term =
            (double)a->coef[k * a->n_samples + sample] * (double)cr_bf16_to_f32(a->rows[k * a->row_stride + e]);
        sum += term;
        terms += fabs(term);
    }
    double want = (double)a->mean[e] + (own + sum);
    double bound = 0x1p-24 * ((double)(a->n_rows + 4) * terms + 5 * fabs(own) + 2 * fabs(want));
    return cr_bench_near("out", e, (double)a->out[sample * a->out_stride + e], want, bound, message, message_bytes);
}

/* q of the first chunk. */
static bool check_density(const struct state *s, char *message, size_t message_bytes)
{
    const struct cr_dplr_args *a = &s->args;
    double q = 0;
    for (size_t e = 0; e < (s->n < CR_DPLR_CHUNK ? s->n : CR_DPLR_CHUNK); e++) {
        double d = (double)a->x[e] - (double)a->mean[e];
        q += d * d / (double)a->var[e];
    }
    return cr_bench_near("q", 0, a->sums[0], q, 276 * 0x1p-24 * q, message, message_bytes);
}

static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    enum { N = 64 };
    size_t at[N];
    double mean[N];
    for (int i = 0; i < N; i++) {
        at[i] = i == 0 ? s->n - 1 : cr_bench_below(s->n);
        mean[i] = s->op == COLLECT ? (double)s->collect.mean[at[i]] + (double)s->collect.mean_low[at[i]] : 0;
    }
    run(s);
    for (int i = 0; i < N; i++) {
        bool good = true;
        if (s->op == SAMPLE) {
            good = check_sample(s, at[i], cr_bench_below(s->args.n_samples), message, message_bytes);
        } else if (s->op == COLLECT) {
            double want = mean[i] + ((double)s->collect.w[at[i]] - mean[i]) / (double)(s->collect.n + 1);
            good = cr_bench_near("mean", at[i], (double)s->collect.mean[at[i]], want, 0x1p-23, message, message_bytes);
        } else {
            good = check_density(s, message, message_bytes);
        }
        if (!good) {
            return false;
        }
    }
    return true;
}

static void entry(enum cr_tier tier, enum op op, size_t n, size_t n_rows, size_t n_samples, bool tour)
{
    static const char *const ops[] = {"sample", "density", "collect"};
    struct cr_bench_entry e = {.open = open_state,
                               .verify = verify,
                               .run = run,
                               .tier = tier,
                               .type = op,
                               .tour = tour,
                               .shape = {n, n_rows, n_samples}};
    double d = (double)n, k = (double)n_rows, samples = (double)n_samples;
    if (op == SAMPLE) { /* 23 for a normal as in bench_rng.c */
        e.bytes = (8 + 2 * k + 4 * samples) * d;
        e.flops = samples * (2 * k + 26) * d;
        e.work = n_rows > 0 ? samples * 2 * k * d : samples * d;
        e.unit = n_rows > 0 ? cr_bench_fma(tier) : cr_bench_normals(tier);
        snprintf(e.name, sizeof e.name, "dplr/sample/philox/D%zu_K%zu_S%zu/%s", n, n_rows, n_samples,
                 cr_tier_name(tier));
    } else if (op == DENSITY) {
        e.bytes = (12 + 2 * k) * d;
        e.flops = (k * (k + 1) + 2 * k + 6) * d;
        e.unit = cr_bench_fma(tier);
        snprintf(e.name, sizeof e.name, "dplr/%s/bf16/D%zu_K%zu/%s", ops[op], n, n_rows, cr_tier_name(tier));
    } else {
        e.bytes = (4 + 24 + 2) * d;
        e.flops = 8 * d;
        e.unit = CR_UNIT_NONE;
        snprintf(e.name, sizeof e.name, "dplr/%s/bf16/D%zu/%s", ops[op], n, cr_tier_name(tier));
    }
    e.memory = cr_bench_level(op == COLLECT ? e.bytes - 12 * d : e.bytes); /* moments are read and written */
    e.items = op == SAMPLE ? samples * d : d;
    cr_bench_register(&e);
}

static void table(enum cr_tier tier, void *out)
{
    cr_dplr_ops_init(out, tier);
}

void cr_bench_dplr(const enum cr_tier *tiers, size_t n_tiers)
{
    enum cr_tier own[CR_BENCH_TIERS];
    size_t n = cr_bench_tiers(own, tiers, n_tiers, table, sizeof(struct cr_dplr_ops));
    for (size_t t = 0; t < n; t++) {
        const size_t sizes[] = {4 * CR_DPLR_CHUNK, cr_bench_lora_parameters(&cr_bench_models[CR_BENCH_SMOLLM2], 16)};
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            bool best = t + 1 == n && i == 1;
            entry(own[t], SAMPLE, sizes[i], 20, 1, best);
            entry(own[t], SAMPLE, sizes[i], 20, 16, best);
            entry(own[t], SAMPLE, sizes[i], 0, 1, false);
            entry(own[t], DENSITY, sizes[i], 20, 0, best);
            entry(own[t], COLLECT, sizes[i], 0, 0, best);
        }
    }
}
