/* workers: what a job computes on: the tier of the CPU and the threads, by the wishes of its host. */
#ifndef CR_THREAD_WORKERS_H
#define CR_THREAD_WORKERS_H

#include "credence/cpu.h"
#include "credence/parallel.h"
#include "runtime/core/error.h"
#include "runtime/core/host.h"

struct cr_workers {
    enum cr_tier tier;
    struct cr_parallel pool;            /* of our own, when the host lends none */
    const struct cr_parallel *parallel; /* the host's, or &pool: do not move the struct */
};

/* Errors: CR_E_USAGE for a cap that this CPU cannot keep and for a number of threads out of range. */
cr_status cr_workers_choose(struct cr_workers *workers, const struct cr_host *host, struct cr_error *err);

#endif
