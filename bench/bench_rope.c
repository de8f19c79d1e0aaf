/* rope entries: rotation of queries in place, in both pairings, and back. Shape: M, H heads, D head size. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "bench/shapes.h"
#include "credence/kernels/rope.h"

struct state {
    struct cr_rope_args args;
    struct cr_rope_ops ops;
    size_t n_blocks;
};

static void *open_state(const struct cr_bench_entry *entry)
{
    size_t m = entry->shape[0], heads = entry->shape[1], dim = entry->shape[2];
    struct state *s = cr_bench_memory(sizeof *s);
    cr_bench_reseed();
    cr_rope_ops_init(&s->ops, entry->tier);
    s->n_blocks = cr_tl16_blocks(m);
    size_t n_tokens = s->n_blocks * CR_LANES;
    float *angles = cr_bench_memory(n_tokens * dim * sizeof *angles);
    uint32_t *pos = cr_bench_memory(n_tokens * sizeof *pos);
    cr_rope_table(angles, n_tokens, dim, 10000, 1, NULL);
    for (size_t t = 0; t < n_tokens; t++) {
        pos[t] = (uint32_t)t;
    }
    s->args = (struct cr_rope_args){.x = cr_bench_operand(CR_X_F32, heads * dim, s->n_blocks),
                                    .x_stride = heads * dim * CR_LANES,
                                    .n_heads = heads,
                                    .head_dim = dim,
                                    .n_rot = dim,
                                    .style = (enum cr_rope_style)entry->type,
                                    .pos = pos,
                                    .table = angles,
                                    .inverse = entry->flag};
    return s;
}

static void part(void *arg, size_t begin, size_t end, int worker)
{
    struct state *s = arg;
    (void)worker;
    s->ops.apply(&s->args, begin, end);
}

static void run(void *state)
{
    struct state *s = state;
    cr_bench_over(part, s, s->n_blocks, 2);
}

/* Both members of sixty-four random pairs: two products and a sum in f32, cos and sin rounded once. */
static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    const struct cr_rope_args *a = &s->args;
    size_t n_bytes = a->x_stride * s->n_blocks * sizeof(float), half = a->head_dim / 2;
    float *before = cr_bench_memory(n_bytes);
    memcpy(before, a->x, n_bytes);
    run(s);
    for (int i = 0; i < 64; i++) {
        size_t token = cr_bench_below(s->n_blocks * CR_LANES), head = cr_bench_below(a->n_heads),
               j = cr_bench_below(half);
        size_t first = head * a->head_dim + (a->style == CR_ROPE_NEOX ? j : 2 * j);
        size_t second = first + (a->style == CR_ROPE_NEOX ? half : 1);
        size_t at = token / CR_LANES * a->x_stride + token % CR_LANES;
        double angle = (double)token * pow(10000, -2.0 * (double)j / (double)a->head_dim) * (a->inverse ? -1 : 1);
        double x = (double)before[at + first * CR_LANES], y = (double)before[at + second * CR_LANES];
        double bound = 4 * 0x1p-24 * (fabs(x) + fabs(y));
        if (!cr_bench_near("first of a pair", j, (double)a->x[at + first * CR_LANES], x * cos(angle) - y * sin(angle),
                           bound, message, message_bytes) ||
            !cr_bench_near("second of a pair", j, (double)a->x[at + second * CR_LANES], x * sin(angle) + y * cos(angle),
                           bound, message, message_bytes)) {
            return false;
        }
    }
    return true;
}

static void entry(enum cr_tier tier, enum cr_rope_style style, bool inverse, size_t m,
                  const struct cr_bench_model *model, bool tour)
{
    struct cr_bench_entry e = {.open = open_state,
                               .verify = verify,
                               .run = run,
                               .tier = tier,
                               .type = (int)style,
                               .flag = inverse,
                               .tour = tour,
                               .shape = {m, model->heads, model->head_dim}};
    double n = (double)(cr_tl16_blocks(m) * CR_LANES * model->heads * model->head_dim);
    e.flops = 3 * n;
    e.bytes = 8 * n;
    e.memory = cr_bench_level(4 * n);
    snprintf(e.name, sizeof e.name, "rope/%s/%s/M%zu_H%zu_D%zu/%s", inverse ? "inverse" : "apply",
             style == CR_ROPE_NEOX ? "neox" : "norm", m, model->heads, model->head_dim, cr_tier_name(tier));
    cr_bench_register(&e);
}

static void table(enum cr_tier tier, void *out)
{
    cr_rope_ops_init(out, tier);
}

void cr_bench_rope(const enum cr_tier *tiers, size_t n_tiers)
{
    enum cr_tier own[CR_BENCH_TIERS];
    size_t n = cr_bench_tiers(own, tiers, n_tiers, table, sizeof(struct cr_rope_ops));
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < CR_BENCH_MODELS; i++) {
            const struct cr_bench_model *model = &cr_bench_models[i];
            enum cr_rope_style style = model->neox ? CR_ROPE_NEOX : CR_ROPE_NORM;
            for (size_t j = 0; j < CR_BENCH_TOKENS; j++) {
                size_t m = cr_bench_tokens[j];
                entry(own[t], style, false, m, model, t + 1 == n && m == 512 && i != CR_BENCH_LLAMA_7B);
                entry(own[t], style, true, m, model, false);
            }
        }
    }
}
