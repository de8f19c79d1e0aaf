#include "tests/support/threads_test.h"

#include <check.h>
#include <stdlib.h>

#include "runtime/thread/float_env.h"
#include "runtime/thread/parallel.h"

struct call {
    size_t begin, end;
};

/* A number below n, by xorshift64. */
static size_t below(uint64_t *state, size_t n)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (size_t)(*state >> 16) % n;
}

static void run_shuffled(void *ctx, cr_task_fn *fn, void *arg, size_t n_items, size_t grain)
{
    struct cr_test_threads *threads = ctx;
    size_t n_calls = 0;
    struct call *calls = malloc((n_items + 1) * sizeof *calls);
    ck_assert_ptr_nonnull(calls);
    for (size_t begin = 0; begin < n_items; n_calls++) {
        size_t n = 1 + below(&threads->state, grain > 0 ? grain : 1);
        size_t end = n_items - begin < n ? n_items : begin + n;
        calls[n_calls] = (struct call){begin, end};
        begin = end;
    }
    uint64_t saved = cr_float_env_enter();
    for (; n_calls > 0; n_calls--) {
        struct call *next = &calls[below(&threads->state, n_calls)];
        fn(arg, next->begin, next->end, (int)below(&threads->state, (size_t)threads->parallel.n_workers));
        *next = calls[n_calls - 1];
    }
    cr_float_env_leave(saved);
    free(calls);
}

void cr_test_threads_start(struct cr_test_threads *threads, enum cr_test_backend backend, int n_workers)
{
    *threads = (struct cr_test_threads){.state = 0x9e3779b97f4a7c15u + (uint64_t)n_workers};
    struct cr_error err = {0};
    switch (backend) {
    case CR_TEST_POOL:
        ck_assert_msg(cr_pool_create(n_workers, &threads->pool, &err) == CR_OK, "%s", err.message);
        cr_pool_parallel(threads->pool, &threads->parallel);
        break;
    case CR_TEST_SHUFFLED:
        threads->parallel = (struct cr_parallel){run_shuffled, threads, n_workers};
        break;
    default:
        cr_parallel_openmp(&threads->parallel, n_workers);
        break;
    }
}

void cr_test_threads_end(struct cr_test_threads *threads)
{
    cr_pool_destroy(threads->pool);
}

const char *cr_test_backend_name(enum cr_test_backend backend)
{
    return (const char *const[]){"openmp", "pool", "shuffled"}[backend];
}
