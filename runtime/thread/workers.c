#include "runtime/thread/workers.h"

#include "runtime/core/host.h"
#include "runtime/thread/parallel.h"

enum { MAX_THREADS = 1024 };

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
        cr_parallel_openmp(&workers->pool, cr_thread_count(host->n_threads));
        workers->parallel = &workers->pool;
    }
    if (cr_host_verbose(host, "dispatch")) {
        cr_host_log(host, CR_LOG_INFO, "cpu: %s, tier %s, %d threads", cpu.name, cr_tier_name(workers->tier),
                    workers->parallel->n_workers);
    }
    return CR_OK;
}
