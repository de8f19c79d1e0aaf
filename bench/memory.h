/* memory: what the harness does about cr_bench_memory and cr_bench_over. Private to the harness. */
#ifndef CR_BENCH_MEMORY_H
#define CR_BENCH_MEMORY_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Frees everything handed out by cr_bench_memory. */
void cr_bench_memory_free(void);

/* Memory of so many bytes, in huge pages where it is large and the system allows; so that
 * page tables are not what is timed. NULL without memory. To be freed by free(). */
void *cr_bench_pages(size_t n_bytes);

/* How many threads run entries and bursts; 1 at the start. */
void cr_bench_set_threads(int n);

#ifdef __cplusplus
}
#endif
#endif
