/* The page of a comparison: texts, tables, charts. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "tests/runtime/compare_case.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

/* Texts: NLL of a token, documents drawn whole. */
START_TEST(texts)
{
    struct cr_buf tables = {0};
    struct made m;
    for (int f = 0; f < 2; f++) {
        make(&m, f == 0 ? "adamw" : "bora", 1, 0.5);
        m.e.outcomes.classification = m.result.classification = false;
        for (size_t i = 0; i < N; i++) {
            m.items[i].n_targets = (uint32_t)(1 + i % 5);
            m.items[i].nll = (2 - f) * m.items[i].n_targets;
        }
        files_of[f][0] = put(f, &m, false);
        entries[f] = (struct cr_compare_entry){.files = files_of[f]};
    }
    struct cr_compare_options o = options_for(1);
    json_t *json = compare(&o, &tables);
    ck_assert_double_eq_tol(at(json, 3, 0, NULL, "nll", "value"), 2, 1e-13);
    ck_assert_double_eq_tol(at(json, 3, 1, "difference", "nll", "value"), -1, 1e-13);
    ck_assert_double_eq_tol(at(json, 3, 1, "difference", "nll", "low"), -1, 1e-12);
    ck_assert(strstr(tables.data, "perplexity |") != NULL);
    ck_assert(strstr(tables.data, "7.389 |") != NULL); /* e squared */
    json_decref(json);
    cr_buf_free(&tables);
}
END_TEST

/* The page: a row and a diagram for each method and group, the same examples' words, nothing that runs. */
START_TEST(page)
{
    static const char hostile[] = "<script>&\"x";
    struct cr_buf data = {0}, tables = {0};
    struct cr_error err = {0};
    char path[1024];
    uint8_t *text;
    for (int i = 0; i < 2 * N; i++) {
        cr_buf_printf(&data, "{\"question\":\"<b>number %d</b>\",\"choices\":[\"no\",\"yes\"],\"answer\":%d}\n", i,
                      i % 2);
    }
    const char *file = cr_test_path("data.jsonl");
    cr_test_put_file(file, data.data, data.n);
    for (int method = 0; method < 2; method++) {
        for (int s = 0; s < 2; s++) {
            struct made m;
            make(&m, method == 0 ? "adamw" : "ivon", (unsigned)(s + 3 * method), method == 0 ? 0.3 : 0.6);
            m.result.has_ood = _i == 0;
            m.e.data = file;
            cr_hex_128(m.e.data_hash, cr_xxh3_128(data.data, data.n - (_i == 2)));
            files_of[method][s] = put(2 * method + s, &m, false);
        }
        entries[method] = (struct cr_compare_entry){.files = files_of[method], .name = method == 0 ? NULL : hostile};
    }
    struct cr_compare_options o = options_for(2);
    snprintf(path, sizeof path, "%s", cr_test_path("page.html"));
    o.report = path;
    o.in_domain = "home";
    ck_assert_msg(cr_compare(&o, NULL, collect, &tables, &err) == CR_OK, "%s", err.message);
    ck_assert_int_eq(cr_file_read(path, 1 << 24, &text, NULL, &err), CR_OK);
    const char *html = (const char *)text;
    ck_assert(strstr(html, "<script") == NULL && strstr(html, "&lt;script&gt;&amp;&quot;x</td>") != NULL);
    /* Five groups of two; their risks; accuracy, NLL, ECE, Brier by members; two of entropies. */
    size_t n_svg = 0;
    for (const char *at = html; (at = strstr(at, "<svg")) != NULL; at++) {
        n_svg++;
    }
    ck_assert_uint_eq(n_svg, 10 + 5 + 4 + 2);
    ck_assert_int_eq(strstr(html, "elsewhere: mean 0.528") != NULL, _i == 0); /* of 1, 1/4 and 1/3 */
    ck_assert_int_eq(strstr(html, "shifted: mean 0.") != NULL, _i != 0);
    ck_assert_int_eq(strstr(html, "<blockquote dir=\"auto\">&lt;b&gt;number ") != NULL,
                     _i != 2); /* another file: none, which is not to say that there are none */
    ck_assert_int_eq(strstr(html, "<p>Not shown: the data file has changed since") != NULL, _i == 2);
    ck_assert_ptr_null(strstr(html, "<p>None.</p>"));
    /* Every entropy elsewhere is above those here, but one of two; made-up members: entropy 1.25, information 1/16. */
    ck_assert_int_eq(strstr(html, "</td><td>1.000</td><td>1.000</td><td>0.600</td><td>0.875</td><td>0.625</td></tr>") !=
                         NULL,
                     _i == 0);
    ck_assert(strstr(html, "</td><td>1.250</td><td>0.000</td><td>0.063</td><td>0.000</td></tr>") != NULL);
    ck_assert(strstr(html, "nan") == NULL && strstr(html, "inf\"") == NULL && strstr(html, ">inf") == NULL);
    ck_assert(strstr(html, "&#39;&lt;script&gt;&amp;&quot;x=") != NULL); /* the line to type */
    cr_free(text);
    cr_buf_free(&data);
    cr_buf_free(&tables);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

static const struct {
    const char *json, *refusal; /* refusal NULL: what the page shows of it follows */
    const char *shown;
} charts[] = {
    {"{\"title\":\"Ta<u\",\"note\":\"why\",\"charts\":[{\"title\":\"t\",\"x\":\"tau\",\"lines\":[{\"name\":\"small\","
     "\"points\":[[0,2.5],[1,2],[3.5,2.25]]}]}]}",
     NULL, "<h2>Ta&lt;u</h2>\n<p class=\"note\">why</p>"},
    {"{\"title\":\"a\",\"charts\":[{\"title\":\"t\",\"x\":\"tau\",\"lines\":[{\"points\":[[0,2]]}]}]}", NULL,
     "<h2>a</h2>"},
    {"{\"title\":\"a\",\"charts\":[{\"title\":\"t\",\"x\":\"tau\",\"lines\":[{\"points\":[[0,2],[1]]}]}]}",
     "charts.json: point 2 of a line", NULL},
    {"{\"title\":\"a\",\"charts\":[{\"title\":\"t\",\"x\":\"tau\",\"lines\":[{\"points\":[]}]}]}", "a chart without",
     NULL},
    {"{\"title\":\"a\",\"charts\":[{\"title\":\"t\"}]}", "charts.json|\"x\"", NULL},
    {"{\"title\":\"a\"}", "no list of \"charts\"", NULL},
    {"{\"charts\":[]}", "charts.json|\"title\"", NULL},
    {"[]", "charts.json|object", NULL},
    {"{", "charts.json|line 1", NULL},
};

START_TEST(further_charts)
{
    char path[1024], file[1024];
    struct cr_buf tables = {0};
    struct cr_error err = {0};
    uint8_t *text;
    make_six();
    struct cr_compare_options o = options_for(1);
    snprintf(path, sizeof path, "%s", cr_test_path("page.html"));
    snprintf(file, sizeof file, "%s", cr_test_path("charts.json"));
    cr_test_put_file(file, charts[_i].json, strlen(charts[_i].json));
    o.charts = file;
    refuse(&o, CR_E_USAGE, "--report is missing");
    o.report = path;
    if (charts[_i].refusal != NULL) {
        refuse(&o, CR_E_INPUT, charts[_i].refusal);
        return;
    }
    ck_assert_msg(cr_compare(&o, NULL, collect, &tables, &err) == CR_OK, "%s", err.message);
    ck_assert_int_eq(cr_file_read(path, 1 << 24, &text, NULL, &err), CR_OK);
    ck_assert_ptr_nonnull(strstr((const char *)text, charts[_i].shown));
    ck_assert_ptr_nonnull(strstr((const char *)text, ">tau</text>"));
    cr_free(text);
    cr_buf_free(&tables);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("compare page");
    TCase *tcase = tcase_create("compare page");
    tcase_add_checked_fixture(tcase, NULL, cr_test_dir_remove);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, texts);
    tcase_add_loop_test(tcase, page, 0, 3);
    tcase_add_loop_test(tcase, further_charts, 0, sizeof charts / sizeof charts[0]);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
