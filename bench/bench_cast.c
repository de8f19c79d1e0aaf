/* cast entries: f32 to the bf16 operand and back. Shape: M, K. */
#include <stdio.h>
#include <string.h>

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "bench/shapes.h"
#include "credence/kernels/cast.h"
#include "kernels/common/half.h"

struct state {
    struct cr_cast_args args;
    struct cr_cast_ops ops;
    bool back;
    size_t n_blocks;
};

static void *open_state(const struct cr_bench_entry *entry)
{
    size_t n_blocks = cr_tl16_blocks(entry->shape[0]), k = entry->shape[1];
    struct state *s = cr_bench_memory(sizeof *s);
    cr_bench_reseed();
    cr_cast_ops_init(&s->ops, entry->tier);
    s->back = entry->flag;
    s->n_blocks = n_blocks;
    s->args = (struct cr_cast_args){.f32 = cr_bench_operand(CR_X_F32, k, n_blocks),
                                    .f32_stride = k * CR_LANES,
                                    .bf16 = cr_bench_operand(CR_X_BF16, k, n_blocks),
                                    .bf16_stride = cr_tl16_bytes(CR_X_BF16, k),
                                    .n_features = k};
    return s;
}

static void part(void *arg, size_t begin, size_t end, int worker)
{
    struct state *s = arg;
    (void)worker;
    (s->back ? s->ops.from_bf16 : s->ops.to_bf16)(&s->args, begin, end);
}

static void run(void *state)
{
    struct state *s = state;
    cr_bench_over(part, s, s->n_blocks, 2);
}

/* Every value, exactly. */
static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    const struct cr_cast_args *a = &s->args;
    run(s);
    for (size_t block = 0; block < s->n_blocks; block++) {
        for (size_t i = 0; i < a->n_features * CR_LANES; i++) {
            size_t f = i / CR_LANES, lane = i % CR_LANES;
            float wide = a->f32[block * a->f32_stride + i];
            double narrow = cr_bench_operand_at(a->bf16, CR_X_BF16, a->n_features, block, f, lane);
            double want = s->back ? narrow : (double)cr_bf16_to_f32(cr_f32_to_bf16(wide));
            if (!cr_bench_near("value", i, s->back ? (double)wide : narrow, want, 0, message, message_bytes)) {
                return false;
            }
        }
    }
    return true;
}

static void entry(enum cr_tier tier, bool back, size_t m, size_t k, bool tour)
{
    struct cr_bench_entry e = {
        .open = open_state, .verify = verify, .run = run, .tier = tier, .flag = back, .tour = tour, .shape = {m, k}};
    double n = (double)(cr_tl16_blocks(m) * CR_LANES) * (double)k;
    e.flops = n; /* one conversion a value */
    e.bytes = 6 * n;
    e.memory = cr_bench_level(e.bytes);
    snprintf(e.name, sizeof e.name, "cast/%s/bf16/M%zu_K%zu/%s", back ? "from" : "to", m, k, cr_tier_name(tier));
    cr_bench_register(&e);
}

static void table(enum cr_tier tier, void *out)
{
    cr_cast_ops_init(out, tier);
}

void cr_bench_cast(const enum cr_tier *tiers, size_t n_tiers)
{
    enum cr_tier own[CR_BENCH_TIERS];
    size_t n = cr_bench_tiers(own, tiers, n_tiers, table, sizeof(struct cr_cast_ops));
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < CR_BENCH_MODELS; i++) {
            for (size_t j = 0; j < CR_BENCH_TOKENS; j++) {
                size_t m = cr_bench_tokens[j], k = cr_bench_models[i].width;
                bool tour = t + 1 == n && ((m == 48 && i == CR_BENCH_SMOLLM2) || (m == 512 && i == CR_BENCH_LLAMA_1B));
                entry(own[t], false, m, k, tour);
                entry(own[t], true, m, k, tour);
            }
        }
    }
}
