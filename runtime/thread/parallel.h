/* The built-in way to run items on threads, and how many threads to use. */
#ifndef CR_THREAD_PARALLEL_H
#define CR_THREAD_PARALLEL_H

#include <stdbool.h>

#include "credence/parallel.h"

/* Threads to use when the user asks for n: at most the affinity mask and the cgroup quota; 0 = one a physical core of
 * the mask, at most the quota. At least 1. */
int cr_thread_count(int n);
/* root is put before every path. */
int cr_thread_count_at(const char *root, int n);

/* n_workers threads of OpenMP: dynamic item order, one parallel region a call. Where OpenMP cannot be used (below) the
 * caller alone does the work. */
void cr_parallel_openmp(struct cr_parallel *parallel, int n_workers);

/* False in builds without OpenMP, and in a child of fork once the parent has entered a region here. (Regions that the
 * host's own code has entered before the fork are not seen.) */
bool cr_openmp_usable(void);

/* Runs everything on the calling thread. */
void cr_parallel_serial(struct cr_parallel *parallel);

#endif
