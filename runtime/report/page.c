/* The page from top to bottom. */
#include <math.h>

#include "runtime/report/draw.h"
#include "runtime/report/html.h"
#include "runtime/report/report.h"

static void put_pairs(struct cr_buf *out, const struct cr_report_pair *pairs, size_t n)
{
    cr_buf_puts(out, "<dl>\n");
    for (size_t i = 0; i < n; i++) {
        cr_html_pair(out, pairs[i].key, pairs[i].value);
    }
    cr_buf_puts(out, "</dl>\n");
}

/* Number and interval; the cell stays open. */
static void put_value(struct cr_buf *out, const struct cr_report_figure *f, int decimals)
{
    cr_buf_puts(out, "<td>");
    cr_html_number(out, f->value, decimals);
    if (isfinite(f->low) && isfinite(f->high)) {
        cr_buf_puts(out, "<small>");
        cr_html_number(out, f->low, decimals);
        cr_buf_puts(out, f->low < 0 ? " to " : "\xe2\x80\x93");
        cr_html_number(out, f->high, decimals);
        cr_buf_puts(out, "</small>");
    }
}

static void put_figure(struct cr_buf *out, const struct cr_report_figure *f, int decimals)
{
    put_value(out, f, decimals);
    cr_buf_puts(out, "</td>");
}

static void put_ece(struct cr_buf *out, const struct cr_report_group *g)
{
    put_value(out, &g->ece, 3);
    if (isfinite(g->ece_floor)) {
        cr_buf_puts(out, "<small><i>floor </i>");
        cr_html_number(out, g->ece_floor, 3);
        cr_buf_puts(out, "</small>");
    }
    cr_buf_puts(out, "</td>");
}

static void put_judged(struct cr_buf *out, const struct cr_report_figure *f, const char *verdict)
{
    put_value(out, f, 3);
    cr_buf_puts(out, "<small><b>");
    cr_html_str(out, verdict);
    cr_buf_puts(out, "</b></small></td>");
}

static void put_figures(struct cr_buf *out, const struct cr_report_group *g, bool classification)
{
    if (classification) {
        struct cr_report_figure auroc = {g->auroc_error, (double)NAN, (double)NAN};
        put_figure(out, &g->accuracy, 3);
        put_figure(out, &g->nll, 3);
        put_ece(out, g);
        put_figure(out, &g->brier, 3);
        put_figure(out, &auroc, 3);
    } else {
        put_figure(out, &g->nll, 3);
        put_figure(out, &g->perplexity, 2);
    }
    cr_buf_puts(out, "</tr>\n");
}

/* One row a group. */
static void put_groups(struct cr_buf *out, const struct cr_report *r, size_t g)
{
    const struct cr_report_group *group = &r->runs[0].groups[g];
    cr_buf_printf(out, "<tr%s><td>", g == 0 ? " class=\"all\"" : "");
    cr_html_str(out, group->name);
    cr_buf_puts(out, "</td><td>");
    cr_html_count(out, group->n);
    cr_buf_puts(out, "</td>");
    put_figures(out, group, r->classification);
}

/* A group with one row a run. */
static void put_runs(struct cr_buf *out, const struct cr_report *r, size_t g)
{
    const struct cr_report_group *first = &r->runs[0].groups[g];
    cr_buf_printf(out, "<tr class=\"head\"><th colspan=\"%d\">", r->classification ? 6 : 3);
    cr_html_str(out, first->name);
    cr_buf_puts(out, ", ");
    cr_html_count(out, first->n);
    cr_buf_puts(out, r->classification ? " examples</th></tr>\n" : " tokens</th></tr>\n");
    for (size_t i = 0; i < r->n_runs; i++) {
        cr_buf_puts(out, "<tr><td>");
        cr_html_str(out, r->runs[i].name);
        cr_buf_puts(out, "</td>");
        put_figures(out, &r->runs[i].groups[g], r->classification);
    }
}

static void put_results(struct cr_buf *out, const struct cr_report *r)
{
    bool several = r->n_runs > 1;
    cr_buf_puts(out, "<h2>Results</h2>\n<div class=\"wide\"><table>\n<tr>");
    cr_buf_puts(out, several             ? "<th>Evaluation</th>"
                     : r->classification ? "<th>Group</th><th>n</th>"
                                         : "<th>Group</th><th>Tokens</th>");
    cr_buf_puts(out, r->classification ? "<th>Accuracy</th><th>NLL</th><th>ECE</th><th>Brier</th><th>AUROC</th></tr>\n"
                                       : "<th>NLL</th><th>Perplexity</th></tr>\n");
    for (size_t i = 1; i <= r->n_groups; i++) { /* all of it comes last */
        (several ? put_runs : put_groups)(out, r, i % r->n_groups);
    }
    cr_buf_printf(out,
                  "</table></div>\n<p class=\"note\">Below each figure: its 95 %% interval over %s (bootstrap, %u "
                  "resamples). ",
                  r->n_seeds > 1 ? "examples and seeds" : "examples", r->n_resamples);
    cr_buf_puts(out,
                r->classification
                    ? "NLL: mean of \xe2\x88\x92log of the probability given to the right answer, lower is better. "
                      "ECE: mean distance between confidence and accuracy, 0 is honest; few examples alone make it "
                      "larger, the floor is what honest confidences would have here. Brier: squared error of the "
                      "probabilities, 0 to 2. AUROC: how well low confidence points out wrong answers, 0.5 is "
                      "chance, 1 always.</p>\n"
                    : "NLL: mean of \xe2\x88\x92log of the probability given to the next token. Perplexity: its "
                      "exponential.</p>\n");
}

static void put_difference(struct cr_buf *out, const struct cr_report *r, const struct cr_report_difference *d)
{
    cr_buf_puts(out, "<tr><td>");
    cr_html_str(out, d->name);
    cr_buf_puts(out, "</td>");
    if (r->classification) {
        put_judged(out, &d->accuracy, d->accuracy_is);
    }
    put_judged(out, &d->nll, d->nll_is);
    if (r->classification) {
        put_figure(out, &d->brier, 3);
        put_figure(out, &d->ece, 3);
    }
    cr_buf_puts(out, "</tr>\n");
}

static void put_differences(struct cr_buf *out, const struct cr_report *r)
{
    if (r->n_differences == 0) {
        return;
    }
    cr_buf_puts(out, "<h2>Differences from ");
    cr_html_str(out, r->runs[0].name);
    cr_buf_puts(out, "</h2>\n<div class=\"wide\"><table>\n<tr><th>Evaluation</th>");
    cr_buf_puts(out, r->classification ? "<th>Accuracy</th><th>NLL</th><th>Brier</th><th>ECE</th></tr>\n"
                                       : "<th>NLL</th></tr>\n");
    for (size_t i = 0; i < r->n_differences; i++) {
        const struct cr_report_difference *d = &r->differences[i];
        if (i == 0 || d->group != r->differences[i - 1].group) {
            cr_buf_printf(out, "<tr class=\"head\"><th colspan=\"%d\">", r->classification ? 5 : 2);
            cr_html_str(out, d->group);
            cr_buf_puts(out, "</th></tr>\n");
        }
        put_difference(out, r, d);
    }
    cr_buf_puts(out, "</table></div>\n<p class=\"note\">");
    cr_html_str(out, r->margins);
    cr_buf_puts(out, "</p>\n");
}

static void put_diagram(struct cr_buf *out, const struct cr_report *r, const struct cr_report_run *run, size_t g)
{
    bool several = r->n_runs > 1;
    const struct cr_report_group *group = &run->groups[g];
    cr_buf_puts(out, "<figure><h3>");
    cr_html_str(out, group->name);
    if (several) {
        cr_buf_puts(out, ", ");
        cr_html_str(out, run->name);
    }
    cr_buf_puts(out, "</h3><figcaption>");
    cr_html_count(out, group->n);
    cr_buf_puts(out, group->n == 1 ? " example" : " examples");
    if (r->n_seeds > 1) {
        cr_buf_printf(out, " of %zu seeds", r->n_seeds);
    }
    cr_buf_puts(out, ", accuracy ");
    cr_html_number(out, group->accuracy.value, 3);
    cr_buf_puts(out, ", ECE ");
    cr_html_number(out, group->ece.value, 3);
    cr_buf_puts(out, "</figcaption>\n");
    cr_draw_reliability(out, group, several ? run->name : NULL);
    cr_buf_puts(out, "</figure>\n");
}

/* Several runs: those of a group stand side by side. */
static void put_reliability(struct cr_buf *out, const struct cr_report *r)
{
    if (!r->classification) {
        return;
    }
    cr_buf_puts(out,
                "<h2>Is it as right as it is sure?</h2>\n<p class=\"note\">Each bar is a bin of confidence, its "
                "height the accuracy inside. On the dashed line the two agree; bars below it are overconfidence. "
                "Dots stand at the mean confidence, lines through them are 95 % intervals, the grey bars count the "
                "examples.");
    if (r->n_seeds > 1) {
        cr_buf_puts(out,
                    " The answers of all seeds lie in the bars; for the intervals those to one example count once.");
    }
    cr_buf_puts(out, "</p>\n<div class=\"cards\">\n");
    for (size_t g = 0; g < r->n_groups; g++) {
        if (g > 0 && r->n_runs > 1 && r->runs[0].groups[g].bins != NULL) {
            cr_buf_puts(out, "</div>\n<div class=\"cards\">\n");
        }
        for (size_t i = 0; i < r->n_runs && r->runs[i].groups[g].bins != NULL; i++) {
            put_diagram(out, r, &r->runs[i], g);
        }
    }
    cr_buf_puts(out, "</div>\n");
}

static void put_chart(struct cr_buf *out, const struct cr_report_chart *chart)
{
    cr_buf_puts(out, "<figure><h3>");
    cr_html_str(out, chart->title);
    cr_buf_puts(out, "</h3><figcaption class=\"keys\">");
    for (size_t i = 0; i < chart->n_lines; i++) {
        if (chart->lines[i].name != NULL && chart->lines[i].series.n > 0) {
            cr_buf_printf(out, "<span><i class=\"s%zu d%zu\"></i>", i % CR_DRAW_COLOURS,
                          i / CR_DRAW_COLOURS % CR_DRAW_DASHES);
            cr_html_str(out, chart->lines[i].name);
            cr_buf_puts(out, "</span> ");
        }
    }
    cr_buf_puts(out, "</figcaption>\n");
    cr_draw_lines(out, chart);
    cr_buf_puts(out, "</figure>\n");
}

static void put_table(struct cr_buf *out, const struct cr_report_table *table)
{
    cr_buf_puts(out, "<div class=\"wide\"><table class=\"plain\">\n<tr><th>");
    cr_html_str(out, table->first);
    for (size_t c = 0; c < table->n_columns; c++) {
        cr_buf_puts(out, "</th><th>");
        cr_html_str(out, table->columns[c]);
    }
    cr_buf_puts(out, "</th></tr>\n");
    for (size_t i = 0; i < table->n_rows; i++) {
        cr_buf_puts(out, "<tr><td>");
        cr_html_str(out, table->rows[i].name);
        for (size_t c = 0; c < table->n_columns; c++) {
            cr_buf_puts(out, "</td><td>");
            cr_html_number(out, table->rows[i].values[c], 3);
        }
        cr_buf_puts(out, "</td></tr>\n");
    }
    cr_buf_puts(out, "</table></div>\n");
}

static void put_section(struct cr_buf *out, const struct cr_report_section *section)
{
    cr_buf_puts(out, "<h2>");
    cr_html_str(out, section->title);
    cr_buf_puts(out, "</h2>\n");
    if (section->note != NULL) {
        cr_buf_puts(out, "<p class=\"note\">");
        cr_html_str(out, section->note);
        cr_buf_puts(out, "</p>\n");
    }
    if (section->table != NULL) {
        put_table(out, section->table);
    }
    if (section->n_charts > 0) {
        cr_buf_puts(out, "<div class=\"cards two\">\n");
    }
    for (size_t i = 0; i < section->n_charts; i++) {
        put_chart(out, &section->charts[i]);
    }
    cr_buf_puts(out, section->n_charts > 0 ? "</div>\n" : "");
}

static void put_answer(struct cr_buf *out, const struct cr_report_saying *s, bool with_share)
{
    cr_buf_puts(out, "<b><bdi>");
    cr_html_text(out, s->text, s->text_bytes);
    cr_buf_puts(out, "</bdi></b>");
    if (with_share) {
        cr_buf_puts(out, " with ");
        cr_html_number(out, 100 * s->p, 1);
        cr_buf_puts(out, " %");
    }
}

static void put_example(struct cr_buf *out, const struct cr_report_example *e)
{
    cr_buf_puts(out, "<li><blockquote dir=\"auto\">");
    cr_html_text(out, e->text, e->text_bytes);
    cr_buf_puts(out, e->cut ? "\xe2\x80\xa6</blockquote>" : "</blockquote>");
    cr_buf_puts(out, "<div>");
    for (size_t i = 0; i < e->n_said; i++) {
        cr_buf_puts(out, e->said[i].wrong ? "<span class=\"said\">" : "<span>");
        if (e->said[i].who != NULL) {
            cr_html_str(out, e->said[i].who);
            cr_buf_putc(out, ' ');
        }
        cr_buf_puts(out, "said ");
        put_answer(out, &e->said[i], true);
        cr_buf_puts(out, "</span>, ");
    }
    if (e->n_said > 0) {
        cr_buf_puts(out, "right is ");
        put_answer(out, &e->right, e->n_said == 1);
    } else {
        cr_buf_puts(out, "<span class=\"said\">NLL a token ");
        cr_html_number(out, e->nll, 3);
        cr_buf_puts(out, "</span>");
    }
    cr_buf_puts(out, " <span class=\"note\">\xc2\xb7 ");
    if (e->task != NULL) {
        cr_html_str(out, e->task);
        cr_buf_puts(out, ", ");
    }
    cr_buf_printf(out, "line %llu</span></div></li>\n", (unsigned long long)e->line);
}

static void put_examples(struct cr_buf *out, const struct cr_report *r)
{
    cr_buf_puts(out, r->classification ? "<h2>Most confident mistakes" : "<h2>Least expected texts");
    if (r->n_runs > 1) {
        cr_buf_puts(out, " of ");
        cr_html_str(out, r->runs[0].name);
    }
    cr_buf_puts(out, "</h2>\n");
    if (r->n_examples == 0) {
        cr_buf_puts(out, "<p>");
        cr_html_str(out, r->no_examples != NULL ? r->no_examples : "None.");
        cr_buf_puts(out, "</p>\n");
        return;
    }
    cr_buf_puts(out, "<ol>\n");
    for (size_t i = 0; i < r->n_examples; i++) {
        put_example(out, &r->examples[i]);
    }
    cr_buf_puts(out, "</ol>\n");
}

static void put_repeat(struct cr_buf *out, const struct cr_report *r)
{
    cr_buf_puts(out, "<h2>How to repeat it</h2>\n");
    for (size_t i = 0; i < r->n_commands; i++) {
        cr_buf_puts(out, "<p class=\"note\">");
        cr_html_str(out, r->commands[i].key);
        cr_buf_puts(out, "</p>\n<pre>");
        cr_html_str(out, r->commands[i].value);
        cr_buf_puts(out, "</pre>\n");
    }
    if (r->n_settings > 0) {
        cr_buf_puts(out, "<h2>Settings of the training</h2>\n");
        put_pairs(out, r->settings, r->n_settings);
    }
}

void cr_report_html(const struct cr_report *report, struct cr_buf *out)
{
    cr_html_begin(out, report->title, "");
    put_pairs(out, report->facts, report->n_facts);
    put_results(out, report);
    put_differences(out, report);
    put_reliability(out, report);
    for (size_t i = 0; i < report->n_sections; i++) {
        put_section(out, &report->sections[i]);
    }
    put_examples(out, report);
    if (report->training != NULL) {
        put_section(out, report->training);
    }
    put_repeat(out, report);
    cr_buf_puts(out, "</body>\n</html>\n");
}
