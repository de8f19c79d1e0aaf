#include "runtime/eval/laplace_fit.h"

#include <inttypes.h>
#include <math.h>

#include "credence/kernels/math.h"
#include "runtime/core/alloc.h"
#include "runtime/core/host.h"
#include "runtime/metrics/metrics.h"

enum { TRIAL_DRAWS = 1000 };

/* Adds the NLL of one validation example under every precision, and under the point. */
static cr_status try_example(struct cr_laplace_fit *f, uint32_t index, const float *logits, const float *rows,
                             struct cr_error *err)
{
    const struct cr_scoring *s = &f->scoring;
    const struct cr_example *example = &s->calibration.data.examples[index];
    double wide[CR_LABELS_MAX];
    for (uint32_t c = 0; c < example->n_choices; c++) {
        wide[c] = (double)logits[c];
    }
    f->result.valid_nll[0] += cr_softmax_nll(wide, example->n_choices, example->answer);
    for (size_t t = 0; t < f->n_trials; t++) {
        struct cr_linear_question q = {.set = &f->set,
                                       .rng = &f->rng,
                                       .s2 = 1 / f->trials[t].precision,
                                       .temperature = 1,
                                       .seed = f->options.seed,
                                       .n_draws = TRIAL_DRAWS};
        struct cr_linear_answer answer;
        if (!cr_linear_answer(&q, index, logits, rows, s->jacobian.n_params, example->n_choices, &answer)) {
            return cr_fail(err, CR_E_DIVERGED, "validation line %" PRIu64 ": logits that are no finite numbers",
                           example->line);
        }
        f->trials[t].nll -= cr_ln(fmax(answer.probs[example->answer], 0x1p-1022));
    }
    return CR_OK;
}

static cr_status try_precisions(struct cr_laplace_fit *f, struct cr_error *err)
{
    struct cr_scoring *s = &f->scoring;
    const struct cr_scoring_set *set = &s->calibration;
    const struct cr_dataset *data = &set->data;
    for (size_t done = 0, n; done < set->n; done += n) {
        if (cr_host_stopped(s->host)) {
            return cr_fail(err, CR_E_STOPPED, "stopped after %zu of %zu examples; nothing written", done, set->n);
        }
        size_t fit = cr_batch_take(data, set->order + done, set->n - done);
        n = cr_jacobian_take(&s->jacobian, data, set->order + done, fit);
        cr_batch_fill(&s->batch, data, set->order + done, n, 1.0f);
        CR_TRY(cr_engine_label_logits(s->engine, &s->batch, s->scratch, err));
        CR_TRY(cr_jacobian_run(&s->jacobian, s->engine, &s->shared, data, set->order + done, n, err));
        CR_TRY(cr_scoring_unchanged(s, err));
        const float *rows = s->jacobian.grads;
        for (size_t i = 0; i < n; i++) {
            uint32_t index = set->order[done + i];
            CR_TRY(try_example(f, index, s->scratch + i * s->n_labels, rows, err));
            rows += data->examples[index].n_choices * s->jacobian.n_params;
        }
    }
    f->result.valid_nll[0] /= (double)set->n;
    for (size_t t = 0; t < f->n_trials; t++) {
        f->trials[t].nll /= (double)set->n;
    }
    return CR_OK;
}

/* The trial of lowest NLL; of equals the one nearest to the evidence's. */
static void choose_trial(struct cr_laplace_fit *f)
{
    size_t middle = CR_LAPLACE_TRIALS / 2, best = middle;
    for (size_t d = 1; d <= middle; d++) {
        best = f->trials[middle - d].nll < f->trials[best].nll ? middle - d : best;
        best = f->trials[middle + d].nll < f->trials[best].nll ? middle + d : best;
    }
    if (best == 0 || best == CR_LAPLACE_TRIALS - 1) {
        cr_host_log(f->scoring.host, CR_LOG_WARNING,
                    "prior precision %g is the %s that was tried: the validation file may be too small to choose",
                    f->trials[best].precision, best == 0 ? "smallest" : "largest");
    }
    f->set.precision = f->trials[best].precision;
    f->result.valid_nll[1] = f->trials[best].nll;
    f->chosen_by = "validation";
}

cr_status cr_laplace_choose(struct cr_laplace_fit *f, struct cr_error *err)
{
    const struct cr_adapter *adapter = f->scoring.sets.posteriors[0]->adapter;
    size_t n = cr_laplace_set_n_values(&f->set);
    f->values = cr_alloc(n, sizeof *f->values);
    if (f->values == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %zu eigenvalues", n);
    }
    cr_laplace_set_values(&f->set, f->values);
    for (size_t i = 0; i < adapter->n_params; i++) {
        f->norm2 += (double)adapter->params[i] * (double)adapter->params[i];
    }
    double evidence = cr_laplace_best_precision(f->values, n, f->norm2);
    f->set.precision = f->options.prior_precision > 0 ? f->options.prior_precision : evidence;
    f->chosen_by = f->options.prior_precision > 0 ? "given" : "evidence";
    f->result.valid_nll[0] = f->result.valid_nll[1] = (double)NAN;
    if (f->options.valid != NULL) {
        f->n_trials = CR_LAPLACE_TRIALS;
        for (size_t t = 0; t < CR_LAPLACE_TRIALS; t++) {
            f->trials[t] =
                (struct cr_laplace_trial){.precision = evidence * cr_pow(10, ((double)t - CR_LAPLACE_TRIALS / 2) / 2)};
        }
        f->result.valid_nll[0] = 0;
        CR_TRY(try_precisions(f, err));
        choose_trial(f);
    }
    f->result.evidence = cr_laplace_evidence(f->values, n, f->norm2, f->log_lik, 1 / f->set.precision);
    f->result.prior_precision = f->set.precision;
    return CR_OK;
}
