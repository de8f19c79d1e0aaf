#include "runtime/thread/workers.h"

#include "runtime/core/host.h"
#include "runtime/thread/parallel.h"

enum { MAX_THREADS = 1024 };

static cr_status choose_threads(struct cr_workers *workers, const struct cr_host *host, struct cr_error *err)
{
    int by = (int)host->threads_by, n = cr_thread_count(host->n_threads);
    if (by < CR_THREADS_AUTO || by > CR_THREADS_POOL) {
        return cr_fail(err, CR_E_USAGE, "--threads-by: kind %d of threads, expected 0 to %d", by, CR_THREADS_POOL);
    }
#if !defined(_OPENMP)
    if (by == CR_THREADS_OPENMP) {
        return cr_fail(err, CR_E_USAGE, "--threads-by openmp: this build has no OpenMP, only pool");
    }
#endif
    if (by != CR_THREADS_POOL && cr_openmp_usable()) {
        cr_parallel_openmp(&workers->own, n);
    } else {
        CR_TRY(cr_pool_create(n, &workers->pool, err));
        cr_pool_parallel(workers->pool, &workers->own);
    }
    workers->parallel = &workers->own;
    return CR_OK;
}

cr_status cr_workers_choose(struct cr_workers *workers, const struct cr_host *host, struct cr_error *err)
{
    struct cr_cpu cpu;
    cr_cpu_detect(&cpu);
    CR_TRY(cr_cpu_cap(&cpu, host->cpu_cap, &workers->tier, err));
    if (cpu.amx_refused && workers->tier == cpu.tier) {
        cr_host_log(host, CR_LOG_WARNING,
                    "this processor has AMX tiles, but the operating system refuses them: %s is used",
                    cr_tier_name(workers->tier));
    }
    if (host->n_threads < 0 || host->n_threads > MAX_THREADS) {
        return cr_fail(err, CR_E_USAGE, "--threads %d, expected 1 to %d", host->n_threads, MAX_THREADS);
    }
    workers->parallel = host->parallel;
    if (workers->parallel == NULL) {
        CR_TRY(choose_threads(workers, host, err));
    }
    if (cr_host_verbose(host, "dispatch")) {
        const char *by = host->parallel != NULL ? "the host" : workers->pool != NULL ? "the pool" : "OpenMP";
        cr_host_log(host, CR_LOG_INFO, "cpu: %s, tier %s, %d threads of %s", cpu.name, cr_tier_name(workers->tier),
                    workers->parallel->n_workers, by);
    }
    return CR_OK;
}

void cr_workers_release(struct cr_workers *workers)
{
    cr_pool_destroy(workers->pool);
    *workers = (struct cr_workers){0};
}
