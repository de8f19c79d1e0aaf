#include "runtime/thread/parallel.h"

#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "runtime/thread/float_env.h"
#include "runtime/thread/machine.h"

int cr_thread_count_at(const char *root, int n)
{
    /* The units that products keep busy belong to a core: its second thread adds nothing, unless it is asked for. */
    int most = n > 0 ? cr_machine_cpus() : cr_machine_cores(root);
    int quota = cr_machine_cpu_quota(root);
    most = quota > 0 && quota < most ? quota : most;
    return n > 0 && n < most ? n : most;
}

int cr_thread_count(int n)
{
    return cr_thread_count_at("", n);
}

static void run_serial(void *ctx, cr_task_fn *fn, void *arg, size_t n_items, size_t grain)
{
    (void)ctx;
    grain = grain > 0 ? grain : 1;
    uint64_t saved = cr_float_env_enter();
    for (size_t begin = 0; begin < n_items; begin += grain) {
        fn(arg, begin, n_items - begin < grain ? n_items : begin + grain, 0);
    }
    cr_float_env_leave(saved);
}

#if defined(_OPENMP)

/* The process whose threads OpenMP has started; 0 = none yet. A child of fork has a copy of the runtime's tables
 * without the threads in them, and a region would wait for those for ever. */
static _Atomic pid_t openmp_owner;

bool cr_openmp_usable(void)
{
    pid_t owner = atomic_load(&openmp_owner);
    return owner == 0 || owner == getpid();
}

static bool enter_openmp(void)
{
    pid_t owner = 0, self = getpid();
    return atomic_compare_exchange_strong(&openmp_owner, &owner, self) || owner == self;
}

static void run_openmp(void *ctx, cr_task_fn *fn, void *arg, size_t n_items, size_t grain)
{
    grain = grain > 0 ? grain : 1;
    size_t n_calls = n_items / grain + (n_items % grain != 0);
    int n_workers = (int)(intptr_t)ctx;
    if (n_calls <= 1 || n_workers <= 1 || !enter_openmp()) {
        run_serial(NULL, fn, arg, n_items, grain);
        return;
    }
    n_workers = n_calls < (size_t)n_workers ? (int)n_calls : n_workers;
#pragma omp parallel num_threads(n_workers)
    {
        int worker = omp_get_thread_num();
        uint64_t saved = cr_float_env_enter();
        /* Whoever is free takes the next call: items differ in cost, and cores in speed. */
#pragma omp for schedule(dynamic, 1) nowait
        for (size_t call = 0; call < n_calls; call++) {
            size_t begin = call * grain;
            fn(arg, begin, n_items - begin < grain ? n_items : begin + grain, worker);
        }
        cr_float_env_leave(saved);
    }
}

#else

bool cr_openmp_usable(void)
{
    return false;
}

#define run_openmp run_serial

#endif

void cr_parallel_openmp(struct cr_parallel *parallel, int n_workers)
{
    parallel->n_workers = n_workers > 0 ? n_workers : 1;
    parallel->ctx = (void *)(intptr_t)parallel->n_workers;
    parallel->run = run_openmp;
}

void cr_parallel_serial(struct cr_parallel *parallel)
{
    parallel->n_workers = 1;
    parallel->ctx = NULL;
    parallel->run = run_serial;
}
