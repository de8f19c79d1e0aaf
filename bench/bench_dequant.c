/* dequant entries: rows of every block type to f32. Shape: N rows, K. */
#include <stdio.h>

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "credence/kernels/dequant.h"

enum { ROWS = 64 }; /* a panel as the products make it */

struct state {
    struct cr_qmat matrix;
    cr_dequant_fn *fn;
    float *out;
};

static void *open_state(const struct cr_bench_entry *entry)
{
    struct state *s = cr_bench_memory(sizeof *s);
    cr_bench_reseed();
    s->fn = cr_dequant_fn_for(entry->type, entry->tier);
    s->matrix = cr_bench_qmat(entry->type, entry->shape[0], entry->shape[1]);
    s->out = cr_bench_memory(entry->shape[0] * entry->shape[1] * sizeof *s->out);
    return s;
}

static void part(void *arg, size_t begin, size_t end, int worker)
{
    struct state *s = arg;
    const struct cr_qmat *w = &s->matrix;
    (void)worker;
    for (size_t n = begin; n < end; n++) {
        s->fn((const char *)w->data + n * w->row_bytes, 0, w->n_cols, s->out + n * w->n_cols);
    }
}

static void run(void *state)
{
    struct state *s = state;
    cr_bench_over(part, s, s->matrix.n_rows, 8);
}

/* Every row against the portable definition, which is tested against exact numbers of its own; exactly. */
static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    const struct cr_qmat *w = &s->matrix;
    cr_dequant_fn *definition = cr_dequant_fn_for(w->type, CR_TIER_SCALAR);
    float *want = cr_bench_memory(w->n_cols * sizeof *want);
    run(s);
    for (size_t n = 0; n < w->n_rows; n++) {
        for (size_t k = 0; k < w->n_cols; k += 32) { /* in pieces: the whole row must be made of the same numbers */
            definition((const char *)w->data + n * w->row_bytes, k, 32, want + k);
        }
        for (size_t k = 0; k < w->n_cols; k++) {
            size_t at = n * w->n_cols + k;
            if (!cr_bench_near("weight", at, (double)s->out[at], (double)want[k], 0, message, message_bytes)) {
                return false;
            }
        }
    }
    return true;
}

static void entry(enum cr_tier tier, int type, size_t k, bool tour)
{
    struct cr_bench_entry e = {
        .open = open_state, .verify = verify, .run = run, .tier = tier, .type = type, .tour = tour, .shape = {ROWS, k}};
    double n = (double)ROWS * (double)k;
    e.flops = 2 * n; /* a product and a sum a weight */
    e.bytes = (double)cr_bench_qbytes(type, ROWS * k) + 4 * n;
    e.memory = cr_bench_level(e.bytes);
    e.items = n;
    char name[16];
    cr_bench_qname(type, name);
    snprintf(e.name, sizeof e.name, "dequant/rows/%s/N%d_K%zu/%s", name, ROWS, k, cr_tier_name(tier));
    cr_bench_register(&e);
}

void cr_bench_dequant(const enum cr_tier *tiers, size_t n_tiers)
{
    static const size_t widths[] = {768, 2048, 4096};
    static const int types[] = {CR_Q_Q4_1, CR_Q_Q4_0,   CR_Q_Q8_0,   CR_Q_Q4_K, CR_Q_Q5_0,
                                CR_Q_Q5_1, CR_Q_Q2_K,   CR_Q_Q3_K,   CR_Q_Q5_K, CR_Q_Q6_K,
                                CR_Q_F16,  CR_Q_IQ4_NL, CR_Q_IQ4_XS, CR_Q_BF16, CR_Q_F32};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        for (size_t t = 0; t < n_tiers; t++) {
            cr_dequant_fn *fn = cr_dequant_fn_for(types[i], tiers[t]);
            if (t > 0 && fn == cr_dequant_fn_for(types[i], tiers[t - 1])) {
                continue;
            }
            bool best = fn == cr_dequant_fn_for(types[i], tiers[n_tiers - 1]);
            for (size_t j = 0; j < sizeof widths / sizeof widths[0]; j++) {
                entry(tiers[t], types[i], widths[j], best && widths[j] == 2048 && i < 10);
            }
        }
    }
}
