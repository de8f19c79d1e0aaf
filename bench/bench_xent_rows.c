/* xent entries of the label's row: its logit, and what it takes off the gradient when the walk has ended. Shape: M, K.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "bench/shapes.h"
#include "credence/kernels/xent.h"

struct state {
    struct cr_xent_row_args args;
    cr_xent_row_fn *fn;
    size_t n_blocks;
    bool finish;
    float *before; /* dh */
};

static void *open_state(const struct cr_bench_entry *entry)
{
    size_t n_blocks = cr_tl16_blocks(entry->shape[0]), k = entry->shape[1], n_tokens = n_blocks * CR_LANES;
    enum cr_xtype type = (enum cr_xtype)entry->type;
    struct state *s = cr_bench_memory(sizeof *s);
    struct cr_xent_ops ops;
    cr_xent_ops_init(&ops, entry->tier);
    cr_bench_reseed();
    s->finish = entry->flag;
    s->fn = s->finish ? ops.finish : ops.label;
    s->n_blocks = n_blocks;
    s->args = (struct cr_xent_row_args){.w = cr_bench_operand(CR_X_F32, k, n_blocks),
                                        .w_stride = k * CR_LANES,
                                        .h_stride = cr_tl16_bytes(type, k),
                                        .h_type = type,
                                        .m = cr_bench_memory(n_tokens * sizeof(float)),
                                        .dh_stride = k * CR_LANES,
                                        .mass = cr_bench_floats(n_tokens, 0.5f, 1),
                                        .scale = cr_bench_floats(n_tokens, 0.5f, 1),
                                        .n_features = k};
    if (s->finish) {
        s->args.dh = cr_bench_operand(CR_X_F32, k, n_blocks);
        s->before = cr_bench_memory(n_tokens * k * sizeof(float));
    } else {
        s->args.h = cr_bench_operand(type, k, n_blocks);
    }
    return s;
}

static void part(void *arg, size_t begin, size_t end, int worker)
{
    struct state *s = arg;
    (void)worker;
    s->fn(&s->args, begin, end);
}

static void run(void *state)
{
    struct state *s = state;
    cr_bench_over(part, s, s->n_blocks, 2);
}

/* w is what label left: rounded to the type of h, which a second time changes nothing. */
static bool check_label(const struct state *s, size_t block, size_t lane, char *message, size_t message_bytes)
{
    const struct cr_xent_row_args *a = &s->args;
    double want = 0, size = 0;
    for (size_t f = 0; f < a->n_features; f++) {
        double term = cr_bench_operand_at(a->w, CR_X_F32, a->n_features, block, f, lane) *
                      cr_bench_operand_at(a->h, a->h_type, a->n_features, block, f, lane);
        want += term;
        size += fabs(term);
    }
    return cr_bench_near("logit", block, (double)a->m[block * CR_LANES + lane], want,
                         ((double)a->n_features / 2 + 2) * 0x1p-24 * size, message, message_bytes);
}

static bool check_finish(const struct state *s, size_t block, size_t lane, char *message, size_t message_bytes)
{
    const struct cr_xent_row_args *a = &s->args;
    size_t f = cr_bench_below(a->n_features);
    double x = cr_bench_operand_at(s->before, CR_X_F32, a->n_features, block, f, lane);
    double off =
        (double)a->mass[block * CR_LANES + lane] * cr_bench_operand_at(a->w, CR_X_F32, a->n_features, block, f, lane);
    double scale = (double)a->scale[block * CR_LANES + lane];
    double got = cr_bench_operand_at(a->dh, CR_X_F32, a->n_features, block, f, lane);
    return cr_bench_near("dh", f, got, (x - off) * scale, 3 * 0x1p-24 * (fabs(x) + fabs(off)) * scale, message,
                         message_bytes);
}

static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    if (s->finish) {
        memcpy(s->before, s->args.dh, s->n_blocks * s->args.n_features * CR_LANES * sizeof *s->before);
    }
    run(s);
    for (int i = 0; i < 64; i++) {
        size_t block = cr_bench_below(s->n_blocks), lane = cr_bench_below(CR_LANES);
        if (!(s->finish ? check_finish : check_label)(s, block, lane, message, message_bytes)) {
            return false;
        }
    }
    return true;
}

static void entry(enum cr_tier tier, bool finish, enum cr_xtype type, size_t m, size_t k, bool tour)
{
    struct cr_bench_entry e = {.open = open_state,
                               .verify = verify,
                               .run = run,
                               .tier = tier,
                               .type = (int)type,
                               .flag = finish,
                               .tour = tour,
                               .shape = {m, k}};
    double n = (double)(cr_tl16_blocks(m) * CR_LANES) * (double)k;
    e.unit = cr_bench_fma(tier);
    e.flops = (finish ? 3 : 2) * n;
    e.bytes = (finish ? 12 : type == CR_X_BF16 ? 10 : 8) * n; /* w goes back rounded where h is bf16 */
    e.memory = cr_bench_level(finish || type == CR_X_BF16 ? e.bytes - 4 * n : e.bytes);
    snprintf(e.name, sizeof e.name, "xent/%s/%s/M%zu_K%zu/%s", finish ? "finish" : "label", cr_bench_xname(type), m, k,
             cr_tier_name(tier));
    cr_bench_register(&e);
}

static void table(enum cr_tier tier, void *out)
{
    cr_xent_ops_init(out, tier);
}

void cr_bench_xent_rows(const enum cr_tier *tiers, size_t n_tiers)
{
    enum cr_tier own[CR_BENCH_TIERS];
    size_t n = cr_bench_tiers(own, tiers, n_tiers, table, sizeof(struct cr_xent_ops));
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < CR_BENCH_MODELS; i++) {
            for (size_t j = 0; j < CR_BENCH_TOKENS; j++) {
                size_t m = cr_bench_tokens[j], k = cr_bench_models[i].width;
                bool tour = t + 1 == n && m == 512 && i == CR_BENCH_SMOLLM2;
                entry(own[t], false, CR_X_BF16, m, k, tour);
                entry(own[t], false, CR_X_F32, m, k, false);
                entry(own[t], true, CR_X_F32, m, k, tour);
            }
        }
    }
}
