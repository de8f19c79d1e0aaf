/* rng entries: normals and words of element streams on every tier; uniform numbers and permutations. Shape: D numbers.
 */
#include <math.h>
#include <stdio.h>

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "credence/kernels/rng.h"

/* Ten rounds of two wide products make four words. */
#define PRODUCTS_A_WORD 5
/* Polynomials of 8, 4 and 5 steps, square root and the products around them, for two numbers. */
#define FLOPS_A_NORMAL 23

enum op { NORMALS, WORDS, UNIFORM, PERMUTATION };

struct state {
    struct cr_rng_ops ops;
    size_t n;
    enum op op;
    float *real;
    uint32_t *whole;
};

static const uint32_t key[2] = {11, 12};
static const struct cr_noise noise = {{21, 22}, 3, 4, 5};

static void *open_state(const struct cr_bench_entry *entry)
{
    struct state *s = cr_bench_memory(sizeof *s);
    cr_rng_ops_init(&s->ops, entry->tier);
    s->n = entry->shape[0];
    s->op = (enum op)entry->shape[1];
    s->real = cr_bench_memory(s->n * sizeof *s->real);
    s->whole = cr_bench_memory(s->n * sizeof *s->whole);
    return s;
}

static void part(void *arg, size_t begin, size_t end, int worker)
{
    struct state *s = arg;
    (void)worker;
    if (s->op == NORMALS) {
        s->ops.normals(&noise, s->real, begin, end);
    } else {
        s->ops.words(&noise, s->whole, begin, end);
    }
}

static void run(void *state)
{
    struct state *s = state;
    if (s->op == UNIFORM) {
        cr_uniform_f32(key, -1, 1, s->real, s->n);
    } else if (s->op == PERMUTATION) {
        cr_permutation(key, 1, s->whole, s->n);
    } else {
        cr_bench_over(part, s, s->n, 64 * CR_RNG_BLOCK);
    }
}

/* Every element against its definition. */
static bool check_stream(const struct state *s, char *message, size_t message_bytes)
{
    for (size_t e = 0; e < s->n; e++) {
        uint32_t counter[4] = {(uint32_t)(e / 64 * 16 + e % 16), noise.step, noise.sample, noise.tensor}, word[4];
        cr_philox4x32(counter, noise.key, word);
        double got = s->op == NORMALS ? (double)s->real[e] : s->whole[e];
        double want = s->op == NORMALS ? (double)cr_normal_at(&noise, e) : word[e / 16 % 4];
        if (!cr_bench_near("element", e, got, want, 0, message, message_bytes)) {
            return false;
        }
    }
    return true;
}

/* Mean and variance of the distribution within five standard errors. */
static bool check_uniform(const struct state *s, char *message, size_t message_bytes)
{
    double n = (double)s->n, mean = 0, square = 0;
    for (size_t i = 0; i < s->n; i++) {
        mean += (double)s->real[i] / n;
        square += (double)s->real[i] * (double)s->real[i] / n;
    }
    return cr_bench_near("mean", 0, mean, 0, 5 / sqrt(3 * n), message, message_bytes) &&
           cr_bench_near("variance", 0, square, 1.0 / 3, 5 * sqrt(4.0 / 45 / n), message, message_bytes);
}

/* Every number once, and not in the order it began with. */
static bool check_permutation(const struct state *s, char *message, size_t message_bytes)
{
    unsigned char *seen = cr_bench_memory(s->n);
    double moved = 0;
    for (size_t i = 0; i < s->n; i++) {
        size_t at = s->whole[i];
        if (at >= s->n || seen[at]++ > 0) {
            return cr_bench_near("permutation", i, (double)at, -1, 0, message, message_bytes);
        }
        moved += at != i;
    }
    return cr_bench_near("share moved", 0, moved / (double)s->n, 1, 0.01, message, message_bytes);
}

/* The published answer for counter and key 0 first: the other checks build on it. */
static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    uint32_t zero[4] = {0}, word[4];
    cr_philox4x32(zero, zero, word);
    run(s);
    return cr_bench_near("word", 0, word[0], 0x6627e8d5u, 0, message, message_bytes) &&
           (s->op == UNIFORM       ? check_uniform
            : s->op == PERMUTATION ? check_permutation
                                   : check_stream)(s, message, message_bytes);
}

static void entry(enum cr_tier tier, enum op op, size_t n, bool tour)
{
    static const char *const ops[] = {"normals/f32", "words/u32", "uniform/f32", "permutation/u32"};
    struct cr_bench_entry e = {
        .open = open_state, .verify = verify, .run = run, .tier = tier, .tour = tour, .shape = {n, op}};
    e.items = (double)n;
    e.bytes = 4 * (double)n;
    e.flops = (PRODUCTS_A_WORD + (op == NORMALS ? FLOPS_A_NORMAL : 0)) * (double)n;
    e.unit = op == NORMALS ? cr_bench_fma(tier) : cr_bench_mul(tier);
    e.work = (op == NORMALS ? FLOPS_A_NORMAL : PRODUCTS_A_WORD) * (double)n;
    snprintf(e.name, sizeof e.name, "rng/%s/D%zu/%s", ops[op], n, cr_tier_name(tier));
    cr_bench_register(&e);
}

static void table(enum cr_tier tier, void *out)
{
    cr_rng_ops_init(out, tier);
}

void cr_bench_rng(const enum cr_tier *tiers, size_t n_tiers)
{
    enum cr_tier own[CR_BENCH_TIERS];
    size_t n = cr_bench_tiers(own, tiers, n_tiers, table, sizeof(struct cr_rng_ops));
    for (size_t t = 0; t < n; t++) {
        for (enum op op = NORMALS; op <= (own[t] == CR_TIER_SCALAR ? PERMUTATION : WORDS); op++) {
            entry(own[t], op, 4096, t + 1 == n || op > WORDS);
            entry(own[t], op, 1 << 20, false);
        }
    }
}
