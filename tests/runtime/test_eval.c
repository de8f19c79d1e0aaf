/* cr_eval and cr_predict on a tiny model: figures recomputed from the predictions, independence of batches, threads and
 * order, what is taken, cut and skipped, adapters in all their forms. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/buf.h"
#include "runtime/metrics/outcome.h"
#include "tests/runtime/eval_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/output_test.h"
#include "tests/support/train_test.h"

/* What a group must say, from its lines alone, with the C library's logarithm. task NULL = all. */
struct want {
    double n, right, nll, brier, ece, auroc;
};

static bool in_group(const json_t *line, const char *task)
{
    const char *name = json_string_value(json_object_get(line, "task"));
    return task == NULL || (name != NULL && strcmp(name, task) == 0);
}

static struct want recompute(const json_t *lines, const char *task, int n_bins)
{
    struct want w = {0};
    double confidence[N], right[N];
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *line = json_array_get(lines, i);
        const json_t *probs = json_object_get(line, "probs");
        size_t answer = (size_t)cr_output_number(line, "answer");
        size_t best = 0;
        double brier = 0;
        if (!in_group(line, task)) {
            continue;
        }
        for (size_t c = 0; c < json_array_size(probs); c++) {
            double p = json_number_value(json_array_get(probs, c));
            best = p > json_number_value(json_array_get(probs, best)) ? c : best;
            brier += (p - (c == answer)) * (p - (c == answer));
        }
        ck_assert_uint_eq((size_t)cr_output_number(line, "prediction"), best);
        size_t n = (size_t)w.n++;
        confidence[n] = json_number_value(json_array_get(probs, best));
        right[n] = best == answer;
        w.right += right[n];
        w.brier += brier;
        w.nll -= log(json_number_value(json_array_get(probs, answer)));
    }
    for (int b = 0; b < n_bins; b++) {
        double gap = 0;
        for (size_t i = 0; i < (size_t)w.n; i++) {
            bool inside = confidence[i] > (double)b / n_bins && confidence[i] <= (double)(b + 1) / n_bins;
            gap += inside ? right[i] - confidence[i] : 0;
        }
        w.ece += fabs(gap);
    }
    double pairs = 0;
    for (size_t i = 0; i < (size_t)w.n; i++) {
        for (size_t j = 0; j < (size_t)w.n; j++) {
            if (right[i] == 0 && right[j] == 1) {
                pairs++;
                w.auroc += confidence[i] < confidence[j] ? 1 : confidence[i] == confidence[j] ? 0.5 : 0;
            }
        }
    }
    w.auroc = pairs > 0 ? w.auroc / pairs : (double)NAN;
    return w;
}

static void check_group(const struct cr_group_metrics *m, const struct want *w)
{
    ck_assert_uint_eq(m->n, (uint64_t)w->n);
    ck_assert_double_eq_tol(m->accuracy, w->right / w->n, TOLERANCE);
    ck_assert_double_eq_tol(m->nll, w->nll / w->n, TOLERANCE);
    ck_assert_double_eq_tol(m->brier, w->brier / w->n, TOLERANCE);
    ck_assert_double_eq_tol(m->ece, w->ece / w->n, TOLERANCE);
    ck_assert(isnan(m->auroc_error) == isnan(w->auroc));
    if (!isnan(w->auroc)) {
        ck_assert_double_eq_tol(m->auroc_error, w->auroc, TOLERANCE);
    }
    ck_assert(isnan(m->perplexity));
}

START_TEST(figures)
{
    static const char *const tasks[] = {"y", "x", "z"};
    struct call call;
    call_init(&call);
    call.options.n_bins = _i == 0 ? 0 : 4;
    eval(&call);
    predict(&call);
    json_t *lines = parse_lines(call.lines.data);
    ck_assert_uint_eq(json_array_size(lines), N);
    ck_assert(call.result.classification);
    ck_assert_uint_eq(call.result.n_groups, 3);
    int n_bins = _i == 0 ? 15 : 4;
    struct want all = recompute(lines, NULL, n_bins);
    check_group(&call.result.all, &all);
    ck_assert_str_eq(call.result.all.task, "");
    for (int t = 0; t < 3; t++) {
        struct want w = recompute(lines, tasks[t], n_bins);
        ck_assert_str_eq(call.result.groups[t].task, tasks[t]);
        check_group(&call.result.groups[t], &w);
    }
    ck_assert(isnan(call.result.groups[2].auroc_error)); /* one example is right or wrong */
    ck_assert_str_eq(call.result.method, "base");
    ck_assert(call.result.seconds > 0 && call.result.tok_s > 0 && call.result.tokens > N);
    json_decref(lines);
    call_free(&call);
}
END_TEST

START_TEST(prediction_lines)
{
    struct call call;
    call_init(&call);
    predict(&call);
    json_t *lines = parse_lines(call.lines.data);
    for (size_t i = 0; i < N; i++) {
        const json_t *line = json_array_get(lines, i);
        const json_t *probs = json_object_get(line, "probs");
        const json_t *logits = json_object_get(line, "logits");
        size_t n = 2 + i % 3;
        double sum = 0, entropy = 0;
        ck_assert_uint_eq(json_object_size(line), 8);
        ck_assert_uint_eq((size_t)cr_output_number(line, "index"), i);
        ck_assert_uint_eq((size_t)cr_output_number(line, "answer"), i * 5 % n);
        ck_assert(i % 3 == 2 ? json_is_null(json_object_get(line, "task"))
                             : json_is_string(json_object_get(line, "task")));
        ck_assert_uint_eq(json_array_size(probs), n);
        ck_assert_uint_eq(json_array_size(logits), n);
        for (size_t c = 0; c < n; c++) {
            double p = json_number_value(json_array_get(probs, c));
            double z = json_number_value(json_array_get(logits, c)) - json_number_value(json_array_get(logits, 0));
            sum += p;
            entropy -= p * log(p);
            ck_assert_double_eq_tol(log(p / json_number_value(json_array_get(probs, 0))), z, TOLERANCE);
        }
        ck_assert_double_eq_tol(sum, 1, TOLERANCE);
        ck_assert_double_eq_tol(cr_output_number(line, "entropy"), entropy, TOLERANCE);
        ck_assert(cr_output_number(line, "mutual_information") == 0);
    }
    json_decref(lines);
    call_free(&call);
}
END_TEST

START_TEST(same_bits_for_batches_and_threads)
{
    struct call base, other;
    call_init(&base);
    predict(&base);
    for (int i = 0; i < 4; i++) {
        call_init(&other);
        other.options.batch_size = i == 0 ? 1 : i == 1 ? 7 : 0;
        if (i >= 2) {
            other.host.parallel = NULL;
            other.host.n_threads = i;
        }
        predict(&other);
        ck_assert_str_eq(base.lines.data, other.lines.data);
        call_free(&other);
    }
    call_free(&base);
}
END_TEST

START_TEST(same_bits_for_any_order)
{
    struct call base, other;
    char path[1024];
    snprintf(path, sizeof path, "%s", cr_train_path("reversed.jsonl"));
    call_init(&base);
    call_init(&other);
    other.options.data = path;
    predict(&base);
    predict(&other);
    json_t *a = parse_lines(base.lines.data);
    json_t *b = parse_lines(other.lines.data);
    for (size_t i = 0; i < N; i++) {
        json_t *x = json_array_get(a, i);
        json_t *y = json_array_get(b, N - 1 - i);
        json_object_del(x, "index");
        json_object_del(y, "index");
        ck_assert_msg(json_equal(x, y), "example %zu", i);
    }
    json_decref(a);
    json_decref(b);
    eval(&base);
    eval(&other);
    ck_assert_double_eq_tol(base.result.all.nll, other.result.all.nll, TOLERANCE); /* another order of the sum */
    ck_assert(base.result.all.accuracy == other.result.all.accuracy);
    call_free(&base);
    call_free(&other);
}
END_TEST

START_TEST(limit_of_each_task)
{
    struct call call;
    call_init(&call);
    call.options.limit = 3;
    predict(&call);
    /* "y" at 0, 3, 6; "x" at 1, 4, 7; none at 2, 5, 8; "z" at 30 */
    static const size_t want[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 30};
    json_t *lines = parse_lines(call.lines.data);
    ck_assert_uint_eq(json_array_size(lines), 10);
    for (size_t i = 0; i < 10; i++) {
        ck_assert_uint_eq((size_t)cr_output_number(json_array_get(lines, i), "index"), want[i]);
    }
    json_decref(lines);
    eval(&call);
    ck_assert_uint_eq(call.result.all.n, 10);
    ck_assert_uint_eq(call.result.groups[0].n, 3);
    ck_assert_uint_eq(call.result.groups[2].n, 1);
    call_free(&call);
}
END_TEST

START_TEST(cut_and_skipped)
{
    struct call call;
    struct cr_buf buf = {0};
    char path[1024];
    cr_buf_puts(&buf, "\n{\"question\":\"");
    cr_buf_fill(&buf, 'w', 600);
    cr_buf_puts(&buf, "\",\"choices\":[\"a\",\"b\"],\"answer\":0}\n");
    cr_buf_puts(&buf, "{\"question\":\"s\",\"choices\":[\"a\",\"b\"],\"answer\":1}\n");
    cr_train_write("long.jsonl", buf.data, buf.n);
    cr_buf_free(&buf);
    snprintf(path, sizeof path, "%s", cr_train_path("long.jsonl"));
    for (int skip = 0; skip < 2; skip++) {
        call_init(&call);
        call.options.data = path;
        call.options.max_seq_length = 200;
        call.options.on_long_skip = skip == 1;
        predict(&call);
        json_t *lines = parse_lines(call.lines.data);
        ck_assert_uint_eq(json_array_size(lines), skip == 1 ? 1 : 2);
        ck_assert(cr_output_number(json_array_get(lines, 1 - (size_t)skip), "index") ==
                  2); /* its line in the file, from 0 */
        ck_assert_uint_gt(call.n_warnings, 0);
        json_decref(lines);
        call_free(&call);
    }
}
END_TEST

/* An adapter from a short training run, in its three forms: the same weights, the same bits. */
START_TEST(adapter_forms)
{
    static const char *const forms[] = {"run", "run/adapter.gguf", "run/checkpoints/step-00000004.cck"};
    static const char *const methods[] = {"adamw", "lora", "adamw"};
    struct cr_train_run run;
    struct call base, call[3];
    char path[1024];
    cr_train_run_init(&run, "run");
    run.options.steps = 4;
    run.options.no_valid = true;
    cr_train_must(&run);
    call_init(&base);
    predict(&base);
    for (int i = 0; i < 3; i++) {
        call_init(&call[i]);
        snprintf(path, sizeof path, "%s", cr_train_path(forms[i]));
        call[i].options.adapter = path;
        eval(&call[i]);
        predict(&call[i]);
        ck_assert_str_eq(call[i].result.method, methods[i]);
        ck_assert_str_eq(call[i].lines.data, call[0].lines.data);
    }
    ck_assert_str_ne(call[0].lines.data, base.lines.data);
    for (int i = 0; i < 3; i++) {
        call_free(&call[i]);
    }
    call_free(&base);
}
END_TEST

/* The interval holds the figure it belongs to, shrinks with more examples, and is a function of the seed. */
START_TEST(bootstrap)
{
    struct cr_outcome items[400];
    struct cr_intervals small, large, again, other;
    for (int i = 0; i < 400; i++) {
        double confidence = 0.5 + (i * 37 % 100) / 200.0;
        items[i] = (struct cr_outcome){.n_targets = 1,
                                       .confidence = confidence,
                                       .correct = i * 53 % 100 < 70,
                                       .nll = 1 - confidence,
                                       .brier = 0.25};
    }
    struct cr_outcomes o = {.items = items, .n = 100, .classification = true, .n_bins = 15};
    ck_assert_int_eq(cr_outcomes_bootstrap(&o, 5, 1, NULL, &small, NULL), CR_OK);
    ck_assert_int_eq(cr_outcomes_bootstrap(&o, 5, 1, NULL, &again, NULL), CR_OK);
    ck_assert_int_eq(cr_outcomes_bootstrap(&o, 6, 1, NULL, &other, NULL), CR_OK);
    ck_assert_mem_eq(&small.nll, &again.nll, sizeof small.nll);
    ck_assert_mem_ne(&small.nll, &other.nll, sizeof small.nll);
    o.n = 400;
    ck_assert_int_eq(cr_outcomes_bootstrap(&o, 5, 1, NULL, &large, NULL), CR_OK);
    ck_assert(small.accuracy[0] < 0.7 && 0.7 < small.accuracy[1]);
    /* Binomial: half width 1.96 sqrt(.7 * .3 / n); 1000 resamples know the ends to a tenth of it. */
    ck_assert_double_eq_tol(small.accuracy[1] - small.accuracy[0], 2 * 1.96 * sqrt(0.21 / 100), 0.03);
    ck_assert_double_eq_tol(large.accuracy[1] - large.accuracy[0], 2 * 1.96 * sqrt(0.21 / 400), 0.015);
    /* However biased resampled ECEs are, the interval lies around the figure. */
    struct cr_group_metrics measured;
    ck_assert_int_eq(cr_outcomes_measure(&o, &measured, NULL), CR_OK);
    ck_assert(large.ece[0] < measured.ece && measured.ece < large.ece[1]);
    ck_assert(small.brier[0] == 0.25 && small.brier[1] == 0.25);
    ck_assert(isnan(small.perplexity[0]));
    o.n = 0;
    ck_assert_int_eq(cr_outcomes_bootstrap(&o, 5, 1, NULL, &small, NULL), CR_OK);
    ck_assert(isnan(small.accuracy[0]) && isnan(small.nll[1]));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("eval");
    TCase *tcase = tcase_create("eval");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, figures, 0, 2);
    tcase_add_test(tcase, prediction_lines);
    tcase_add_test(tcase, same_bits_for_batches_and_threads);
    tcase_add_test(tcase, same_bits_for_any_order);
    tcase_add_test(tcase, limit_of_each_task);
    tcase_add_test(tcase, cut_and_skipped);
    tcase_add_test(tcase, adapter_forms);
    tcase_add_test(tcase, bootstrap);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
