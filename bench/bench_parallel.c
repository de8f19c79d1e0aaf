/* parallel entries: what a parallel region costs, with items that do nothing. Shape: I items a region; an item of the
 * counters is a region. With --threads 1 both backends run on the caller. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/cr_bench.h"
#include "runtime/thread/parallel.h"
#include "runtime/thread/pool.h"

struct state {
    struct cr_parallel parallel;
    struct cr_pool *pool; /* NULL: OpenMP */
    size_t n_items;
    atomic_size_t *taken; /* [n_items], while verifying; else NULL */
};

static void close_state(void *state)
{
    struct state *s = state;
    cr_pool_destroy(s->pool);
}

static void *open_state(const struct cr_bench_entry *entry)
{
    struct state *s = cr_bench_memory(sizeof *s);
    s->n_items = entry->shape[0];
    cr_parallel_openmp(&s->parallel, cr_bench_threads());
    if (entry->flag) {
        struct cr_error err = {0};
        if (cr_pool_create(cr_bench_threads(), &s->pool, &err) != CR_OK) {
            return NULL;
        }
        cr_pool_parallel(s->pool, &s->parallel);
    }
    return s;
}

static void take(void *arg, size_t begin, size_t end, int worker)
{
    struct state *s = arg;
    (void)worker;
    for (size_t i = begin; i < end && s->taken != NULL; i++) {
        atomic_fetch_add(&s->taken[i], 1);
    }
}

static void run(void *state)
{
    struct state *s = state;
    s->parallel.run(s->parallel.ctx, take, s, s->n_items, 1);
}

/* Every item is taken once. */
static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    s->taken = cr_bench_memory(s->n_items * sizeof *s->taken);
    run(s);
    for (size_t i = 0; i < s->n_items; i++) {
        if (atomic_load(&s->taken[i]) != 1) {
            snprintf(message, message_bytes, "item %zu taken %zu times", i, atomic_load(&s->taken[i]));
            return false;
        }
    }
    s->taken = NULL;
    return true;
}

static void entry(enum cr_tier tier, bool pool, size_t n_items, bool tour)
{
    struct cr_bench_entry e = {.open = open_state,
                               .verify = verify,
                               .run = run,
                               .close = close_state,
                               .tier = tier,
                               .flag = pool,
                               .tour = tour,
                               .items = 1,
                               .shape = {n_items}};
    e.unit = e.memory = CR_UNIT_NONE;
    snprintf(e.name, sizeof e.name, "parallel/run/%s/I%zu/%s", pool ? "pool" : "openmp", n_items, cr_tier_name(tier));
    cr_bench_register(&e);
}

void cr_bench_parallel(const enum cr_tier *tiers, size_t n_tiers)
{
    (void)n_tiers;
    for (int pool = 0; pool < 2; pool++) {
        entry(tiers[0], pool != 0, 18, true); /* a product with 576 outputs has as many */
        entry(tiers[0], pool != 0, 256, false);
    }
}
