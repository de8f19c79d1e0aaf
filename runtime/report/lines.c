/* A line chart: nice round ticks, at most a few hundred points a line. */
#include <math.h>

#include "runtime/core/number.h"
#include "runtime/report/draw.h"
#include "runtime/report/html.h"
#include "runtime/report/svg.h"

/* Size and margins in SVG units; the text of the style is 11 units high. */
#define WIDTH 440.0
#define HEIGHT 230.0
#define LEFT 46.0
#define RIGHT 12.0
#define TOP 10.0
#define BOTTOM 34.0

enum { MAX_DRAWN = 300, MAX_TICKS = 12 };

/* Of ticks: CR_NUMBER_DECIMALS show no smaller one. */
#define LEAST_STEP 1e-9

struct axis {
    double low, high, step; /* ends of the axis; distance of ticks */
    int decimals;
};

/* Smallest of 1, 2, 5 times a power of ten that gives at most `wanted` steps in `span`. */
static double nice_step(double span, int wanted)
{
    double step = pow(10, floor(log10(span / wanted)));
    static const double factors[] = {1, 2, 5};
    for (int i = 0; i < 3; i++) {
        if (step * factors[i] * wanted >= span) {
            return step * factors[i];
        }
    }
    return 10 * step;
}

static struct axis make_axis(double low, double high, int wanted, bool whole)
{
    double span = high - low, least = wanted * LEAST_STEP;
    if (!(span >= least) || span < fabs(high) * 1e-9) { /* as good as a single value: some room around it */
        double room = fabs(high) >= least ? fabs(high) / 2 : 1;
        low -= room;
        high += room;
        span = high - low;
    }
    struct axis axis = {.low = low, .high = high, .step = nice_step(span, wanted)};
    if (whole && axis.step < 1) {
        axis.step = 1;
    }
    int decimals = axis.step < 1 ? (int)ceil(-log10(axis.step) - 1e-9) : 0;
    axis.decimals = decimals < CR_NUMBER_DECIMALS ? decimals : CR_NUMBER_DECIMALS;
    return axis;
}

static double x_of(const struct axis *axis, double value)
{
    return LEFT + (value - axis->low) / (axis->high - axis->low) * (WIDTH - LEFT - RIGHT);
}

static double y_of(const struct axis *axis, double value)
{
    return HEIGHT - BOTTOM - (value - axis->low) / (axis->high - axis->low) * (HEIGHT - TOP - BOTTOM);
}

static void widen(const struct cr_report_series *s, double *low, double *high, bool of_step)
{
    for (size_t i = 0; i < s->n; i++) {
        double value = of_step ? s->points[i].step : s->points[i].value;
        *low = value < *low ? value : *low;
        *high = value > *high ? value : *high;
    }
}

/* A number at (x, y). */
static void put_label(struct cr_buf *out, double x, double y, const char *anchor, double value, int decimals)
{
    cr_buf_puts(out, "<text");
    cr_svg_attribute(out, "x", x);
    cr_svg_attribute(out, "y", y);
    cr_buf_printf(out, " text-anchor=\"%s\">", anchor);
    cr_html_number(out, value, decimals);
    cr_buf_puts(out, "</text>");
}

static void put_axes(struct cr_buf *out, const struct axis *x, const struct axis *y, const char *x_label)
{
    double tick = ceil(y->low / y->step - 1e-9) * y->step;
    for (int i = 0; i < MAX_TICKS && tick <= y->high + y->step * 1e-9; i++, tick += y->step) {
        cr_svg_segment(out, "grid", LEFT, y_of(y, tick), WIDTH - RIGHT, y_of(y, tick));
        put_label(out, LEFT - 6, y_of(y, tick) + 4, "end", fabs(tick) < y->step / 2 ? 0 : tick, y->decimals);
    }
    tick = ceil(x->low / x->step - 1e-9) * x->step;
    for (int i = 0; i < MAX_TICKS && tick <= x->high + x->step * 1e-9; i++, tick += x->step) {
        cr_svg_segment(out, "axis", x_of(x, tick), HEIGHT - BOTTOM, x_of(x, tick), HEIGHT - BOTTOM + 4);
        put_label(out, x_of(x, tick), HEIGHT - BOTTOM + 15, "middle", fabs(tick) < x->step / 2 ? 0 : tick, x->decimals);
    }
    cr_svg_segment(out, "axis", LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM);
    cr_buf_puts(out, "<text class=\"title\" text-anchor=\"middle\"");
    cr_svg_attribute(out, "x", (LEFT + WIDTH - RIGHT) / 2);
    cr_svg_attribute(out, "y", HEIGHT - 4);
    cr_buf_putc(out, '>');
    cr_html_str(out, x_label);
    cr_buf_puts(out, "</text>");
}

/* Neighbours are averaged when there are more points than can be told apart. */
static void put_curve(struct cr_buf *out, const struct cr_report_series *s, size_t place, const struct axis *x,
                      const struct axis *y)
{
    size_t n_drawn = s->n < MAX_DRAWN ? s->n : MAX_DRAWN;
    cr_buf_printf(out, "<path class=\"line s%zu d%zu\" d=\"", place % CR_DRAW_COLOURS,
                  place / CR_DRAW_COLOURS % CR_DRAW_DASHES);
    for (size_t i = 0; i < n_drawn; i++) {
        size_t begin = i * s->n / n_drawn;
        size_t end = (i + 1) * s->n / n_drawn;
        double step = 0, value = 0;
        for (size_t j = begin; j < end; j++) {
            step += s->points[j].step / (double)(end - begin);
            value += s->points[j].value / (double)(end - begin);
        }
        cr_buf_putc(out, i == 0 ? 'M' : 'L');
        cr_html_coordinate(out, x_of(x, step));
        cr_buf_putc(out, ' ');
        cr_html_coordinate(out, y_of(y, value));
    }
    cr_buf_puts(out, "\"/>");
}

static void put_marks(struct cr_buf *out, const struct cr_report_series *s, size_t place, const struct axis *x,
                      const struct axis *y, const char *x_label)
{
    for (size_t i = 0; i < s->n && s->n <= MAX_DRAWN; i++) {
        cr_buf_printf(out, "<circle class=\"s%zu\" r=\"3.2\"", place % CR_DRAW_COLOURS);
        cr_svg_attribute(out, "cx", x_of(x, s->points[i].step));
        cr_svg_attribute(out, "cy", y_of(y, s->points[i].value));
        cr_buf_puts(out, "><title>");
        cr_html_str(out, x_label);
        cr_buf_putc(out, ' ');
        cr_html_number(out, s->points[i].step, x->decimals);
        cr_buf_puts(out, ": ");
        cr_html_number(out, s->points[i].value, 4);
        cr_buf_puts(out, "</title></circle>");
    }
}

void cr_draw_lines(struct cr_buf *out, const struct cr_report_chart *chart)
{
    double low = INFINITY, high = -INFINITY, first = INFINITY, last = -INFINITY;
    for (size_t i = 0; i < chart->n_lines; i++) {
        widen(&chart->lines[i].series, &low, &high, false);
        widen(&chart->lines[i].series, &first, &last, true);
    }
    if (low > 0 && (chart->zero || low < high * 0.7)) {
        low = 0; /* a scale that is nearly whole may as well be whole */
    }
    double room = (high - low) * 0.05;
    struct axis x = make_axis(first, last, 6, chart->whole);
    struct axis y = make_axis(low > 0 ? low - room : low, high + room, 5, false);
    cr_buf_printf(out, "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"", WIDTH, HEIGHT);
    cr_html_str(out, chart->title);
    cr_buf_puts(out, "\">");
    put_axes(out, &x, &y, chart->x_label);
    for (size_t i = 0; i < chart->n_lines; i++) {
        const struct cr_report_line *line = &chart->lines[i];
        if (line->series.n > 0) {
            put_curve(out, &line->series, i, &x, &y);
        }
        if (line->marks) {
            put_marks(out, &line->series, i, &x, &y, chart->x_label);
        }
    }
    cr_buf_puts(out, "</svg>\n");
}
