/* Batches of examples through the model with every set of weights. */
#include "runtime/eval/scoring_parts.h"

#include <math.h>
#include <string.h>

#include "runtime/core/clock.h"
#include "runtime/core/host.h"
#include "runtime/thread/machine.h"
#include "runtime/thread/memory.h"

/* How many of the examples from `done` on go into one pass. */
static size_t take(const struct cr_scoring *s, const struct cr_scoring_set *set, size_t done)
{
    size_t n = cr_batch_take(&set->data, set->order + done, set->n - done);
    return s->options.batch_size > 0 && n > s->options.batch_size ? s->options.batch_size : n;
}

/* seconds: of the passes over this set so far. */
static void report(const struct cr_scoring *s, double seconds, size_t total, size_t done, size_t before)
{
    struct cr_progress progress = cr_progress_of("eval");
    progress.step = done;
    progress.n_steps = total;
    progress.tokens = s->tokens;
    progress.tok_s = s->seconds > 0 ? (double)s->tokens / s->seconds : (double)NAN;
    progress.eta_s = seconds / (double)done * (double)(total - done);
    progress.report = done * 10 / total != before * 10 / total; /* ten lines, whatever the length */
    if (progress.report) {
        progress.rss_mb = (double)cr_machine_rss() / CR_MIB;
    }
    cr_host_progress(s->host, &progress);
}

static cr_status run_engine(struct cr_scoring *s, bool classification, const struct cr_token_batch *batch, float *out,
                            struct cr_error *err)
{
    return classification ? cr_engine_label_logits(s->engine, batch, out, err)
                          : cr_engine_token_nll(s->engine, batch, out, err);
}

/* The examples order[0 ... n-1], which are in s->batch, through every set of weights: so many sets at once as fit. */
static cr_status pass(struct cr_scoring *s, const struct cr_scoring_set *set, const uint32_t *order, size_t n,
                      struct cr_error *err)
{
    bool classification = set->data.classification;
    size_t fit = s->shared.max_tokens / cr_batch_part_tokens(&set->data, order, n);
    size_t n_floats = s->batch.n_rows * (classification ? s->n_labels : 1);
    float *together = s->scratch + s->sets.n * s->scratch_floats;
    for (size_t m = 0, n_members; m < s->sets.n; m += n_members) {
        size_t left = s->sets.n - m;
        n_members = fit < s->sets.n_shown ? fit : s->sets.n_shown;
        n_members = left < n_members ? left : n_members;
        if (!s->differentiates) { /* else the engine has the one set there is */
            cr_sets_show(&s->sets, m, n_members, s->engine);
        }
        if (n_members == 1) {
            CR_TRY(run_engine(s, classification, &s->batch, s->scratch + m * s->scratch_floats, err));
            continue;
        }
        cr_batch_clear(&s->shared);
        for (uint32_t i = 0; i < n_members; i++) {
            cr_batch_add_part(&s->shared, i, &set->data, order, n, 1.0f);
        }
        CR_TRY(run_engine(s, classification, &s->shared, together, err));
        for (size_t i = 0; i < n_members; i++) {
            memcpy(s->scratch + (m + i) * s->scratch_floats, together + i * n_floats, n_floats * sizeof *together);
        }
    }
    return CR_OK;
}

/* The results of s->shared, example by example, to where s->batch has them. */
static void scatter(struct cr_scoring *s, const float *results, size_t n_floats)
{
    for (size_t row = 0; row < s->shared.n_rows; row++) {
        uint32_t *to = &s->row_of[s->shared.example[s->shared.row_token[row]]];
        memcpy(s->scratch + (*to)++ * n_floats, results + row * n_floats, n_floats * sizeof *results);
    }
}

/* The same, each example through the set of its task. */
static cr_status pass_by_task(struct cr_scoring *s, const struct cr_scoring_set *set, const uint32_t *order, size_t n,
                              struct cr_error *err)
{
    bool classification = set->data.classification;
    float *results = s->scratch + s->scratch_floats;
    for (size_t row = s->batch.n_rows; row-- > 0;) {
        s->row_of[s->batch.example[s->batch.row_token[row]]] = (uint32_t)row; /* in the end its first */
    }
    cr_batch_sort(&set->data, set->set_of, (uint32_t)s->sets.n_shown, order, n, s->sorted);
    cr_sets_show(&s->sets, 0, s->sets.n_shown, s->engine);
    for (size_t done = 0; done < n;) {
        done += cr_batch_fill_sorted(&s->shared, &set->data, set->set_of, s->sorted + done, n - done, 1.0f);
        CR_TRY(run_engine(s, classification, &s->shared, results, err));
        scatter(s, results, classification ? s->n_labels : 1);
    }
    return CR_OK;
}

/* What the linearised model says of the examples in s->batch, whose logits are in s->scratch. */
static cr_status linearise(struct cr_scoring *s, const struct cr_scoring_set *set, const uint32_t *order, size_t n,
                           struct cr_error *err)
{
    const struct cr_posterior *p = s->linear != NULL ? s->sets.posteriors[0] : NULL;
    for (size_t done = 0, taken; p != NULL && done < n; done += taken) {
        taken = cr_jacobian_take(&s->jacobian, &set->data, order + done, n - done);
        CR_TRY(cr_jacobian_run(&s->jacobian, s->engine, &s->shared, &set->data, order + done, taken, err));
        const float *rows = s->jacobian.grads;
        struct cr_linear_question q = {.set = &p->laplace,
                                       .rng = &p->rng,
                                       .s2 = 1 / p->laplace.precision,
                                       .temperature = s->sets.temperature,
                                       .seed = s->options.seed,
                                       .n_draws = s->sets.logit_draws};
        for (size_t i = done; i < done + taken; i++) {
            const struct cr_example *example = &set->data.examples[order[i]];
            if (!cr_linear_answer(&q, order[i], s->scratch + i * s->n_labels, rows, s->jacobian.n_params,
                                  example->n_choices, &s->linear[i])) {
                return cr_scoring_not_finite(set, example, err);
            }
            rows += example->n_choices * s->jacobian.n_params;
        }
    }
    return CR_OK;
}

cr_status cr_scoring_unchanged(const struct cr_scoring *s, struct cr_error *err)
{
    return cr_gguf_changed(s->model->gguf)
               ? cr_fail(err, CR_E_IO, "%s: the model file changed while in use", s->model->path)
               : CR_OK;
}

cr_status cr_scoring_run(struct cr_scoring *s, const struct cr_scoring_set *set, cr_score_fn *fn, void *ctx,
                         struct cr_error *err)
{
    double earlier = s->seconds; /* of other sets */
    for (size_t done = 0; done < set->n;) {
        if (cr_host_stopped(s->host)) {
            return cr_fail(err, CR_E_STOPPED, "stopped after %zu of %zu examples", done, set->n);
        }
        uint64_t start = cr_clock_ns();
        size_t n = take(s, set, done);
        cr_batch_fill(&s->batch, &set->data, set->order + done, n, 1.0f);
        CR_TRY(s->sets.by_task ? pass_by_task(s, set, set->order + done, n, err)
                               : pass(s, set, set->order + done, n, err));
        CR_TRY(linearise(s, set, set->order + done, n, err));
        s->seconds += cr_clock_since(start);
        s->tokens += s->batch.n_tokens;
        CR_TRY(cr_scoring_unchanged(s, err));
        CR_TRY(cr_scoring_give(s, set, fn, ctx, err));
        done += n;
        report(s, s->seconds - earlier, set->n, done, done - n);
    }
    return CR_OK;
}
