/* Charts of what evaluations found. */
#include "runtime/core/alloc.h"
#include "runtime/core/number.h"
#include "runtime/metrics/calibrate.h"
#include "runtime/metrics/metrics.h"
#include "runtime/review/canvas.h"
#include "runtime/review/review_parts.h"

enum { MAX_SECTIONS = 5, ENTROPY_BINS = 20 };

/* Charts in the making. */
struct maker {
    struct cr_kept *kept;
    struct cr_report_section *sections; /* kept: [MAX_SECTIONS] */
    size_t n_sections;
};

/* A name with a number behind it. */
static cr_status name_with(struct cr_kept *kept, const char *name, const char *what, double value, const char **out,
                           struct cr_error *err)
{
    struct cr_buf text = {0};
    char number[CR_NUMBER_BYTES];
    cr_buf_printf(&text, "%s%s%s %s", name != NULL ? name : "", name != NULL ? ": " : "", what,
                  cr_number_fixed(number, value, 3));
    return cr_kept_text(kept, &text, out, err);
}

static cr_status add_risk(struct cr_kept *kept, const struct cr_outcomes *o, const char *name, struct cr_canvas *canvas,
                          size_t chart, struct cr_error *err)
{
    cr_status status = CR_OK;
    struct cr_report_point *points;
    struct cr_scored *items = cr_alloc(o->n, sizeof *items);
    double *risk = cr_alloc(o->n, sizeof *risk);
    if (items == NULL || risk == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for the report");
        goto out;
    }
    for (size_t i = 0; i < o->n; i++) {
        items[i] = (struct cr_scored){.score = o->items[i].confidence, .positive = o->items[i].correct};
    }
    double area = cr_risk_coverage(items, o->n, risk);
    CR_TRY_OUT(status, name_with(kept, name, "area", area, &name, err));
    CR_TRY_OUT(status, cr_canvas_line(kept, canvas, chart, name, o->n, false, &points, err));
    for (size_t k = 0; k < o->n; k++) {
        points[k] = (struct cr_report_point){.step = (double)(k + 1) / (double)o->n, .value = risk[k]};
    }
out:
    cr_free(items);
    cr_free(risk);
    return status;
}

/* One evaluation: a chart with a line a group. Several: a chart a group with a line each. */
static cr_status add_risks(struct maker *m, const struct cr_view *views, size_t n_views, struct cr_error *err)
{
    struct cr_canvas canvas;
    size_t n_groups = views[0].n_groups, n_charts = n_views > 1 ? n_groups : 1;
    CR_TRY(cr_canvas_make(m->kept, n_charts, n_views > 1 ? n_views : n_groups, &canvas, err));
    for (size_t g = 0; g < n_groups; g++) {
        size_t at = n_views > 1 ? g : 0;
        struct cr_report_chart *chart = &canvas.charts[at];
        chart->title = n_views > 1 ? views[0].groups[g].name : "All and by group";
        chart->x_label = "share of the examples answered, most confident first";
        chart->zero = true;
        for (size_t v = 0; v < n_views; v++) {
            const struct cr_view_group *group = &views[v].groups[g];
            CR_TRY(add_risk(m->kept, &group->outcomes, n_views > 1 ? views[v].name : group->name, &canvas, at, err));
        }
    }
    m->sections[m->n_sections++] = (struct cr_report_section){
        .title = "How wrong is what it is surest of?",
        .note = "Share of wrong answers among the most confident ones. A model that knows when it does not know starts "
                "low and rises to its error rate at the right; in the key the area below the line, less is better.",
        .charts = canvas.charts,
        .n_charts = n_charts};
    return CR_OK;
}

/* In the order of their charts. */
static const struct {
    enum cr_figure figure;
    const char *title;
} drawn[CR_N_FIGURES] = {
    {CR_FIGURE_ACCURACY, "Accuracy"},
    {CR_FIGURE_NLL, "NLL"},
    {CR_FIGURE_ECE, "ECE"},
    {CR_FIGURE_BRIER, "Brier"},
};
enum { DRAWN_NLL = 1 }; /* the one of texts */

/* A single member is a level line, to compare with. */
static cr_status add_running(struct cr_kept *kept, const struct cr_view_group *group, size_t n_members, size_t most,
                             const char *name, struct cr_canvas *canvas, size_t n_charts, struct cr_error *err)
{
    size_t n = n_members > 1 ? n_members : 2;
    for (size_t f = 0; f < n_charts; f++) {
        struct cr_report_point *points;
        CR_TRY(cr_canvas_line(kept, canvas, f, name, n, n_members > 1, &points, err));
        for (size_t k = 0; k < n; k++) {
            struct cr_group_metrics m = group->running[n_members > 1 ? k : 0];
            points[k].step = (double)(n_members > 1 || k == 0 ? k + 1 : most);
            points[k].value = *cr_figure_in(&m, drawn[n_charts == 1 ? DRAWN_NLL : f].figure);
        }
    }
    return CR_OK;
}

/* Figures of all members are drawn over the number of members: one evaluation with a line a group, several on all. */
static cr_status add_members(struct maker *m, const struct cr_view *views, size_t n_views, bool classification,
                             struct cr_error *err)
{
    struct cr_canvas canvas;
    size_t n_charts = classification ? CR_N_FIGURES : 1, most = 1;
    for (size_t v = 0; v < n_views; v++) {
        bool known = views[v].groups[0].running != NULL;
        most = known && views[v].n_members > most ? views[v].n_members : most;
    }
    if (most == 1) {
        return CR_OK;
    }
    CR_TRY(cr_canvas_make(m->kept, n_charts, n_views > 1 ? n_views : views[0].n_groups, &canvas, err));
    for (size_t f = 0; f < n_charts; f++) {
        canvas.charts[f].title = drawn[classification ? f : DRAWN_NLL].title;
        canvas.charts[f].x_label = "sets of weights whose answers are averaged";
        canvas.charts[f].whole = true;
    }
    for (size_t v = 0; v < n_views; v++) {
        for (size_t g = 0; g < (n_views > 1 ? 1 : views[v].n_groups); g++) {
            const struct cr_view_group *group = &views[v].groups[g];
            if (group->running != NULL) {
                CR_TRY(add_running(m->kept, group, views[v].n_members, most, n_views > 1 ? views[v].name : group->name,
                                   &canvas, n_charts, err));
            }
        }
    }
    m->sections[m->n_sections++] = (struct cr_report_section){.title = "How many samples does it take?",
                                                              .note = n_views > 1 ? "On all examples." : NULL,
                                                              .charts = canvas.charts,
                                                              .n_charts = n_charts};
    return CR_OK;
}

static cr_status add_agreement(struct maker *m, const struct cr_view *views, size_t n_views, struct cr_error *err)
{
    const struct cr_report_table *table;
    const char *pairs, *note;
    struct cr_buf text = {0};
    CR_TRY(cr_review_agreement(views, n_views, m->kept, &table, &pairs, err));
    if (table == NULL) {
        return CR_OK;
    }
    cr_buf_puts(&text, "Means over the examples, in nats. Entropy of the averaged answer; expected: what each set of "
                       "weights, or draw, is unsure of by itself; mutual information: the difference, what they "
                       "disagree about. Disagreement: share of them that answer otherwise than all together. ");
    cr_buf_puts(&text, pairs != NULL ? pairs : "");
    CR_TRY(cr_kept_text(m->kept, &text, &note, err));
    m->sections[m->n_sections++] = (struct cr_report_section){
        .title = "How much of the doubt is about the weights?", .note = note, .table = table};
    return CR_OK;
}

/* Shares of the values in bins of equal width up to `most`, as stairs. */
static cr_status add_stairs(struct cr_kept *kept, const double *values, size_t n, double most, const char *name,
                            struct cr_canvas *canvas, size_t chart, struct cr_error *err)
{
    double share[ENTROPY_BINS] = {0}, mean = 0;
    struct cr_report_point *points;
    for (size_t i = 0; i < n; i++) {
        size_t bin = (size_t)(values[i] / most * ENTROPY_BINS);
        share[bin < ENTROPY_BINS ? bin : ENTROPY_BINS - 1] += 1 / (double)n;
        mean += values[i] / (double)n;
    }
    CR_TRY(name_with(kept, name, "mean", mean, &name, err));
    CR_TRY(cr_canvas_line(kept, canvas, chart, name, 2 * ENTROPY_BINS, false, &points, err));
    for (size_t b = 0; b < ENTROPY_BINS; b++) {
        points[2 * b] = (struct cr_report_point){.step = most * (double)b / ENTROPY_BINS, .value = share[b]};
        points[2 * b + 1] = (struct cr_report_point){.step = most * (double)(b + 1) / ENTROPY_BINS, .value = share[b]};
    }
    return CR_OK;
}

static void widen(const double *values, size_t n, double *most)
{
    for (size_t i = 0; i < n; i++) {
        *most = values[i] > *most ? values[i] : *most;
    }
}

static cr_status add_entropies(struct maker *m, const struct cr_view *views, size_t n_views, struct cr_error *err)
{
    struct cr_canvas canvas;
    size_t n_charts = 0;
    double most = 0;
    CR_TRY(cr_canvas_make(m->kept, n_views, 2, &canvas, err));
    for (size_t v = 0; v < n_views; v++) {
        widen(views[v].ood.in, views[v].ood.n_in, &most);
        widen(views[v].ood.out, views[v].ood.n_out, &most);
    }
    for (size_t v = 0; v < n_views && most > 0; v++) {
        const struct cr_ood_entropies *ood = &views[v].ood;
        struct cr_report_chart *chart = &canvas.charts[n_charts];
        if (ood->n_in == 0 || ood->n_out == 0) {
            continue;
        }
        chart->title = views[v].name != NULL ? views[v].name : "Entropy";
        chart->x_label = views[v].entropy;
        chart->zero = true;
        CR_TRY(add_stairs(m->kept, ood->in, ood->n_in, most, views[v].in, &canvas, n_charts, err));
        CR_TRY(add_stairs(m->kept, ood->out, ood->n_out, most, views[v].out, &canvas, n_charts, err));
        n_charts++;
    }
    const struct cr_report_table *table;
    CR_TRY(cr_review_elsewhere(views, n_views, m->kept, &table, err));
    if (n_charts > 0) {
        m->sections[m->n_sections++] = (struct cr_report_section){
            .title = "Does it notice texts from elsewhere?",
            .note = "AUROC: how often a text from elsewhere has the higher entropy of two, 0.5 is chance. Average "
                    "precision: the share of them above a threshold, over all thresholds. MI: the same by mutual "
                    "information. Below, the share of the examples at each entropy of the answer, 0 being certain: the "
                    "further apart the two lie, the better unfamiliar texts can be told by it.",
            .table = table,
            .charts = canvas.charts,
            .n_charts = n_charts};
    }
    return CR_OK;
}

cr_status cr_review_charts(const struct cr_view *views, size_t n_views, const struct cr_report_section *more,
                           struct cr_kept *kept, struct cr_report *report, struct cr_error *err)
{
    struct maker m = {.kept = kept, .sections = cr_zalloc(MAX_SECTIONS, sizeof *m.sections)};
    CR_TRY(cr_kept_add(kept, m.sections, err));
    if (report->classification) {
        CR_TRY(add_risks(&m, views, n_views, err));
    }
    CR_TRY(add_members(&m, views, n_views, report->classification, err));
    CR_TRY(add_agreement(&m, views, n_views, err));
    CR_TRY(add_entropies(&m, views, n_views, err));
    if (more != NULL) {
        m.sections[m.n_sections++] = *more;
    }
    report->sections = m.sections;
    report->n_sections = m.n_sections;
    return CR_OK;
}
