/* pool: threads of our own behind struct cr_parallel, for machines that are shared.
 *
 * A region ends when its items are done, not when every thread has shown up: a thread that the system has put aside
 * costs nothing, its share is taken by the others. Between regions threads spin for some 30 us, then sleep, so a quota
 * on CPU time is not burnt by waiting. A thread that cannot be started, or that a fork left behind, is simply missing:
 * results never depend on who takes an item.
 *
 * run() may be called by one thread at a time and not from inside an item.
 */
#ifndef CR_THREAD_POOL_H
#define CR_THREAD_POOL_H

#include "credence/parallel.h"
#include "runtime/core/error.h"

struct cr_pool;

/* A pool of n_workers including the caller of run(). Returns owned. Errors: CR_E_MEMORY. */
cr_status cr_pool_create(int n_workers, struct cr_pool **out, struct cr_error *err);
/* NULL is fine, and so is a copy of the pool in a child of fork. */
void cr_pool_destroy(struct cr_pool *pool);

/* Fills *parallel, which is valid while the pool lives. */
void cr_pool_parallel(struct cr_pool *pool, struct cr_parallel *parallel);

#endif
