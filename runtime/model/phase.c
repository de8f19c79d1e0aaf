/* Phases: lists of independent jobs handed to the threads in one go. */
#include <assert.h>

#include "runtime/core/clock.h"
#include "runtime/model/engine_internal.h"

void cr_phase_add(struct cr_engine *e, job_fn *fn, const void *args, size_t n, size_t step)
{
    for (size_t begin = 0; begin < n; begin += step) {
        assert(e->n_jobs < e->max_jobs);
        size_t end = n - begin < step ? n : begin + step;
        e->jobs[e->n_jobs++] = (struct job){fn, args, begin, end};
    }
}

static void run_jobs(void *arg, size_t begin, size_t end, int worker)
{
    struct cr_engine *e = arg;
    void *scratch = e->scratch + (size_t)worker * e->scratch_bytes;
    for (size_t i = begin; i < end; i++) {
        const struct job *job = &e->jobs[i];
        job->fn(e, job->args, job->begin, job->end, scratch);
    }
}

void cr_phase_run(struct cr_engine *e, const char *name, int layer)
{
    uint64_t start = e->trace != NULL ? cr_clock_ns() : 0;
    const struct cr_parallel *parallel = e->options.parallel;
    if (e->n_jobs > 0) {
        parallel->run(parallel->ctx, run_jobs, e, e->n_jobs, 1);
    }
    e->n_jobs = 0;
    if (e->trace != NULL) {
        struct cr_engine_span span = {name, 1e-9 * (double)start, cr_clock_since(start), layer};
        e->trace(e->trace_ctx, &span);
    }
}

void cr_engine_trace(struct cr_engine *engine, cr_engine_trace_fn *fn, void *ctx)
{
    engine->trace = fn;
    engine->trace_ctx = ctx;
}

void cr_job_gemm_fwd(struct cr_engine *e, const void *args, size_t begin, size_t end, void *scratch)
{
    e->qgemm.fwd(args, begin, end, scratch);
}

/* One item of attention. Shared tokens see the learned prefix alone, the others what args say. */
static struct cr_attention_args attention_item(const struct cr_engine *e, const struct cr_attention_args *args,
                                               size_t item)
{
    struct cr_attention_args own = *args;
    const struct cr_attention_prefix *prefix = cr_prefix_attention(e);
    if (cr_lead_attention(e) != NULL && prefix != NULL &&
        prefix->of_seg[item / args->n_heads] != CR_ATTENTION_NO_PREFIX) {
        own.prefix = prefix;
    }
    return own;
}

void cr_job_attention_fwd(struct cr_engine *e, const void *args, size_t begin, size_t end, void *scratch)
{
    struct cr_attention_args item = attention_item(e, args, begin);
    e->attention.fwd(&item, begin, end, scratch);
}

void cr_job_attention_bwd(struct cr_engine *e, const void *args, size_t begin, size_t end, void *scratch)
{
    struct cr_attention_args item = attention_item(e, args, begin);
    e->attention.bwd(&item, begin, end, scratch);
}
