#include "runtime/thread/memory.h"

#include "runtime/thread/machine.h"

/* Generous for a few dozen threads. */
#define OVERHEAD_BYTES ((uint64_t)6 << 20)
#define OVERHEAD_PER_WORKER ((uint64_t)128 << 10)

uint64_t cr_memory_held(uint64_t file_bytes)
{
    uint64_t mapped = cr_machine_rss_file();
    return cr_machine_rss_anon() + (mapped > file_bytes ? mapped - file_bytes : 0);
}

uint64_t cr_memory_overhead(int n_workers)
{
    return OVERHEAD_BYTES + (uint64_t)n_workers * OVERHEAD_PER_WORKER;
}

uint64_t cr_memory_budget(const struct cr_host *host)
{
    return host->memory_bytes > 0 ? host->memory_bytes : cr_machine_memory_budget();
}

uint64_t cr_memory_peak(uint64_t total)
{
    uint64_t before = cr_machine_peak_rss();
    return total > before ? total : before;
}
