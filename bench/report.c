/* report: the page from top to bottom. */
#include "bench/report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/roofline.h"
#include "commit.h"
#include "runtime/core/buf.h"
#include "runtime/io/file.h"
#include "runtime/report/html.h"

static const char *unit_of(enum cr_bench_unit unit)
{
    return unit <= CR_UNIT_TILE ? "FLOP/s" : unit >= CR_UNIT_L1 && unit <= CR_UNIT_DRAM ? "B/s" : "/s";
}

static void put_facts(struct cr_buf *out, const struct cr_bench_report *r)
{
    char text[64];
    cr_buf_puts(out, "<dl>\n");
    cr_html_pair(out, "Processor", r->cpu->name);
    cr_html_pair(out, "Highest tier", cr_tier_name(r->tier));
    snprintf(text, sizeof text, "%d", cr_bench_threads());
    cr_html_pair(out, "Threads", text);
    cr_html_pair(out, "Peer", cr_onednn_name());
    cr_html_pair(out, "Compiler", __VERSION__);
    cr_html_pair(out, "Commit", CR_BENCH_COMMIT);
    cr_html_pair(out, "Command", r->command);
    cr_buf_puts(out, "</dl>\n");
}

static void put_units(struct cr_buf *out)
{
    cr_buf_puts(out,
                "<h2>What this machine reaches</h2>\n<p class=\"note\">Medians of all bursts of this run: loops of "
                "nothing but the unit's own instruction, and y = a y + x over arrays of each level of memory.</p>\n"
                "<div class=\"wide\"><table>\n<tr><th>Unit</th><th>Rate</th></tr>\n");
    for (int unit = CR_UNIT_NONE + 1; unit < CR_UNITS; unit++) {
        double rate = cr_bench_typical((enum cr_bench_unit)unit);
        if (rate > 0) {
            cr_buf_puts(out, "<tr><td>");
            cr_html_str(out, cr_bench_unit_name((enum cr_bench_unit)unit));
            cr_buf_puts(out, "</td><td>");
            cr_bench_put_rate(out, rate);
            cr_buf_puts(out, unit == CR_UNIT_CLOCK ? "Hz" : unit_of((enum cr_bench_unit)unit));
            cr_buf_puts(out, "</td></tr>\n");
        }
    }
    cr_buf_puts(out, "</table></div>\n");
}

static void put_share(struct cr_buf *out, double share, enum cr_bench_unit unit)
{
    cr_buf_puts(out, "<td>");
    if (share > 0) {
        cr_html_number(out, 100 * share, 1);
        cr_buf_puts(out, " %<span class=\"share\"><i style=\"width:");
        cr_html_coordinate(out, fmin(100 * share, 100));
        cr_buf_puts(out, "%\"></i></span><small>");
        cr_html_str(out, cr_bench_unit_name(unit));
        cr_buf_puts(out, "</small>");
    }
    cr_buf_puts(out, "</td>");
}

static void put_row(struct cr_buf *out, const struct cr_bench_result *r)
{
    const struct cr_bench_entry *e = &r->entry;
    cr_buf_puts(out, "<tr><td>");
    cr_html_str(out, e->name);
    if (r->error[0] != '\0' || !(r->seconds > 0)) {
        cr_buf_puts(out, "</td><td colspan=\"6\" class=\"said\">");
        cr_html_str(out, r->error[0] != '\0' ? r->error : "not timed");
        cr_buf_puts(out, "</td></tr>\n");
        return;
    }
    cr_buf_puts(out, "</td><td>");
    cr_bench_put_time(out, r->seconds);
    cr_buf_puts(out, "</td><td>");
    cr_bench_put_rate(out, e->flops / r->seconds);
    cr_buf_puts(out, "</td><td>");
    cr_bench_put_rate(out, e->bytes / r->seconds);
    cr_buf_puts(out, "</td>");
    put_share(out, r->peak_share, e->unit);
    put_share(out, r->stream_share, e->memory);
    cr_buf_puts(out, "<td>");
    if (r->onednn_ratio > 0) {
        cr_html_number(out, r->onednn_ratio, 2);
        cr_buf_puts(out, " \xc3\x97");
    }
    cr_buf_puts(out, "</td></tr>\n");
}

static void put_table(struct cr_buf *out, const struct cr_bench_report *r)
{
    cr_buf_puts(out,
                "<h2>Results</h2>\n<p class=\"note\">Medians. Shares are ratios to the unit and to the level of "
                "memory timed right before and after each sample; the higher of the two says what bounds an entry. "
                "Each entry was compared with its definition before it was timed. The ratio is our speed over the "
                "peer's, which multiplies dense weights packed beforehand.</p>\n<div class=\"wide\"><table>\n"
                "<tr><th>Entry</th><th>Time</th><th>FLOP/s</th><th>B/s</th><th>Share of unit</th>"
                "<th>Share of memory</th><th>To peer</th></tr>\n");
    for (size_t i = 0; i < r->n_results; i++) {
        size_t n = strcspn(r->results[i].entry.name, "/") + 1;
        if (i == 0 || strncmp(r->results[i].entry.name, r->results[i - 1].entry.name, n) != 0) {
            cr_buf_puts(out, "<tr class=\"family\"><td colspan=\"7\">");
            cr_html_text(out, r->results[i].entry.name, n - 1);
            cr_buf_puts(out, "</td></tr>\n");
        }
        put_row(out, &r->results[i]);
    }
    cr_buf_puts(out, "</table></div>\n");
}

bool cr_bench_report_write(const struct cr_bench_report *report, const char *path)
{
    struct cr_buf page = {0};
    struct cr_error err = {0};
    cr_html_begin(&page, "credence: kernels against this machine", cr_bench_roofline_style);
    put_facts(&page, report);
    cr_buf_puts(&page, "<h2>Roofline</h2>\n<p class=\"note\">Slanted lines: what each level of memory can feed. Level "
                       "lines: what the arithmetic units can do. A mark on a line is at the limit. Point at a mark for "
                       "its name and numbers. Kernels bound by exponentials or integer products stay below these lines "
                       "for that reason; the table has their share of their own unit.</p>\n");
    cr_bench_roofline(&page, report->results, report->n_results);
    put_table(&page, report);
    put_units(&page);
    cr_buf_puts(&page, "</body>\n</html>\n");
    bool good = !page.failed && cr_file_write(path, page.data, page.n, &err) == CR_OK;
    if (!good) {
        fprintf(stderr, "credence-bench: %s\n", page.failed ? "out of memory" : err.message);
    }
    cr_buf_free(&page);
    return good;
}

void cr_bench_print_peaks(void)
{
    for (int unit = CR_UNIT_NONE + 1; unit < CR_UNITS; unit++) {
        double rate = cr_bench_typical((enum cr_bench_unit)unit);
        if (rate > 0) {
            printf("%-32s %10.4g %s\n", cr_bench_unit_name((enum cr_bench_unit)unit), rate,
                   unit == CR_UNIT_CLOCK ? "Hz" : unit_of((enum cr_bench_unit)unit));
        }
    }
}
