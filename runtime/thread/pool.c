#include "runtime/thread/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/thread/float_env.h"

/* `ticket` is the number of the region in the high half and the next call of it in the low half. One word, so that
 * taking a call is one compare-and-swap that fails when the region has moved on. A region is CLOSED while its
 * description is being written: nobody can take a call of a description that is about to change.
 *
 * Whoever takes call c of region r has read all of the description of r, by the memory order of C11:
 * - Nothing older: the ticket (r, c) comes from the store that opened r or from a compare-and-swap after it, which
 *   continues the store's release sequence; what was written before the opening is seen.
 * - Nothing newer: the parts are stored with release, after the CLOSED of their region, and loaded with acquire. Who
 *   has read a part of a later region is behind that CLOSED, so the compare-and-swap finds it or what followed, never
 *   (r, c), and fails. With relaxed stores a weakly ordered CPU may show a part before the CLOSED that announces it:
 *   then somebody takes a call beyond the last of r, from the description of the next region.
 * No thread is held up for the 2^32 regions after which numbers repeat. */
#define CLOSED UINT32_MAX

/* Pauses before a thread sleeps: about 30 us at 20 to 40 ns each. */
enum { SPINS = 1000 };

struct helper {
    struct cr_pool *pool;
    pthread_t thread;
    int worker;
};

struct cr_pool {
    int n_workers, n_helpers;
    struct helper *helpers; /* owned */
    pid_t owner;            /* the process that has the helpers */

    _Atomic uint64_t ticket;
    _Atomic(cr_task_fn *) fn; /* of the region, to n_calls: a late thread may look while they are rewritten */
    _Atomic(void *) arg;
    atomic_size_t n_items, grain;
    atomic_uint n_calls;
    atomic_uint n_done;

    atomic_int n_asleep; /* helpers in pthread_cond_wait, or on their way */
    atomic_bool waiting; /* the caller sleeps on `finished` */
    bool quit;           /* under mutex */
    pthread_mutex_t mutex;
    pthread_cond_t work, finished;
};

/* A child of fork has a copy of the pool without its helpers, of which one may have held the mutex for ever: there the
 * caller does the work alone and neither the mutex nor the conditions may be touched. */
static bool is_orphan(const struct cr_pool *pool)
{
    return getpid() != pool->owner;
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Takes and runs calls of the present region until none is left. Returns the number of the last region seen open. */
static uint32_t help(struct cr_pool *pool, int worker)
{
    uint64_t ticket = atomic_load(&pool->ticket);
    for (;;) {
        uint32_t call = (uint32_t)ticket;
        unsigned n_calls = atomic_load_explicit(&pool->n_calls, memory_order_acquire);
        cr_task_fn *fn = atomic_load_explicit(&pool->fn, memory_order_acquire);
        void *arg = atomic_load_explicit(&pool->arg, memory_order_acquire);
        size_t n_items = atomic_load_explicit(&pool->n_items, memory_order_acquire);
        size_t grain = atomic_load_explicit(&pool->grain, memory_order_acquire);
        if (call == CLOSED || call >= n_calls) {
            return (uint32_t)(ticket >> 32) - (call == CLOSED); /* a closed region is still to come */
        }
        if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket + 1)) {
            continue; /* ticket now holds what is there */
        }
        size_t begin = call * grain;
        fn(arg, begin, n_items - begin < grain ? n_items : begin + grain, worker);
        if (atomic_fetch_add(&pool->n_done, 1) + 1 == n_calls && atomic_load(&pool->waiting)) {
            pthread_mutex_lock(&pool->mutex);
            pthread_cond_signal(&pool->finished);
            pthread_mutex_unlock(&pool->mutex);
        }
        ticket = atomic_load(&pool->ticket);
    }
}

static bool has_work(struct cr_pool *pool, uint32_t seen)
{
    uint64_t ticket = atomic_load(&pool->ticket);
    return (uint32_t)(ticket >> 32) != seen && (uint32_t)ticket != CLOSED;
}

/* Waits for a region after `seen`. False when the pool ends. */
static bool wait_for_work(struct cr_pool *pool, uint32_t seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (has_work(pool, seen)) {
            return true;
        }
        relax();
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->n_asleep, 1);
    while (!pool->quit && !has_work(pool, seen)) {
        pthread_cond_wait(&pool->work, &pool->mutex);
    }
    atomic_fetch_sub(&pool->n_asleep, 1);
    bool go = !pool->quit;
    pthread_mutex_unlock(&pool->mutex);
    return go;
}

static void *helper_main(void *arg)
{
    struct helper *helper = arg;
    cr_float_env_enter(); /* for the life of the thread */
    uint32_t seen = 0;
    while (wait_for_work(helper->pool, seen)) {
        seen = help(helper->pool, helper->worker);
    }
    return NULL;
}

static void wait_until_done(struct cr_pool *pool, unsigned n_calls)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&pool->n_done) == n_calls) {
            return;
        }
        relax();
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->waiting, true);
    while (atomic_load(&pool->n_done) != n_calls) {
        pthread_cond_wait(&pool->finished, &pool->mutex);
    }
    atomic_store(&pool->waiting, false);
    pthread_mutex_unlock(&pool->mutex);
}

static void run_pool(void *ctx, cr_task_fn *fn, void *arg, size_t n_items, size_t grain)
{
    struct cr_pool *pool = ctx;
    grain = grain > 0 ? grain : 1;
    size_t least = n_items / (CLOSED - 1) + 1; /* so that calls can be counted in 32 bits */
    grain = grain > least ? grain : least;
    unsigned n_calls = (unsigned)(n_items / grain + (n_items % grain != 0));
    uint64_t saved = cr_float_env_enter();
    if (n_calls <= 1 || pool->n_helpers == 0) {
        for (unsigned call = 0; call < n_calls; call++) {
            size_t begin = call * grain;
            fn(arg, begin, n_items - begin < grain ? n_items : begin + grain, 0);
        }
        cr_float_env_leave(saved);
        return;
    }
    uint64_t region = (atomic_load(&pool->ticket) >> 32) + 1;
    atomic_store(&pool->ticket, region << 32 | CLOSED);
    atomic_store_explicit(&pool->fn, fn, memory_order_release);
    atomic_store_explicit(&pool->arg, arg, memory_order_release);
    atomic_store_explicit(&pool->n_items, n_items, memory_order_release);
    atomic_store_explicit(&pool->grain, grain, memory_order_release);
    atomic_store_explicit(&pool->n_calls, n_calls, memory_order_release);
    atomic_store(&pool->n_done, 0);
    atomic_store(&pool->ticket, region << 32);
    if (atomic_load(&pool->n_asleep) > 0 && !is_orphan(pool)) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->work);
        pthread_mutex_unlock(&pool->mutex);
    }
    help(pool, 0);
    wait_until_done(pool, n_calls);
    cr_float_env_leave(saved);
}

cr_status cr_pool_create(int n_workers, struct cr_pool **out, struct cr_error *err)
{
    n_workers = n_workers > 0 ? n_workers : 1;
    struct cr_pool *pool = cr_zalloc(1, sizeof *pool);
    if (pool != NULL) {
        pool->helpers = cr_zalloc((size_t)n_workers, sizeof *pool->helpers);
    }
    if (pool == NULL || pool->helpers == NULL) {
        cr_free(pool);
        return cr_fail(err, CR_E_MEMORY, "no memory for %d threads", n_workers);
    }
    pool->n_workers = n_workers;
    pool->owner = getpid();
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->finished, NULL);
    atomic_store(&pool->ticket, CLOSED);
    while (pool->n_helpers < n_workers - 1) {
        struct helper *helper = &pool->helpers[pool->n_helpers];
        helper->pool = pool;
        helper->worker = pool->n_helpers + 1;
        if (pthread_create(&helper->thread, NULL, helper_main, helper) != 0) {
            break; /* fewer threads do the same work */
        }
        pool->n_helpers++;
    }
    *out = pool;
    return CR_OK;
}

static void end_helpers(struct cr_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pool->quit = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->n_helpers; i++) {
        pthread_join(pool->helpers[i].thread, NULL);
    }
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->finished);
    pthread_mutex_destroy(&pool->mutex);
}

void cr_pool_destroy(struct cr_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    if (!is_orphan(pool)) {
        end_helpers(pool);
    }
    cr_free(pool->helpers);
    cr_free(pool);
}

void cr_pool_parallel(struct cr_pool *pool, struct cr_parallel *parallel)
{
    parallel->run = run_pool;
    parallel->ctx = pool;
    parallel->n_workers = pool->n_workers;
}
