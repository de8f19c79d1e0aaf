/* norm entries: RMSNorm forward, forward again from a kept operand, and backward. Shape: M, K. */
#include <math.h>
#include <stdio.h>

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "bench/shapes.h"
#include "credence/kernels/norm.h"

enum op { FWD, APPLY, BWD };

struct state {
    struct cr_norm_args args;
    cr_norm_fn *fn;
    enum op op;
    size_t n_blocks;
};

static const float eps = 1e-5f;

static void *open_state(const struct cr_bench_entry *entry)
{
    size_t n_blocks = cr_tl16_blocks(entry->shape[0]), k = entry->shape[1];
    enum cr_xtype x_type = (enum cr_xtype)entry->shape[3], y_type = (enum cr_xtype)entry->shape[4];
    struct state *s = cr_bench_memory(sizeof *s);
    struct cr_norm_ops ops;
    cr_norm_ops_init(&ops, entry->tier);
    cr_bench_reseed();
    s->op = (enum op)entry->shape[2];
    s->n_blocks = n_blocks;
    s->fn = s->op == FWD ? ops.rms_fwd : s->op == APPLY ? ops.rms_apply : ops.rms_bwd;
    s->args = (struct cr_norm_args){.x = cr_bench_operand(x_type, k, n_blocks),
                                    .x_stride = cr_tl16_bytes(x_type, k),
                                    .x_type = x_type,
                                    .w = cr_bench_floats(k, 0.5f, 1.5f),
                                    .eps = eps,
                                    .n_features = k,
                                    .y_type = y_type,
                                    .y_stride = cr_tl16_bytes(y_type, k),
                                    .rstd = cr_bench_floats(n_blocks * CR_LANES, 1, 2)};
    if (s->op == BWD) {
        s->args.dy = cr_bench_operand(CR_X_F32, k, n_blocks);
        s->args.dx = cr_bench_operand(CR_X_F32, k, n_blocks);
        s->args.dy_stride = s->args.dx_stride = k * CR_LANES;
    } else {
        s->args.y = cr_bench_memory(s->args.y_stride * n_blocks);
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

static double x_at(const struct state *s, size_t block, size_t feature, size_t lane)
{
    return cr_bench_operand_at(s->args.x, s->args.x_type, s->args.n_features, block, feature, lane);
}

/* What the run writes at (block, feature, lane), `before` being what stood there; bound: f32 chains of K / 4. */
static double expected(const struct state *s, size_t block, size_t feature, size_t lane, double before, double *bound)
{
    const struct cr_norm_args *a = &s->args;
    double k = (double)a->n_features, squares = 0, dot = 0, total = 0, at = x_at(s, block, feature, lane);
    for (size_t i = 0; i < a->n_features; i++) {
        double x = x_at(s, block, i, lane);
        squares += x * x;
        double dy = s->op == BWD ? (double)a->dy[block * a->dy_stride + i * CR_LANES + lane] : 0;
        dot += (double)a->w[i] * dy * x;
        total += fabs((double)a->w[i] * dy * x);
    }
    double chain = (k / 4 + 16) * 0x1p-24, w = (double)a->w[feature];
    double r = s->op == FWD ? 1 / sqrt(squares / k + (double)eps) : (double)a->rstd[block * CR_LANES + lane];
    if (s->op != BWD) {
        *bound = fabs(at * r * w) * (chain + cr_bench_unit_of(a->y_type));
        return at * r * w;
    }
    double own = r * w * (double)a->dy[block * a->dy_stride + feature * CR_LANES + lane], factor = at * r * r * r / k;
    *bound = chain * (fabs(own) + fabs(factor) * total + fabs(before));
    return before + own - factor * dot;
}

static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    size_t k = s->args.n_features;
    enum { N = 64 };
    size_t at[N][3];
    double before[N] = {0};
    for (int i = 0; i < N; i++) {
        at[i][0] = cr_bench_below(s->n_blocks);
        at[i][1] = cr_bench_below(k);
        at[i][2] = cr_bench_below(CR_LANES);
        if (s->op == BWD) {
            before[i] = cr_bench_operand_at(s->args.dx, CR_X_F32, k, at[i][0], at[i][1], at[i][2]);
        }
    }
    run(s);
    for (int i = 0; i < N; i++) {
        double bound, want = expected(s, at[i][0], at[i][1], at[i][2], before[i], &bound);
        const void *out = s->op == BWD ? s->args.dx : s->args.y;
        double got =
            cr_bench_operand_at(out, s->op == BWD ? CR_X_F32 : s->args.y_type, k, at[i][0], at[i][1], at[i][2]);
        if (!cr_bench_near(s->op == BWD ? "dx" : "y", at[i][1], got, want, bound, message, message_bytes)) {
            return false;
        }
    }
    return true;
}

static void entry(enum cr_tier tier, enum op op, enum cr_xtype x_type, enum cr_xtype y_type, size_t m, size_t k,
                  bool tour)
{
    static const char *const ops[] = {"rms_fwd", "rms_apply", "rms_bwd"};
    static const double flops[] = {4, 2, 10};
    struct cr_bench_entry e = {.open = open_state,
                               .verify = verify,
                               .run = run,
                               .tier = tier,
                               .tour = tour,
                               .shape = {m, k, op, x_type, y_type}};
    double n = (double)(cr_tl16_blocks(m) * CR_LANES) * (double)k;
    e.flops = flops[op] * n;
    e.bytes = ((x_type == CR_X_BF16 ? 2 : 4) + (op == BWD ? 12 : y_type == CR_X_BF16 ? 2 : 4)) * n;
    e.memory = cr_bench_level(op == BWD ? e.bytes - 4 * n : e.bytes); /* dx is read and written */
    snprintf(e.name, sizeof e.name, "norm/%s/%s_%s/M%zu_K%zu/%s", ops[op], cr_bench_xname(x_type),
             cr_bench_xname(y_type), m, k, cr_tier_name(tier));
    cr_bench_register(&e);
}

static void table(enum cr_tier tier, void *out)
{
    cr_norm_ops_init(out, tier);
}

void cr_bench_norm(const enum cr_tier *tiers, size_t n_tiers)
{
    enum cr_tier own[CR_BENCH_TIERS];
    size_t n = cr_bench_tiers(own, tiers, n_tiers, table, sizeof(struct cr_norm_ops));
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < CR_BENCH_MODELS; i++) {
            for (size_t j = 0; j < CR_BENCH_TOKENS; j++) {
                size_t m = cr_bench_tokens[j], k = cr_bench_models[i].width;
                bool tour = t + 1 == n && m == 512 && (i == CR_BENCH_SMOLLM2 || i == CR_BENCH_LLAMA_1B);
                entry(own[t], FWD, CR_X_F32, CR_X_BF16, m, k, tour);
                entry(own[t], FWD, CR_X_F32, CR_X_F32, m, k, false);
                entry(own[t], APPLY, CR_X_BF16, CR_X_BF16, m, k, tour);
                entry(own[t], BWD, CR_X_BF16, CR_X_F32, m, k, tour);
                entry(own[t], BWD, CR_X_F32, CR_X_F32, m, k, false);
            }
        }
    }
}
