#include "runtime/metrics/outcome.h"

#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/metrics/metrics.h"

/* Documents of a batch in the paper's runs. */
enum { BORA_BATCH = 64 };

cr_status cr_outcomes_of_task(const struct cr_outcomes *all, int32_t task, struct cr_outcomes *out,
                              struct cr_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < all->n; i++) {
        n += all->items[i].task == task;
    }
    struct cr_outcome *items = cr_alloc(n, sizeof *items);
    if (items == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %zu results", n);
    }
    n = 0;
    for (size_t i = 0; i < all->n; i++) {
        if (all->items[i].task == task) {
            items[n++] = all->items[i];
        }
    }
    *out = *all;
    out->items = items;
    out->n = n;
    return CR_OK;
}

static double mean(double sum, size_t n)
{
    return n > 0 ? sum / (double)n : (double)NAN;
}

static void measure_texts(const struct cr_outcomes *outcomes, struct cr_group_metrics *m)
{
    double nll = 0;
    m->n = 0;
    for (size_t i = 0; i < outcomes->n; i++) {
        nll += outcomes->items[i].nll;
        m->n += outcomes->items[i].n_targets;
    }
    m->nll = mean(nll, (size_t)m->n);
    m->perplexity = cr_perplexity(nll, m->n);
}

static void measure_choices(const struct cr_outcomes *outcomes, struct cr_bin *bins, struct cr_scored *scored,
                            struct cr_group_metrics *m)
{
    double right = 0, nll = 0, brier = 0, entropy = 0, expected = 0, information = 0, disagreement = 0;
    memset(bins, 0, (outcomes->n_bins + 1) * sizeof *bins);
    for (size_t i = 0; i < outcomes->n; i++) {
        const struct cr_outcome *o = &outcomes->items[i];
        struct cr_bin *bin = &bins[cr_bin_of(o->confidence, outcomes->n_bins, CR_BIN_RIGHT_CLOSED)];
        bin->n++;
        bin->confidence += o->confidence;
        bin->correct += o->correct;
        right += o->correct;
        nll += o->nll;
        brier += o->brier;
        entropy += o->entropy;
        expected += o->expected_entropy;
        information += o->mutual_information;
        disagreement += o->disagreement;
        scored[i] = (struct cr_scored){.score = 1 - o->confidence, .positive = !o->correct};
    }
    m->n = outcomes->n;
    m->accuracy = mean(right, outcomes->n);
    m->nll = mean(nll, outcomes->n);
    m->brier = mean(brier, outcomes->n);
    m->entropy = mean(entropy, outcomes->n);
    m->expected_entropy = mean(expected, outcomes->n);
    m->mutual_information = mean(information, outcomes->n);
    m->disagreement = mean(disagreement, outcomes->n);
    m->ece = cr_bins_ece(bins, outcomes->n_bins);
    m->auroc_error = cr_auroc(scored, outcomes->n);
}

cr_status cr_outcomes_measure(const struct cr_outcomes *outcomes, struct cr_group_metrics *out, struct cr_error *err)
{
    out->accuracy = out->nll = out->ece = out->brier = out->auroc_error = out->perplexity = (double)NAN;
    out->entropy = out->expected_entropy = out->mutual_information = out->disagreement = (double)NAN;
    if (!outcomes->classification) {
        measure_texts(outcomes, out);
        return CR_OK;
    }
    struct cr_bin *bins = cr_alloc(outcomes->n_bins + 1, sizeof *bins);
    struct cr_scored *scored = cr_alloc(outcomes->n, sizeof *scored);
    cr_status status = CR_OK;
    if (bins != NULL && scored != NULL) {
        measure_choices(outcomes, bins, scored, out);
    } else {
        status = cr_fail(err, CR_E_MEMORY, "no memory for the figures of %zu examples", outcomes->n);
    }
    cr_free(bins);
    cr_free(scored);
    return status;
}

cr_status cr_outcomes_bora_ppl(const struct cr_outcomes *outcomes, size_t n_tasks, double *out, struct cr_error *err)
{
    *out = (double)NAN;
    if (outcomes->classification || n_tasks == 0) {
        return CR_OK;
    }
    size_t n_batches = outcomes->n / BORA_BATCH + (outcomes->n % BORA_BATCH != 0);
    struct cr_task_nll *parts = cr_zalloc(n_batches * n_tasks, sizeof *parts);
    if (parts == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the perplexity of %zu tasks", n_tasks);
    }
    for (size_t i = 0; i < outcomes->n; i++) {
        const struct cr_outcome *o = &outcomes->items[i];
        if (o->task >= 0) {
            struct cr_task_nll *part = &parts[i / BORA_BATCH * n_tasks + (size_t)o->task];
            part->nll += o->nll;
            part->n_tokens += o->n_targets;
        }
    }
    *out = cr_task_perplexity(parts, n_batches, n_tasks);
    cr_free(parts);
    return CR_OK;
}

void cr_ood_entropies_deinit(struct cr_ood_entropies *entropies)
{
    cr_free(entropies->in);
    cr_free(entropies->out);
    *entropies = (struct cr_ood_entropies){0};
}

double *cr_figure_in(struct cr_group_metrics *group, enum cr_figure figure)
{
    return figure == CR_FIGURE_ACCURACY ? &group->accuracy
           : figure == CR_FIGURE_NLL    ? &group->nll
           : figure == CR_FIGURE_ECE    ? &group->ece
                                        : &group->brier;
}
