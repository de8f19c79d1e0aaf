/* memory: the terms of a job's predicted memory that are no array of its own, and what the sum is compared with. */
#ifndef CR_THREAD_MEMORY_H
#define CR_THREAD_MEMORY_H

#include <stdint.h>

#include "runtime/core/host.h"

#define CR_MIB (1024.0 * 1024.0)

/* Bytes that the process holds now, but for the pages of a model's file of file_bytes, which is a term of its own. */
uint64_t cr_memory_held(uint64_t file_bytes);

/* Bytes of libraries, thread stacks and allocator slack that no term names. */
uint64_t cr_memory_overhead(int n_workers);

/* Bytes that a job may take: what the host allows, else what the system has left. */
uint64_t cr_memory_budget(const struct cr_host *host);

/* The peak of the process once `total` bytes are in use: it may have been higher before. For reports only: memory that
 * was given back is free again. */
uint64_t cr_memory_peak(uint64_t total);

#endif
