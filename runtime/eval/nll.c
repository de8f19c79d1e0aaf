#include "runtime/eval/nll.h"

#include <math.h>

#include "runtime/core/host.h"
#include "runtime/metrics/metrics.h"

size_t cr_nll_scratch_floats(size_t max_rows, uint32_t n_labels)
{
    return max_rows * (n_labels > 1 ? n_labels : 1);
}

double cr_label_nll(const float *logits, uint32_t n, uint32_t answer)
{
    double wide[CR_LABELS_MAX];
    for (uint32_t i = 0; i < n; i++) {
        wide[i] = (double)logits[i];
    }
    return cr_softmax_nll(wide, n, answer);
}

static void take(const struct cr_nll_job *job, size_t at, double *sum, double nll)
{
    *sum += nll;
    if (job->each != NULL) {
        job->each[at] = nll;
    }
}

static cr_status run(const struct cr_nll_job *job, float *out, struct cr_error *err)
{
    if (job->batch->n_rows == 0) {
        return CR_OK;
    }
    return job->dataset->classification ? cr_engine_label_logits(job->engine, job->batch, out, err)
                                        : cr_engine_token_nll(job->engine, job->batch, out, err);
}

/* Examples order[0 ... n-1] through every set, so many at once as fit. Returns the rows of one set, of which the
 * results lie in scratch set by set. */
static cr_status run_sets(const struct cr_nll_job *job, const uint32_t *order, size_t n, size_t *n_rows,
                          struct cr_error *err)
{
    size_t fit = job->batch->max_tokens / cr_batch_part_tokens(job->dataset, order, n);
    float *out = job->scratch;
    for (size_t first = 0, group; first < job->n_sets; first += group) {
        group = job->n_sets - first < fit ? job->n_sets - first : fit;
        cr_batch_clear(job->batch);
        for (size_t k = first; k < first + group; k++) {
            cr_batch_add_part(job->batch, (uint32_t)k, job->dataset, order, n, 1.0f);
        }
        CR_TRY(run(job, out, err));
        out += job->batch->n_rows * (job->dataset->classification ? job->n_labels : 1);
        *n_rows = job->batch->n_rows / group;
    }
    return CR_OK;
}

/* The next examples, up to n of them, through their sets; *n = how many. */
static cr_status run_next(const struct cr_nll_job *job, const uint32_t *order, size_t *n, size_t *n_rows,
                          struct cr_error *err)
{
    if (job->set_of == NULL) {
        *n = cr_batch_take(job->dataset, order, *n);
        return run_sets(job, order, *n, n_rows, err);
    }
    *n = cr_batch_fill_sorted(job->batch, job->dataset, job->set_of, order, *n, 1.0f);
    *n_rows = job->batch->n_rows;
    return run(job, job->scratch, err);
}

/* The batch still holds the last group of sets, whose parts have the same rows. */
static double row_nll(const struct cr_nll_job *job, size_t n_rows, size_t row)
{
    const struct cr_token_batch *batch = job->batch;
    uint32_t n = job->set_of != NULL ? 1 : job->n_sets;
    for (size_t k = 0; k < n; k++) {
        size_t at = k * n_rows + row;
        job->set_nll[k] = job->dataset->classification
                              ? cr_label_nll(job->scratch + at * job->n_labels, batch->row_choices[row],
                                             (uint32_t)batch->row_target[row])
                              : (double)job->scratch[at];
    }
    return n == 1 ? job->set_nll[0] : cr_mixture_nll(job->set_nll, n);
}

cr_status cr_nll_mean(const struct cr_nll_job *job, struct cr_nll *out, struct cr_error *err)
{
    struct cr_nll total = {0};
    double sum = 0;
    for (size_t done = 0; done < job->n;) {
        if (cr_host_stopped(job->host)) {
            return cr_fail(err, CR_E_STOPPED, "stopped after %zu of %zu examples", done, job->n);
        }
        size_t n = job->n - done, n_rows = 0;
        CR_TRY(run_next(job, job->examples + done, &n, &n_rows, err));
        for (size_t row = 0; row < n_rows; row++) {
            take(job, total.n_targets + row, &sum, row_nll(job, n_rows, row));
        }
        total.n_targets += n_rows;
        for (size_t i = done; i < done + n; i++) {
            total.n_tokens += job->dataset->examples[job->examples[i]].n_ids;
        }
        done += n;
        struct cr_progress progress = cr_progress_of("validate");
        progress.step = done;
        progress.n_steps = job->n;
        progress.tokens = total.n_tokens;
        cr_host_progress(job->host, &progress);
    }
    uint64_t terms = job->set_of != NULL ? job->n : total.n_targets;
    total.mean = terms > 0 ? sum / (double)terms : (double)NAN;
    *out = total;
    return CR_OK;
}
