/* rng entries: uniform numbers and permutations. Shape: D numbers. */
#include <math.h>
#include <stdio.h>

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "credence/kernels/rng.h"

/* Ten rounds of two wide products make four words. */
#define PRODUCTS_A_WORD 5.0

struct state {
    size_t n;
    bool permutation;
    float *uniform;
    uint32_t *order;
};

static const uint32_t key[2] = {11, 12};

static void *open_state(const struct cr_bench_entry *entry)
{
    struct state *s = cr_bench_memory(sizeof *s);
    s->n = entry->shape[0];
    s->permutation = entry->flag;
    s->uniform = cr_bench_memory(s->n * sizeof *s->uniform);
    s->order = cr_bench_memory(s->n * sizeof *s->order);
    return s;
}

static void run(void *state)
{
    struct state *s = state;
    if (s->permutation) {
        cr_permutation(key, 1, s->order, s->n);
    } else {
        cr_uniform_f32(key, -1, 1, s->uniform, s->n);
    }
}

/* The published answer for counter and key 0; numbers in their range with the mean and variance of the distribution
 * (5 standard errors); a permutation that holds every number once and is not the order it began with. */
static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    uint32_t zero[4] = {0}, word[4];
    cr_philox4x32(zero, zero, word);
    if (!cr_bench_near("word", 0, word[0], 0x6627e8d5u, 0, message, message_bytes)) {
        return false;
    }
    run(s);
    double n = (double)s->n, mean = 0, square = 0, moved = 0;
    if (!s->permutation) {
        for (size_t i = 0; i < s->n; i++) {
            mean += (double)s->uniform[i] / n;
            square += (double)s->uniform[i] * (double)s->uniform[i] / n;
        }
        return cr_bench_near("mean", 0, mean, 0, 5 / sqrt(3 * n), message, message_bytes) &&
               cr_bench_near("variance", 0, square, 1.0 / 3, 5 * sqrt(4.0 / 45 / n), message, message_bytes);
    }
    unsigned char *seen = cr_bench_memory(s->n);
    for (size_t i = 0; i < s->n; i++) {
        size_t at = s->order[i];
        if (at >= s->n || seen[at]++ > 0) {
            return cr_bench_near("permutation", i, (double)at, -1, 0, message, message_bytes);
        }
        moved += at != i;
    }
    return cr_bench_near("share moved", 0, moved / n, 1, 0.01, message, message_bytes);
}

static void entry(bool permutation, size_t n, bool tour)
{
    struct cr_bench_entry e = {.open = open_state,
                               .verify = verify,
                               .run = run,
                               .tier = CR_TIER_SCALAR,
                               .flag = permutation,
                               .tour = tour,
                               .shape = {n}};
    e.items = (double)n;
    e.work = PRODUCTS_A_WORD * (double)n;
    e.flops = e.work;
    e.unit = CR_UNIT_MUL_SCALAR;
    e.bytes = 4 * (double)n;
    snprintf(e.name, sizeof e.name, "rng/%s/D%zu/%s", permutation ? "permutation/u32" : "uniform/f32", n,
             cr_tier_name(e.tier));
    cr_bench_register(&e);
}

void cr_bench_rng(const enum cr_tier *tiers, size_t n_tiers)
{
    for (size_t t = 0; t < n_tiers && tiers[t] == CR_TIER_SCALAR; t++) {
        entry(false, 4096, true);
        entry(false, 1 << 20, false);
        entry(true, 4096, true);
        entry(true, 1 << 20, false);
    }
}
