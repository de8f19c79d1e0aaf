/* The page of an evaluation says everything that it found: the fitted temperature and the figures at it, examples from
 * elsewhere, how far the members agree, and all runs behind a mixture. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/report/html.h"
#include "runtime/review/review_parts.h"
#include "tests/runtime/posterior_case.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"
#include "tests/support/output_test.h"
#include "tests/support/train_test.h"

/* Owned. */
static char *page_of(struct call *call)
{
    static char path[1024];
    size_t n;
    snprintf(path, sizeof path, "%s", cr_train_path("page.html"));
    call->options.report = path;
    eval(call);
    char *html = (char *)cr_train_bytes("page.html", &n);
    ck_assert_uint_eq(strlen(html), n);
    return html;
}

/* A row of a table with these numbers, three digits each. */
static bool has_row(const char *html, const char *name, const double *values, size_t n)
{
    struct cr_buf row = {0};
    cr_buf_printf(&row, "<tr><td>%s</td>", name);
    for (size_t i = 0; i < n; i++) {
        cr_buf_puts(&row, "<td>");
        cr_html_number(&row, values[i], 3);
        cr_buf_puts(&row, "</td>");
    }
    cr_buf_puts(&row, "</tr>");
    bool found = strstr(html, row.data) != NULL;
    cr_buf_free(&row);
    return found;
}

/* The last row of that name has the figure in so manyth place, before its interval. */
static void expect_figure(const char *html, const char *name, int place, double value)
{
    struct cr_buf want = {0};
    char start[64];
    const char *row = NULL, *cell;
    snprintf(start, sizeof start, "<tr><td>%s</td>", name);
    for (const char *at = html; (at = strstr(at, start)) != NULL; at++) {
        row = at;
    }
    ck_assert_msg(row != NULL, "no row %s", name);
    cell = row + strlen(start);
    for (int i = 0; i < place; i++) {
        cell = strstr(cell, "</td>") + 5;
    }
    cr_buf_puts(&want, "<td>");
    cr_html_number(&want, value, 3);
    ck_assert_msg(strncmp(cell, want.data, want.n) == 0, "%s %d: %.20s, expected %s", name, place, cell, want.data);
    cr_buf_free(&want);
}

START_TEST(everything_found)
{
    struct cr_buf buf = {0};
    struct call call;
    char elsewhere[1024], text[256];
    for (int i = 0; i < 20; i++) {
        cr_buf_printf(&buf, "{\"question\":\"%d\",\"choices\":[\"a\",\"b\",\"c\"],\"answer\":%d}\n", i * 37, i % 3);
    }
    cr_train_write("elsewhere.jsonl", buf.data, buf.n);
    cr_buf_free(&buf);
    snprintf(elsewhere, sizeof elsewhere, "%s", cr_train_path("elsewhere.jsonl"));
    call_init(&call, "ivon");
    call.options.samples = 3;
    call.options.calibrate = data;
    call.options.ood = elsewhere;
    char *html = page_of(&call);
    const struct cr_eval_result *r = &call.result;
    const struct cr_group_metrics *raw = &r->all, *cool = &r->calibrated[0];
    const double agreement[] = {raw->entropy, raw->expected_entropy, raw->mutual_information, raw->disagreement};
    ck_assert(has_row(html, "all", agreement, 4));
    snprintf(text, sizeof text, "answer %.1f %% of the examples differently", 100 * r->pair_disagreement);
    ck_assert(strstr(html, text) != NULL);
    snprintf(text, sizeof text, "is %.3f on average", r->pair_distance);
    ck_assert(strstr(html, text) != NULL);
    const double found[] = {r->ood.auroc, r->ood.average_precision, 20.0 / (20 + N), r->ood.information_auroc,
                            r->ood.information_average_precision};
    ck_assert(has_row(html, "all", found, 5));
    snprintf(text, sizeof text, "<dt>Temperature</dt><dd>%.4f, fitted on %d examples of ", r->temperature, N);
    ck_assert(strstr(html, text) != NULL);
    snprintf(text, sizeof text, "whose NLL is %.4f at it, %.4f raw</dd>", r->calibration_nll[1], r->calibration_nll[0]);
    ck_assert(strstr(html, text) != NULL);
    ck_assert_double_gt(fabs(cool->nll - raw->nll), 1e-3); /* three digits tell them apart */
    expect_figure(html, "raw answers", 0, raw->accuracy);
    expect_figure(html, "raw answers", 1, raw->nll);
    expect_figure(html, "raw answers", 2, raw->ece);
    expect_figure(html, "raw answers", 3, raw->brier);
    expect_figure(html, "raw answers", 4, raw->auroc_error);
    expect_figure(html, "calibrated", 0, cool->accuracy);
    expect_figure(html, "calibrated", 1, cool->nll);
    expect_figure(html, "calibrated", 2, cool->ece);
    expect_figure(html, "calibrated", 3, cool->brier);
    expect_figure(html, "calibrated", 4, cool->auroc_error);
    ck_assert(strstr(html, ">all, calibrated</h3>") != NULL); /* a diagram of its own */
    ck_assert(strstr(html, "raw answers said <b>") != NULL && strstr(html, "calibrated said <b>") != NULL);
    cr_free(html);
    call_free(&call);
}
END_TEST

/* Draws of logits agree or not, but are no members; a point has no doubt about itself. */
START_TEST(nothing_more_than_found)
{
    struct call call;
    train_adamw("point", "q_proj,v_proj", 4, 0);
    call_init(&call, "point");
    char *html = page_of(&call);
    static const char *const absent[] = {"Mutual information", "MI: AUROC", "calibrated",     "raw answers",
                                         "Temperature",        "Elsewhere", "taken at random"};
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        ck_assert_msg(strstr(html, absent[i]) == NULL, "%s", absent[i]);
    }
    cr_free(html);
    call_free(&call);
    struct cr_error err = {0};
    char point[1024], laplace[1024];
    snprintf(point, sizeof point, "%s", cr_train_path("point"));
    snprintf(laplace, sizeof laplace, "%s", cr_train_path("laplace"));
    struct cr_laplace_options o = {
        .size = sizeof o, .model = model, .data = data, .adapter = point, .output = laplace, .no_valid = true};
    ck_assert_msg(cr_laplace(&o, &call.host, NULL, &err) == CR_OK, "%s", err.message);
    call_init(&call, "laplace");
    call.options.samples = 50;
    html = page_of(&call);
    const struct cr_group_metrics *m = &call.result.all;
    const double agreement[] = {m->entropy, m->expected_entropy, m->mutual_information, (double)NAN};
    ck_assert(has_row(html, "all", agreement, 4));
    ck_assert(strstr(html, "taken at random") == NULL);
    cr_free(html);
    call_free(&call);
}
END_TEST

static void train_one(const char *output, uint64_t seed)
{
    struct cr_train_run run;
    char flags[128];
    cr_train_run_init(&run, output);
    run.options.steps = 4;
    run.options.seed = seed;
    snprintf(flags, sizeof flags, "{\"seed\":%d,\"steps\":4}", (int)seed);
    run.options.settings_json = flags;
    cr_train_must(&run);
}

/* The course, the settings and the line of every run, by names that may hold anything and tell them apart. */
START_TEST(all_runs_of_a_mixture)
{
    struct call call;
    train_one("r<1>", 4);
    train_one("s&2", 8);
    call_init(&call, "r<1>");
    add_adapter(&call, "s&2");
    char *html = page_of(&call);
    ck_assert(strstr(html, "Training of r&lt;1&gt;:</p>") != NULL && strstr(html, "--seed 4 ") != NULL);
    ck_assert(strstr(html, "Training of s&amp;2:</p>") != NULL && strstr(html, "--seed 8 ") != NULL);
    ck_assert(strstr(html, "<dt>seed</dt><dd>r&lt;1&gt;: 4; s&amp;2: 8</dd>") != NULL);
    ck_assert_uint_eq(cr_output_count(html, "<dt>batch-size</dt><dd>4</dd>"), 1);
    ck_assert_uint_eq(cr_output_count(html, "</i>s&amp;2</span>"), 3); /* loss, validation, speed */
    ck_assert(strstr(html, "and 1 more together on other.jsonl</h1>") != NULL);
    ck_assert_uint_eq(cr_output_count(html, "--adapter &#39;"), 2); /* without the flags of a caller */
    ck_assert(strstr(html, "r<1>") == NULL && strstr(html, "s&2") == NULL);
    cr_free(html);
    call_free(&call);
    ck_assert_int_eq(mkdir(cr_train_path("a"), 0777) | mkdir(cr_train_path("b"), 0777), 0);
    train_one("a/run", 1);
    train_one("b/run", 2);
    call_init(&call, "a/run");
    add_adapter(&call, "b/run");
    html = page_of(&call);
    ck_assert(strstr(html, "/a/run: 1; ") != NULL && strstr(html, "/b/run: 2</dd>") != NULL);
    cr_free(html);
    call_free(&call);
}
END_TEST

/* A page with all of it, whatever allocation fails on the way: a refusal, and nothing leaks. */
START_TEST(no_memory)
{
    struct call call;
    char elsewhere[1024], page[1024];
    snprintf(elsewhere, sizeof elsewhere, "%s", cr_train_path("mixture.jsonl"));
    static const char one[] = "{\"question\":\"x\",\"choices\":[\"a\",\"b\"],\"answer\":0}\n";
    cr_train_write("mixture.jsonl", one, sizeof one - 1);
    snprintf(page, sizeof page, "%s", cr_train_path("page.html"));
    train_ivon("other", data, 5);
    cr_status status = CR_E_MEMORY;
    long live = cr_alloc_live(), n_failed = 0;
    for (long at = 1 + _i; status != CR_OK; at += 24) {
        call_init(&call, "ivon");
        add_adapter(&call, "other");
        call.options.samples = 2;
        call.options.calibrate = data;
        call.options.ood = elsewhere;
        call.options.report = page;
        cr_alloc_fail_at(at, true);
        status = cr_eval(&call.options, &call.host, &call.result, &call.err);
        cr_alloc_fail_at(0, false);
        ck_assert_msg(status == CR_OK || status == CR_E_MEMORY, "%ld: %d %s", at, status, call.err.message);
        ck_assert(status != CR_OK || cr_train_exists("page.html"));
        call_free(&call);
        ck_assert_int_eq(cr_alloc_live(), live);
        n_failed += status != CR_OK;
    }
    ck_assert_int_gt(n_failed, 10);
}
END_TEST

static cr_status review_training(void *arg, struct cr_error *err)
{
    struct cr_host host = {0};
    struct cr_kept kept = {0};
    struct cr_training training = {.loss = {NULL, 0}};
    cr_status status = cr_review_training(arg, &host, &kept, &training, err);
    ck_assert(status != CR_OK || (training.loss.n > 0 && training.n_settings > 0));
    cr_kept_free(&kept);
    return status;
}

/* What the training left is shown, or there is no page: none with less because memory failed. */
START_TEST(no_memory_for_the_training)
{
    char dir[1024];
    snprintf(dir, sizeof dir, "%s", cr_train_path("ivon"));
    ck_assert_int_gt(cr_test_alloc_sweep("training", review_training, dir), 10);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("eval page");
    TCase *all = tcase_create("eval page");
    tcase_add_checked_fixture(all, setup, cr_train_dir_drop);
    tcase_set_timeout(all, 300);
    tcase_add_test(all, everything_found);
    tcase_add_test(all, nothing_more_than_found);
    tcase_add_test(all, all_runs_of_a_mixture);
    tcase_add_loop_test(all, no_memory, 0, 4);
    tcase_add_test(all, no_memory_for_the_training);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
