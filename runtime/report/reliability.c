/* A reliability diagram: what the model says of its own accuracy against what it achieves. */
#include <math.h>

#include "runtime/report/draw.h"
#include "runtime/report/html.h"
#include "runtime/report/svg.h"

/* The square of confidence and accuracy, and the strip of counts below it. */
#define LEFT 34.0
#define TOP 8.0
#define SIDE 230.0
#define STRIP_TOP 276.0
#define STRIP 46.0
#define WIDTH (LEFT + SIDE + 12)
#define HEIGHT (STRIP_TOP + STRIP + 8)

static double x_of(double confidence)
{
    return LEFT + confidence * SIDE;
}

static double y_of(double accuracy)
{
    return TOP + (1 - accuracy) * SIDE;
}

/* 95 % interval of a share of n by the score method (Wilson 1927): sound for few examples and shares of 0 and 1. */
static void score_interval(double share, double n, double *low, double *high)
{
    const double z = 1.959964; /* 97.5 % point of the normal distribution */
    double center = (share + z * z / (2 * n)) / (1 + z * z / n);
    double half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n));
    *low = center - half > 0 ? center - half : 0;
    *high = center + half < 1 ? center + half : 1;
}

static void put_axes(struct cr_buf *out)
{
    for (int i = 0; i <= 4; i++) {
        double at = i / 4.0;
        cr_svg_segment(out, "grid", LEFT, y_of(at), LEFT + SIDE, y_of(at));
        cr_buf_puts(out, "<text text-anchor=\"end\"");
        cr_svg_attribute(out, "x", LEFT - 5);
        cr_svg_attribute(out, "y", y_of(at) + 4);
        cr_buf_puts(out, ">");
        cr_html_number(out, at, 2);
        cr_buf_puts(out, "</text><text text-anchor=\"middle\"");
        cr_svg_attribute(out, "x", x_of(at) - (i == 4 ? 4 : 0));
        cr_svg_attribute(out, "y", TOP + SIDE + 14);
        cr_buf_puts(out, ">");
        cr_html_number(out, at, 2);
        cr_buf_puts(out, "</text>");
    }
    cr_buf_puts(out, "<text class=\"title\" text-anchor=\"middle\"");
    cr_svg_attribute(out, "x", LEFT + SIDE / 2);
    cr_svg_attribute(out, "y", TOP + SIDE + 28);
    cr_buf_puts(out, ">confidence</text><text class=\"title\"");
    cr_svg_attribute(out, "x", LEFT + 6);
    cr_svg_attribute(out, "y", TOP + 13);
    cr_buf_puts(out, ">accuracy</text>");
    cr_svg_segment(out, "axis", LEFT, TOP + SIDE, LEFT + SIDE, TOP + SIDE);
}

static void put_bar(struct cr_buf *out, const char *style, double x, double y, double width, double height)
{
    cr_buf_printf(out, "<rect class=\"%s\"", style);
    cr_svg_attribute(out, "x", x);
    cr_svg_attribute(out, "y", y);
    cr_svg_attribute(out, "width", width);
    cr_svg_attribute(out, "height", height);
    cr_buf_puts(out, "/>");
}

/* The bar of a bin and that of its count below. */
static void put_bars(struct cr_buf *out, const struct cr_report_bin *bin, size_t at, size_t n_bins, uint64_t largest)
{
    double width = SIDE / (double)n_bins;
    double x = LEFT + width * (double)at;
    double gap = width > 4 ? 1 : 0;
    double height = STRIP * (double)bin->n / (double)largest;
    put_bar(out, "bar", x + gap / 2, y_of(bin->accuracy), width - gap, SIDE * bin->accuracy);
    put_bar(out, "count", x + gap / 2, STRIP_TOP + STRIP - height, width - gap, height);
}

/* Where a bin stands, with its interval, and in words. For the interval, answers of several seeds to one example count
 * as one: they are far from independent. */
static void put_mark(struct cr_buf *out, const struct cr_report_bin *bin, size_t n_seeds)
{
    double low, high;
    score_interval(bin->accuracy, (double)bin->n / (double)n_seeds, &low, &high);
    cr_buf_puts(out, "<g><title>confidence ");
    cr_html_number(out, bin->confidence, 3);
    cr_buf_puts(out, ", accuracy ");
    cr_html_number(out, bin->accuracy, 3);
    cr_buf_puts(out, ", ");
    cr_html_count(out, bin->n);
    cr_buf_puts(out, " examples</title>");
    cr_svg_segment(out, "whisker", x_of(bin->confidence), y_of(low), x_of(bin->confidence), y_of(high));
    cr_buf_puts(out, "<circle class=\"mark\" r=\"2.6\"");
    cr_svg_attribute(out, "cx", x_of(bin->confidence));
    cr_svg_attribute(out, "cy", y_of(bin->accuracy));
    cr_buf_puts(out, "/></g>");
}

/* Counts are written upright where bins are narrow, above their bar or, where that is tall, beside its top. */
static void put_count(struct cr_buf *out, const struct cr_report_bin *bin, size_t at, size_t n_bins, uint64_t largest)
{
    double width = SIDE / (double)n_bins;
    double x = LEFT + width * ((double)at + 0.5) + 3.2;
    double height = STRIP * (double)bin->n / (double)largest;
    double room = STRIP - height;
    bool inside = room < 30 && height > 26;
    double y = inside ? STRIP_TOP + STRIP - height + 3 : STRIP_TOP + STRIP - height - 3;
    cr_buf_printf(out, "<text class=\"n\" text-anchor=\"%s\" transform=\"translate(", inside ? "end" : "start");
    cr_html_coordinate(out, x);
    cr_buf_putc(out, ' ');
    cr_html_coordinate(out, y);
    cr_buf_puts(out, ") rotate(-90)\">");
    cr_html_count(out, bin->n);
    cr_buf_puts(out, "</text>");
}

void cr_draw_reliability(struct cr_buf *out, const struct cr_report_group *group, const char *run)
{
    uint64_t largest = 1;
    for (size_t b = 0; b < group->n_bins; b++) {
        largest = group->bins[b].n > largest ? group->bins[b].n : largest;
    }
    cr_buf_printf(out, "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"Reliability diagram of ", WIDTH,
                  HEIGHT);
    cr_html_str(out, group->name);
    if (run != NULL) {
        cr_buf_puts(out, ", ");
        cr_html_str(out, run);
    }
    cr_buf_puts(out, "\">");
    put_axes(out);
    for (size_t b = 0; b < group->n_bins; b++) {
        if (group->bins[b].n > 0) {
            put_bars(out, &group->bins[b], b, group->n_bins, largest);
        }
    }
    cr_svg_segment(out, "diagonal", LEFT, TOP + SIDE, LEFT + SIDE, TOP);
    for (size_t b = 0; b < group->n_bins; b++) {
        if (group->bins[b].n > 0) {
            put_mark(out, &group->bins[b], group->n_seeds > 0 ? group->n_seeds : 1);
        }
    }
    cr_svg_segment(out, "axis", LEFT, STRIP_TOP + STRIP, LEFT + SIDE, STRIP_TOP + STRIP);
    for (size_t b = 0; b < group->n_bins && group->n_bins <= 25; b++) {
        if (group->bins[b].n > 0) {
            put_count(out, &group->bins[b], b, group->n_bins, largest);
        }
    }
    cr_buf_puts(out, "</svg>\n");
}
