/* workers: what a job computes on: the tier of the CPU and the threads, by the wishes of its host. */
#ifndef CR_THREAD_WORKERS_H
#define CR_THREAD_WORKERS_H

#include "credence/cpu.h"
#include "credence/parallel.h"
#include "runtime/core/error.h"
#include "runtime/core/host.h"
#include "runtime/thread/pool.h"

struct cr_workers {
    enum cr_tier tier;
    struct cr_parallel own;             /* when the host lends none */
    struct cr_pool *pool;               /* owned: the threads behind it, NULL = OpenMP's */
    const struct cr_parallel *parallel; /* the host's, or &own: do not move the struct */
};

/* *workers must be zeroed; release it whatever is returned. Errors: CR_E_USAGE for a cap that this CPU cannot keep, for
 * a number of threads out of range and for a kind of threads that this build does not have; CR_E_MEMORY. */
cr_status cr_workers_choose(struct cr_workers *workers, const struct cr_host *host, struct cr_error *err);
/* Ends the threads; nothing that runs on them may be left. */
void cr_workers_release(struct cr_workers *workers);

#endif
