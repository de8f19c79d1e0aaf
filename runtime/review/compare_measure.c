/* Paired resamples: figures and differences of all contenders under the same seeds and examples. */
#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/host.h"
#include "runtime/metrics/metrics.h"
#include "runtime/review/compare.h"

/* What resamples of a group are made of. */
struct work {
    uint32_t *seeds, *examples; /* owned: how often each is taken */
    struct cr_bin *bins;        /* owned */
    uint16_t *bin_of;           /* owned: [n_contenders][n_seeds][n] */
    double *values;             /* owned: [2][n_contenders][CR_N_FIGURES][CR_COMPARE_DRAWS] figures, then differences */
};

static double *values_of(const struct work *w, const struct cr_comparison *c, size_t contender, int figure,
                         bool difference)
{
    size_t row = ((difference ? c->n_contenders : 0) + contender) * CR_N_FIGURES + (size_t)figure;
    return w->values + row * CR_COMPARE_DRAWS;
}

/* The examples of a group in one run. */
static struct cr_outcomes part_of(const struct cr_comparison *c, const struct cr_compared_group *g, size_t contender,
                                  size_t seed)
{
    return (struct cr_outcomes){.items = c->contenders[contender].runs[seed].items,
                                .n = g->n,
                                .classification = c->classification,
                                .n_bins = CR_BINS_DEFAULT};
}

/* Mean over the seeds, each as often as it was drawn. */
static void figures_of(const struct cr_comparison *c, const struct cr_compared_group *g, size_t contender,
                       struct work *w, double *figures)
{
    for (int f = 0; f < CR_N_FIGURES; f++) {
        figures[f] = 0;
    }
    for (size_t s = 0; s < c->n_seeds; s++) {
        double one[CR_N_FIGURES];
        if (w->seeds[s] == 0) {
            continue;
        }
        struct cr_outcomes part = part_of(c, g, contender, s);
        cr_outcomes_weigh(&part, g->items, w->examples, w->bin_of + (contender * c->n_seeds + s) * g->n, w->bins, one);
        for (int f = 0; f < CR_N_FIGURES; f++) {
            figures[f] += one[f] * w->seeds[s] / (double)c->n_seeds;
        }
    }
}

static void take(const struct cr_comparison *c, const struct cr_compared_group *g, size_t draw, struct work *w)
{
    double first[CR_N_FIGURES], figures[CR_N_FIGURES];
    for (size_t m = 0; m < c->n_contenders; m++) {
        figures_of(c, g, m, w, figures);
        if (m == 0) {
            memcpy(first, figures, sizeof first);
        }
        for (int f = 0; f < CR_N_FIGURES; f++) {
            values_of(w, c, m, f, false)[draw] = figures[f];
            values_of(w, c, m, f, true)[draw] = figures[f] - first[f];
        }
    }
}

/* The figures themselves: everything once. */
static void set_means(const struct cr_comparison *c, const struct cr_compared_group *g, struct work *w)
{
    for (size_t i = 0; i < g->n; i++) {
        w->examples[i] = 1;
    }
    for (size_t s = 0; s < c->n_seeds; s++) {
        w->seeds[s] = 1;
    }
    for (size_t m = 0; m < c->n_contenders; m++) {
        double figures[CR_N_FIGURES];
        figures_of(c, g, m, w, figures);
        for (int f = 0; f < CR_N_FIGURES; f++) {
            g->of[m].figures[f].mean = figures[f];
            g->of[m].differences[f].mean = g->of[m].narrow[f].mean = figures[f] - g->of[0].figures[f].mean;
        }
    }
}

static cr_status set_floors(const struct cr_comparison *c, struct cr_compared_group *g, struct cr_error *err)
{
    for (size_t m = 0; m < c->n_contenders; m++) {
        g->of[m].floor = 0;
        for (size_t s = 0; s < c->n_seeds; s++) {
            struct cr_outcomes part = part_of(c, g, m, s);
            double floor;
            CR_TRY(cr_outcomes_ece_floor(&part, g->items, c->options.seed + s, &floor, err));
            g->of[m].floor += floor / (double)c->n_seeds;
        }
    }
    return CR_OK;
}

/* Ends of the interval of a figure or difference whose mean is known. */
static void set_interval(int figure, double *values, double level, struct cr_estimate *out)
{
    if (figure == CR_FIGURE_ECE) {
        cr_interval_around(out->mean, values, CR_COMPARE_DRAWS, level, out);
    } else {
        cr_interval(values, CR_COMPARE_DRAWS, level, out);
    }
}

static void set_intervals(const struct cr_comparison *c, const struct cr_compared_group *g, struct work *w)
{
    for (size_t m = 0; m < c->n_contenders; m++) {
        for (int f = 0; f < CR_N_FIGURES; f++) {
            double *differences = values_of(w, c, m, f, true);
            set_interval(f, values_of(w, c, m, f, false), 0.95, &g->of[m].figures[f]);
            set_interval(f, differences, 0.95, &g->of[m].differences[f]);
            set_interval(f, differences, 0.90, &g->of[m].narrow[f]);
        }
        struct cr_estimate *ece = &g->of[m].figures[CR_FIGURE_ECE];
        ece->low = c->classification ? fmax(ece->low, 0) : ece->low;
    }
}

static cr_status make_work(const struct cr_comparison *c, const struct cr_compared_group *g, struct work *w,
                           struct cr_error *err)
{
    size_t n_runs = c->n_contenders * c->n_seeds;
    w->seeds = cr_alloc(c->n_seeds, sizeof *w->seeds);
    w->examples = cr_alloc(g->n, sizeof *w->examples);
    w->bins = cr_alloc(CR_BINS_DEFAULT + 1, sizeof *w->bins);
    w->bin_of = cr_alloc(n_runs * g->n, sizeof *w->bin_of);
    w->values = cr_alloc(2 * c->n_contenders * CR_N_FIGURES * CR_COMPARE_DRAWS, sizeof *w->values);
    if (w->seeds == NULL || w->examples == NULL || w->bins == NULL || w->bin_of == NULL || w->values == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for resamples of %zu examples of %zu evaluations", g->n, n_runs);
    }
    for (size_t r = 0; r < n_runs; r++) {
        struct cr_outcomes part = part_of(c, g, r / c->n_seeds, r % c->n_seeds);
        cr_outcomes_bins(&part, g->items, w->bin_of + r * g->n);
    }
    return CR_OK;
}

cr_status cr_compare_measure(const struct cr_comparison *c, struct cr_compared_group *g, struct cr_error *err)
{
    struct work w = {0};
    cr_status status = CR_OK;
    CR_TRY_OUT(status, make_work(c, g, &w, err));
    for (size_t d = 0; d < CR_COMPARE_DRAWS; d++) {
        if (cr_host_stopped(c->host)) {
            status = cr_fail(err, CR_E_STOPPED, "stopped while computing intervals");
            goto out;
        }
        cr_resample(c->options.seed, d, 0, c->n_seeds, w.seeds);
        cr_resample(c->options.seed, d, 1, g->n, w.examples);
        take(c, g, d, &w);
    }
    set_means(c, g, &w);
    set_intervals(c, g, &w);
    CR_TRY_OUT(status, set_floors(c, g, err));
out:
    cr_free(w.seeds);
    cr_free(w.examples);
    cr_free(w.bins);
    cr_free(w.bin_of);
    cr_free(w.values);
    return status;
}

enum cr_verdict cr_compare_verdict(const struct cr_compared *c, enum cr_figure figure)
{
    const struct cr_estimate *d = &c->differences[figure];
    bool above = d->low > 0, below = d->high < 0;
    if (!above && !below) {
        return CR_UNCLEAR;
    }
    return above == (figure == CR_FIGURE_ACCURACY) ? CR_BETTER : CR_WORSE;
}

/* The 90 % interval of the difference, turned so that more is better. */
static struct cr_estimate gain(const struct cr_compared *c, enum cr_figure figure)
{
    struct cr_estimate d = c->narrow[figure];
    return figure == CR_FIGURE_ACCURACY ? d : (struct cr_estimate){-d.mean, -d.high, -d.low};
}

static double margin(const struct cr_comparison *c, enum cr_figure figure)
{
    return figure == CR_FIGURE_ACCURACY ? c->options.margin_accuracy / 100 : c->options.margin_nll;
}

bool cr_compare_equivalent(const struct cr_comparison *comparison, const struct cr_compared *c, enum cr_figure figure)
{
    struct cr_estimate better = gain(c, figure);
    return cr_equivalent(&better, margin(comparison, figure));
}

bool cr_compare_not_worse(const struct cr_comparison *comparison, const struct cr_compared *c, enum cr_figure figure)
{
    struct cr_estimate better = gain(c, figure);
    return cr_not_worse(&better, margin(comparison, figure));
}

const char *cr_compare_words(const struct cr_comparison *comparison, const struct cr_compared *c, enum cr_figure figure)
{
    static const char *const words[3][3] = {
        [CR_UNCLEAR] = {"open", "not worse", "equivalent"},
        [CR_BETTER] = {"better", "better", "better, equivalent"},
        [CR_WORSE] = {"worse", "worse, not by much", "worse, equivalent"},
    };
    int within = cr_compare_equivalent(comparison, c, figure) ? 2 : cr_compare_not_worse(comparison, c, figure) ? 1 : 0;
    return words[cr_compare_verdict(c, figure)][within];
}
