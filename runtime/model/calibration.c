#include "runtime/model/calibration.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/peak.h"
#include "runtime/core/clock.h"

/* A burst of 28,000 rounds lasts 0.2 to 0.4 ms at 2 to 4 GHz. */
enum { ROUNDS = 28000, LINE_FLOATS = 64 };
#define LEAST_SECONDS 0.05 /* of bursts: neighbours come and go */
enum { LEAST_BURSTS = 5 }; /* one that lost its CPU may take that long alone */

/* The arrays of all workers together, as a multiple of the last cache, and at most. */
enum { CACHES = 2, MOST_BYTES = 256 << 20 };

struct burst {
    const struct cr_peak_ops *ops;
    cr_peak_fn *loop; /* NULL: triad */
    float *x, *y;
    size_t n_floats; /* of each array of a worker */
};

static void run_items(void *arg, size_t begin, size_t end, int worker)
{
    const struct burst *b = arg;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        if (b->loop != NULL) {
            b->loop(ROUNDS);
        } else {
            b->ops->triad(b->y + i * b->n_floats, b->x + i * b->n_floats, b->n_floats);
        }
    }
}

/* Seconds of the fastest burst: the others lost their CPUs to somebody else for a while. */
static double fastest(const struct cr_parallel *parallel, struct burst *b)
{
    double best = HUGE_VAL;
    uint64_t begin = cr_clock_ns();
    for (int i = 0; i < LEAST_BURSTS || cr_clock_since(begin) < LEAST_SECONDS; i++) {
        uint64_t start = cr_clock_ns();
        parallel->run(parallel->ctx, run_items, b, (size_t)parallel->n_workers, 1);
        double seconds = cr_clock_since(start);
        best = seconds < best ? seconds : best;
    }
    return best;
}

static double compute(const struct cr_parallel *parallel, cr_peak_fn *loop)
{
    struct burst b = {.loop = loop};
    if (loop == NULL) {
        return 0;
    }
    double work = loop(1) * ROUNDS * parallel->n_workers, seconds = fastest(parallel, &b);
    return seconds > 0 ? work / seconds : 0;
}

static double memory(const struct cr_cpu *cpu, const struct cr_peak_ops *ops, const struct cr_parallel *parallel)
{
    size_t n_workers = (size_t)parallel->n_workers;
    double wanted = CACHES * (cpu->l3_bytes > 0 ? (double)cpu->l3_bytes : 32e6);
    wanted = wanted < MOST_BYTES ? wanted : MOST_BYTES;
    struct burst b = {.ops = ops, .n_floats = (size_t)(wanted / 2 / 4) / n_workers / LINE_FLOATS * LINE_FLOATS};
    size_t n_bytes = b.n_floats * n_workers * sizeof *b.x;
    double seconds = 0;
    b.x = n_bytes > 0 ? aligned_alloc(64, n_bytes) : NULL;
    b.y = n_bytes > 0 ? aligned_alloc(64, n_bytes) : NULL;
    if (b.x != NULL && b.y != NULL) {
        memset(b.x, 0, n_bytes);
        memset(b.y, 0, n_bytes);
        seconds = fastest(parallel, &b);
    }
    free(b.x);
    free(b.y);
    return seconds > 0 ? 3.0 * (double)n_bytes / seconds : 0;
}

void cr_calibration_measure(const struct cr_cpu *cpu, enum cr_tier tier, const struct cr_parallel *parallel,
                            struct cr_calibration *out)
{
    struct cr_peak_ops ops;
    cr_peak_ops_init(&ops, tier);
    out->f32 = compute(parallel, ops.fma);
    out->dot = compute(parallel, ops.dot);
    out->tile = compute(parallel, ops.tile);
    out->memory = memory(cpu, &ops, parallel);
}
