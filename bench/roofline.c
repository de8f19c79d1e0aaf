/* roofline: axes, lines, marks. */
#include "bench/roofline.h"

#include <math.h>
#include <string.h>

#include "runtime/report/html.h"
#include "runtime/report/svg.h"

/* Size and margins in SVG units; text is 11 units high. */
#define WIDTH 1040.0
#define HEIGHT 560.0
#define LEFT 58.0
#define RIGHT 14.0
#define TOP 14.0
#define BOTTOM 40.0

enum { N_COLOURS = 5, N_SHAPES = 3, MAX_FAMILIES = N_COLOURS * N_SHAPES };

const char cr_bench_roofline_style[] =
    ":root{--c0:#1f68b3;--c1:#c0421c;--c2:#2b8a4b;--c3:#8a4fbf;--c4:#a87400}\n"
    "@media screen and (prefers-color-scheme:dark){:root{--c0:#7fb8f2;--c1:#ff9b6e;--c2:#6fd193;--c3:#c9a2f5;"
    "--c4:#e8bd55}}\n"
    "svg.roofline{max-width:none}\n"
    "table{font-size:.86rem}\n"
    "@media(min-width:900px){td:first-child{white-space:nowrap;max-width:none}}\n"
    "svg.k{display:inline-block;width:14px;height:14px;vertical-align:-2px;margin-right:5px}\n"
    ".m{stroke:var(--paper);stroke-width:1}\n"
    ".m:hover{stroke:var(--ink);stroke-width:2}\n"
    ".k0{fill:var(--c0)}.k1{fill:var(--c1)}.k2{fill:var(--c2)}.k3{fill:var(--c3)}.k4{fill:var(--c4)}\n"
    ".peer{fill:none;stroke:var(--soft);stroke-width:1.3}\n"
    "svg .roof{stroke:var(--ink);stroke-width:1.5;fill:none}\n"
    "svg .slope{stroke:var(--soft);stroke-width:1.2;stroke-dasharray:6 4;fill:none}\n"
    ".legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:.9rem;margin:6px 0 14px}\n"
    ".share{display:inline-block;width:60px;height:8px;background:var(--panel);margin-left:8px}\n"
    ".share i{display:block;height:8px;background:var(--blue)}\n"
    "tr.family td{font-weight:600;padding-top:18px}\n";

struct axis {
    double low, high; /* logarithms */
};

struct chart {
    struct axis x, y;
    const struct cr_bench_result *results;
    size_t n_results;
    char families[MAX_FAMILIES][24];
    size_t n_families;
};

static double x_of(const struct chart *c, double value)
{
    return LEFT + (log10(value) - c->x.low) / (c->x.high - c->x.low) * (WIDTH - LEFT - RIGHT);
}

static double y_of(const struct chart *c, double value)
{
    return HEIGHT - BOTTOM - (log10(value) - c->y.low) / (c->y.high - c->y.low) * (HEIGHT - TOP - BOTTOM);
}

/* value = figure * 10^(3 * power), 1 <= figure < 1000 where power allows */
static double scaled(double value, int low, int high, int *power)
{
    *power = low;
    double figure = value * pow(10, -3.0 * low);
    while (figure >= 1000 && *power < high) {
        figure /= 1000;
        ++*power;
    }
    return figure;
}

static void put_figure(struct cr_buf *out, double figure)
{
    cr_html_number(out, figure, figure < 10 ? 2 : figure < 100 ? 1 : 0);
}

void cr_bench_put_rate(struct cr_buf *out, double value)
{
    static const char *const prefixes[] = {"", " k", " M", " G", " T", " P"};
    int power;
    put_figure(out, scaled(value, 0, 5, &power));
    cr_buf_puts(out, prefixes[power]);
}

void cr_bench_put_time(struct cr_buf *out, double seconds)
{
    static const char *const units[] = {" ns", " \xc2\xb5s", " ms", " s"};
    int power;
    put_figure(out, scaled(seconds, -3, 0, &power));
    cr_buf_puts(out, units[power + 3]);
}

static void family_of(const struct cr_bench_result *r, char name[24])
{
    size_t n = strcspn(r->entry.name, "/");
    n = n < 23 ? n : 23;
    memcpy(name, r->entry.name, n);
    name[n] = '\0';
}

static size_t family_index(struct chart *c, const struct cr_bench_result *r)
{
    char name[24];
    family_of(r, name);
    size_t i = 0;
    while (i < c->n_families && strcmp(c->families[i], name) != 0) {
        i++;
    }
    if (i == c->n_families && i < MAX_FAMILIES) {
        memcpy(c->families[c->n_families++], name, sizeof name);
    }
    return i % MAX_FAMILIES;
}

static bool drawn(const struct cr_bench_result *r)
{
    return r->seconds > 0 && r->entry.flops > 0 && r->entry.bytes > 0;
}

/* Whole decades around everything that is drawn. */
static void scale(struct chart *c)
{
    double x_low = 0.1, x_high = 100, y_low = INFINITY, y_high = 0;
    for (size_t i = 0; i < c->n_results; i++) {
        const struct cr_bench_result *r = &c->results[i];
        if (drawn(r)) {
            double x = r->entry.flops / r->entry.bytes, y = r->entry.flops / r->seconds;
            x_low = fmin(x_low, x);
            x_high = fmax(x_high, x);
            y_low = fmin(y_low, y);
            y_high = fmax(y_high, y);
        }
    }
    for (int unit = CR_UNIT_FMA_SCALAR; unit <= CR_UNIT_TILE; unit++) {
        y_high = fmax(y_high, 1.3 * cr_bench_typical((enum cr_bench_unit)unit));
    }
    y_low = fmin(y_low, y_high / 1000);
    c->x = (struct axis){floor(log10(x_low)), ceil(log10(x_high))};
    c->y =
        (struct axis){floor(log10(y_low) + 0.3) - (log10(y_low) - floor(log10(y_low)) > 0.7 ? 0.4 : 0), log10(y_high)};
}

static void put_text(struct cr_buf *out, const char *style, const char *anchor, double x, double y)
{
    cr_buf_printf(out, "<text class=\"%s\" text-anchor=\"%s\"", style, anchor);
    cr_svg_attribute(out, "x", x);
    cr_svg_attribute(out, "y", y);
    cr_buf_putc(out, '>');
}

static void put_axes(struct cr_buf *out, const struct chart *c)
{
    for (double d = ceil(c->x.low); d <= c->x.high; d++) {
        double x = x_of(c, pow(10, d));
        cr_svg_segment(out, "grid", x, TOP, x, HEIGHT - BOTTOM);
        put_text(out, "", "middle", x, HEIGHT - BOTTOM + 15);
        cr_html_number(out, pow(10, d), d < 0 ? (int)-d : 0);
        cr_buf_puts(out, "</text>");
    }
    for (double d = ceil(c->y.low); d <= c->y.high; d++) {
        double y = y_of(c, pow(10, d));
        cr_svg_segment(out, "grid", LEFT, y, WIDTH - RIGHT, y);
        put_text(out, "", "end", LEFT - 6, y + 4);
        int power;
        cr_html_number(out, scaled(pow(10, d), 0, 5, &power), 0);
        cr_buf_puts(out, ((const char *const[]){"", " k", " M", " G", " T", " P"})[power]);
        cr_buf_puts(out, "</text>");
    }
    cr_svg_segment(out, "axis", LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM);
    cr_svg_segment(out, "axis", LEFT, TOP, LEFT, HEIGHT - BOTTOM);
    put_text(out, "title", "middle", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6);
    cr_buf_puts(out, "operations a byte read or written</text>");
    put_text(out, "title", "start", LEFT + 6, TOP + 11);
    cr_buf_puts(out, "operations a second</text>");
}

static double highest_roof(void)
{
    double top = 0;
    for (int unit = CR_UNIT_FMA_SCALAR; unit <= CR_UNIT_TILE; unit++) {
        top = fmax(top, cr_bench_typical((enum cr_bench_unit)unit));
    }
    return top;
}

/* The line y = rate x, from the frame to the highest unit. */
static void put_slope(struct cr_buf *out, const struct chart *c, enum cr_bench_unit unit)
{
    double rate = cr_bench_typical(unit), x1 = fmax(pow(10, c->x.low), pow(10, c->y.low) / rate);
    double x2 = fmin(pow(10, c->x.high), highest_roof() / rate);
    if (!(rate > 0) || x1 >= x2) {
        return;
    }
    cr_svg_segment(out, "slope", x_of(c, x1), y_of(c, rate * x1), x_of(c, x2), y_of(c, rate * x2));
    /* Along the line, each level's at another place. */
    double at = pow(10, log10(x1) + (log10(x2) - log10(x1)) * (0.45 + 0.12 * (unit - CR_UNIT_L1)));
    double slope = atan2(y_of(c, rate * x2) - y_of(c, rate * x1), x_of(c, x2) - x_of(c, x1)) * 57.29578;
    cr_buf_puts(out, "<text text-anchor=\"middle\" transform=\"translate(");
    cr_html_coordinate(out, x_of(c, at));
    cr_buf_putc(out, ' ');
    cr_html_coordinate(out, y_of(c, rate * at));
    cr_buf_puts(out, ") rotate(");
    cr_html_coordinate(out, slope);
    cr_buf_puts(out, ")\" dy=\"-5\">");
    cr_html_str(out, cr_bench_unit_name(unit));
    cr_buf_putc(out, ' ');
    cr_bench_put_rate(out, rate);
    cr_buf_puts(out, "B/s</text>");
}

/* A unit, from where the first level of memory can feed it. */
static void put_roof(struct cr_buf *out, const struct chart *c, enum cr_bench_unit unit)
{
    double rate = cr_bench_typical(unit), bandwidth = cr_bench_typical(CR_UNIT_L1);
    if (!(rate > 0) || !(bandwidth > 0)) {
        return;
    }
    double y = y_of(c, rate);
    cr_svg_segment(out, "roof", x_of(c, fmax(pow(10, c->x.low), rate / bandwidth)), y, WIDTH - RIGHT, y);
    /* Two widths of one unit may be equally fast: their names stand side by side. */
    put_text(out, "n", "end", WIDTH - RIGHT - 2 - (unit == CR_UNIT_FMA_AVX2 || unit == CR_UNIT_FMA_NEON ? 200 : 0),
             y - 4);
    cr_html_str(out, cr_bench_unit_name(unit));
    cr_buf_putc(out, ' ');
    cr_bench_put_rate(out, rate);
    cr_buf_puts(out, "FLOP/s</text>");
}

/* A mark of shape and colour of a family around (x, y), left open for its title. */
static void put_mark(struct cr_buf *out, size_t family, double x, double y)
{
    static const char *const shapes[N_SHAPES] = {"M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0 -4.5 0Z", "M-4 -4H4V4H-4Z",
                                                 "M0 -5.5L5 4H-5Z"};
    cr_buf_printf(out, "<path class=\"m k%d\" d=\"%s\" transform=\"translate(", (int)(family % N_COLOURS),
                  shapes[family / N_COLOURS]);
    cr_html_coordinate(out, x);
    cr_buf_putc(out, ' ');
    cr_html_coordinate(out, y);
    cr_buf_puts(out, ")\">");
}

static void put_peer(struct cr_buf *out, const struct chart *c, const struct cr_bench_result *r)
{
    double rate = r->entry.flops / r->peer_seconds;
    cr_buf_puts(out, "<circle class=\"peer\" r=\"4\"");
    cr_svg_attribute(out, "cx", x_of(c, r->entry.flops / r->entry.bytes));
    cr_svg_attribute(out, "cy", y_of(c, rate));
    cr_buf_puts(out, "><title>");
    cr_html_str(out, cr_onednn_name());
    cr_buf_puts(out, " for ");
    cr_html_str(out, r->entry.name);
    cr_buf_puts(out, ": ");
    cr_bench_put_rate(out, rate);
    cr_buf_puts(out, "FLOP/s</title></circle>\n");
}

static void put_result(struct cr_buf *out, struct chart *c, const struct cr_bench_result *r)
{
    double rate = r->entry.flops / r->seconds;
    put_mark(out, family_index(c, r), x_of(c, r->entry.flops / r->entry.bytes), y_of(c, rate));
    cr_buf_puts(out, "<title>");
    cr_html_str(out, r->entry.name);
    cr_buf_puts(out, ": ");
    cr_bench_put_rate(out, rate);
    cr_buf_puts(out, "FLOP/s, ");
    cr_html_number(out, 100 * fmax(r->peak_share, r->stream_share), 0);
    cr_buf_puts(out, " % of ");
    cr_html_str(out, cr_bench_unit_name(r->peak_share >= r->stream_share ? r->entry.unit : r->entry.memory));
    cr_buf_puts(out, "</title></path>\n");
}

static void put_legend(struct cr_buf *out, const struct chart *c, bool peer)
{
    cr_buf_puts(out, "<div class=\"legend\">");
    for (size_t i = 0; i < c->n_families; i++) {
        cr_buf_puts(out, "<span><svg class=\"k\" viewBox=\"-7 -7 14 14\" aria-hidden=\"true\">");
        put_mark(out, i, 0, 0);
        cr_buf_puts(out, "</path></svg>");
        cr_html_str(out, c->families[i]);
        cr_buf_puts(out, "</span>");
    }
    if (peer) {
        cr_buf_puts(out, "<span><svg class=\"k\" viewBox=\"-7 -7 14 14\" aria-hidden=\"true\"><circle class=\"peer\" "
                         "r=\"4\"/></svg>");
        cr_html_str(out, cr_onednn_name());
        cr_buf_puts(out, "</span>");
    }
    cr_buf_puts(out, "</div>\n");
}

void cr_bench_roofline(struct cr_buf *out, const struct cr_bench_result *results, size_t n_results)
{
    struct chart c = {.results = results, .n_results = n_results};
    bool peer = false;
    scale(&c);
    cr_buf_printf(out,
                  "<svg class=\"roofline\" viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"Roofline: operations a "
                  "second over operations a byte of every entry; the table below has the numbers\">\n",
                  WIDTH, HEIGHT);
    put_axes(out, &c);
    for (int unit = CR_UNIT_L1; unit <= CR_UNIT_DRAM; unit++) {
        put_slope(out, &c, (enum cr_bench_unit)unit);
    }
    for (int unit = CR_UNIT_FMA_SCALAR; unit <= CR_UNIT_TILE; unit++) {
        put_roof(out, &c, (enum cr_bench_unit)unit);
    }
    for (size_t i = 0; i < n_results; i++) {
        if (drawn(&results[i]) && results[i].peer_seconds > 0) {
            put_peer(out, &c, &results[i]);
            peer = true;
        }
    }
    for (size_t i = 0; i < n_results; i++) {
        if (drawn(&results[i])) {
            put_result(out, &c, &results[i]);
        }
    }
    cr_buf_puts(out, "</svg>\n");
    put_legend(out, &c, peer);
}
