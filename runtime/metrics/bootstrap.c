/* How far the figures of a group would move with other examples of the same kind. */
#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/host.h"
#include "runtime/metrics/calibrate.h"
#include "runtime/metrics/metrics.h"
#include "runtime/metrics/outcome.h"

/* Kinds of draws (calibrate.h) below are those of comparisons. */
enum { FIRST_STREAM = 2, FLOOR_DRAWS = 500 };

void cr_outcomes_bins(const struct cr_outcomes *outcomes, const uint32_t *at, uint16_t *bin_of)
{
    for (size_t i = 0; i < outcomes->n && outcomes->classification; i++) {
        const struct cr_outcome *o = &outcomes->items[at != NULL ? at[i] : i];
        bin_of[i] = (uint16_t)cr_bin_of(o->confidence, outcomes->n_bins, CR_BIN_RIGHT_CLOSED);
    }
}

cr_status cr_outcomes_ece_floor(const struct cr_outcomes *outcomes, const uint32_t *at, uint64_t seed, double *out,
                                struct cr_error *err)
{
    if (!outcomes->classification) {
        *out = (double)NAN;
        return CR_OK;
    }
    double *confidence = cr_alloc(outcomes->n, sizeof *confidence);
    if (confidence == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %zu confidences", outcomes->n);
    }
    for (size_t i = 0; i < outcomes->n; i++) {
        confidence[i] = outcomes->items[at != NULL ? at[i] : i].confidence;
    }
    cr_status status = cr_ece_floor(confidence, outcomes->n, outcomes->n_bins, seed, FLOOR_DRAWS, out, err);
    cr_free(confidence);
    return status;
}

void cr_outcomes_weigh(const struct cr_outcomes *outcomes, const uint32_t *at, const uint32_t *times,
                       const uint16_t *bin_of, struct cr_bin *bins, double *figures)
{
    double n = 0, n_targets = 0, right = 0, nll = 0, brier = 0;
    bool choices = outcomes->classification;
    memset(bins, 0, (outcomes->n_bins + 1) * sizeof *bins);
    for (size_t i = 0; i < outcomes->n; i++) {
        const struct cr_outcome *o = &outcomes->items[at != NULL ? at[i] : i];
        double often = times[i];
        n += often;
        n_targets += often * o->n_targets;
        nll += often * o->nll;
        if (choices) {
            struct cr_bin *bin = &bins[bin_of[i]];
            bin->n += times[i];
            bin->confidence += often * o->confidence;
            bin->correct += often * o->correct;
            right += often * o->correct;
            brier += often * o->brier;
        }
    }
    figures[CR_FIGURE_NLL] = nll / n_targets;
    figures[CR_FIGURE_ACCURACY] = choices ? right / n : (double)NAN;
    figures[CR_FIGURE_BRIER] = choices ? brier / n : (double)NAN;
    figures[CR_FIGURE_ECE] = choices ? cr_bins_ece(bins, outcomes->n_bins) : (double)NAN;
}

static void percentiles(double *values, double out[2])
{
    struct cr_estimate made;
    cr_interval(values, CR_BOOTSTRAP, 0.95, &made);
    out[0] = made.low;
    out[1] = made.high;
}

static void summarise(const struct cr_outcomes *outcomes, double ece, double (*values)[CR_BOOTSTRAP],
                      struct cr_intervals *out)
{
    percentiles(values[CR_FIGURE_NLL], out->nll);
    if (outcomes->classification) {
        percentiles(values[CR_FIGURE_ACCURACY], out->accuracy);
        struct cr_estimate around;
        cr_interval_around(ece, values[CR_FIGURE_ECE], CR_BOOTSTRAP, 0.95, &around);
        out->ece[0] = fmax(around.low, 0);
        out->ece[1] = around.high;
        percentiles(values[CR_FIGURE_BRIER], out->brier);
    } else {
        for (int side = 0; side < 2; side++) {
            out->perplexity[side] = cr_perplexity(out->nll[side], 1);
        }
    }
}

cr_status cr_outcomes_bootstrap(const struct cr_outcomes *outcomes, uint64_t seed, uint32_t stream,
                                const struct cr_host *host, struct cr_intervals *out, struct cr_error *err)
{
    double nan = (double)NAN;
    struct cr_intervals made = {{nan, nan}, {nan, nan}, {nan, nan}, {nan, nan}, {nan, nan}};
    cr_status status = CR_OK;
    double(*values)[CR_BOOTSTRAP] = cr_alloc(CR_N_FIGURES, sizeof *values);
    uint16_t *bin_of = cr_alloc(outcomes->n, sizeof *bin_of);
    uint32_t *times = cr_alloc(outcomes->n, sizeof *times);
    struct cr_bin *bins = cr_alloc(outcomes->n_bins + 1, sizeof *bins);
    if (values == NULL || bin_of == NULL || times == NULL || bins == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for resamples of %zu examples", outcomes->n);
        goto out;
    }
    cr_outcomes_bins(outcomes, NULL, bin_of);
    for (uint32_t r = 0; r < CR_BOOTSTRAP && outcomes->n > 0; r++) {
        double figures[CR_N_FIGURES];
        if (cr_host_stopped(host)) {
            status = cr_fail(err, CR_E_STOPPED, "stopped while computing intervals");
            goto out;
        }
        cr_resample(seed, r, FIRST_STREAM + stream, outcomes->n, times);
        cr_outcomes_weigh(outcomes, NULL, times, bin_of, bins, figures);
        for (int f = 0; f < CR_N_FIGURES; f++) {
            values[f][r] = figures[f];
        }
    }
    if (outcomes->n > 0) {
        struct cr_group_metrics all;
        CR_TRY_OUT(status, cr_outcomes_measure(outcomes, &all, err));
        summarise(outcomes, all.ece, values, &made);
    }
    *out = made;
out:
    cr_free(values);
    cr_free(bin_of);
    cr_free(times);
    cr_free(bins);
    return status;
}
