/* Scores of examples from what the engine left of a batch. */
#include "runtime/eval/scoring_parts.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "credence/kernels/math.h"
#include "runtime/eval/temperature.h"
#include "runtime/metrics/metrics.h"

cr_status cr_scoring_not_finite(const struct cr_scoring_set *set, const struct cr_example *example,
                                struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    return cr_fail(err, CR_E_DIVERGED, "%s:%" PRIu64 ": the model's output is not a finite number",
                   cr_escape(shown, sizeof shown, set->path, strlen(set->path)), example->line);
}

/* The first 1, 2, ... members: probs [n_members][n], nll [n_members] of the answer. Sums go on from member to member,
 * in their order, so that the figures are those of an evaluation with as many members. */
static void set_running(const struct cr_scoring *s, const float *logits, const double *probs, const double *nll,
                        uint32_t n, struct cr_running *running)
{
    double sum[CR_LABELS_MAX] = {0}, logit_sum[CR_LABELS_MAX] = {0}, entropies = 0;
    size_t answers[CR_LABELS_MAX] = {0}; /* how many members give each */
    for (size_t m = 0; m < s->sets.n; m++) {
        const float *own = logits + m * s->scratch_floats;
        size_t best = 0;
        for (uint32_t c = 0; c < n; c++) {
            logit_sum[c] += (double)own[c];
            best = own[c] > own[best] ? c : best;
        }
        answers[best]++;
        running[m] = (struct cr_running){.nll = cr_mixture_nll(nll, m + 1),
                                         .doubt = cr_doubt_add(probs + m * n, n, m + 1, sum, &entropies)};
        running[m].disagreement = (double)(m + 1 - answers[cr_argmax(logit_sum, n)]) / (double)(m + 1);
    }
}

/* One member: the mean over the logit draws, whose probabilities these are. */
static void set_linear(const struct cr_linear_answer *linear, uint32_t n, uint32_t answer, struct cr_running *running)
{
    double entropy = cr_entropy(linear->probs, n);
    *running =
        (struct cr_running){.nll = -cr_ln(fmax(linear->probs[answer], 0x1p-1022)),
                            .doubt = {entropy, linear->expected_entropy, fmax(entropy - linear->expected_entropy, 0)},
                            .disagreement = (double)NAN};
}

/* By task, of an unknown one. */
static bool is_global(const struct cr_scoring_set *set, uint32_t index)
{
    return set->set_of != NULL && set->set_of[set->data.examples[index].task + 1] == 0;
}

/* One row an example. logits: of the first member; the others follow at scratch_floats. */
static cr_status give_choice(const struct cr_scoring *s, const struct cr_scoring_set *set, uint32_t index,
                             const float *logits, const struct cr_linear_answer *linear, cr_score_fn *fn, void *ctx,
                             struct cr_error *err)
{
    const struct cr_example *example = &set->data.examples[index];
    uint32_t n = example->n_choices;
    size_t n_members = s->sets.n;
    double wide[CR_LABELS_MAX], mean[CR_LABELS_MAX], calibrated[CR_LABELS_MAX];
    double *probs = s->work, *nll = probs + n_members * CR_LABELS_MAX;
    for (size_t m = 0; m < n_members; m++) {
        for (uint32_t c = 0; c < n; c++) {
            wide[c] = (double)logits[m * s->scratch_floats + c];
            if (!isfinite(wide[c])) {
                return cr_scoring_not_finite(set, example, err);
            }
        }
        cr_softmax(wide, n, probs + m * n);
        nll[m] = cr_softmax_nll(wide, n, example->answer);
    }
    if (linear != NULL) {
        memcpy(probs, linear->probs, n * sizeof *probs);
        set_linear(linear, n, example->answer, s->running);
    } else {
        set_running(s, logits, probs, nll, n, s->running);
    }
    cr_mean_probs(probs, n_members, n, mean);
    struct cr_score score = {.index = index,
                             .example = example,
                             .probs = mean,
                             .logits = n_members == 1 && linear == NULL ? logits : NULL,
                             .n_targets = 1,
                             .global = is_global(set, index),
                             .n_members = n_members,
                             .member_probs = probs,
                             .running = s->running,
                             .all = &s->running[n_members - 1]};
    if (isfinite(s->temperature)) {
        cr_temperature_apply(s->temperature, &score, calibrated, &score.calibrated_nll);
        score.calibrated = calibrated;
    }
    return fn(ctx, &score, err);
}

static cr_status give_choices(const struct cr_scoring *s, const struct cr_scoring_set *set, cr_score_fn *fn, void *ctx,
                              struct cr_error *err)
{
    for (size_t row = 0; row < s->batch.n_rows; row++) {
        uint32_t index = s->batch.example[s->batch.row_token[row]];
        const struct cr_linear_answer *linear = s->linear != NULL ? &s->linear[row] : NULL;
        CR_TRY(give_choice(s, set, index, s->scratch + row * s->n_labels, linear, fn, ctx, err));
    }
    return CR_OK;
}

/* The rows of an example follow each other; its sum is taken in the order of its tokens. A token's probability is the
 * mean over the members. */
static cr_status give_texts(const struct cr_scoring *s, const struct cr_scoring_set *set, cr_score_fn *fn, void *ctx,
                            struct cr_error *err)
{
    size_t n_members = s->sets.n;
    double *nll = s->work;
    const struct cr_running none = {0, {(double)NAN, (double)NAN, (double)NAN}, (double)NAN};
    for (size_t row = 0; row < s->batch.n_rows;) {
        uint32_t index = s->batch.example[s->batch.row_token[row]];
        struct cr_score score = {.index = index,
                                 .example = &set->data.examples[index],
                                 .global = is_global(set, index),
                                 .n_members = n_members,
                                 .running = s->running,
                                 .all = &s->running[n_members - 1]};
        for (size_t m = 0; m < n_members; m++) {
            s->running[m] = none;
        }
        while (row < s->batch.n_rows && s->batch.example[s->batch.row_token[row]] == index) {
            for (size_t m = 0; m < n_members; m++) {
                nll[m] = (double)s->scratch[m * s->scratch_floats + row];
                s->running[m].nll += cr_mixture_nll(nll, m + 1);
            }
            row++;
            score.n_targets++;
        }
        for (size_t m = 0; m < n_members; m++) {
            if (!isfinite(s->running[m].nll)) {
                return cr_scoring_not_finite(set, score.example, err);
            }
        }
        CR_TRY(fn(ctx, &score, err));
    }
    return CR_OK;
}

cr_status cr_scoring_give(const struct cr_scoring *s, const struct cr_scoring_set *set, cr_score_fn *fn, void *ctx,
                          struct cr_error *err)
{
    return set->data.classification ? give_choices(s, set, fn, ctx, err) : give_texts(s, set, fn, ctx, err);
}
