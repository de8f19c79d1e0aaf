/* memory: buffers of the entry at hand, the parallel loop, the walk over tiers. */
#include "bench/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/cr_bench.h"
#include "runtime/thread/parallel.h"

enum { MAX_BUFFERS = 64, MAX_TABLE_BYTES = 256, HUGE_PAGE = 1 << 21 };

static void *buffers[MAX_BUFFERS];
static size_t n_buffers;
static struct cr_parallel parallel;
static int n_threads = 1;

void *cr_bench_pages(size_t n_bytes)
{
    size_t unit = n_bytes >= HUGE_PAGE / 2 ? HUGE_PAGE : 64, rounded = (n_bytes + unit - 1) / unit * unit;
    void *memory = aligned_alloc(unit, rounded);
    if (memory != NULL && unit == HUGE_PAGE) {
        madvise(memory, rounded, MADV_HUGEPAGE); /* a wish */
    }
    return memory;
}

void *cr_bench_memory(size_t n_bytes)
{
    void *buffer = n_buffers < MAX_BUFFERS ? cr_bench_pages(n_bytes + 1) : NULL;
    if (buffer == NULL) {
        fprintf(stderr, "credence-bench: no memory for %zu bytes in buffer %zu of an entry\n", n_bytes, n_buffers);
        exit(1);
    }
    buffers[n_buffers++] = buffer;
    return memset(buffer, 0, n_bytes);
}

void cr_bench_memory_free(void)
{
    while (n_buffers > 0) {
        free(buffers[--n_buffers]);
    }
}

void cr_bench_set_threads(int n)
{
    n_threads = n;
    cr_parallel_openmp(&parallel, n);
}

int cr_bench_threads(void)
{
    return n_threads;
}

void cr_bench_over(cr_task_fn *fn, void *arg, size_t n, size_t grain)
{
    if (n_threads == 1) {
        fn(arg, 0, n, 0);
    } else {
        parallel.run(parallel.ctx, fn, arg, n, grain);
    }
}

size_t cr_bench_tiers(enum cr_tier *out, const enum cr_tier *tiers, size_t n_tiers,
                      void (*table)(enum cr_tier tier, void *out), size_t table_bytes)
{
    _Alignas(64) unsigned char now[MAX_TABLE_BYTES] = {0}, before[MAX_TABLE_BYTES] = {0};
    size_t n = 0;
    for (size_t i = 0; i < n_tiers && table_bytes <= MAX_TABLE_BYTES; i++) {
        table(tiers[i], now);
        if (i == 0 || memcmp(now, before, table_bytes) != 0) {
            out[n++] = tiers[i];
        }
        memcpy(before, now, table_bytes);
    }
    return n;
}
