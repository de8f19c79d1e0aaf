/* memory: what the harness does about cr_bench_memory and cr_bench_over. Private to the harness. */
#ifndef CR_BENCH_MEMORY_H
#define CR_BENCH_MEMORY_H

#ifdef __cplusplus
extern "C" {
#endif

/* Frees everything handed out by cr_bench_memory. */
void cr_bench_memory_free(void);

/* How many threads run entries and bursts; 1 at the start. */
void cr_bench_set_threads(int n);

#ifdef __cplusplus
}
#endif
#endif
