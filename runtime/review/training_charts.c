/* Charts of what training runs left. */
#include "runtime/core/alloc.h"
#include "runtime/review/canvas.h"
#include "runtime/review/review_parts.h"

static size_t n_points(const struct cr_report_chart *chart)
{
    size_t n = 0;
    for (size_t i = 0; i < chart->n_lines; i++) {
        n += chart->lines[i].series.n;
    }
    return n;
}

/* From vertex `from` over the centroid to the next one. */
static cr_status add_way(struct cr_kept *kept, const struct cr_training *run, size_t from, struct cr_canvas *canvas,
                         size_t chart, struct cr_error *err)
{
    size_t to = (from + 1) % run->n_vertices, n = run->n_path;
    const char *name;
    struct cr_report_point *points;
    struct cr_buf text = {0};
    cr_buf_printf(&text, "vertex %zu to %zu", from, to);
    CR_TRY(cr_kept_text(kept, &text, &name, err));
    CR_TRY(cr_canvas_line(kept, canvas, chart, name, 2 * n + 1, true, &points, err));
    for (size_t i = 0; i < n; i++) {
        points[i].value = run->path[from * n + n - 1 - i];
        points[n + 1 + i].value = run->path[to * n + i];
    }
    points[n].value = run->centroid_nll;
    for (size_t i = 0; i <= 2 * n; i++) {
        points[i].step = (double)i / (double)n;
    }
    return CR_OK;
}

/* The loss of the held-out part along the straight lines between the vertices of a prefix: [arXiv 2310.15793, fig. 2].
 */
static cr_status add_ways(struct cr_kept *kept, const struct cr_training *run, const char *name,
                          struct cr_canvas *canvas, size_t chart, struct cr_error *err)
{
    struct cr_buf title = {0};
    cr_buf_printf(&title, "%s%sbetween the vertices", name != NULL ? name : "", name != NULL ? ": " : "Validation ");
    CR_TRY(cr_kept_text(kept, &title, &canvas->charts[chart].title, err));
    canvas->charts[chart].x_label = "0 a vertex, 1 the centroid, 2 the next vertex";
    for (size_t j = 0; j < (run->n_vertices > 2 ? run->n_vertices : 1); j++) {
        CR_TRY(add_way(kept, run, j, canvas, chart, err));
    }
    return CR_OK;
}

/* Most lines that a chart of the training may get. */
static size_t most_lines(const struct cr_training *runs, size_t n)
{
    size_t most = 2 * n;
    for (size_t i = 0; i < n; i++) {
        most = runs[i].n_vertices > most ? runs[i].n_vertices : most;
    }
    return most;
}

cr_status cr_review_training_charts(const struct cr_training *runs, const char *const *names, size_t n,
                                    struct cr_kept *kept, struct cr_report *report, struct cr_error *err)
{
    enum { LOSS, VALID, RATE, N_CHARTS };
    static const char *const titles[] = {"Loss", "Validation", "Speed"};
    struct cr_canvas canvas;
    struct cr_report_section *section = cr_zalloc(1, sizeof *section);
    CR_TRY(cr_kept_add(kept, section, err));
    CR_TRY(cr_canvas_make(kept, N_CHARTS + n, most_lines(runs, n), &canvas, err));
    for (size_t c = 0; c < N_CHARTS; c++) {
        canvas.charts[c].title = titles[c];
        canvas.charts[c].x_label = "optimiser step";
        canvas.charts[c].whole = true;
    }
    for (size_t i = 0; i < n; i++) { /* a single run has its validation in the chart of the loss */
        cr_canvas_series(&canvas, LOSS, n > 1 ? names[i] : "training", runs[i].loss, false);
        cr_canvas_series(&canvas, n > 1 ? VALID : LOSS, n > 1 ? names[i] : "validation", runs[i].valid, true);
        cr_canvas_series(&canvas, RATE, n > 1 ? names[i] : "tokens a second", runs[i].rate, false);
    }
    for (size_t i = 0; i < n; i++) {
        if (runs[i].n_vertices > 0) {
            CR_TRY(add_ways(kept, &runs[i], n > 1 ? names[i] : NULL, &canvas, N_CHARTS + i, err));
        }
    }
    for (size_t c = 0; c < N_CHARTS + n; c++) {
        if (n_points(&canvas.charts[c]) > 0) {
            canvas.charts[section->n_charts++] = canvas.charts[c];
        }
    }
    section->title = "Training";
    section->charts = canvas.charts;
    report->training = section->n_charts > 0 ? section : NULL;
    return CR_OK;
}
