/* Backends cover every item once whatever the number of threads, in children of fork too; whom a host chooses. */
#include <check.h>
#include <float.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/thread/parallel.h"
#include "runtime/thread/pool.h"
#include "runtime/thread/workers.h"
#include "tests/support/kernel_test.h"

enum { MAX_ITEMS = 1000, MAX_WORKERS = 16 };

struct seen {
    atomic_int item[MAX_ITEMS];
    atomic_int busy[MAX_WORKERS];
    atomic_int n_bad;
    size_t n, grain;
    int n_workers;
};

static void visit(void *arg, size_t begin, size_t end, int worker)
{
    struct seen *seen = arg;
    bool bad = worker < 0 || worker >= seen->n_workers || end <= begin || end > seen->n || end - begin > seen->grain;
    if (bad || atomic_fetch_add(&seen->busy[worker], 1) != 0) {
        atomic_fetch_add(&seen->n_bad, 1);
        return;
    }
    for (size_t i = begin; i < end; i++) {
        atomic_fetch_add(&seen->item[i], 1);
    }
    atomic_fetch_sub(&seen->busy[worker], 1);
}

static const size_t items[] = {0, 1, 2, 15, 16, 17, 999};
static const size_t grains[] = {1, 3, 16, 2000};
static const int workers[] = {0, 1, 2, 3, 4, 7, 8, 16}; /* 0 = the serial backend */

static void check_cover(const struct cr_parallel *given)
{
    static struct seen seen;
    struct cr_parallel parallel = *given;
    for (size_t a = 0; a < sizeof items / sizeof items[0]; a++) {
        for (size_t b = 0; b < sizeof grains / sizeof grains[0]; b++) {
            memset(&seen, 0, sizeof seen);
            seen.n = items[a];
            seen.grain = grains[b];
            seen.n_workers = parallel.n_workers;
            parallel.run(parallel.ctx, visit, &seen, seen.n, seen.grain);
            ck_assert_int_eq(seen.n_bad, 0);
            for (size_t i = 0; i < MAX_ITEMS; i++) {
                ck_assert_int_eq(seen.item[i], i < seen.n);
            }
        }
    }
}

START_TEST(every_item_once)
{
    struct cr_parallel parallel;
    if (workers[_i] == 0) {
        cr_parallel_serial(&parallel);
    } else {
        cr_parallel_openmp(&parallel, workers[_i]);
    }
    ck_assert_int_eq(parallel.n_workers, workers[_i] > 0 ? workers[_i] : 1);
    check_cover(&parallel);
}
END_TEST

START_TEST(pool_takes_every_item_once)
{
    struct cr_pool *pool;
    struct cr_parallel parallel;
    ck_assert_int_eq(cr_pool_create(workers[_i], &pool, NULL), CR_OK);
    cr_pool_parallel(pool, &parallel);
    ck_assert_int_eq(parallel.n_workers, workers[_i] > 0 ? workers[_i] : 1);
    check_cover(&parallel);
    check_cover(&parallel);
    cr_pool_destroy(pool);
    ck_assert_int_eq(cr_alloc_live(), 0);
}
END_TEST

static void add_index(void *arg, size_t begin, size_t end, int worker)
{
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        atomic_fetch_add((atomic_llong *)arg, (long long)i);
    }
}

/* Many short regions one after the other, some with pauses in which the helpers fall asleep. */
START_TEST(pool_survives_many_regions)
{
    struct cr_pool *pool;
    struct cr_parallel parallel;
    ck_assert_int_eq(cr_pool_create(4, &pool, NULL), CR_OK);
    cr_pool_parallel(pool, &parallel);
    for (size_t region = 0; region < 20000; region++) {
        atomic_llong sum = 0;
        size_t n = region % 7 + 2;
        parallel.run(parallel.ctx, add_index, &sum, n, 1);
        ck_assert_int_eq(sum, (long long)(n * (n - 1) / 2));
        if (region % 2000 == 0) {
            usleep(2000);
        }
    }
    cr_pool_destroy(pool);
}
END_TEST

/* Whether a child of fork can do all of some work. */
typedef bool child_fn(void *arg);

/* A child that waits for threads which it does not have is killed. */
static void check_child(child_fn *fn, void *arg)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        signal(SIGALRM, SIG_DFL); /* Check's handler would end the test instead */
        alarm(20);
        _exit(fn(arg) ? 0 : 1);
    }
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
}

static bool adds_up(const struct cr_parallel *parallel)
{
    atomic_llong sum = 0;
    parallel->run(parallel->ctx, add_index, &sum, 100, 1);
    return sum == 4950;
}

static bool use_and_end_pool(void *pool)
{
    struct cr_parallel parallel;
    cr_pool_parallel(pool, &parallel);
    bool good = adds_up(&parallel);
    cr_pool_destroy(pool);
    return good;
}

/* The forks fall into every moment of the helpers' way to sleep, in which they hold the mutex of the pool. */
START_TEST(pool_is_whole_in_a_child)
{
    struct cr_pool *pool;
    struct cr_parallel parallel;
    ck_assert_int_eq(cr_pool_create(8, &pool, NULL), CR_OK);
    cr_pool_parallel(pool, &parallel);
    for (int round = 0; round < 300; round++) {
        atomic_llong sum = 0;
        parallel.run(parallel.ctx, add_index, &sum, 9, 1);
        ck_assert_int_eq(sum, 36);
        usleep((useconds_t)(round % 60));
        check_child(use_and_end_pool, pool);
    }
    cr_pool_destroy(pool);
}
END_TEST

static bool use_openmp(void *arg)
{
    struct cr_parallel parallel;
    (void)arg;
    cr_parallel_openmp(&parallel, 4);
    return adds_up(&parallel);
}

/* A job that starts in the child has a pool of its own, also where OpenMP is asked for. */
static bool start_job(void *by)
{
    struct cr_host host = {.threads_by = *(enum cr_threads_by *)by};
    struct cr_workers own = {0};
    bool good = !cr_openmp_usable() && cr_workers_choose(&own, &host, NULL) == CR_OK && own.pool != NULL;
    good = good && adds_up(own.parallel);
    cr_workers_release(&own);
    return good;
}

/* The process that entered OpenMP first keeps it, before and after the forks. */
START_TEST(openmp_is_whole_in_a_child)
{
    bool built_in = cr_openmp_usable();
    for (enum cr_threads_by by = CR_THREADS_AUTO; built_in && by <= CR_THREADS_POOL; by++) {
        ck_assert(cr_openmp_usable());
        ck_assert(use_openmp(NULL));
        check_child(use_openmp, NULL);
        check_child(start_job, &by);
    }
}
END_TEST

START_TEST(host_chooses)
{
    struct cr_parallel lent;
    struct cr_host host = {.n_threads = 2};
    struct cr_workers own = {0};
    struct cr_error err = {0};
    ck_assert_int_eq(cr_workers_choose(&own, &host, &err), CR_OK);
    ck_assert_ptr_eq(own.parallel, &own.own);
    ck_assert_int_eq(own.pool == NULL, cr_openmp_usable()); /* a build without OpenMP takes the pool */
    cr_workers_release(&own);
    host.threads_by = CR_THREADS_POOL;
    ck_assert_int_eq(cr_workers_choose(&own, &host, &err), CR_OK);
    ck_assert_ptr_nonnull(own.pool);
    ck_assert_ptr_eq(own.parallel->ctx, own.pool);
    check_cover(own.parallel);
    cr_workers_release(&own);
    cr_parallel_serial(&lent);
    host.parallel = &lent;
    ck_assert_int_eq(cr_workers_choose(&own, &host, &err), CR_OK);
    ck_assert_ptr_eq(own.parallel, &lent);
    ck_assert_ptr_null(own.pool);
    cr_workers_release(&own);
    ck_assert_int_eq(cr_alloc_live(), 0);
}
END_TEST

#if defined(__x86_64__)
static void smallest_half(void *arg, size_t begin, size_t end, int worker)
{
    (void)worker;
    float *out = arg;
    for (size_t i = begin; i < end; i++) {
        volatile float x = FLT_MIN;
        out[i] = x * 0.5f;
    }
}

START_TEST(denormals_survive_a_caller_that_flushes)
{
    struct cr_parallel parallel;
    float out[8];
    unsigned saved = __builtin_ia32_stmxcsr();
    for (int n = 1; n <= 4; n++) {
        cr_parallel_openmp(&parallel, n);
        __builtin_ia32_ldmxcsr(saved | 0x8040u);
        parallel.run(parallel.ctx, smallest_half, out, 8, 1);
        unsigned after = __builtin_ia32_stmxcsr();
        __builtin_ia32_ldmxcsr(saved);
        ck_assert_uint_eq(after & 0x8040u, 0x8040u);
        for (int i = 0; i < 8; i++) {
            ck_assert(out[i] == FLT_MIN * 0.5f && out[i] > 0);
        }
    }
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("parallel");
    TCase *run = tcase_create("run");
    tcase_set_timeout(run, 60);
    tcase_add_loop_test(run, every_item_once, 0, sizeof workers / sizeof workers[0]);
    tcase_add_loop_test(run, pool_takes_every_item_once, 0, sizeof workers / sizeof workers[0]);
    tcase_add_test(run, pool_survives_many_regions);
    tcase_add_test(run, pool_is_whole_in_a_child);
    tcase_add_test(run, openmp_is_whole_in_a_child);
    tcase_add_test(run, host_chooses);
#if defined(__x86_64__)
    tcase_add_test(run, denormals_survive_a_caller_that_flushes);
#endif
    suite_add_tcase(suite, run);
    return cr_run_suite(suite);
}
