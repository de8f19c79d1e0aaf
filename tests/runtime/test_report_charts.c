/* Charts of the HTML page: nothing outside of them, whatever the numbers; long curves, directions, many lines. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/report/draw.h"
#include "runtime/report/report.h"
#include "tests/support/kernel_test.h"
#include "tests/support/output_test.h"

/* One point, equal values, zeros, huge and tiny values: coordinates stay inside the drawing. */
static const double levels[] = {0, 1, -3, 1e-9, 1e-40, 1e-70, -1e-310, 1e12, 1e300, 2.302585};

static void check_inside(const char *svg)
{
    for (const char *at = svg; (at = strstr(at, " d=\"M")) != NULL; at++) {
        const char *end = strchr(at + 4, '"');
        char *next;
        for (const char *c = at + 4; c < end; c = next) {
            double value = strtod(*c == 'M' || *c == 'L' || *c == ' ' ? c + 1 : c, &next);
            ck_assert_msg(next > c && value >= 0 && value <= 440, "%.60s", at);
        }
    }
}

static void draw(struct cr_buf *buf, const struct cr_report_point *points, size_t n, bool marks, bool zero)
{
    struct cr_report_line line = {.series = {points, n}, .marks = marks};
    struct cr_report_chart chart = {.title = "x", .x_label = "y", .lines = &line, .n_lines = 1, .zero = zero};
    cr_buf_clear(buf);
    cr_draw_lines(buf, &chart);
}

START_TEST(odd_curves)
{
    struct cr_buf buf = {0};
    for (size_t n = 1; n <= 3; n++) {
        struct cr_report_point points[] = {{7, levels[_i]}, {8, levels[_i]}, {9, levels[_i]}};
        draw(&buf, points, n, false, true);
        check_inside(buf.data);
        ck_assert(strstr(buf.data, "nan") == NULL);
        draw(&buf, points, n, true, false);
        check_inside(buf.data);
        ck_assert_uint_eq(cr_output_count(buf.data, "<circle"), n);
    }
    cr_buf_free(&buf);
}
END_TEST

/* From the first to the second, along either axis, or both: however small or large the way is. */
static const double ends[][2] = {{0, 1e-9},      {0, 1e-40},      {0, 1e-70},     {0, 5e-324},
                                 {1e-40, 1e-70}, {-1e-40, 1e-40}, {1, 1 + 1e-12}, {-1e300, 1e300},
                                 {1e-70, 1e300}, {0, 1e300},      {1e300, 0}};

START_TEST(odd_spans)
{
    const double *e = ends[_i];
    struct cr_report_point points[][2] = {{{1, e[0]}, {2, e[1]}}, {{e[0], 1}, {e[1], 2}}, {{e[0], e[0]}, {e[1], e[1]}}};
    struct cr_buf buf = {0};
    for (int axes = 0; axes < 3; axes++) {
        draw(&buf, points[axes], 2, true, false);
        check_inside(buf.data);
        ck_assert(strstr(buf.data, "nan") == NULL && strstr(buf.data, "inf") == NULL);
        ck_assert_uint_ge(cr_output_count(buf.data, "text-anchor=\"end\""), 2); /* ticks that can be read */
    }
    cr_buf_free(&buf);
}
END_TEST

START_TEST(long_curve)
{
    size_t n = 100000;
    struct cr_report_point *points = calloc(n, sizeof *points);
    ck_assert_ptr_nonnull(points);
    for (size_t i = 0; i < n; i++) {
        points[i] = (struct cr_report_point){.step = (double)i, .value = 2 + (i % 2 == 0 ? 1 : -1)};
    }
    struct cr_buf buf = {0};
    draw(&buf, points, n, true, false);
    check_inside(buf.data);
    ck_assert_uint_lt(buf.n, 16384); /* 300 points of at most 16 characters, and the axes */
    cr_buf_free(&buf);
    free(points);
}
END_TEST

/* The curve of two points runs from the lower left to the upper right. */
START_TEST(direction)
{
    struct cr_report_point points[] = {{0, 1}, {10, 2}};
    struct cr_buf buf = {0};
    double x1, y1, x2, y2;
    draw(&buf, points, 2, false, false);
    const char *path = strstr(buf.data, "class=\"line s0 d0\" d=\"");
    ck_assert_ptr_nonnull(path);
    ck_assert_int_eq(sscanf(path, "class=\"line s0 d0\" d=\"M%lf %lfL%lf %lf", &x1, &y1, &x2, &y2), 4);
    ck_assert(x1 < x2 && y1 > y2);
    cr_buf_free(&buf);
}
END_TEST

/* Lines beyond the number of colours are told apart by dashes, also in the key of the chart. */
START_TEST(many_lines)
{
    struct cr_report_point points[] = {{0, 1}, {10, 2}};
    struct cr_report_line lines[CR_DRAW_COLOURS + 2];
    for (size_t i = 0; i < CR_DRAW_COLOURS + 2; i++) {
        lines[i] = (struct cr_report_line){.name = "n", .series = {points, i == 1 ? 0 : 2}};
    }
    struct cr_report_chart chart = {.title = "x", .x_label = "y", .lines = lines, .n_lines = CR_DRAW_COLOURS + 2};
    struct cr_report_section section = {.title = "x", .charts = &chart, .n_charts = 1};
    struct cr_report report = {.title = "", .sections = &section, .n_sections = 1, .n_groups = 0};
    struct cr_buf buf = {0};
    cr_report_html(&report, &buf);
    ck_assert_uint_eq(cr_output_count(buf.data, "<i class=\"s0 d1\"></i>n"), 1);
    ck_assert_uint_eq(cr_output_count(buf.data, "<path class=\"line s1 d1\""), 1);
    ck_assert_uint_eq(cr_output_count(buf.data, "s1 d0"), 0); /* a line without points */
    cr_buf_free(&buf);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("report charts");
    TCase *tcase = tcase_create("report charts");
    tcase_add_loop_test(tcase, odd_curves, 0, sizeof levels / sizeof levels[0]);
    tcase_add_loop_test(tcase, odd_spans, 0, sizeof ends / sizeof ends[0]);
    tcase_add_test(tcase, long_curve);
    tcase_add_test(tcase, direction);
    tcase_add_test(tcase, many_lines);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
