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

static void put_figure(struct cr_buf *out, const struct cr_report_figure *f, int decimals)
{
    cr_buf_puts(out, "<td>");
    cr_html_number(out, f->value, decimals);
    if (isfinite(f->low) && isfinite(f->high)) {
        cr_buf_puts(out, "<small>");
        cr_html_number(out, f->low, decimals);
        cr_buf_puts(out, "\xe2\x80\x93");
        cr_html_number(out, f->high, decimals);
        cr_buf_puts(out, "</small>");
    }
    cr_buf_puts(out, "</td>");
}

static void put_row(struct cr_buf *out, const struct cr_report_group *g, bool classification, bool all)
{
    cr_buf_printf(out, "<tr%s><td>", all ? " class=\"all\"" : "");
    cr_html_str(out, g->name);
    cr_buf_puts(out, "</td><td>");
    cr_html_count(out, g->n);
    cr_buf_puts(out, "</td>");
    if (classification) {
        put_figure(out, &g->accuracy, 3);
        put_figure(out, &g->nll, 3);
        put_figure(out, &g->ece, 3);
        put_figure(out, &g->brier, 3);
        struct cr_report_figure auroc = {g->auroc_error, (double)NAN, (double)NAN};
        put_figure(out, &auroc, 3);
    } else {
        put_figure(out, &g->nll, 3);
        put_figure(out, &g->perplexity, 2);
    }
    cr_buf_puts(out, "</tr>\n");
}

static void put_results(struct cr_buf *out, const struct cr_report *r)
{
    cr_buf_puts(out, "<h2>Results</h2>\n<div class=\"wide\"><table>\n<tr><th>Group</th>");
    cr_buf_puts(out, r->classification ? "<th>n</th><th>Accuracy</th><th>NLL</th><th>ECE</th><th>Brier</th>"
                                         "<th>AUROC</th></tr>\n"
                                       : "<th>Tokens</th><th>NLL</th><th>Perplexity</th></tr>\n");
    for (size_t i = 1; i < r->n_groups; i++) {
        put_row(out, &r->groups[i], r->classification, false);
    }
    put_row(out, &r->groups[0], r->classification, true);
    cr_buf_printf(out,
                  "</table></div>\n<p class=\"note\">Below each figure: its 95 %% interval over examples "
                  "(bootstrap, %u resamples). ",
                  r->n_resamples);
    cr_buf_puts(out,
                r->classification
                    ? "NLL: mean of \xe2\x88\x92log of the probability given to the right answer, lower is better. "
                      "ECE: mean distance between confidence and accuracy, 0 is honest (few examples alone make it "
                      "larger). Brier: squared error of the "
                      "probabilities, 0 to 2. AUROC: how well low confidence points out wrong answers, 0.5 is "
                      "chance, 1 always.</p>\n"
                    : "NLL: mean of \xe2\x88\x92log of the probability given to the next token. Perplexity: its "
                      "exponential.</p>\n");
}

static void put_reliability(struct cr_buf *out, const struct cr_report *r)
{
    if (!r->classification) {
        return;
    }
    cr_buf_puts(out,
                "<h2>Is it as right as it is sure?</h2>\n<p class=\"note\">Each bar is a bin of confidence, its "
                "height the accuracy inside. On the dashed line the two agree; bars below it are overconfidence. "
                "Dots stand at the mean confidence, lines through them are 95 % intervals, the grey bars count the "
                "examples.</p>\n<div class=\"cards\">\n");
    for (size_t i = 0; i < r->n_groups; i++) {
        const struct cr_report_group *g = &r->groups[i];
        cr_buf_puts(out, "<figure><h3>");
        cr_html_str(out, g->name);
        cr_buf_puts(out, "</h3><figcaption>");
        cr_html_count(out, g->n);
        cr_buf_printf(out, " example%s, accuracy ", g->n == 1 ? "" : "s");
        cr_html_number(out, g->accuracy.value, 3);
        cr_buf_puts(out, ", ECE ");
        cr_html_number(out, g->ece.value, 3);
        cr_buf_puts(out, "</figcaption>\n");
        cr_draw_reliability(out, g);
        cr_buf_puts(out, "</figure>\n");
    }
    cr_buf_puts(out, "</div>\n");
}

static void put_example(struct cr_buf *out, const struct cr_report_example *e)
{
    cr_buf_puts(out, "<li><blockquote dir=\"auto\">");
    cr_html_text(out, e->text, e->text_bytes);
    cr_buf_puts(out, e->cut ? "\xe2\x80\xa6</blockquote>" : "</blockquote>");
    if (e->given != NULL) {
        cr_buf_puts(out, "<div><span class=\"said\">said <b><bdi>");
        cr_html_text(out, e->given, e->given_bytes);
        cr_buf_puts(out, "</bdi></b> with ");
        cr_html_number(out, 100 * e->p_given, 1);
        cr_buf_puts(out, " %</span>, right is <b><bdi>");
        cr_html_text(out, e->right, e->right_bytes);
        cr_buf_puts(out, "</bdi></b> with ");
        cr_html_number(out, 100 * e->p_right, 1);
        cr_buf_puts(out, " %");
    } else {
        cr_buf_puts(out, "<div><span class=\"said\">NLL a token ");
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
    cr_buf_puts(out, r->classification ? "<h2>Most confident mistakes</h2>\n" : "<h2>Least expected texts</h2>\n");
    if (r->n_examples == 0) {
        cr_buf_puts(out, "<p>None.</p>\n");
        return;
    }
    cr_buf_puts(out, "<ol>\n");
    for (size_t i = 0; i < r->n_examples; i++) {
        put_example(out, &r->examples[i]);
    }
    cr_buf_puts(out, "</ol>\n");
}

static void put_training(struct cr_buf *out, const struct cr_report *r)
{
    if (r->loss.n + r->valid.n == 0) {
        return;
    }
    cr_buf_puts(out, "<h2>Training</h2>\n<div class=\"cards two\">\n<figure><h3>Loss</h3><figcaption>");
    if (r->loss.n > 0) {
        cr_buf_puts(out, "<span class=\"key\"></span>training");
    }
    if (r->valid.n > 0) {
        cr_buf_puts(out, "<span class=\"key two\"></span>validation");
    }
    cr_buf_puts(out, "</figcaption>\n");
    struct cr_draw_lines loss = {.label = "Loss over training steps", .line = r->loss, .points = r->valid};
    cr_draw_lines(out, &loss);
    cr_buf_puts(out, "</figure>\n");
    if (r->rate.n > 0) {
        struct cr_draw_lines rate = {.label = "Tokens a second over training steps", .line = r->rate};
        cr_buf_puts(out, "<figure><h3>Speed</h3><figcaption><span class=\"key\"></span>tokens a second</figcaption>\n");
        cr_draw_lines(out, &rate);
        cr_buf_puts(out, "</figure>\n");
    }
    cr_buf_puts(out, "</div>\n");
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
        cr_buf_puts(out, "<h2>Settings of the training run</h2>\n");
        put_pairs(out, r->settings, r->n_settings);
    }
}

void cr_report_html(const struct cr_report *report, struct cr_buf *out)
{
    cr_html_begin(out, report->title, "");
    put_pairs(out, report->facts, report->n_facts);
    put_results(out, report);
    put_reliability(out, report);
    put_examples(out, report);
    put_training(out, report);
    put_repeat(out, report);
    cr_buf_puts(out, "</body>\n</html>\n");
}
