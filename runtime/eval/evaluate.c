/* cr_eval: the figures of a file, for each task and for all of it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/eval/about.h"
#include "runtime/eval/ood.h"
#include "runtime/eval/scoring.h"
#include "runtime/eval/temperature.h"
#include "runtime/io/hash.h"
#include "runtime/metrics/diversity.h"
#include "runtime/metrics/metrics.h"
#include "runtime/metrics/outcome.h"
#include "runtime/metrics/result.h"
#include "runtime/thread/float_env.h"

/* Pairs grow with the square of the members. */
enum { COMPARED_MAX = 64 };

/* Outcomes after the first 1, 2, ... members: the last are those of the evaluation. */
struct keeper {
    struct cr_outcomes *running;   /* [n_members] */
    struct cr_outcomes calibrated; /* of all members at the fitted temperature; items NULL without one */
    size_t n_members;
    struct cr_diversity diversity;
};

/* What probabilities of the choices say of an example; `members` of those that they are the mean of, before any
 * temperature. */
static void set_choice(struct cr_outcome *o, const struct cr_score *score, const double *probs,
                       const struct cr_running *members)
{
    uint32_t n = score->example->n_choices;
    o->prediction = (uint32_t)cr_argmax(probs, n);
    o->confidence = probs[o->prediction];
    o->correct = o->prediction == score->example->answer;
    o->brier = cr_brier(probs, n, score->example->answer);
    o->entropy = members->doubt.entropy;
    o->expected_entropy = members->doubt.expected_entropy;
    o->mutual_information = members->doubt.mutual_information;
    o->disagreement = members->disagreement;
}

static struct cr_outcome *add_outcome(struct cr_outcomes *outcomes, const struct cr_score *score, double nll)
{
    struct cr_outcome *o = &outcomes->items[outcomes->n++];
    *o = (struct cr_outcome){.index = score->index,
                             .line = score->example->line,
                             .n_targets = (uint32_t)score->n_targets,
                             .task = score->example->task,
                             .nll = nll};
    return o;
}

static cr_status keep(void *ctx, const struct cr_score *score, struct cr_error *err)
{
    struct keeper *keeper = ctx;
    double mean[CR_LABELS_MAX];
    (void)err;
    for (size_t m = 0; m < keeper->n_members; m++) {
        struct cr_outcome *o = add_outcome(&keeper->running[m], score, score->running[m].nll);
        if (score->probs != NULL) {
            cr_mean_probs(score->member_probs, m + 1, score->example->n_choices, mean);
            set_choice(o, score, mean, &score->running[m]);
        }
    }
    if (score->calibrated != NULL) {
        struct cr_outcome *o = add_outcome(&keeper->calibrated, score, score->calibrated_nll);
        set_choice(o, score, score->calibrated, score->all);
        o->entropy = cr_entropy(score->calibrated, score->example->n_choices);
    }
    if (score->probs != NULL && keeper->n_members <= COMPARED_MAX) {
        cr_diversity_add(score->member_probs, keeper->n_members, score->example->n_choices, &keeper->diversity);
    }
    return CR_OK;
}

static cr_status make_outcomes(const struct cr_scoring *s, struct cr_outcomes *o, struct cr_error *err)
{
    o->classification = s->main.data.classification;
    o->n_bins = s->options.n_bins;
    o->items = cr_alloc(s->main.n, sizeof *o->items);
    return o->items != NULL
               ? CR_OK
               : cr_fail(err, CR_E_MEMORY, "no memory for %zu results of %zu members", s->main.n, s->sets.n);
}

static cr_status make_keeper(const struct cr_scoring *s, struct keeper *keeper, struct cr_error *err)
{
    keeper->running = cr_zalloc(s->sets.n, sizeof *keeper->running);
    if (keeper->running == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %zu results", s->sets.n);
    }
    keeper->n_members = s->sets.n;
    for (size_t m = 0; m < s->sets.n; m++) {
        CR_TRY(make_outcomes(s, &keeper->running[m], err));
    }
    return isfinite(s->temperature) ? make_outcomes(s, &keeper->calibrated, err) : CR_OK;
}

static void free_keeper(struct keeper *keeper)
{
    for (size_t m = 0; m < keeper->n_members; m++) {
        cr_free(keeper->running[m].items);
    }
    cr_free(keeper->running);
    cr_free(keeper->calibrated.items);
}

static cr_status measure_task(const struct cr_outcomes *all, int32_t task, const char *name,
                              struct cr_group_metrics *group, size_t *n, struct cr_error *err)
{
    struct cr_outcomes part;
    CR_TRY(cr_outcomes_of_task(all, task, &part, err));
    cr_status status = cr_outcomes_measure(&part, group, err);
    cr_free(part.items);
    snprintf(group->task, sizeof group->task, "%s", name);
    *n = part.n;
    return status;
}

/* One group a task that has examples, in the order in which the file names them. */
static cr_status measure_tasks(const struct cr_scoring *s, const struct keeper *keeper, struct cr_eval_result *r,
                               struct cr_error *err)
{
    const struct cr_dataset *data = &s->main.data;
    size_t n_members = keeper->n_members, n = 0;
    r->groups = cr_zalloc(data->n_tasks, sizeof *r->groups);
    if (r->groups == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %zu tasks", data->n_tasks);
    }
    for (size_t t = 0; t < data->n_tasks; t++) {
        struct cr_group_metrics *group = &r->groups[r->n_groups];
        struct cr_group_metrics *running = r->running != NULL ? &r->running[(1 + r->n_groups) * n_members] : group;
        for (size_t m = 0; m < n_members; m++) {
            CR_TRY(measure_task(&keeper->running[m], (int32_t)t, data->task_names[t], &running[m], &n, err));
        }
        *group = running[n_members - 1];
        if (r->calibrated != NULL && n > 0) {
            CR_TRY(measure_task(&keeper->calibrated, (int32_t)t, data->task_names[t], &r->calibrated[1 + r->n_groups],
                                &n, err));
        }
        r->n_groups += n > 0;
    }
    return CR_OK;
}

static cr_status measure(const struct cr_scoring *s, const struct keeper *keeper, struct cr_eval_result *r,
                         struct cr_error *err)
{
    size_t n_members = keeper->n_members;
    if (n_members > 1) {
        r->running = cr_zalloc((1 + s->main.data.n_tasks) * n_members, sizeof *r->running);
        if (r->running == NULL) {
            return cr_fail(err, CR_E_MEMORY, "no memory for the figures of %zu members", n_members);
        }
    }
    struct cr_group_metrics *running = r->running != NULL ? r->running : &r->all;
    for (size_t m = 0; m < n_members; m++) {
        CR_TRY(cr_outcomes_measure(&keeper->running[m], &running[m], err));
    }
    r->all = running[n_members - 1];
    if (keeper->calibrated.items != NULL) {
        r->calibrated = cr_zalloc(1 + s->main.data.n_tasks, sizeof *r->calibrated);
        if (r->calibrated == NULL) {
            return cr_fail(err, CR_E_MEMORY, "no memory for the figures of %zu tasks", s->main.data.n_tasks);
        }
        CR_TRY(cr_outcomes_measure(&keeper->calibrated, &r->calibrated[0], err));
    }
    return measure_tasks(s, keeper, r, err);
}

static cr_status write_report(const struct cr_scoring *s, const struct cr_evaluation *evaluation, struct cr_error *err)
{
    struct cr_kept kept = {0};
    struct cr_review_about about = {0};
    cr_status status = cr_scoring_about(s, evaluation->result, &kept, &about, err);
    if (status == CR_OK) {
        status = cr_review_write(&s->options, s->host, &about, evaluation, err);
    }
    cr_kept_free(&kept);
    return status;
}

/* Writes what was asked for. */
static cr_status write_files(const struct cr_scoring *s, const struct keeper *keeper,
                             const struct cr_ood_entropies *ood, const struct cr_eval_result *r, struct cr_error *err)
{
    const struct cr_dataset *data = &s->main.data;
    struct cr_evaluation evaluation = {.result = r,
                                       .outcomes = keeper->running[keeper->n_members - 1],
                                       .calibrated = keeper->calibrated,
                                       .task_names = (const char *const *)data->task_names,
                                       .n_tasks = data->n_tasks,
                                       .model = s->options.model,
                                       .data = s->options.data,
                                       .ood = *ood};
    cr_hex_128(evaluation.data_hash, (struct cr_hash128){.high = data->digest[0], .low = data->digest[1]});
    if (s->options.json != NULL) {
        CR_TRY(cr_result_write(&evaluation, &s->options, err));
    }
    return s->options.report != NULL ? write_report(s, &evaluation, err) : CR_OK;
}

static cr_status evaluate(struct cr_scoring *s, struct keeper *keeper, struct cr_ood_entropies *ood,
                          struct cr_eval_result *r, struct cr_error *err)
{
    r->temperature = (double)NAN;
    if (s->options.calibrate != NULL) {
        CR_TRY(cr_temperature_of(s, r->calibration_nll, err));
        r->temperature = s->temperature;
        r->n_calibration = s->calibration.n;
    }
    CR_TRY(make_keeper(s, keeper, err));
    CR_TRY(cr_scoring_run(s, &s->main, keep, keeper, err));
    const struct cr_outcomes *all = &keeper->running[keeper->n_members - 1];
    r->pair_disagreement = cr_diversity_disagreement(&keeper->diversity);
    r->pair_distance = cr_diversity_distance(&keeper->diversity);
    CR_TRY(measure(s, keeper, r, err));
    if (s->options.ood != NULL) {
        CR_TRY(cr_ood_measure(s, all, &r->ood, ood, err));
        r->has_ood = true;
    }
    r->classification = all->classification;
    r->n_global = s->main.n_global;
    CR_TRY(cr_outcomes_bora_ppl(all, s->main.data.n_tasks, &r->bora_perplexity, err));
    r->samples = s->sets.logit_draws > 0 ? s->sets.logit_draws : s->sets.samples;
    r->n_members = keeper->n_members;
    r->tokens = s->tokens;
    r->seconds = s->seconds;
    r->tok_s = s->seconds > 0 ? (double)s->tokens / s->seconds : 0;
    memcpy(r->method, s->sets.method, sizeof r->method);
    return CR_OK;
}

cr_status cr_eval(const struct cr_eval_options *options, const struct cr_host *host, struct cr_eval_result *result,
                  struct cr_error *err)
{
    struct cr_scoring scoring = {.keeps = true};
    struct keeper keeper = {0};
    struct cr_ood_entropies ood = {0};
    struct cr_eval_result made = {0};
    uint64_t saved = cr_float_env_enter();
    cr_status status = cr_scoring_open(options, host, &scoring, err);
    if (status == CR_OK) {
        status = evaluate(&scoring, &keeper, &ood, &made, err);
    }
    bool complete = status == CR_OK;
    if (complete) {
        status = write_files(&scoring, &keeper, &ood, &made, err);
    }
    cr_float_env_leave(saved);
    cr_ood_entropies_deinit(&ood);
    free_keeper(&keeper);
    cr_scoring_close(&scoring);
    if (complete && (status == CR_OK || status == CR_E_IO) && result != NULL) {
        *result = made;
    } else {
        cr_eval_result_deinit(&made);
    }
    return status;
}

void cr_eval_result_deinit(struct cr_eval_result *result)
{
    if (result != NULL) {
        cr_free(result->groups);
        cr_free(result->running);
        cr_free(result->calibrated);
        result->groups = NULL;
        result->running = NULL;
        result->calibrated = NULL;
        result->n_groups = 0;
    }
}
