/* attention entries: forward and backward, causal, one sequence. Shape: T, H heads, G heads of keys and values, D head
 * size. `type` is that of the scores' operands: on the bf16 tier q and k rounded to bf16, or f32. Work is that of the
 * keys a query sees. */
#include <math.h>
#include <stdio.h>

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "bench/shapes.h"
#include "credence/kernels/attention.h"

struct state {
    struct cr_attention_args args;
    struct cr_attention_ops ops;
    uint32_t seg[2];
    bool bwd, bf16;
    char *scratch; /* of each worker */
    size_t scratch_bytes;
};

static void part(void *arg, size_t begin, size_t end, int worker)
{
    struct state *s = arg;
    (s->bwd ? s->ops.bwd : s->ops.fwd)(&s->args, begin, end, s->scratch + (size_t)worker * s->scratch_bytes);
}

static void run(void *state)
{
    struct state *s = state;
    size_t group = cr_bench_threads() > 1 ? 1 : s->args.n_heads;
    cr_bench_over(part, s, s->args.n_heads, group);
}

/* Whether a tier's table computes in bf16: amx does where tiles are built in. */
static bool is_bf16(enum cr_tier tier)
{
    struct cr_attention_ops f32, own;
    cr_attention_ops_init(&f32, CR_TIER_AVX512);
    cr_attention_ops_init(&own, tier);
    return tier == CR_TIER_AVX512_BF16 || (tier == CR_TIER_AMX && own.fwd != f32.fwd);
}

static void *open_state(const struct cr_bench_entry *entry)
{
    size_t len = entry->shape[0], heads = entry->shape[1], kv = entry->shape[2], dim = entry->shape[3];
    size_t n_blocks = cr_tl16_blocks(len), width = heads * dim, all = width + 2 * kv * dim;
    struct state *s = cr_bench_memory(sizeof *s);
    cr_attention_ops_init(&s->ops, entry->tier);
    cr_bench_reseed();
    s->seg[1] = (uint32_t)(n_blocks * CR_LANES);
    s->bwd = entry->flag;
    s->bf16 = is_bf16(entry->tier);
    float *qkv = cr_bench_operand(CR_X_F32, all, n_blocks);
    float *dqkv = cr_bench_operand(CR_X_F32, all, n_blocks);
    s->args = (struct cr_attention_args){.q = qkv,
                                         .k = qkv + width * CR_LANES,
                                         .v = qkv + (width + kv * dim) * CR_LANES,
                                         .q_stride = all * CR_LANES,
                                         .kv_stride = all * CR_LANES,
                                         .o = cr_bench_operand(CR_X_F32, width, n_blocks),
                                         .o_stride = width * CR_LANES,
                                         .lse = cr_bench_operand(CR_X_F32, heads, n_blocks),
                                         .d_o = cr_bench_operand(CR_X_F32, width, n_blocks),
                                         .dq = dqkv,
                                         .dk = cr_bench_operand(CR_X_F32, width, n_blocks),
                                         .dv = cr_bench_operand(CR_X_F32, width, n_blocks),
                                         .do_stride = width * CR_LANES,
                                         .dkv_stride = width * CR_LANES,
                                         .seg = s->seg,
                                         .n_seg = 1,
                                         .n_heads = heads,
                                         .n_kv = kv,
                                         .head_dim = dim,
                                         .scale = 1.0f / sqrtf((float)dim),
                                         .f32_scores = entry->type == CR_X_F32};
    s->scratch_bytes = (cr_attention_scratch_bytes(len, dim, 0) + 4095) / 4096 * 4096;
    s->scratch = cr_bench_memory(s->scratch_bytes * (size_t)cr_bench_threads());
    s->bwd = false;
    run(s); /* o and lse for the backward pass */
    s->bwd = entry->flag;
    return s;
}

static double at(const float *buffer, size_t n_features, size_t dim, size_t head, size_t token, size_t f)
{
    return cr_bench_operand_at(buffer, CR_X_F32, n_features, token / CR_LANES, head * dim + f, token % CR_LANES);
}

struct term {
    double p, dp, ds; /* of one query and one key */
};

/* The pair in double, from the lse that the forward pass wrote. */
static struct term term_at(const struct state *s, size_t head, size_t query, size_t key)
{
    const struct cr_attention_args *a = &s->args;
    size_t dim = a->head_dim, kv_head = head / (a->n_heads / a->n_kv), all = a->q_stride / CR_LANES;
    size_t width = a->n_heads * dim;
    double score = 0, dp = 0, delta = 0;
    for (size_t f = 0; f < dim; f++) {
        score += at(a->q, all, dim, head, query, f) * at(a->k, all, dim, kv_head, key, f);
        dp += at(a->d_o, width, dim, head, query, f) * at(a->v, all, dim, kv_head, key, f);
        delta += at(a->d_o, width, dim, head, query, f) * at(a->o, width, dim, head, query, f);
    }
    double p = exp(score * (double)a->scale - at(a->lse, a->n_heads, 1, head, query, 0));
    return (struct term){p, dp, p * (dp - delta)};
}

/* One number of each output as a sum over the other side. Operands and P or dS round once each: 2^-8 of every term on
 * the bf16 tier, and the scores' operands shift exponents of numbers below sqrt(dim) by 2^-7 of that. */
static bool check_one(const struct state *s, size_t head, size_t token, size_t f, char *message, size_t message_bytes)
{
    const struct cr_attention_args *a = &s->args;
    size_t dim = a->head_dim, kv_head = head / (a->n_heads / a->n_kv), all = a->q_stride / CR_LANES;
    size_t width = a->n_heads * dim, len = s->seg[1];
    double unit = s->bf16 ? 0x1p-7 + 0x1p-7 * sqrt((double)dim) : 0x1p-24 * (double)(len + dim + 64);
    double want[3] = {0}, size[3] = {0};
    for (size_t other = 0; other < len; other++) {
        bool seen = other <= token;
        struct term t = term_at(s, head, seen ? token : other, seen ? other : token);
        struct term back = seen && other == token ? t : term_at(s, head, other, token);
        if (seen) {
            double k = at(a->k, all, dim, kv_head, other, f) * (double)a->scale;
            double v = at(a->v, all, dim, kv_head, other, f);
            want[0] += s->bwd ? t.ds * k : t.p * v;
            size[0] += s->bwd ? t.p * (fabs(t.dp) + fabs(t.ds / (t.p + 0x1p-100)) + 1) * fabs(k) : t.p * (fabs(v) + 1);
        }
        if (s->bwd && other >= token) {
            double q = at(a->q, all, dim, head, other, f) * (double)a->scale;
            double d_o = at(a->d_o, width, dim, head, other, f);
            want[1] += back.ds * q;
            size[1] += back.p * (fabs(back.dp) + fabs(back.ds / (back.p + 0x1p-100)) + 1) * fabs(q);
            want[2] += back.p * d_o;
            size[2] += back.p * fabs(d_o);
        }
    }
    const float *got[] = {s->bwd ? a->dq : a->o, a->dk, a->dv};
    const char *const names[] = {s->bwd ? "dq" : "o", "dk", "dv"};
    for (int i = 0; i < (s->bwd ? 3 : 1); i++) {
        double value = at(got[i], s->bwd && i == 0 ? all : width, dim, head, token, f);
        if (!cr_bench_near(names[i], token, value, want[i], unit * size[i], message, message_bytes)) {
            return false;
        }
    }
    return true;
}

static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    run(s);
    for (int i = 0; i < 16; i++) {
        size_t head = cr_bench_below(s->args.n_heads), token = cr_bench_below(s->seg[1]);
        if (!check_one(s, head, token, cr_bench_below(s->args.head_dim), message, message_bytes)) {
            return false;
        }
    }
    return true;
}

static void entry(enum cr_tier tier, bool bwd, enum cr_xtype scores, size_t len, size_t heads, size_t kv, size_t dim,
                  bool tour)
{
    struct cr_bench_entry e = {.open = open_state,
                               .verify = verify,
                               .run = run,
                               .tier = tier,
                               .type = (int)scores,
                               .flag = bwd,
                               .tour = tour,
                               .shape = {len, heads, kv, dim}};
    double n = (double)(cr_tl16_blocks(len) * CR_LANES), pairs = n * (n + 1) / 2 * (double)heads;
    bool bf16 = is_bf16(tier), vector_f32 = bf16 && scores == CR_X_F32; /* f32 is half the rate of bf16 */
    double products = bwd ? 5 : 2;
    e.unit = !bf16                                  ? cr_bench_fma(tier)
             : vector_f32 && tier == CR_TIER_AMX ? CR_UNIT_NONE /* partly tiles, partly vectors: no one peak */
                                                 : cr_bench_bf16(tier);
    e.flops = products * 2 * (double)dim * pairs;
    e.work = (products + vector_f32) * 2 * (double)dim * pairs;
    e.bytes = (bwd ? 7 : 2) * n * (double)(heads * dim) * 4 + 2 * n * (double)(kv * dim) * 4;
    e.items = pairs;
    snprintf(e.name, sizeof e.name, "attention/%s/%s/T%zu_H%zu_G%zu_D%zu/%s", bwd ? "bwd" : "fwd",
             cr_bench_xname(scores), len, heads, kv, dim, cr_tier_name(tier));
    cr_bench_register(&e);
}

static void table(enum cr_tier tier, void *out)
{
    cr_attention_ops_init(out, tier);
}

/* Head counts and sizes of models, one kv head's group at least; and four heads with their own keys, which is what the
 * comparison with PyTorch runs (tests/peers/attention_torch.py). */
void cr_bench_attention(const enum cr_tier *tiers, size_t n_tiers)
{
    static const struct {
        size_t heads, kv, dim;
    } shapes[] = {{3, 1, 64}, {7, 1, 64}, {4, 4, 64}, {4, 4, 80}, {4, 4, 96}, {4, 4, 128}};
    static const size_t lengths[] = {48, 128, 512, 1024, 2048};
    enum cr_tier own[CR_BENCH_TIERS];
    size_t n = cr_bench_tiers(own, tiers, n_tiers, table, sizeof(struct cr_attention_ops));
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++) {
                size_t len = lengths[j], heads = shapes[i].heads, kv = shapes[i].kv, dim = shapes[i].dim;
                bool tour = t + 1 == n && (len == 128 || len == 1024) && (dim == 128 || heads == 3);
                if (own[t] == CR_TIER_SCALAR && len > 512) {
                    continue;
                }
                for (int bwd = 0; bwd < 2; bwd++) {
                    entry(own[t], bwd, CR_X_F32, len, heads, kv, dim, tour);
                    if (is_bf16(own[t])) {
                        entry(own[t], bwd, CR_X_BF16, len, heads, kv, dim, tour);
                    }
                }
            }
        }
    }
}
