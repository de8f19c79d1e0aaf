#include "runtime/eval/nll.h"

#include <math.h>

#include "runtime/core/host.h"
#include "runtime/eval/metrics.h"

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

static cr_status add_batch(const struct cr_nll_job *job, double *sum, struct cr_nll *total, struct cr_error *err)
{
    const struct cr_token_batch *batch = job->batch;
    if (batch->n_rows == 0) {
        return CR_OK;
    }
    if (job->dataset->classification) {
        CR_TRY(cr_engine_label_logits(job->engine, batch, job->scratch, err));
        for (size_t row = 0; row < batch->n_rows; row++) {
            take(job, total->n_targets + row, sum,
                 cr_label_nll(job->scratch + row * job->n_labels, batch->row_choices[row],
                              (uint32_t)batch->row_target[row]));
        }
    } else {
        CR_TRY(cr_engine_token_nll(job->engine, batch, job->scratch, err));
        for (size_t row = 0; row < batch->n_rows; row++) {
            take(job, total->n_targets + row, sum, (double)job->scratch[row]);
        }
    }
    total->n_targets += batch->n_rows;
    return CR_OK;
}

cr_status cr_nll_mean(const struct cr_nll_job *job, struct cr_nll *out, struct cr_error *err)
{
    struct cr_nll total = {0};
    double sum = 0;
    for (size_t done = 0; done < job->n;) {
        if (cr_host_stopped(job->host)) {
            return cr_fail(err, CR_E_STOPPED, "stopped after %zu of %zu examples", done, job->n);
        }
        size_t n = cr_batch_take(job->dataset, job->examples + done, job->n - done);
        cr_batch_fill(job->batch, job->dataset, job->examples + done, n, 1.0f);
        CR_TRY(add_batch(job, &sum, &total, err));
        total.n_tokens += job->batch->n_tokens;
        done += n;
        struct cr_progress progress = {.phase = "validate",
                                       .step = done,
                                       .n_steps = job->n,
                                       .loss = (double)NAN,
                                       .lr = (double)NAN,
                                       .grad_norm = (double)NAN,
                                       .tokens = total.n_tokens};
        cr_host_progress(job->host, &progress);
    }
    total.mean = total.n_targets > 0 ? sum / (double)total.n_targets : (double)NAN;
    *out = total;
    return CR_OK;
}
