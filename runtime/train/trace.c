/* Times of the engine's operations: their sums by kind, and each as a Chrome trace event ("X" events, microseconds)
 * for chrome://tracing or Perfetto. Recording fills fixed tables; what no longer fits is counted. */
#include "runtime/train/train.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"

/* About ten steps of a model of thirty layers. */
enum { MAX_EVENTS = 1 << 17 };

/* More kinds than the engine has. */
enum { MAX_KINDS = 48 };

struct event {
    const char *name; /* static */
    double start_s;
    float seconds;
    int32_t layer;
    uint64_t step;
};

struct kind {
    const char *name; /* static: the same kind has the same pointer */
    double seconds;
    uint64_t n;
};

struct cr_trace {
    struct event *events; /* owned; NULL when only the sums are wanted */
    size_t n, n_lost;
    struct kind kinds[MAX_KINDS];
    size_t n_kinds;
    uint64_t step;
};

static void add_to_kind(struct cr_trace *trace, const struct cr_engine_span *span)
{
    size_t i = 0;
    while (i < trace->n_kinds && trace->kinds[i].name != span->name) {
        i++;
    }
    if (i == MAX_KINDS) {
        return;
    }
    trace->n_kinds = i == trace->n_kinds ? i + 1 : trace->n_kinds;
    trace->kinds[i].name = span->name;
    trace->kinds[i].seconds += span->seconds;
    trace->kinds[i].n++;
}

static void record(void *ctx, const struct cr_engine_span *span)
{
    struct cr_trace *trace = ctx;
    add_to_kind(trace, span);
    if (trace->events == NULL) {
        return;
    }
    if (trace->n == MAX_EVENTS) {
        trace->n_lost++;
        return;
    }
    trace->events[trace->n++] = (struct event){.name = span->name,
                                               .start_s = span->start_s,
                                               .seconds = (float)span->seconds,
                                               .layer = span->layer,
                                               .step = trace->step};
}

cr_status cr_trace_create(struct cr_engine *engine, bool events, struct cr_trace **out, struct cr_error *err)
{
    struct cr_trace *trace = cr_zalloc(1, sizeof *trace);
    if (trace != NULL && events) {
        trace->events = cr_alloc(MAX_EVENTS, sizeof *trace->events);
    }
    if (trace == NULL || (events && trace->events == NULL)) {
        cr_free(trace);
        return cr_fail(err, CR_E_MEMORY, "no memory for a trace");
    }
    cr_engine_trace(engine, record, trace);
    *out = trace;
    return CR_OK;
}

void cr_trace_step(struct cr_trace *trace, uint64_t step)
{
    if (trace != NULL) {
        trace->step = step;
    }
}

void cr_trace_destroy(struct cr_trace *trace, struct cr_engine *engine)
{
    if (trace != NULL) {
        cr_engine_trace(engine, NULL, NULL);
        cr_free(trace->events);
        cr_free(trace);
    }
}

static int by_time(const void *a, const void *b)
{
    const struct kind *x = a, *y = b;
    return x->seconds < y->seconds ? 1 : x->seconds > y->seconds ? -1 : 0;
}

void cr_trace_log_times(struct cr_trace *trace, const struct cr_host *host)
{
    double total = 0;
    for (size_t i = 0; i < trace->n_kinds; i++) {
        total += trace->kinds[i].seconds;
    }
    qsort(trace->kinds, trace->n_kinds, sizeof trace->kinds[0], by_time);
    for (size_t i = 0; i < trace->n_kinds; i++) {
        const struct kind *k = &trace->kinds[i];
        cr_host_log(host, CR_LOG_INFO, "time: %-16s %9.3f s %5.1f %%  %" PRIu64 " times", k->name, k->seconds,
                    total > 0 ? 100 * k->seconds / total : 0, k->n);
    }
}

/* A count of nanoseconds as microseconds with three decimals: no floating-point text, so no locale. */
static void put_time(struct cr_buf *buf, const char *key, double seconds)
{
    uint64_t ns = seconds > 0 ? (uint64_t)(seconds * 1e9 + 0.5) : 0;
    cr_buf_printf(buf, "\"%s\":%" PRIu64 ".%03" PRIu64 ",", key, ns / 1000, ns % 1000);
}

cr_status cr_trace_write(const struct cr_trace *trace, const char *path, const struct cr_host *host,
                         struct cr_error *err)
{
    struct cr_buf buf = {0};
    cr_buf_puts(&buf, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n");
    double origin = trace->n > 0 ? trace->events[0].start_s : 0;
    for (size_t i = 0; i < trace->n; i++) {
        origin = trace->events[i].start_s < origin ? trace->events[i].start_s : origin;
    }
    for (size_t i = 0; i < trace->n; i++) {
        const struct event *e = &trace->events[i];
        cr_buf_puts(&buf, "{\"name\":");
        cr_buf_json_string(&buf, e->name, strlen(e->name));
        cr_buf_puts(&buf, ",\"cat\":\"engine\",\"ph\":\"X\",\"pid\":1,\"tid\":1,");
        put_time(&buf, "ts", e->start_s - origin);
        put_time(&buf, "dur", (double)e->seconds);
        cr_buf_printf(&buf, "\"args\":{\"layer\":%d,\"step\":%" PRIu64 "}}%s\n", (int)e->layer, e->step,
                      i + 1 < trace->n ? "," : "");
    }
    cr_buf_puts(&buf, "]}\n");
    cr_status status = buf.failed ? cr_fail(err, CR_E_MEMORY, "no memory for the text of a trace")
                                  : cr_file_write(path, buf.data, buf.n, err);
    if (status == CR_OK && trace->n_lost > 0) {
        cr_host_log(host, CR_LOG_INFO, "%s: the first %zu events; %zu later ones were not recorded", path, trace->n,
                    trace->n_lost);
    }
    cr_buf_free(&buf);
    return status;
}
