/* The built-in way to run items on threads, and how many threads to use. */
#ifndef CR_THREAD_PARALLEL_H
#define CR_THREAD_PARALLEL_H

#include "credence/parallel.h"

/* Threads to use when the user asks for n (0 = all): min of the affinity mask and the cgroup quota, at least 1. */
int cr_thread_count(int n);

/* OpenMP pool of n_workers threads: dynamic item order, one parallel region a call. */
void cr_parallel_openmp(struct cr_parallel *parallel, int n_workers);

/* Runs everything on the calling thread. */
void cr_parallel_serial(struct cr_parallel *parallel);

#endif
