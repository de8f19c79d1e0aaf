/* What cr_eval writes: the JSON file of choices and of texts, the page with its charts and mistakes. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/json.h"
#include "tests/runtime/eval_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/output_test.h"
#include "tests/support/train_test.h"

static void check_keys(const json_t *object, const char *const *keys, size_t n)
{
    ck_assert_uint_eq(json_object_size(object), n);
    for (size_t i = 0; i < n; i++) {
        ck_assert_msg(json_object_get(object, keys[i]) != NULL, "%s", keys[i]);
    }
}

START_TEST(json_file)
{
    static const char *const top[] = {"model", "method", "samples", "tokens", "seconds",
                                      "tok_s", "groups", "all",     "data",   "examples"};
    static const char *const group[] = {"task", "n", "accuracy", "nll", "ece", "brier", "auroc_error"};
    struct call call;
    char path[1024];
    json_t *file = NULL;
    snprintf(path, sizeof path, "%s", cr_train_path("out.json"));
    cr_train_write("out.json", "old", 3);
    call_init(&call);
    call.options.json = path;
    eval(&call);
    ck_assert_int_eq(cr_json_load(path, 1 << 20, &file, NULL), CR_OK);
    check_keys(file, top, 10);
    ck_assert_str_eq(json_string_value(json_object_get(file, "model")), model);
    ck_assert_str_eq(json_string_value(json_object_get(file, "method")), "base");
    ck_assert(cr_output_number(file, "samples") == 1);
    ck_assert(cr_output_number(file, "tokens") == (double)call.result.tokens);
    const json_t *groups = json_object_get(file, "groups");
    ck_assert_uint_eq(json_array_size(groups), 3);
    for (size_t i = 0; i < 3; i++) {
        const json_t *one = json_array_get(groups, i);
        check_keys(one, group, 7);
        ck_assert_str_eq(json_string_value(json_object_get(one, "task")), call.result.groups[i].task);
        ck_assert(cr_output_number(one, "nll") == call.result.groups[i].nll);
        ck_assert(cr_output_number(one, "ece") == call.result.groups[i].ece);
    }
    ck_assert(json_is_null(json_object_get(json_array_get(groups, 2), "auroc_error")));
    const json_t *all = json_object_get(file, "all");
    check_keys(all, group, 7);
    ck_assert(cr_output_number(all, "n") == N && cr_output_number(all, "accuracy") == call.result.all.accuracy);
    ck_assert(cr_output_number(all, "brier") == call.result.all.brier);
    json_decref(file);
    call_free(&call);
}
END_TEST

START_TEST(text_data)
{
    struct call call;
    char path[1024];
    json_t *file = NULL;
    snprintf(path, sizeof path, "%s", cr_train_path("texts.json"));
    call_init(&call);
    call.options.data = texts;
    call.options.json = path;
    eval(&call);
    predict(&call);
    json_t *lines = parse_lines(call.lines.data);
    ck_assert_uint_eq(json_array_size(lines), N_TEXTS);
    double sum = 0, n = 0;
    for (size_t i = 0; i < N_TEXTS; i++) {
        static const char *const absent[] = {"task",   "answer",  "prediction",        "probs",
                                             "logits", "entropy", "mutual_information"};
        const json_t *line = json_array_get(lines, i);
        ck_assert_uint_eq((size_t)cr_output_number(line, "index"), i);
        for (size_t k = 0; k < 7; k++) {
            ck_assert_msg(json_is_null(json_object_get(line, absent[k])), "%s", absent[k]);
        }
        /* The completion, a byte a token, and the end of the text. */
        ck_assert_uint_eq((size_t)cr_output_number(line, "n_targets"), i < 5 ? 2 : 3);
        sum += cr_output_number(line, "nll") * cr_output_number(line, "n_targets");
        n += cr_output_number(line, "n_targets");
    }
    json_decref(lines);
    const struct cr_group_metrics *all = &call.result.all;
    ck_assert(!call.result.classification);
    ck_assert_uint_eq(call.result.n_groups, 0);
    ck_assert_uint_eq(all->n, (uint64_t)n);
    ck_assert_double_eq_tol(all->nll, sum / n, 10 * TOLERANCE);
    ck_assert_double_eq_tol(all->perplexity, exp(sum / n), 1e4 * TOLERANCE);
    ck_assert(isnan(all->accuracy) && isnan(all->ece) && isnan(all->brier) && isnan(all->auroc_error));
    ck_assert_int_eq(cr_json_load(path, 1 << 20, &file, NULL), CR_OK);
    ck_assert_uint_eq(json_array_size(json_object_get(file, "groups")), 0);
    const json_t *whole = json_object_get(file, "all");
    ck_assert(cr_output_number(whole, "perplexity") == all->perplexity && cr_output_number(whole, "nll") == all->nll);
    ck_assert(json_is_null(json_object_get(whole, "accuracy")) && json_is_null(json_object_get(whole, "ece")));
    json_decref(file);
    struct call single;
    call_init(&single);
    single.options.data = texts;
    single.options.batch_size = 1;
    predict(&single);
    ck_assert_str_eq(single.lines.data, call.lines.data);
    call_free(&single);
    call_free(&call);
}
END_TEST

static const char *page_of(struct call *call, const char *name, size_t *n)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s", cr_train_path(name));
    call->options.report = path;
    eval(call);
    return (const char *)cr_train_bytes(name, n);
}

START_TEST(report_file)
{
    struct cr_train_run run;
    struct call call;
    char adapter[1024];
    size_t n;
    cr_train_run_init(&run, "run");
    run.options.steps = 6;
    run.options.eval_every = 3;
    run.options.settings_json = "{\"data\":\"it's.jsonl\",\"lr\":0.005,\"no-valid\":false,\"resume\":true,\"steps\":6}";
    cr_train_must(&run);
    snprintf(adapter, sizeof adapter, "%s", cr_train_path("run"));
    call_init(&call);
    call.options.adapter = adapter;
    call.options.settings_json = "{\"model\":\"m.gguf\",\"data\":\"a b.jsonl\",\"quiet\":true}";
    char *html = (char *)(uintptr_t)page_of(&call, "page.html", &n);
    ck_assert_uint_eq(strlen(html), n);
    ck_assert_uint_eq(cr_output_count(html, "<svg"), 4 + 1 + 2);         /* all, y, x, z; risk; loss and speed */
    ck_assert_uint_eq(cr_output_count(html, "<circle class=\"s1\""), 2); /* two validations */
    ck_assert(strstr(html, "credence eval \\\n    --model m.gguf \\\n") != NULL);
    ck_assert(strstr(html, "    --data &#39;a b.jsonl&#39; \\\n    --quiet<") != NULL);
    ck_assert(strstr(html, "--data &#39;it&#39;\\&#39;&#39;s.jsonl&#39;") != NULL);
    ck_assert(strstr(html, "--lr 0.005") != NULL && strstr(html, "--resume") != NULL);
    ck_assert(strstr(html, "--no-valid") == NULL);
    ck_assert(strstr(html, "<dt>rank</dt><dd>8</dd>") != NULL);
    ck_assert(strstr(html, "method adamw, rank 8, q_proj, v_proj") != NULL);
    /* As many mistakes as there are, at most a dozen, in falling confidence, with their words. */
    size_t n_wrong = N - (size_t)lround(call.result.all.accuracy * N);
    ck_assert_uint_eq(cr_output_count(html, "<li>"), n_wrong < 12 ? n_wrong : 12);
    double before = 100;
    for (const char *at = html; (at = strstr(at, "</bdi></b> with ")) != NULL; at = strstr(at + 1, "</li>")) {
        double share = strtod(at + 16, NULL);
        ck_assert(share <= before && share > 20);
        before = share;
    }
    ck_assert(strstr(html, "number ") != NULL);
    ck_assert(strstr(html, "<b> &") == NULL);
    cr_free(html);
    call_free(&call);
}
END_TEST

/* A report of the base alone, of texts, and beside files that are not what they should be. */
START_TEST(report_of_less)
{
    struct call call;
    size_t n;
    call_init(&call);
    char *html = (char *)(uintptr_t)page_of(&call, "base.html", &n);
    ck_assert(strstr(html, "none: the base model alone") != NULL && strstr(html, "Training") == NULL);
    cr_free(html);
    call_free(&call);

    call_init(&call);
    call.options.data = texts;
    html = (char *)(uintptr_t)page_of(&call, "texts.html", &n);
    ck_assert(strstr(html, "Perplexity") != NULL && strstr(html, "Least expected texts") != NULL);
    ck_assert_uint_eq(cr_output_count(html, "<li>"), N_TEXTS);
    ck_assert(strstr(html, "0 and 1 is  \xe2\x86\x92 1") != NULL);
    cr_free(html);
    call_free(&call);

    struct cr_train_run run;
    char adapter[1024];
    cr_train_run_init(&run, "run");
    run.options.steps = 2;
    cr_train_must(&run);
    static const char journal[] = "{\"step\":1,\"loss\":null}\n}{\n[1]\n\n{\"step\":2,\"loss\":1.5}";
    cr_train_write("run/train.jsonl", journal, sizeof journal - 1);
    cr_train_write("run/summary.json", "{", 1);
    snprintf(adapter, sizeof adapter, "%s", cr_train_path("run"));
    call_init(&call);
    call.options.adapter = adapter;
    html = (char *)(uintptr_t)page_of(&call, "odd.html", &n);
    ck_assert_uint_eq(call.n_warnings, 1);
    ck_assert(strstr(html, "<h3>Loss</h3>") != NULL && strstr(html, "<h3>Speed</h3>") == NULL);
    cr_free(html);
    call_free(&call);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("eval files");
    TCase *tcase = tcase_create("eval files");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, json_file);
    tcase_add_test(tcase, text_data);
    tcase_add_test(tcase, report_file);
    tcase_add_test(tcase, report_of_less);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
