/* How the library runs work on threads: a host lends this struct, or takes the built-in OpenMP one. */
#ifndef CREDENCE_PARALLEL_H
#define CREDENCE_PARALLEL_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Runs items [begin, end). `worker` is in 0...n_workers-1 and no two calls share it at one time: it picks scratch. */
typedef void cr_task_fn(void *arg, size_t begin, size_t end, int worker);

/* run() calls fn so that every item of [0, n_items) is covered exactly once, in calls of at most `grain` items,
 * and returns when all are done. Which worker takes which items is free: an item's result never depends on it. */
struct cr_parallel {
    void (*run)(void *ctx, cr_task_fn *fn, void *arg, size_t n_items, size_t grain);
    void *ctx;
    int n_workers; /* >= 1 */
};

#ifdef __cplusplus
}
#endif
#endif
