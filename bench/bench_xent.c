/* xent entries: a chunk of the vocabulary, statistics, gradient, and exponentials with their sums. Shape: M, V rows of
 * the chunk. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "bench/shapes.h"
#include "credence/kernels/xent.h"

enum operation { STATS, GRAD, EXPSUM, N_OPERATIONS };

struct state {
    struct cr_xent_args args;
    struct cr_xent_ops ops;
    enum operation operation;
    size_t n_blocks;
};

static void *open_state(const struct cr_bench_entry *entry)
{
    size_t n_blocks = cr_tl16_blocks(entry->shape[0]), n_rows = entry->shape[1], n_tokens = n_blocks * CR_LANES;
    struct state *s = cr_bench_memory(sizeof *s);
    cr_bench_reseed();
    cr_xent_ops_init(&s->ops, entry->tier);
    s->operation = (enum operation)entry->shape[2];
    s->n_blocks = n_blocks;
    enum cr_xtype type = (enum cr_xtype)entry->type;
    int32_t *target = cr_bench_memory(n_tokens * sizeof *target);
    float *lse = cr_bench_floats(n_tokens, 8, 9);
    s->args = (struct cr_xent_args){
        .z = cr_bench_floats(n_rows * n_tokens, -8, 8),
        .z_stride = n_rows * CR_LANES,
        .n_rows = n_rows,
        .target = target,
        .m = cr_bench_memory(n_tokens * sizeof(float)),
        .s = cr_bench_memory(n_tokens * sizeof(float)),
        .mass = cr_bench_memory(n_tokens * sizeof(float)),
        .label = cr_bench_memory(n_tokens * sizeof(float)),
        .lse = lse,
        .weight = cr_bench_floats(n_tokens, 0.5f, 1),
        .dz = s->operation == STATS ? NULL : cr_bench_memory(cr_tl16_bytes(type, n_rows) * n_blocks),
        .dz_stride = cr_tl16_bytes(type, n_rows),
        .dz_type = type};
    for (size_t t = 0; t < n_tokens; t++) {
        s->args.m[t] = s->operation == EXPSUM ? 4 : -INFINITY;
        target[t] = (int32_t)cr_bench_below(n_rows);
    }
    return s;
}

static void part(void *arg, size_t begin, size_t end, int worker)
{
    struct state *s = arg;
    (void)worker;
    cr_xent_fn *const fns[] = {s->ops.stats, s->ops.grad, s->ops.expsum};
    fns[s->operation](&s->args, begin, end);
}

static void run(void *state)
{
    struct state *s = state;
    cr_bench_over(part, s, s->n_blocks, 2);
}

static double z_at(const struct state *s, size_t token, size_t row)
{
    return (double)s->args.z[token / CR_LANES * s->args.z_stride + row * CR_LANES + token % CR_LANES];
}

static bool check_stats(const struct state *s, size_t token, char *message, size_t message_bytes)
{
    const struct cr_xent_args *a = &s->args;
    double m = -INFINITY, sum = 0;
    for (size_t v = 0; v < a->n_rows; v++) {
        m = fmax(m, z_at(s, token, v));
    }
    for (size_t v = 0; v < a->n_rows; v++) {
        sum += exp(z_at(s, token, v) - m);
    }
    return cr_bench_near("maximum", token, (double)a->m[token], m, 0, message, message_bytes) &&
           cr_bench_near("sum", token, (double)a->s[token], sum, ((double)a->n_rows + 40) * 0x1p-24 * sum, message,
                         message_bytes) &&
           cr_bench_near("label", token, (double)a->label[token], z_at(s, token, (size_t)a->target[token]), 0, message,
                         message_bytes);
}

static bool check_grad(const struct state *s, size_t token, char *message, size_t message_bytes)
{
    const struct cr_xent_args *a = &s->args;
    for (int i = 0; i < 8; i++) {
        size_t v = i == 0 ? (size_t)a->target[token] : cr_bench_below(a->n_rows);
        double x = z_at(s, token, v) - (double)a->lse[token], p = exp(x), w = (double)a->weight[token];
        double want = (p - (v == (size_t)a->target[token])) * w;
        /* the difference rounds once, exp carries it and 2 ulp, then two roundings and that of the result */
        double bound = (0x1p-24 * (fabs(x) + 8) * p + 0x1p-23) * w * (v == (size_t)a->target[token] || p > 1) +
                       0x1p-24 * (fabs(x) + 10) * p * w + cr_bench_unit_of(a->dz_type) * fabs(want);
        double got = cr_bench_operand_at(a->dz, a->dz_type, a->n_rows, token / CR_LANES, v, token % CR_LANES);
        if (!cr_bench_near("dz", v, got, want, bound, message, message_bytes)) {
            return false;
        }
    }
    return true;
}

/* The sums have been added to as often as the entry ran: from 0 once more. */
static bool check_expsum(const struct state *s, size_t token, char *message, size_t message_bytes)
{
    const struct cr_xent_args *a = &s->args;
    double sum = 0, mass = 0;
    for (size_t v = 0; v < a->n_rows; v++) {
        double x = z_at(s, token, v) - (double)a->m[token], want = v == (size_t)a->target[token] ? 0 : exp(x);
        double bound = (0x1p-24 * (fabs(x) + 8) + cr_bench_unit_of(a->dz_type)) * want;
        double got = cr_bench_operand_at(a->dz, a->dz_type, a->n_rows, token / CR_LANES, v, token % CR_LANES);
        sum += want;
        mass += got; /* of what was stored, so the additions alone round */
        if (!cr_bench_near("p", v, got, want, bound, message, message_bytes)) {
            return false;
        }
    }
    return cr_bench_near("sum", token, (double)a->s[token], sum, ((double)a->n_rows + 40) * 0x1p-24 * sum, message,
                         message_bytes) &&
           cr_bench_near("mass", token, (double)a->mass[token], mass, (double)a->n_rows * 0x1p-24 * mass, message,
                         message_bytes);
}

static bool verify(void *state, char *message, size_t message_bytes)
{
    static bool (*const checks[])(const struct state *, size_t, char *, size_t) = {check_stats, check_grad,
                                                                                   check_expsum};
    struct state *s = state;
    if (s->operation == EXPSUM) {
        memset(s->args.s, 0, s->n_blocks * CR_LANES * sizeof *s->args.s);
        memset(s->args.mass, 0, s->n_blocks * CR_LANES * sizeof *s->args.mass);
    }
    run(s);
    for (int i = 0; i < 16; i++) {
        size_t token = cr_bench_below(s->n_blocks * CR_LANES);
        if (!checks[s->operation](s, token, message, message_bytes)) {
            return false;
        }
    }
    return true;
}

static void entry(enum cr_tier tier, enum operation operation, enum cr_xtype type, size_t m, size_t n_rows, bool tour)
{
    struct cr_bench_entry e = {.open = open_state,
                               .verify = verify,
                               .run = run,
                               .tier = tier,
                               .type = (int)type,
                               .tour = tour,
                               .shape = {m, n_rows, operation}};
    static const char *const names[] = {"stats", "grad", "expsum"};
    double n = (double)(cr_tl16_blocks(m) * CR_LANES) * (double)n_rows;
    e.unit = cr_bench_exp(tier);
    e.work = n;
    e.flops = (CR_BENCH_EXP_FLOPS + (operation == GRAD ? 3 : 2)) * n;
    e.bytes = (operation != STATS ? type == CR_X_BF16 ? 6 : 8 : 4) * n;
    e.memory = cr_bench_level(e.bytes);
    e.items = n;
    snprintf(e.name, sizeof e.name, "xent/%s/%s/M%zu_V%zu/%s", names[operation], cr_bench_xname(type), m, n_rows,
             cr_tier_name(tier));
    cr_bench_register(&e);
}

static void table(enum cr_tier tier, void *out)
{
    cr_xent_ops_init(out, tier);
}

/* Chunks of 2048 rows as the model walks the vocabulary; one of the smallest vocabulary whole for comparison. */
void cr_bench_xent(const enum cr_tier *tiers, size_t n_tiers)
{
    enum cr_tier own[CR_BENCH_TIERS];
    size_t n = cr_bench_tiers(own, tiers, n_tiers, table, sizeof(struct cr_xent_ops));
    for (size_t t = 0; t < n; t++) {
        for (size_t j = 0; j < CR_BENCH_TOKENS; j++) {
            size_t m = cr_bench_tokens[j];
            bool tour = t + 1 == n && (m == 48 || m == 512);
            for (enum operation o = 0; o < N_OPERATIONS; o++) {
                entry(own[t], o, o == STATS ? CR_X_F32 : CR_X_BF16, m, 2048, tour);
            }
            entry(own[t], GRAD, CR_X_F32, m, 2048, false);
            entry(own[t], EXPSUM, CR_X_F32, m, 2048, false);
        }
        entry(own[t], STATS, CR_X_F32, 128, cr_bench_models[CR_BENCH_LLAMA_7B].vocab, false);
        entry(own[t], GRAD, CR_X_BF16, 128, cr_bench_models[CR_BENCH_LLAMA_7B].vocab, false);
    }
}
