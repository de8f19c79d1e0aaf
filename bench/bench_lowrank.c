/* lowrank entries: the three products of an adapter, with and without dropout. Shape: M, K, R. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "bench/shapes.h"
#include "credence/kernels/lowrank.h"
#include "credence/kernels/rng.h"

enum op { DOWN, UP, GRAD };

struct state {
    struct cr_lowrank_args args;
    struct cr_lowrank_ops ops;
    enum op op;
    size_t scratch_bytes;
    char *scratch;
    struct cr_onednn *peer;
};

static struct cr_dropout dropout(size_t n_tokens, bool on)
{
    struct cr_dropout d = {.keep16 = on ? 58982 : 65536, .key = {1, 2}, .step = 3}; /* 10 % */
    uint32_t *position = cr_bench_memory(n_tokens * sizeof *position);
    for (size_t t = 0; t < n_tokens; t++) {
        position[t] = (uint32_t)t;
    }
    d.position = position;
    d.example = cr_bench_memory(n_tokens * sizeof *d.example);
    return d;
}

static void *open_state(const struct cr_bench_entry *entry)
{
    size_t m = entry->shape[0], k = entry->shape[1], rank = entry->shape[2], n_blocks = cr_tl16_blocks(m);
    enum cr_xtype type = (enum cr_xtype)entry->type;
    struct state *s = cr_bench_memory(sizeof *s);
    cr_bench_reseed();
    cr_lowrank_ops_init(&s->ops, entry->tier);
    s->op = (enum op)entry->shape[3];
    s->args = (struct cr_lowrank_args){.p = cr_bench_floats(rank * k, -1, 1),
                                       .p_rs = k,
                                       .p_ks = 1,
                                       .g = cr_bench_memory(rank * k * sizeof(float)),
                                       .g_rs = k,
                                       .g_ks = 1,
                                       .x = cr_bench_operand(type, k, n_blocks),
                                       .x_type = type,
                                       .x_stride = cr_tl16_bytes(type, k),
                                       .y = cr_bench_memory(k * n_blocks * 64),
                                       .y_stride = k * CR_LANES,
                                       .u = cr_bench_operand(CR_X_F32, rank, n_blocks),
                                       .u_stride = rank * CR_LANES,
                                       .rank = rank,
                                       .n_features = k,
                                       .n_blocks = n_blocks,
                                       .scale = 2,
                                       .dropout = dropout(n_blocks * CR_LANES, entry->flag)};
    s->scratch_bytes = (cr_lowrank_scratch_bytes(k, rank) + 63) / 64 * 64;
    s->scratch = cr_bench_memory(s->scratch_bytes * (size_t)cr_bench_threads());
    if (!entry->flag && type == CR_X_F32) {
        s->peer = s->op == DOWN ? cr_onednn_open(m, rank, k, false)
                  : s->op == UP ? cr_onednn_open(m, k, rank, false)
                                : cr_onednn_open(rank, k, m, false);
    }
    return s;
}

static void close_state(void *state)
{
    struct state *s = state;
    cr_onednn_close(s->peer);
}

static void part(void *arg, size_t begin, size_t end, int worker)
{
    struct state *s = arg;
    cr_lowrank_fn *fn = s->op == DOWN ? s->ops.down : s->op == UP ? s->ops.up : s->ops.grad;
    fn(&s->args, begin, end, s->scratch + (size_t)worker * s->scratch_bytes);
}

static void run(void *state)
{
    struct state *s = state;
    if (s->op == GRAD) {
        cr_bench_over(part, s, s->args.n_features, 4 * CR_LOWRANK_STEP);
    } else {
        cr_bench_over(part, s, s->args.n_blocks, 3);
    }
}

static bool peer(void *state)
{
    struct state *s = state;
    if (s->peer != NULL) {
        cr_onednn_run(s->peer);
    }
    return s->peer != NULL;
}

/* The factor that dropout puts on X: draw k of the token's stream against what is kept. */
static double mask(const struct state *s, size_t token, size_t k)
{
    const struct cr_dropout *d = &s->args.dropout;
    uint32_t counter[4] = {(uint32_t)(k / 8), d->position[token], d->example[token], d->step}, word[4];
    cr_philox4x32(counter, d->key, word);
    uint32_t draw = word[k % 8 / 2] >> (k % 2 != 0 ? 16 : 0) & 0xffffu;
    return d->keep16 >= 65536 ? 1 : draw < d->keep16 ? 65536.0 / d->keep16 : 0;
}

static double x_at(const struct state *s, size_t token, size_t k)
{
    const struct cr_lowrank_args *a = &s->args;
    return mask(s, token, k) *
           cr_bench_operand_at(a->x, a->x_type, a->n_features, token / CR_LANES, k, token % CR_LANES);
}

static double u_at(const struct state *s, size_t token, size_t i)
{
    return cr_bench_operand_at(s->args.u, CR_X_F32, s->args.rank, token / CR_LANES, i, token % CR_LANES);
}

/* Output (i, k, token), of which each operation uses two, started at zero; total: magnitudes of the terms. */
static double expected(const struct state *s, size_t i, size_t k, size_t token, double *total)
{
    const struct cr_lowrank_args *a = &s->args;
    size_t n = s->op == DOWN ? a->n_features : s->op == UP ? a->rank : a->n_blocks * CR_LANES;
    double sum = 0;
    *total = 0;
    for (size_t j = 0; j < n; j++) {
        double term = s->op == DOWN ? (double)a->scale * (double)a->p[i * a->p_rs + j * a->p_ks] * x_at(s, token, j)
                      : s->op == UP ? mask(s, token, k) * (double)a->p[j * a->p_rs + k * a->p_ks] * u_at(s, token, j)
                                    : u_at(s, j, i) * x_at(s, j, k);
        sum += term;
        *total += fabs(term);
    }
    return sum;
}

/* Sixty-four random outputs. */
static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    const struct cr_lowrank_args *a = &s->args;
    size_t n_tokens = a->n_blocks * CR_LANES, length = s->op == DOWN ? a->n_features : s->op == UP ? a->rank : n_tokens;
    run(s);
    for (int j = 0; j < 64; j++) {
        size_t i = cr_bench_below(a->rank), k = cr_bench_below(a->n_features), token = cr_bench_below(n_tokens);
        double total, want = expected(s, i, k, token, &total), bound = (double)(length + 4) * 0x1p-24 * total;
        double got = s->op == DOWN ? u_at(s, token, i)
                     : s->op == UP ? (double)a->y[token / CR_LANES * a->y_stride + k * CR_LANES + token % CR_LANES]
                                   : (double)a->g[i * a->g_rs + k * a->g_ks];
        if (!cr_bench_near("output", j, got, want, bound, message, message_bytes)) {
            return false;
        }
    }
    return true;
}

static void entry(enum cr_tier tier, enum op op, enum cr_xtype type, size_t m, size_t k, size_t rank, bool drop,
                  bool tour)
{
    static const char *const ops[] = {"down", "up", "grad"};
    struct cr_bench_entry e = {.open = open_state,
                               .verify = verify,
                               .run = run,
                               .peer = peer,
                               .close = close_state,
                               .tier = tier,
                               .type = (int)type,
                               .flag = drop,
                               .tour = tour,
                               .shape = {m, k, rank, op}};
    double n = (double)(cr_tl16_blocks(m) * CR_LANES);
    double x_bytes = type == CR_X_BF16 ? 2 : 4;
    /* Three bf16 parts take the place of each f32 factor: at most a third of the tile unit. */
    e.unit = tier == CR_TIER_AMX && type == CR_X_BF16 && op != UP ? cr_bench_bf16(tier) : cr_bench_fma(tier);
    e.flops = 2 * n * (double)k * (double)rank;
    e.bytes =
        n * ((double)k * (op == UP ? 8 : x_bytes) + 4 * (double)rank) + 4 * (double)(rank * k) * (op == GRAD ? 2 : 1);
    e.memory = cr_bench_level(op == UP ? e.bytes - 4 * n * (double)k : e.bytes); /* y is read and written */
    snprintf(e.name, sizeof e.name, "lowrank/%s%s/%s/M%zu_K%zu_R%zu/%s", ops[op], drop ? "_drop" : "",
             cr_bench_xname(type), m, k, rank, cr_tier_name(tier));
    cr_bench_register(&e);
}

static void table(enum cr_tier tier, void *out)
{
    cr_lowrank_ops_init(out, tier);
}

void cr_bench_lowrank(const enum cr_tier *tiers, size_t n_tiers)
{
    static const size_t widths[] = {576, 1536, 896, 2048, 4864, 4096}, tokens[] = {48, 512, 1024};
    enum cr_tier own[CR_BENCH_TIERS];
    size_t n = cr_bench_tiers(own, tiers, n_tiers, table, sizeof(struct cr_lowrank_ops));
    for (size_t t = 0; t < n; t++) {
        for (enum op op = DOWN; op <= GRAD; op++) {
            for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
                for (size_t j = 0; j < sizeof tokens / sizeof tokens[0]; j++) {
                    bool best = t + 1 == n && tokens[j] == 512 && (widths[i] == 576 || widths[i] == 2048);
                    entry(own[t], op, CR_X_F32, tokens[j], widths[i], 16, false, best);
                    entry(own[t], op, CR_X_BF16, tokens[j], widths[i], 16, false, best && op != UP);
                    entry(own[t], op, CR_X_F32, tokens[j], widths[i], 8, false, false);
                    entry(own[t], op, CR_X_F32, tokens[j], widths[i], 64, false, false);
                    entry(own[t], op, CR_X_F32, tokens[j], widths[i], 16, true, false);
                }
            }
        }
    }
}
