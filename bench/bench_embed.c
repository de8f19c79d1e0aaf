/* embed entries: rows of the vocabulary into lanes, tokens drawn evenly. Shape: M, V rows, K. */
#include <stdio.h>

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "bench/shapes.h"
#include "credence/kernels/dequant.h"
#include "credence/kernels/embed.h"

struct state {
    struct cr_embed_args args;
    struct cr_embed_ops ops;
    size_t n_blocks;
    float *scratch;
};

static void *open_state(const struct cr_bench_entry *entry)
{
    size_t n_blocks = cr_tl16_blocks(entry->shape[0]), k = entry->shape[2];
    struct state *s = cr_bench_memory(sizeof *s);
    cr_bench_reseed();
    cr_embed_ops_init(&s->ops, entry->tier);
    s->n_blocks = n_blocks;
    int32_t *ids = cr_bench_memory(n_blocks * CR_LANES * sizeof *ids);
    for (size_t t = 0; t < n_blocks * CR_LANES; t++) {
        ids[t] = (int32_t)cr_bench_below(entry->shape[1]);
    }
    s->args = (struct cr_embed_args){.table = cr_bench_qmat(entry->type, entry->shape[1], k),
                                     .ids = ids,
                                     .x = cr_bench_memory(n_blocks * k * 64),
                                     .x_stride = k * CR_LANES};
    s->scratch = cr_bench_memory(k * sizeof(float) * (size_t)cr_bench_threads());
    return s;
}

static void part(void *arg, size_t begin, size_t end, int worker)
{
    struct state *s = arg;
    s->ops.rows(&s->args, begin, end, s->scratch + (size_t)worker * s->args.table.n_cols);
}

static void run(void *state)
{
    struct state *s = state;
    cr_bench_over(part, s, s->n_blocks, 2);
}

/* Every value of the first and the last token and of some between. */
static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    const struct cr_qmat *w = &s->args.table;
    cr_dequant_fn *definition = cr_dequant_fn_for(w->type, CR_TIER_SCALAR);
    float *row = cr_bench_memory(w->n_cols * sizeof *row);
    size_t last = s->n_blocks * CR_LANES - 1;
    run(s);
    for (size_t i = 0; i < 18; i++) {
        size_t token = i < 2 ? i * last : cr_bench_below(last);
        definition((const char *)w->data + (size_t)s->args.ids[token] * w->row_bytes, 0, w->n_cols, row);
        for (size_t k = 0; k < w->n_cols; k++) {
            double got = cr_bench_operand_at(s->args.x, CR_X_F32, w->n_cols, token / CR_LANES, k, token % CR_LANES);
            if (!cr_bench_near("feature", k, got, (double)row[k], 0, message, message_bytes)) {
                return false;
            }
        }
    }
    return true;
}

static void entry(enum cr_tier tier, int type, size_t m, const struct cr_bench_model *model, bool tour)
{
    struct cr_bench_entry e = {.open = open_state,
                               .verify = verify,
                               .run = run,
                               .tier = tier,
                               .type = type,
                               .tour = tour,
                               .shape = {m, model->vocab, model->width}};
    size_t n_tokens = cr_tl16_blocks(m) * CR_LANES;
    double n = (double)n_tokens * (double)model->width;
    e.flops = 2 * n;
    e.bytes = (double)n_tokens * (double)cr_bench_qbytes(type, model->width) + 4 * n;
    e.memory = cr_bench_level(e.bytes);
    e.items = n;
    char name[16];
    cr_bench_qname(type, name);
    snprintf(e.name, sizeof e.name, "embed/rows/%s/M%zu_V%zu_K%zu/%s", name, m, model->vocab, model->width,
             cr_tier_name(tier));
    cr_bench_register(&e);
}

static void table(enum cr_tier tier, void *out)
{
    cr_embed_ops_init(out, tier);
}

void cr_bench_embed(const enum cr_tier *tiers, size_t n_tiers)
{
    static const int types[] = {CR_Q_Q8_0, CR_Q_Q4_1};
    enum cr_tier own[CR_BENCH_TIERS];
    size_t n = cr_bench_tiers(own, tiers, n_tiers, table, sizeof(struct cr_embed_ops));
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < CR_BENCH_MODELS; i++) {
            for (size_t j = 0; j < 2; j++) {
                bool tour = t + 1 == n && i == CR_BENCH_SMOLLM2 && j == 0;
                entry(own[t], types[j], 48, &cr_bench_models[i], tour);
                entry(own[t], types[j], 1024, &cr_bench_models[i], tour);
            }
        }
    }
}
