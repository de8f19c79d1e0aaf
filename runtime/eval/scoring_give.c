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

/* Share of the members whose answer is not that of the mean of their logits. */
static double disagreement(const struct cr_scoring *s, const float *logits, uint32_t n_choices)
{
    double mean[CR_LABELS_MAX];
    size_t differ = 0;
    for (uint32_t c = 0; c < n_choices; c++) {
        mean[c] = 0;
        for (size_t m = 0; m < s->sets.n; m++) {
            mean[c] += (double)logits[m * s->scratch_floats + c];
        }
    }
    size_t answer = cr_argmax(mean, n_choices);
    for (size_t m = 0; m < s->sets.n; m++) {
        const float *own = logits + m * s->scratch_floats;
        size_t best = 0;
        for (uint32_t c = 1; c < n_choices; c++) {
            best = own[c] > own[best] ? c : best;
        }
        differ += best != answer;
    }
    return (double)differ / (double)s->sets.n;
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
    double *probs = s->work, *nll = probs + n_members * CR_LABELS_MAX, *running = nll + n_members;
    for (size_t m = 0; m < n_members; m++) {
        for (uint32_t c = 0; c < n; c++) {
            wide[c] = (double)logits[m * s->scratch_floats + c];
            if (!isfinite(wide[c])) {
                return cr_scoring_not_finite(set, example, err);
            }
        }
        cr_softmax(wide, n, probs + m * n);
        nll[m] = cr_softmax_nll(wide, n, example->answer);
        running[m] = cr_mixture_nll(nll, m + 1);
    }
    if (linear != NULL) { /* one member: the mean over the logit draws */
        memcpy(probs, linear->probs, n * sizeof *probs);
        running[0] = -cr_ln(fmax(probs[example->answer], 0x1p-1022));
    }
    cr_mean_probs(probs, n_members, n, mean);
    double entropy = cr_entropy(mean, n);
    double expected = linear != NULL ? linear->expected_entropy : cr_expected_entropy(probs, n_members, n);
    double information =
        linear != NULL ? fmax(entropy - expected, 0) : cr_mutual_information(probs, n_members, n, mean);
    struct cr_score score = {.index = index,
                             .example = example,
                             .probs = mean,
                             .logits = n_members == 1 && linear == NULL ? logits : NULL,
                             .nll = running[n_members - 1],
                             .n_targets = 1,
                             .global = is_global(set, index),
                             .n_members = n_members,
                             .member_probs = probs,
                             .running_nll = running,
                             .entropy = entropy,
                             .expected_entropy = expected,
                             .mutual_information = information,
                             .disagreement = linear != NULL ? (double)NAN : disagreement(s, logits, n)};
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
    double *nll = s->work, *running = nll + n_members;
    for (size_t row = 0; row < s->batch.n_rows;) {
        uint32_t index = s->batch.example[s->batch.row_token[row]];
        struct cr_score score = {.index = index,
                                 .example = &set->data.examples[index],
                                 .global = is_global(set, index),
                                 .n_members = n_members,
                                 .running_nll = running,
                                 .entropy = (double)NAN,
                                 .expected_entropy = (double)NAN,
                                 .mutual_information = (double)NAN,
                                 .disagreement = (double)NAN};
        memset(running, 0, n_members * sizeof *running);
        while (row < s->batch.n_rows && s->batch.example[s->batch.row_token[row]] == index) {
            for (size_t m = 0; m < n_members; m++) {
                nll[m] = (double)s->scratch[m * s->scratch_floats + row];
                running[m] += cr_mixture_nll(nll, m + 1);
            }
            row++;
            score.n_targets++;
        }
        for (size_t m = 0; m < n_members; m++) {
            if (!isfinite(running[m])) {
                return cr_scoring_not_finite(set, score.example, err);
            }
        }
        score.nll = running[n_members - 1];
        CR_TRY(fn(ctx, &score, err));
    }
    return CR_OK;
}

cr_status cr_scoring_give(const struct cr_scoring *s, const struct cr_scoring_set *set, cr_score_fn *fn, void *ctx,
                          struct cr_error *err)
{
    return set->data.classification ? give_choices(s, set, fn, ctx, err) : give_texts(s, set, fn, ctx, err);
}
