/* How far the figures of a group would move with other examples of the same kind. */
#include <math.h>
#include <string.h>

#include "credence/kernels/rng.h"
#include "runtime/core/alloc.h"
#include "runtime/core/host.h"
#include "runtime/metrics/calibrate.h"
#include "runtime/metrics/metrics.h"
#include "runtime/metrics/outcome.h"

enum { ACCURACY, NLL, ECE, BRIER, N_FIGURES };

/* Second key word, so that resamples share no stream with other uses of the seed. */
enum { RESAMPLE_STREAM = 0x626f6f74 };

/* Draws of one resample: word i % 4 of counter (i / 4, resample, stream, 0), scaled to [0, n) by the high half of the
 * product; a bias of n / 2^32 at most. */
struct draws {
    uint32_t key[2], counter[4], words[4];
    unsigned left;
};

static uint32_t draw(struct draws *d, uint32_t n)
{
    if (d->left == 0) {
        cr_philox4x32(d->counter, d->key, d->words);
        d->counter[0]++;
        d->left = 4;
    }
    return (uint32_t)(((uint64_t)d->words[4 - d->left--] * n) >> 32);
}

static void resample(const struct cr_outcomes *outcomes, const uint16_t *bin_of, struct cr_bin *bins, struct draws *d,
                     double *figures)
{
    double right = 0, nll = 0, brier = 0;
    uint64_t n_targets = 0;
    memset(bins, 0, (outcomes->n_bins + 1) * sizeof *bins);
    for (size_t i = 0; i < outcomes->n; i++) {
        uint32_t at = draw(d, (uint32_t)outcomes->n);
        const struct cr_outcome *o = &outcomes->items[at];
        nll += o->nll;
        n_targets += o->n_targets;
        if (outcomes->classification) {
            struct cr_bin *bin = &bins[bin_of[at]];
            bin->n++;
            bin->confidence += o->confidence;
            bin->correct += o->correct;
            right += o->correct;
            brier += o->brier;
        }
    }
    figures[ACCURACY] = right / (double)outcomes->n;
    figures[NLL] = nll / (double)n_targets;
    figures[ECE] = cr_bins_ece(bins, outcomes->n_bins);
    figures[BRIER] = brier / (double)outcomes->n;
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
    percentiles(values[NLL], out->nll);
    if (outcomes->classification) {
        percentiles(values[ACCURACY], out->accuracy);
        struct cr_estimate around;
        cr_interval_around(ece, values[ECE], CR_BOOTSTRAP, 0.95, &around);
        out->ece[0] = fmax(around.low, 0);
        out->ece[1] = around.high;
        percentiles(values[BRIER], out->brier);
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
    double(*values)[CR_BOOTSTRAP] = cr_alloc(N_FIGURES, sizeof *values);
    uint16_t *bin_of = cr_alloc(outcomes->n, sizeof *bin_of);
    struct cr_bin *bins = cr_alloc(outcomes->n_bins + 1, sizeof *bins);
    if (values == NULL || bin_of == NULL || bins == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for resamples of %zu examples", outcomes->n);
        goto out;
    }
    for (size_t i = 0; i < outcomes->n && outcomes->classification; i++) {
        bin_of[i] = (uint16_t)cr_bin_of(outcomes->items[i].confidence, outcomes->n_bins, CR_BIN_RIGHT_CLOSED);
    }
    for (uint32_t r = 0; r < CR_BOOTSTRAP && outcomes->n > 0; r++) {
        double figures[N_FIGURES];
        struct draws d = {.key = {(uint32_t)seed, (uint32_t)RESAMPLE_STREAM}, .counter = {0, r, stream, 0}};
        if (cr_host_stopped(host)) {
            status = cr_fail(err, CR_E_STOPPED, "stopped while computing intervals");
            goto out;
        }
        resample(outcomes, bin_of, bins, &d, figures);
        for (int f = 0; f < N_FIGURES; f++) {
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
    cr_free(bins);
    return status;
}
