/* act entries: the gated unit, forward and backward, for the types of its inputs and its output. Shape: M, K. */
#include <math.h>
#include <stdio.h>

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "bench/shapes.h"
#include "credence/kernels/act.h"

struct state {
    struct cr_act_args args;
    struct cr_act_ops ops;
    bool backward;
    size_t n_blocks;
};

static void *open_state(const struct cr_bench_entry *entry)
{
    size_t n_blocks = cr_tl16_blocks(entry->shape[0]), k = entry->shape[1];
    enum cr_xtype in = (enum cr_xtype)entry->shape[2], out = (enum cr_xtype)entry->shape[3];
    struct state *s = cr_bench_memory(sizeof *s);
    cr_bench_reseed();
    cr_act_ops_init(&s->ops, entry->tier);
    s->backward = entry->flag;
    s->n_blocks = n_blocks;
    s->args = (struct cr_act_args){.g = cr_bench_operand(in, k, n_blocks),
                                   .u = cr_bench_operand(in, k, n_blocks),
                                   .gu_stride = cr_tl16_bytes(in, k),
                                   .g_type = in,
                                   .h_stride = cr_tl16_bytes(out, k),
                                   .h_type = out,
                                   .dh_stride = k * CR_LANES,
                                   .dgu_stride = k * CR_LANES,
                                   .n_features = k};
    if (s->backward) {
        s->args.dh = cr_bench_operand(CR_X_F32, k, n_blocks);
        s->args.dg = cr_bench_memory(k * n_blocks * 64);
        s->args.du = cr_bench_memory(k * n_blocks * 64);
    } else {
        s->args.h = cr_bench_memory(s->args.h_stride * n_blocks);
    }
    return s;
}

static void part(void *arg, size_t begin, size_t end, int worker)
{
    struct state *s = arg;
    (void)worker;
    (s->backward ? s->ops.swiglu_bwd : s->ops.swiglu_fwd)(&s->args, begin, end);
}

static void run(void *state)
{
    struct state *s = state;
    cr_bench_over(part, s, s->n_blocks, 2);
}

/* Sixty-four random places: exp within 2 ulp, then fewer than ten roundings of terms no larger than |u| + |u g|. */
static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    const struct cr_act_args *a = &s->args;
    size_t k = a->n_features;
    run(s);
    for (int i = 0; i < 64; i++) {
        size_t block = cr_bench_below(s->n_blocks), f = cr_bench_below(k), lane = cr_bench_below(CR_LANES);
        double g = cr_bench_operand_at(a->g, a->g_type, k, block, f, lane);
        double u = cr_bench_operand_at(a->u, a->g_type, k, block, f, lane);
        double sigmoid = 1 / (1 + exp(-g)), bound = 16 * 0x1p-24;
        bool good;
        if (s->backward) {
            double dh = cr_bench_operand_at(a->dh, CR_X_F32, k, block, f, lane);
            double du = dh * g * sigmoid, dg = dh * u * sigmoid * (1 + g * (1 - sigmoid));
            good = cr_bench_near("du", f, cr_bench_operand_at(a->du, CR_X_F32, k, block, f, lane), du,
                                 bound * fabs(dh * g), message, message_bytes) &&
                   cr_bench_near("dg", f, cr_bench_operand_at(a->dg, CR_X_F32, k, block, f, lane), dg,
                                 bound * fabs(dh * u) * (1 + fabs(g)), message, message_bytes);
        } else {
            double h = g * sigmoid * u;
            good = cr_bench_near("h", f, cr_bench_operand_at(a->h, a->h_type, k, block, f, lane), h,
                                 (bound + cr_bench_unit_of(a->h_type)) * fabs(h), message, message_bytes);
        }
        if (!good) {
            return false;
        }
    }
    return true;
}

static void entry(enum cr_tier tier, bool backward, enum cr_xtype in, enum cr_xtype out, size_t m, size_t k, bool tour)
{
    struct cr_bench_entry e = {.open = open_state,
                               .verify = verify,
                               .run = run,
                               .tier = tier,
                               .flag = backward,
                               .tour = tour,
                               .shape = {m, k, in, out}};
    double n = (double)(cr_tl16_blocks(m) * CR_LANES) * (double)k, in_bytes = in == CR_X_BF16 ? 2 : 4;
    double out_bytes = backward ? 12 : out == CR_X_BF16 ? 2 : 4; /* backward: dh in, dg and du out */
    e.unit = cr_bench_exp(tier);
    e.work = n;
    e.flops = (CR_BENCH_EXP_FLOPS + (backward ? 9 : 4)) * n;
    e.bytes = (2 * in_bytes + out_bytes) * n;
    e.memory = cr_bench_level(e.bytes);
    snprintf(e.name, sizeof e.name, "act/%s/%s_%s/M%zu_K%zu/%s", backward ? "swiglu_bwd" : "swiglu_fwd",
             cr_bench_xname(in), cr_bench_xname(out), m, k, cr_tier_name(tier));
    cr_bench_register(&e);
}

static void table(enum cr_tier tier, void *out)
{
    cr_act_ops_init(out, tier);
}

void cr_bench_act(const enum cr_tier *tiers, size_t n_tiers)
{
    enum cr_tier own[CR_BENCH_TIERS];
    size_t n = cr_bench_tiers(own, tiers, n_tiers, table, sizeof(struct cr_act_ops));
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < CR_BENCH_MODELS; i++) {
            for (size_t j = 0; j < CR_BENCH_TOKENS; j++) {
                size_t m = cr_bench_tokens[j], k = cr_bench_models[i].ffn;
                bool tour = t + 1 == n && ((m == 512 && i == CR_BENCH_SMOLLM2) || (m == 48 && i == CR_BENCH_QWEN));
                entry(own[t], false, CR_X_F32, CR_X_BF16, m, k, tour);
                entry(own[t], false, CR_X_BF16, CR_X_BF16, m, k, false);
                entry(own[t], false, CR_X_F32, CR_X_F32, m, k, false);
                entry(own[t], true, CR_X_BF16, CR_X_F32, m, k, tour);
                entry(own[t], true, CR_X_F32, CR_X_F32, m, k, false);
            }
        }
    }
}
