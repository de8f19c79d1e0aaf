/* The HTML page: well-formed whatever the texts, nothing from elsewhere, no figure that is not a number. */
#include <check.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/report/html.h"
#include "runtime/report/report.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"
#include "tests/support/output_test.h"

static const double none = (double)NAN;

static const char *number(double value, int decimals)
{
    static char text[64];
    struct cr_buf buf = {0};
    cr_html_number(&buf, value, decimals);
    snprintf(text, sizeof text, "%s", buf.data);
    cr_buf_free(&buf);
    return text;
}

static const char *count(uint64_t value)
{
    static char text[64];
    struct cr_buf buf = {0};
    cr_html_count(&buf, value);
    snprintf(text, sizeof text, "%s", buf.data);
    cr_buf_free(&buf);
    return text;
}

START_TEST(numbers)
{
    ck_assert_str_eq(number(0, 3), "0.000");
    ck_assert_str_eq(number(0.0625, 3), "0.063");
    ck_assert_str_eq(number(0.9999, 3), "1.000");
    ck_assert_str_eq(number(12.5, 0), "13");
    ck_assert_str_eq(number(-1.25, 2), "\xe2\x88\x92" "1.25");
    ck_assert_str_eq(number(none, 3), "\xe2\x80\x93");
    ck_assert_str_eq(number((double)INFINITY, 3), "\xe2\x80\x93");
    ck_assert_str_eq(number(1e300, 9), "1000000000000000");
    ck_assert_str_eq(number(999999999.5, 9), "999999999.500000000");
    ck_assert_str_eq(count(0), "0");
    ck_assert_str_eq(count(999), "999");
    ck_assert_str_eq(count(1000), "1\xe2\x80\xaf" "000");
    ck_assert_str_eq(count(1002003), "1\xe2\x80\xaf" "002\xe2\x80\xaf" "003");
    ck_assert_str_eq(count(UINT64_MAX), "18\xe2\x80\xaf" "446\xe2\x80\xaf" "744\xe2\x80\xaf" "073\xe2\x80\xaf"
                                        "709\xe2\x80\xaf" "551\xe2\x80\xaf" "615");
}
END_TEST

static const struct {
    const char *text, *html;
} escapes[] = {
    {"", ""},
    {"<script>alert('x' & \"y\")</script>", "&lt;script&gt;alert(&#39;x&#39; &amp; &quot;y&quot;)&lt;/script&gt;"},
    {"a\tb\nc", "a\tb\nc"},
    {"\x01\x1b\x7f", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    {"\xc2\x85\xc2\xa0", "\xef\xbf\xbd\xc2\xa0"},              /* a C1 control; a no-break space */
    {"\xff\xc3(", "\xef\xbf\xbd\xef\xbf\xbd("},                /* no UTF-8; a cut character */
    {"\xc0\xbc", "\xef\xbf\xbd\xef\xbf\xbd"},                  /* overlong "<" */
    {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},  /* surrogate */
    {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    {"\xe2\x82\xac\xf0\x9f\x98\x80", "\xe2\x82\xac\xf0\x9f\x98\x80"},
    {"\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd"},
};

START_TEST(escaping)
{
    struct cr_buf buf = {0};
    cr_buf_puts(&buf, "");
    cr_html_str(&buf, escapes[_i].text);
    ck_assert_str_eq(buf.data != NULL ? buf.data : "", escapes[_i].html);
    cr_buf_free(&buf);
}
END_TEST

START_TEST(nul_in_text)
{
    struct cr_buf buf = {0};
    cr_html_text(&buf, "a\0b", 3);
    ck_assert_str_eq(buf.data, "a\xef\xbf\xbd" "b");
    cr_buf_free(&buf);
}
END_TEST

/* Every element is closed in order, attributes are quoted, "<" and "&" occur only as markup. */
static void check_markup(const char *html)
{
    char stack[32][16];
    size_t depth = 0;
    const char *at = strstr(html, "<html");
    ck_assert(strncmp(html, "<!DOCTYPE html>\n", 16) == 0 && at == html + 16);
    while ((at = strpbrk(at, "<&")) != NULL) {
        if (*at == '&') {
            size_t n = strspn(at + 1, "abcdefghijklmnopqrstuvwxyz#0123456789");
            ck_assert_msg(n > 0 && at[1 + n] == ';', "%.40s", at);
            at += n;
            continue;
        }
        bool closing = at[1] == '/';
        const char *name = at + 1 + closing;
        size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789");
        const char *end = strchr(name, '>');
        ck_assert_msg(n > 0 && n < 16 && end != NULL, "%.40s", at);
        size_t quotes = 0;
        for (const char *c = name; c < end; c++) {
            quotes += *c == '"';
            ck_assert_msg(*c != '<', "%.40s", at);
        }
        ck_assert_msg(quotes % 2 == 0, "%.60s", at);
        if (closing) {
            ck_assert_msg(depth > 0 && strlen(stack[depth - 1]) == n && memcmp(stack[depth - 1], name, n) == 0,
                          "%.40s closes %s", at, depth > 0 ? stack[depth - 1] : "nothing");
            depth--;
        } else if (end[-1] != '/' && !(n == 4 && memcmp(name, "meta", 4) == 0)) {
            ck_assert(depth < 32);
            snprintf(stack[depth++], sizeof stack[0], "%.*s", (int)n, name);
        }
        at = end;
    }
    ck_assert_uint_eq(depth, 0);
}

/* Nothing is fetched, nothing runs, and no figure went wrong. */
static void check_contents(const char *html)
{
    static const char *const forbidden[] = {"<script", "<link", "<img", "<iframe", "src=", "href=", "url(", "@import",
                                            "http:", "https:", "onload", "onclick", "nan", "inf\"", "e+", "(null)"};
    for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++) {
        const char *found = strstr(html, forbidden[i]);
        ck_assert_msg(found == NULL, "%s in: %.60s", forbidden[i], found);
    }
    ck_assert(strstr(html, "default-src 'none'") != NULL);
    ck_assert(strstr(html, "width=device-width") != NULL);
    ck_assert(strstr(html, "prefers-color-scheme:dark") != NULL);
    ck_assert(strstr(html, "@media print") != NULL);
}

/* A page with two groups, one mistake and a training run; hostile texts in every place. */
#define HOSTILE "\"><script>alert(1)</script>&\xff"

struct sample {
    struct cr_report_bin bins[2][4];
    struct cr_report_group groups[2][2];
    struct cr_report_run runs[2];
    struct cr_report_difference differences[2];
    struct cr_report_pair pair;
    struct cr_report_saying said[2];
    struct cr_report_example example;
    struct cr_report_point loss[3], valid[2];
    struct cr_report_line lines[3];
    struct cr_report_chart charts[2];
    const char *column;
    double value;
    struct cr_report_row row;
    struct cr_report_table table;
    struct cr_report_section training, sections[2];
    struct cr_report report;
};

static void fill_sample(struct sample *s)
{
    struct cr_report_saying answer = {.text = HOSTILE, .text_bytes = strlen(HOSTILE), .p = 0.9876, .wrong = true};
    *s = (struct sample){
        .bins = {{{0, 0, 0}, {3, 0.4, 1}, {1000000, 0.6, 0.5}, {1, 1, 0}},
                 {{0, 0, 0}, {0, 0, 0}, {2, 0.7, 0.5}, {0, 0, 0}}},
        .pair = {HOSTILE, HOSTILE},
        .said = {answer, answer},
        .example = {.task = HOSTILE, .line = 17, .text = HOSTILE, .text_bytes = strlen(HOSTILE), .cut = true,
                    .said = s->said, .n_said = 1, .right = answer, .nll = 3},
        .loss = {{1, 2.5}, {2, 1.25}, {3, 0.5}},
        .valid = {{2, 1.5}, {3, 1.25}},
        .lines = {{HOSTILE, {s->loss, 3}, false}, {HOSTILE, {s->valid, 2}, true}, {"speed", {s->loss, 3}, false}},
        .charts = {{.title = HOSTILE, .x_label = HOSTILE, .lines = s->lines, .n_lines = 2, .whole = true},
                   {.title = "x", .x_label = "x", .lines = s->lines + 2, .n_lines = 1}},
        .training = {.title = "Training", .charts = s->charts, .n_charts = 2},
        .column = HOSTILE,
        .value = -0.0625,
        .row = {HOSTILE, &s->value},
        .table = {.first = HOSTILE, .columns = &s->column, .n_columns = 1, .rows = &s->row, .n_rows = 1},
        .sections = {{.title = HOSTILE, .note = HOSTILE, .charts = s->charts, .n_charts = 1},
                     {.title = HOSTILE, .table = &s->table}},
    };
    s->example.right.p = 0.0124;
    for (int r = 0; r < 2; r++) {
        for (int g = 0; g < 2; g++) {
            s->groups[r][g] = (struct cr_report_group){.name = g == 0 ? "all" : HOSTILE, .n = g == 0 ? 1000004 : 2,
                                                       .accuracy = {0.5, 0.25, 0.75}, .nll = {0.7, 0.6, 0.8},
                                                       .ece = {0.125, 0.1, 0.2}, .brier = {0.375, none, none},
                                                       .perplexity = {none, none, none}, .auroc_error = none,
                                                       .ece_floor = g == 0 ? 0.0625 : none, .bins = s->bins[g],
                                                       .n_bins = 4};
        }
        s->runs[r] = (struct cr_report_run){.name = HOSTILE, .groups = s->groups[r]};
        s->differences[r] = (struct cr_report_difference){.group = s->groups[0][r].name, .name = HOSTILE,
                                                          .accuracy = {0.01, -0.02, 0.04}, .nll = {-0.5, -0.75, -0.25},
                                                          .brier = {none, none, none}, .ece = {0, 0, 0},
                                                          .accuracy_is = HOSTILE, .nll_is = "better"};
    }
    s->report = (struct cr_report){.title = HOSTILE, .classification = true, .facts = &s->pair, .n_facts = 1,
                                   .runs = s->runs, .n_runs = 1, .n_groups = 2, .n_seeds = 1, .n_resamples = 1000,
                                   .sections = s->sections, .n_sections = 2, .examples = &s->example, .n_examples = 1,
                                   .training = &s->training, .settings = &s->pair, .n_settings = 1,
                                   .commands = &s->pair, .n_commands = 1};
}

START_TEST(whole_page)
{
    struct sample s;
    struct cr_buf buf = {0};
    fill_sample(&s);
    cr_report_html(&s.report, &buf);
    ck_assert(!buf.failed);
    ck_assert_uint_eq(strlen(buf.data), buf.n);
    check_markup(buf.data);
    check_contents(buf.data);
    ck_assert_uint_eq(cr_output_count(buf.data, "<svg"), 5); /* two diagrams, a chart, loss, speed */
    ck_assert(strstr(buf.data, "<td>0.500<small>0.250\xe2\x80\x93" "0.750</small></td>") != NULL);
    ck_assert(strstr(buf.data, "<td>0.375</td><td>\xe2\x80\x93</td>") != NULL);
    ck_assert_uint_eq(cr_output_count(buf.data, "<small><i>floor </i>0.063</small>"), 1);
    ck_assert(strstr(buf.data, ">1\xe2\x80\xaf" "000\xe2\x80\xaf" "000</text>") != NULL); /* the count of a bin */
    ck_assert(strstr(buf.data, "with 98.8 %") != NULL && strstr(buf.data, "with 1.2 %") != NULL);
    ck_assert(strstr(buf.data, "line 17") != NULL);
    ck_assert(strstr(buf.data, "</td><td>\xe2\x88\x92" "0.063</td></tr>") != NULL); /* of the table */
    ck_assert(strstr(buf.data, "Differences") == NULL);
    ck_assert_uint_eq(cr_output_count(buf.data, "<circle class=\"s1\""), 4); /* the chart's second line, the loss */
    cr_buf_free(&buf);
}
END_TEST

/* Two evaluations: a row each in every group, diagrams side by side, differences, what both answered. */
START_TEST(several_page)
{
    struct sample s;
    struct cr_buf buf = {0};
    fill_sample(&s);
    s.report.n_runs = 2;
    s.report.n_seeds = 3;
    s.report.differences = s.differences;
    s.report.n_differences = 2;
    s.report.margins = HOSTILE;
    s.said[0].who = "first & one";
    s.said[1].who = "second";
    s.said[1].wrong = false;
    s.example.n_said = 2;
    s.groups[0][1].bins = s.groups[1][1].bins = NULL; /* a group without diagrams */
    cr_report_html(&s.report, &buf);
    check_markup(buf.data);
    check_contents(buf.data);
    ck_assert_uint_eq(cr_output_count(buf.data, "<svg"), 5);
    ck_assert_uint_eq(cr_output_count(buf.data, "<small><i>floor </i>0.063</small>"), 2);
    ck_assert_uint_eq(cr_output_count(buf.data, "class=\"head\""), 4);
    ck_assert_uint_eq(cr_output_count(buf.data, " examples of 3 seeds, accuracy 0.500"), 2);
    ck_assert(strstr(buf.data, "<td>\xe2\x88\x92" "0.500<small>\xe2\x88\x92" "0.750 to \xe2\x88\x92" "0.250</small>"
                               "<small><b>better</b></small></td>") != NULL);
    ck_assert(strstr(buf.data, "<span class=\"said\">first &amp; one said <b>") != NULL);
    ck_assert(strstr(buf.data, "<span>second said <b>") != NULL);
    ck_assert(strstr(buf.data, "with 1.2 %") == NULL); /* whose would it be? */
    cr_buf_free(&buf);
}
END_TEST

START_TEST(texts_page)
{
    struct sample s;
    struct cr_buf buf = {0};
    fill_sample(&s);
    s.report.classification = false;
    s.report.n_groups = 1;
    s.groups[0][0].perplexity = (struct cr_report_figure){12.34, 10, 15};
    s.example.n_said = 0;
    s.example.task = NULL;
    cr_report_html(&s.report, &buf);
    check_markup(buf.data);
    check_contents(buf.data);
    ck_assert(strstr(buf.data, "<td>12.34<small>10.00\xe2\x80\x93" "15.00</small></td>") != NULL);
    ck_assert(strstr(buf.data, "NLL a token 3.000") != NULL);
    ck_assert_uint_eq(cr_output_count(buf.data, "<svg"), 3);
    cr_buf_free(&buf);
}
END_TEST

START_TEST(empty_page)
{
    struct cr_report_group all = {.name = "all", .accuracy = {none, none, none}, .nll = {none, none, none},
                                  .ece = {none, none, none}, .brier = {none, none, none}, .auroc_error = none,
                                  .ece_floor = none};
    struct cr_report_run run = {.groups = &all};
    struct cr_report report = {.title = "", .classification = true, .runs = &run, .n_runs = 1, .n_groups = 1};
    struct cr_buf buf = {0};
    cr_report_html(&report, &buf);
    check_markup(buf.data);
    check_contents(buf.data);
    ck_assert(strstr(buf.data, "<p>None.</p>") != NULL);
    ck_assert(strstr(buf.data, "Training") == NULL);
    cr_buf_free(&buf);
}
END_TEST

/* A locale with a decimal comma becomes that of numbers: the system's, else one made for this test. */
static bool set_comma(void)
{
    char command[1200];
    if (setlocale(LC_NUMERIC, "de_DE.UTF-8") == NULL) {
        snprintf(command, sizeof command, "localedef --no-archive -i de_DE -f UTF-8 '%s' >/dev/null 2>&1",
                 cr_test_path("de_DE.UTF-8"));
        if (system(command) != 0 || setenv("LOCPATH", cr_test_dir(), 1) != 0 ||
            setlocale(LC_NUMERIC, "de_DE.UTF-8") == NULL) {
            return false;
        }
    }
    return localeconv()->decimal_point[0] == ',';
}

/* A host may have set a locale with a decimal comma. */
START_TEST(decimal_comma)
{
    struct sample s;
    struct cr_buf plain = {0};
    struct cr_buf local = {0};
    fill_sample(&s);
    cr_report_html(&s.report, &plain);
    if (set_comma()) {
        cr_report_html(&s.report, &local);
        setlocale(LC_NUMERIC, "C");
        ck_assert_str_eq(plain.data, local.data);
    } else {
        printf("decimal_comma skipped: no locale de_DE.UTF-8, and localedef or its source is not there\n");
    }
    cr_buf_free(&plain);
    cr_buf_free(&local);
    cr_test_dir_remove();
}
END_TEST

START_TEST(out_of_memory)
{
    struct sample s;
    fill_sample(&s);
    for (long at = 1; at <= 64; at++) {
        struct cr_buf buf = {0};
        long live = cr_alloc_live();
        cr_alloc_fail_at(at, true);
        cr_report_html(&s.report, &buf);
        cr_alloc_fail_at(0, false);
        bool failed = buf.failed;
        cr_buf_free(&buf);
        ck_assert_int_eq(cr_alloc_live(), live);
        if (!failed) {
            ck_assert_int_gt(at, 3); /* the buffer grew a few times */
            return;
        }
    }
    ck_abort_msg("more than 64 allocations for one page");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("report");
    TCase *tcase = tcase_create("report");
    tcase_add_test(tcase, numbers);
    tcase_add_loop_test(tcase, escaping, 0, sizeof escapes / sizeof escapes[0]);
    tcase_add_test(tcase, nul_in_text);
    tcase_add_test(tcase, whole_page);
    tcase_add_test(tcase, several_page);
    tcase_add_test(tcase, texts_page);
    tcase_add_test(tcase, empty_page);
    tcase_add_test(tcase, decimal_comma);
    tcase_add_test(tcase, out_of_memory);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
