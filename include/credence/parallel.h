/* How the library runs work on threads: a host lends this struct, or takes one of two built-in ways (struct cr_host):
 *
 * - OpenMP. Its threads are those of the host's own OpenMP code, when both use one runtime. They wait as the runtime does,
 *   and GNU's spins for long by default: where other work shares the CPUs, or under a quota on CPU time, start the process
 *   with OMP_WAIT_POLICY=passive, or take the pool. The library sets no environment.
 * - The pool: threads that live for one call into the library, spin for some 30 us and then sleep. For a process with
 *   another OpenMP runtime (two keep two sets of threads, which spin against each other), for children of fork, and for
 *   shared machines.
 *
 * With either, a call into the library may follow fork in the child. A host that runs OpenMP code of its own before fork
 * takes the pool there: we see only the regions that we have entered ourselves.
 */
#ifndef CREDENCE_PARALLEL_H
#define CREDENCE_PARALLEL_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Runs items [begin, end). `worker` is in 0...n_workers-1 and no two calls share it at one time: it picks scratch. */
typedef void cr_task_fn(void *arg, size_t begin, size_t end, int worker);

/* run() calls fn so that every item of [0, n_items) is covered exactly once, in calls of at most `grain` items,
 * and returns when all are done. Which worker takes which items, and in what order, is free: an item's result never
 * depends on it. The library calls run() from one thread at a time and never from inside an item. */
struct cr_parallel {
    void (*run)(void *ctx, cr_task_fn *fn, void *arg, size_t n_items, size_t grain);
    void *ctx;
    int n_workers; /* >= 1 */
};

#ifdef __cplusplus
}
#endif
#endif
