/* measure: samples, their brackets and what is made of them. */
#include "bench/measure.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/memory.h"

/* Seconds that a sample should last at least, and what two brackets may differ by. */
#define SAMPLE_SECONDS 0.7e-3
#define STEADY 0.05
enum { MAX_SAMPLES = 4096, MIN_STEADY = 5 };

struct sample {
    double seconds;      /* of one run */
    double units[2];     /* rate of the unit and of the memory level around it */
    double peer_seconds; /* 0 = none */
    bool steady[2];      /* the two brackets agreed */
};

struct cr_bench_run {
    struct cr_bench_entry entry;
    void *state;
    size_t n_runs; /* in a sample; 0 = not warmed up */
    double before[2];
    bool fresh; /* `before` was taken and nothing else has run since */
    double seconds;
    size_t n_samples;
    struct sample samples[MAX_SAMPLES];
};

struct cr_bench_run *cr_bench_run_open(const struct cr_bench_entry *entry, char *message, size_t message_bytes)
{
    struct cr_bench_run *run = calloc(1, sizeof *run);
    if (run == NULL) {
        snprintf(message, message_bytes, "out of memory");
        return NULL;
    }
    run->entry = *entry;
    run->state = entry->open(entry);
    if (run->state == NULL) {
        snprintf(message, message_bytes, "could not be set up");
        cr_bench_run_close(run);
        return NULL;
    }
    if (!entry->verify(run->state, message, message_bytes)) {
        cr_bench_run_close(run);
        return NULL;
    }
    return run;
}

void cr_bench_run_close(struct cr_bench_run *run)
{
    if (run == NULL) {
        return;
    }
    if (run->entry.close != NULL && run->state != NULL) {
        run->entry.close(run->state);
    }
    cr_bench_memory_free();
    free(run);
}

size_t cr_bench_run_warm(struct cr_bench_run *run)
{
    if (run->n_runs > 0) {
        return run->n_runs;
    }
    double seconds = INFINITY;
    for (int i = 0; i < 3 && seconds > 0; i++) {
        double start = cr_bench_now();
        run->entry.run(run->state);
        double now = cr_bench_now() - start;
        seconds = now < seconds ? now : seconds;
        if (now > 0.02) {
            break;
        }
    }
    run->n_runs = seconds >= SAMPLE_SECONDS ? 1 : (size_t)(SAMPLE_SECONDS / fmax(seconds, 1e-8)) + 1;
    return run->n_runs;
}

static void calibrate(const struct cr_bench_run *run, double units[2])
{
    units[0] = cr_bench_peak(run->entry.unit);
    units[1] = cr_bench_peak(run->entry.memory);
}

void cr_bench_run_before(struct cr_bench_run *run)
{
    if (!run->fresh) {
        calibrate(run, run->before);
    }
    if (run->entry.memory != CR_UNIT_NONE && run->entry.memory != CR_UNIT_DRAM) {
        run->entry.run(run->state); /* the burst has put other arrays into the caches */
    }
}

void cr_bench_run_timed(struct cr_bench_run *run)
{
    double start = cr_bench_now();
    for (size_t i = 0; i < run->n_runs; i++) {
        run->entry.run(run->state);
    }
    run->seconds = (cr_bench_now() - start) / (double)run->n_runs;
}

static double peer_seconds(struct cr_bench_run *run)
{
    double start = cr_bench_now();
    for (size_t i = 0; i < run->n_runs; i++) {
        if (!run->entry.peer(run->state)) {
            return 0;
        }
    }
    return (cr_bench_now() - start) / (double)run->n_runs;
}

void cr_bench_run_after(struct cr_bench_run *run)
{
    double after[2];
    calibrate(run, after);
    struct sample s = {.seconds = run->seconds};
    for (int i = 0; i < 2; i++) {
        s.units[i] = 0.5 * (run->before[i] + after[i]);
        s.steady[i] = fabs(run->before[i] - after[i]) <= STEADY * s.units[i];
    }
    memcpy(run->before, after, sizeof after);
    run->fresh = true;
    if (run->entry.peer != NULL) {
        s.peer_seconds = peer_seconds(run);
        run->fresh = !(s.peer_seconds > 0);
    }
    if (run->n_samples < MAX_SAMPLES) {
        run->samples[run->n_samples++] = s;
    }
}

/* Work a second of an entry as a share of unit i around the sample. */
static double share_of(const struct cr_bench_entry *entry, const struct sample *s, int i)
{
    double work = i == 1 ? entry->bytes : entry->work > 0 ? entry->work : entry->flops;
    return s->units[i] > 0 ? work / s->seconds / s->units[i] : 0;
}

enum column { PEAK, STREAM, SECONDS, PEER, RATIO };

/* The values of a column: of samples steady in unit `steady`, or of all when that is negative. */
static size_t column(const struct cr_bench_run *run, enum column which, int steady, double *values)
{
    size_t n = 0;
    for (size_t i = 0; i < run->n_samples; i++) {
        const struct sample *s = &run->samples[i];
        double value = which == SECONDS  ? s->seconds
                       : which == PEAK   ? share_of(&run->entry, s, 0)
                       : which == STREAM ? share_of(&run->entry, s, 1)
                       : which == PEER   ? s->peer_seconds
                                         : s->peer_seconds / s->seconds;
        if ((steady < 0 || s->steady[steady]) && s->seconds > 0 && value > 0) {
            values[n++] = value;
        }
    }
    return n;
}

/* What bounds the entry decides which samples count: the other unit may be as restless as it likes. */
void cr_bench_run_result(struct cr_bench_run *run, struct cr_bench_result *result)
{
    static double values[MAX_SAMPLES];
    const struct cr_bench_entry *e = &run->entry;
    *result = (struct cr_bench_result){.entry = *e, .n_samples = run->n_samples};
    double peak = cr_bench_quantile(values, column(run, PEAK, -1, values), 0.5);
    enum column bound = peak > cr_bench_quantile(values, column(run, STREAM, -1, values), 0.5) ? PEAK : STREAM;
    size_t n_steady = 0;
    for (size_t i = 0; i < run->n_samples; i++) {
        n_steady += run->samples[i].steady[bound];
    }
    result->n_dropped = run->n_samples - n_steady;
    int steady = n_steady >= MIN_STEADY || n_steady * 2 >= run->n_samples ? (int)bound : -1;
    result->seconds = cr_bench_quantile(values, column(run, SECONDS, steady, values), 0.5);
    result->peer_seconds = cr_bench_quantile(values, column(run, PEER, steady, values), 0.5);
    result->onednn_ratio = cr_bench_quantile(values, column(run, RATIO, steady, values), 0.5);
    result->peak_share = cr_bench_quantile(values, column(run, PEAK, steady, values), 0.5);
    result->stream_share = cr_bench_quantile(values, column(run, STREAM, steady, values), 0.5);
    size_t n = column(run, bound, steady, values);
    result->share_p90 = cr_bench_quantile(values, n, 0.9);
    result->share_best = cr_bench_quantile(values, n, 1);
    if (e->items > 0 && result->seconds > 0) {
        result->cycles_per_item = result->seconds * cr_bench_typical(CR_UNIT_CLOCK) / e->items;
    }
}
