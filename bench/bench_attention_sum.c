/* attention entries of the sums of partial gradients: of keys and values that query heads share (sum_kv; T tokens), and
 * of a prefix over sequences and heads (sum_prefix; I sequences, K rows). H heads, G heads of keys and values, D head
 * size. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "bench/shapes.h"
#include "credence/kernels/attention.h"

struct state {
    struct cr_attention_args args;
    struct cr_attention_prefix prefix;
    cr_attention_fn *fn;
    size_t n_items, n_blocks; /* of tokens, of the rows of a prefix */
};

/* `n_blocks` token blocks of a tensor with a partial a query head, and of its sums. */
static void *open_state(const struct cr_bench_entry *entry)
{
    size_t n_seg = entry->shape[0], n_rows = entry->shape[1], heads = entry->shape[2], kv = entry->shape[3];
    size_t dim = entry->shape[4], n_blocks = cr_tl16_blocks(n_rows), sums = kv * dim, partials = heads * dim;
    struct state *s = cr_bench_memory(sizeof *s);
    struct cr_attention_ops ops;
    cr_attention_ops_init(&ops, entry->tier);
    cr_bench_reseed();
    s->n_blocks = n_blocks;
    s->args = (struct cr_attention_args){.n_heads = heads, .n_kv = kv, .head_dim = dim, .scale = 1};
    float *parts[2], *out[2];
    for (int i = 0; i < 2; i++) {
        parts[i] = cr_bench_operand(CR_X_F32, partials, n_blocks * (n_seg > 0 ? n_seg : 1));
        out[i] = cr_bench_operand(CR_X_F32, sums, n_blocks);
    }
    if (n_seg == 0) {
        s->fn = ops.sum_kv;
        s->n_items = n_blocks;
        s->args.dk = parts[0], s->args.dv = parts[1];
        s->args.dk_sum = out[0], s->args.dv_sum = out[1];
        s->args.dkv_stride = partials * CR_LANES;
        s->args.kv_stride = sums * CR_LANES;
        return s;
    }
    s->fn = ops.sum_prefix;
    s->n_items = kv;
    s->args.n_seg = n_seg;
    s->args.prefix = &s->prefix;
    s->prefix = (struct cr_attention_prefix){.dk = out[0],
                                             .dv = out[1],
                                             .stride = n_blocks * sums * CR_LANES,
                                             .n_rows = n_rows,
                                             .n_prefixes = 1,
                                             .of_seg = cr_bench_memory(n_seg * sizeof(uint32_t)), /* all the first */
                                             .dk_part = parts[0],
                                             .dv_part = parts[1]};
    return s;
}

static void part(void *arg, size_t begin, size_t end, int worker)
{
    struct state *s = arg;
    (void)worker;
    s->fn(&s->args, begin, end, NULL);
}

static void run(void *state)
{
    struct state *s = state;
    cr_bench_over(part, s, s->n_items, 2);
}

/* One number of dK and dV; what sum_prefix adds to was set to 0. */
static bool check_one(const struct state *s, char *message, size_t message_bytes)
{
    const struct cr_attention_args *a = &s->args;
    const struct cr_attention_prefix *p = a->prefix;
    size_t group = a->n_heads / a->n_kv, lines = a->head_dim * CR_LANES, n_seg = p != NULL ? a->n_seg : 1;
    size_t block = cr_bench_below(s->n_blocks), kv = cr_bench_below(a->n_kv), at = cr_bench_below(lines);
    const float *parts[2] = {p != NULL ? p->dk_part : a->dk, p != NULL ? p->dv_part : a->dv};
    const float *sums[2] = {p != NULL ? p->dk : a->dk_sum, p != NULL ? p->dv : a->dv_sum};
    for (int i = 0; i < 2; i++) {
        double want = 0, size = 0;
        for (size_t term = 0; term < n_seg * group; term++) {
            size_t head = kv * group + term % group, seg = term / group;
            size_t place = p != NULL ? (seg * a->n_heads + head) * s->n_blocks + block : block * a->n_heads + head;
            double x = (double)parts[i][place * lines + at];
            want += x;
            size += fabs(x);
        }
        double got = (double)sums[i][(block * a->n_kv + kv) * lines + at];
        double bound = (double)(n_seg * group) * 0x1p-24 * size;
        if (!cr_bench_near(i == 0 ? "dk" : "dv", at, got, want, bound, message, message_bytes)) {
            return false;
        }
    }
    return true;
}

static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    if (s->args.prefix != NULL) {
        memset(s->prefix.dk, 0, s->prefix.stride * sizeof(float));
        memset(s->prefix.dv, 0, s->prefix.stride * sizeof(float));
    }
    run(s);
    for (int i = 0; i < 64; i++) {
        if (!check_one(s, message, message_bytes)) {
            return false;
        }
    }
    return true;
}

/* n_seg 0: sum_kv of n_rows tokens. */
static void entry(enum cr_tier tier, size_t n_seg, size_t n_rows, const struct cr_bench_model *model, bool tour)
{
    size_t heads = model->heads, kv = model->kv_heads, dim = model->head_dim;
    struct cr_bench_entry e = {.open = open_state,
                               .verify = verify,
                               .run = run,
                               .tier = tier,
                               .tour = tour,
                               .shape = {n_seg, n_rows, heads, kv, dim}};
    double rows = (double)(cr_tl16_blocks(n_rows) * CR_LANES), n = 2 * rows * (double)dim; /* of dK and dV of a head */
    double n_seen = n_seg > 0 ? (double)n_seg : 1;
    e.unit = cr_bench_fma(tier);
    e.flops = n * (double)heads * n_seen;
    /* sum_prefix reads and writes its sums once a term */
    e.bytes = n_seg > 0 ? 12 * n * (double)heads * n_seen : 4 * n * (double)(heads + kv);
    e.memory = cr_bench_level(4 * n * ((double)heads * n_seen + (double)kv));
    if (n_seg > 0) {
        snprintf(e.name, sizeof e.name, "attention/sum_prefix/f32/I%zu_K%zu_H%zu_G%zu_D%zu/%s", n_seg, n_rows, heads,
                 kv, dim, cr_tier_name(tier));
    } else {
        snprintf(e.name, sizeof e.name, "attention/sum_kv/f32/T%zu_H%zu_G%zu_D%zu/%s", n_rows, heads, kv, dim,
                 cr_tier_name(tier));
    }
    cr_bench_register(&e);
}

static void table(enum cr_tier tier, void *out)
{
    cr_attention_ops_init(out, tier);
}

/* Models whose query heads share keys, and the smallest of them with a prefix of one and of two token blocks. */
void cr_bench_attention_sum(const enum cr_tier *tiers, size_t n_tiers)
{
    enum cr_tier own[CR_BENCH_TIERS];
    size_t n = cr_bench_tiers(own, tiers, n_tiers, table, sizeof(struct cr_attention_ops));
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < CR_BENCH_LLAMA_7B; i++) {
            for (size_t j = 0; j < CR_BENCH_TOKENS; j++) {
                bool tour = t + 1 == n && cr_bench_tokens[j] == 512 && i == CR_BENCH_SMOLLM2;
                entry(own[t], 0, cr_bench_tokens[j], &cr_bench_models[i], tour);
            }
        }
        entry(own[t], 8, 16, &cr_bench_models[CR_BENCH_SMOLLM2], t + 1 == n);
        entry(own[t], 64, 32, &cr_bench_models[CR_BENCH_SMOLLM2], false);
    }
}
