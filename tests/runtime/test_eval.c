/* cr_eval and cr_predict on a tiny model: figures recomputed from the predictions, independence of batches, threads and
 * order, formats, refusals, failing allocations. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/adapter/adapter.h"
#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/eval/outcome.h"
#include "runtime/io/json.h"
#include "runtime/thread/parallel.h"
#include "tests/support/train_test.h"

enum { N = 40, N_TEXTS = CR_TRAIN_TEXTS };

static struct cr_parallel serial;
static char model[1024], data[1024], texts[1024];

/* Example i: 2 ... 4 choices, tasks "x", "y" and none in turn, "z" once. */
static void put_example(struct cr_buf *buf, int i)
{
    static const char *const words[] = {"one", "of a kind", "quite a lot more than that", "<b> & so \\\"on\\\""};
    cr_buf_printf(buf, "{\"question\":\"%s number %d\",\"choices\":[\"p\",\"q\"", words[i % 4], i * 7);
    for (int c = 2; c < 2 + i % 3; c++) {
        cr_buf_printf(buf, ",\"r%d\"", c);
    }
    cr_buf_printf(buf, "],\"answer\":%d", i * 5 % (2 + i % 3));
    if (i == 30) {
        cr_buf_puts(buf, ",\"task\":\"z\"");
    } else if (i % 3 != 2) {
        cr_buf_printf(buf, ",\"task\":\"%c\"", i % 3 == 0 ? 'y' : 'x');
    }
    cr_buf_puts(buf, "}\n");
}

static void setup(void)
{
    struct cr_buf forward = {0};
    struct cr_buf backward = {0};
    cr_train_dir_make();
    cr_parallel_serial(&serial);
    for (int i = 0; i < N; i++) {
        put_example(&forward, i);
        put_example(&backward, N - 1 - i);
    }
    cr_train_write("mixed.jsonl", forward.data, forward.n);
    cr_train_write("reversed.jsonl", backward.data, backward.n);
    cr_buf_free(&forward);
    cr_buf_free(&backward);
    snprintf(model, sizeof model, "%s", cr_train_path("model.gguf"));
    snprintf(data, sizeof data, "%s", cr_train_path("mixed.jsonl"));
    snprintf(texts, sizeof texts, "%s", cr_train_path("texts.jsonl"));
}

static void teardown(void)
{
    cr_train_dir_drop();
}

/* A call in the making, with everything its callbacks saw. */
struct call {
    struct cr_eval_options options;
    struct cr_host host;
    struct cr_error err;
    struct cr_eval_result result;
    struct cr_buf lines;   /* of predict */
    size_t n_lines, stop_after_lines;
    bool stop;
    char last_phase[16];
    uint64_t n_progress, last_step, last_total, n_reports, n_warnings;
};

static void on_progress(void *ctx, const struct cr_progress *p)
{
    struct call *call = ctx;
    snprintf(call->last_phase, sizeof call->last_phase, "%s", p->phase);
    if (strcmp(p->phase, "eval") == 0 && p->n_steps > 0) {
        ck_assert_uint_gt(p->step, call->last_step);
        call->last_step = p->step;
        call->last_total = p->n_steps;
        call->n_reports += p->report;
    }
    call->n_progress++;
}

static void on_log(void *ctx, enum cr_log_level level, const char *line)
{
    struct call *call = ctx;
    (void)line;
    call->n_warnings += level == CR_LOG_WARNING;
}

static bool on_stop(void *ctx)
{
    const struct call *call = ctx;
    return call->stop && call->last_step > 0;
}

static bool on_line(void *ctx, const char *line)
{
    struct call *call = ctx;
    ck_assert(strchr(line, '\n') == NULL);
    cr_buf_puts(&call->lines, line);
    cr_buf_putc(&call->lines, '\n');
    call->n_lines++;
    return call->n_lines != call->stop_after_lines;
}

static void call_init(struct call *call)
{
    *call = (struct call){0};
    cr_eval_options_init(&call->options);
    call->options.model = model;
    call->options.data = data;
    call->host = (struct cr_host){
        .parallel = &serial, .log = on_log, .progress = on_progress, .stop = on_stop, .ctx = call};
}

static void call_free(struct call *call)
{
    cr_eval_result_deinit(&call->result);
    cr_buf_free(&call->lines);
}

static void eval(struct call *call)
{
    call->last_step = 0;
    ck_assert_msg(cr_eval(&call->options, &call->host, &call->result, &call->err) == CR_OK, "%s", call->err.message);
}

static void predict(struct call *call)
{
    call->last_step = 0;
    ck_assert_msg(cr_predict(&call->options, &call->host, on_line, call, &call->err) == CR_OK, "%s",
                  call->err.message);
}

static void refuse(struct call *call, cr_status want, const char *part)
{
    struct cr_eval_result untouched = call->result;
    cr_status status = cr_eval(&call->options, &call->host, &call->result, &call->err);
    ck_assert_msg(status == want && strstr(call->err.message, part) != NULL, "%d %s", status, call->err.message);
    ck_assert(strchr(call->err.message, '\n') == NULL);
    ck_assert_mem_eq(&call->result, &untouched, sizeof untouched);
}

/* Lines of a prediction as JSON. Owned. */
static json_t *parse_lines(const char *text)
{
    json_t *list = json_array();
    while (*text != '\0') {
        json_t *line = NULL;
        size_t n = strcspn(text, "\n");
        ck_assert_int_eq(cr_json_parse(text, n, NULL, &line, NULL), CR_OK);
        json_array_append_new(list, line);
        text += n + 1;
    }
    return list;
}

static double real(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    ck_assert_msg(json_is_number(value), "%s", key);
    return json_number_value(value);
}

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
        size_t answer = (size_t)real(line, "answer");
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
        ck_assert_uint_eq((size_t)real(line, "prediction"), best);
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

/* Sums of at most 40 terms below 16, two exps or logs each: 40 * 16 * 8 * 2^-52 < 2e-12. */
#define TOLERANCE 2e-12

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
        ck_assert_uint_eq((size_t)real(line, "index"), i);
        ck_assert_uint_eq((size_t)real(line, "answer"), i * 5 % n);
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
        ck_assert_double_eq_tol(real(line, "entropy"), entropy, TOLERANCE);
        ck_assert(real(line, "mutual_information") == 0);
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
        ck_assert_uint_eq((size_t)real(json_array_get(lines, i), "index"), want[i]);
    }
    json_decref(lines);
    eval(&call);
    ck_assert_uint_eq(call.result.all.n, 10);
    ck_assert_uint_eq(call.result.groups[0].n, 3);
    ck_assert_uint_eq(call.result.groups[2].n, 1);
    call_free(&call);
}
END_TEST

static void check_keys(const json_t *object, const char *const *keys, size_t n)
{
    ck_assert_uint_eq(json_object_size(object), n);
    for (size_t i = 0; i < n; i++) {
        ck_assert_msg(json_object_get(object, keys[i]) != NULL, "%s", keys[i]);
    }
}

START_TEST(json_file)
{
    static const char *const top[] = {"model", "method", "samples", "tokens", "seconds", "tok_s", "groups", "all",
                                      "data", "examples"};
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
    ck_assert(real(file, "samples") == 1);
    ck_assert(real(file, "tokens") == (double)call.result.tokens);
    const json_t *groups = json_object_get(file, "groups");
    ck_assert_uint_eq(json_array_size(groups), 3);
    for (size_t i = 0; i < 3; i++) {
        const json_t *one = json_array_get(groups, i);
        check_keys(one, group, 7);
        ck_assert_str_eq(json_string_value(json_object_get(one, "task")), call.result.groups[i].task);
        ck_assert(real(one, "nll") == call.result.groups[i].nll);
        ck_assert(real(one, "ece") == call.result.groups[i].ece);
    }
    ck_assert(json_is_null(json_object_get(json_array_get(groups, 2), "auroc_error")));
    const json_t *all = json_object_get(file, "all");
    check_keys(all, group, 7);
    ck_assert(real(all, "n") == N && real(all, "accuracy") == call.result.all.accuracy);
    ck_assert(real(all, "brier") == call.result.all.brier);
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
        static const char *const absent[] = {"task", "answer", "prediction", "probs", "logits", "entropy",
                                             "mutual_information"};
        const json_t *line = json_array_get(lines, i);
        ck_assert_uint_eq((size_t)real(line, "index"), i);
        for (size_t k = 0; k < 7; k++) {
            ck_assert_msg(json_is_null(json_object_get(line, absent[k])), "%s", absent[k]);
        }
        /* The completion, a byte a token, and the end of the text. */
        ck_assert_uint_eq((size_t)real(line, "n_targets"), i < 5 ? 2 : 3);
        sum += real(line, "nll") * real(line, "n_targets");
        n += real(line, "n_targets");
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
    ck_assert(real(whole, "perplexity") == all->perplexity && real(whole, "nll") == all->nll);
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
        ck_assert(real(json_array_get(lines, 1 - (size_t)skip), "index") == 2); /* its line in the file, from 0 */
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

static const char *page_of(struct call *call, const char *name, size_t *n)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s", cr_train_path(name));
    call->options.report = path;
    eval(call);
    return (const char *)cr_train_bytes(name, n);
}

static size_t occurrences(const char *text, const char *part)
{
    size_t n = 0;
    while ((text = strstr(text, part)) != NULL) {
        n++;
        text += strlen(part);
    }
    return n;
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
    ck_assert_uint_eq(occurrences(html, "<svg"), 4 + 1 + 2); /* all, y, x, z; risk; loss and speed */
    ck_assert_uint_eq(occurrences(html, "<circle class=\"s1\""), 2); /* two validations */
    ck_assert(strstr(html, "credence eval \\\n    --model m.gguf \\\n") != NULL);
    ck_assert(strstr(html, "    --data &#39;a b.jsonl&#39; \\\n    --quiet<") != NULL);
    ck_assert(strstr(html, "--data &#39;it&#39;\\&#39;&#39;s.jsonl&#39;") != NULL);
    ck_assert(strstr(html, "--lr 0.005") != NULL && strstr(html, "--resume") != NULL);
    ck_assert(strstr(html, "--no-valid") == NULL);
    ck_assert(strstr(html, "<dt>rank</dt><dd>8</dd>") != NULL);
    ck_assert(strstr(html, "method adamw, rank 8, q_proj, v_proj") != NULL);
    /* As many mistakes as there are, at most a dozen, in falling confidence, with their words. */
    size_t n_wrong = N - (size_t)lround(call.result.all.accuracy * N);
    ck_assert_uint_eq(occurrences(html, "<li>"), n_wrong < 12 ? n_wrong : 12);
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
    ck_assert_uint_eq(occurrences(html, "<li>"), N_TEXTS);
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

/* The interval holds the figure it belongs to, shrinks with more examples, and is a function of the seed. */
START_TEST(bootstrap)
{
    struct cr_outcome items[400];
    struct cr_intervals small, large, again, other;
    for (int i = 0; i < 400; i++) {
        double confidence = 0.5 + (i * 37 % 100) / 200.0;
        items[i] = (struct cr_outcome){.n_targets = 1, .confidence = confidence, .correct = i * 53 % 100 < 70,
                                       .nll = 1 - confidence, .brier = 0.25};
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
    ck_assert(small.brier[0] == 0.25 && small.brier[1] == 0.25);
    ck_assert(isnan(small.perplexity[0]));
    o.n = 0;
    ck_assert_int_eq(cr_outcomes_bootstrap(&o, 5, 1, NULL, &small, NULL), CR_OK);
    ck_assert(isnan(small.accuracy[0]) && isnan(small.nll[1]));
}
END_TEST

START_TEST(progress_and_stop)
{
    struct call call;
    char path[1024];
    call_init(&call);
    call.options.batch_size = 1;
    eval(&call);
    ck_assert_str_eq(call.last_phase, "eval");
    ck_assert_uint_eq(call.last_step, N);
    ck_assert_uint_eq(call.last_total, N);
    ck_assert_uint_eq(call.n_reports, 10);
    call_free(&call);
    call_init(&call);
    snprintf(path, sizeof path, "%s", cr_train_path("stopped.json"));
    call.options.batch_size = 1;
    call.options.json = path;
    call.stop = true;
    refuse(&call, CR_E_STOPPED, "stopped after 1 of 40 examples");
    ck_assert(!cr_train_exists("stopped.json"));
    call_free(&call);
    call_init(&call);
    call.stop_after_lines = 3;
    ck_assert_int_eq(cr_predict(&call.options, &call.host, on_line, &call, &call.err), CR_E_IO);
    ck_assert_uint_eq(call.n_lines, 3);
    call_free(&call);
}
END_TEST

START_TEST(refusals)
{
    struct call call;
    char path[1024], absent[1024];
    snprintf(absent, sizeof absent, "%s", cr_train_path("nowhere/out"));
    call_init(&call);
    call.options.model = NULL;
    refuse(&call, CR_E_USAGE, "--model is required");
    call_init(&call);
    call.options.data = NULL;
    refuse(&call, CR_E_USAGE, "--data is required");
    call_init(&call);
    call.options.samples = 2;
    refuse(&call, CR_E_USAGE, "--samples 2");
    call_init(&call);
    call.options.n_bins = 1001;
    refuse(&call, CR_E_USAGE, "n_bins 1001");
    call_init(&call);
    call.options.max_seq_length = 1;
    refuse(&call, CR_E_USAGE, "--max-seq-length 1,");
    call_init(&call);
    call.options.max_seq_length = 1 << 30;
    refuse(&call, CR_E_USAGE, "above the context");
    call_init(&call);
    call.options.seed = (uint64_t)1 << 32;
    refuse(&call, CR_E_USAGE, "--seed");
    call_init(&call);
    call.options.settings_json = "{";
    refuse(&call, CR_E_USAGE, "settings_json");
    call_init(&call);
    call.options.size = 0;
    refuse(&call, CR_E_USAGE, "size 0");
    call_init(&call);
    call.options.size = sizeof call.options + 8;
    refuse(&call, CR_E_USAGE, "size");
    call_init(&call);
    call.host.cpu_cap = "mmx";
    refuse(&call, CR_E_USAGE, "mmx");
    call_init(&call);
    call.options.json = data;
    refuse(&call, CR_E_USAGE, "same file as --data");
    call_init(&call);
    call.options.report = model;
    refuse(&call, CR_E_USAGE, "same file as --model");
    call_init(&call);
    call.options.report = call.options.json = absent;
    refuse(&call, CR_E_USAGE, "same file");
    call_init(&call);
    call.options.report = absent;
    refuse(&call, CR_E_IO, "its directory");
    call_init(&call);
    snprintf(path, sizeof path, "%s", cr_train_path("."));
    call.options.json = path;
    refuse(&call, CR_E_IO, "directory");
    call_init(&call);
    call.options.adapter = absent;
    refuse(&call, CR_E_IO, "nowhere");
    call_init(&call);
    call.host.memory_bytes = 100000;
    refuse(&call, CR_E_MEMORY, "MiB predicted");
    ck_assert_uint_eq(call.last_step, 0);
}
END_TEST

/* Fields that a caller of an older header does not know count as defaults. */
START_TEST(older_caller)
{
    struct call call;
    call_init(&call);
    call.options.size = offsetof(struct cr_eval_options, limit);
    call.options.limit = 1;
    eval(&call);
    ck_assert_uint_eq(call.result.all.n, N);
    call_free(&call);
}
END_TEST

/* Finite weights whose product is not: no figure may come of it. */
START_TEST(overflowing_adapter)
{
    struct call call;
    struct cr_model *base = NULL;
    struct cr_adapter *adapter = NULL;
    char dir[1024];
    snprintf(dir, sizeof dir, "%s", cr_train_path("huge"));
    ck_assert_int_eq(mkdir(dir, 0777), 0);
    ck_assert_int_eq(cr_model_open(model, &base, NULL), CR_OK);
    ck_assert_int_eq(cr_adapter_create(base, 2, 2, 0, 1u << CR_PROJ_DOWN, 1, false, &adapter, NULL), CR_OK);
    for (size_t i = 0; i < adapter->n_params; i++) {
        adapter->params[i] = 3e38f;
    }
    ck_assert_int_eq(cr_adapter_save_peft(adapter, base, dir, NULL, NULL), CR_OK);
    cr_adapter_destroy(adapter);
    cr_model_close(base);
    call_init(&call);
    call.options.adapter = dir;
    refuse(&call, CR_E_DIVERGED, "mixed.jsonl:1: the model's output is not a finite number");
    call.options.data = texts;
    refuse(&call, CR_E_DIVERGED, "not a finite number");
    call_free(&call);
}
END_TEST

/* Every allocation fails once: a clean refusal or an unharmed result, nothing leaked. */
START_TEST(failing_allocations)
{
    struct call call;
    char json[1024], report[1024];
    snprintf(json, sizeof json, "%s", cr_train_path("f.json"));
    snprintf(report, sizeof report, "%s", cr_train_path("f.html"));
    long step = 1, failures = 0;
    long live = cr_alloc_live();
    for (long at = 1;; at += step) {
        call_init(&call);
        call.options.limit = 1;
        call.options.json = json;
        call.options.report = report;
        call.host.log = NULL;
        cr_alloc_fail_at(at, true);
        cr_status status = cr_eval(&call.options, &call.host, &call.result, &call.err);
        cr_alloc_fail_at(0, false);
        call_free(&call);
        ck_assert_int_eq(cr_alloc_live(), live);
        if (status == CR_OK) {
            break;
        }
        ck_assert_msg(status == CR_E_MEMORY, "%d %s", status, call.err.message);
        failures++;
        step = at < 60 ? 1 : 7; /* loading the vocabulary makes hundreds alike */
    }
    ck_assert_int_gt(failures, 40);
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
    tcase_add_test(tcase, json_file);
    tcase_add_test(tcase, text_data);
    tcase_add_test(tcase, cut_and_skipped);
    tcase_add_test(tcase, adapter_forms);
    tcase_add_test(tcase, report_file);
    tcase_add_test(tcase, report_of_less);
    tcase_add_test(tcase, bootstrap);
    tcase_add_test(tcase, progress_and_stop);
    tcase_add_test(tcase, refusals);
    tcase_add_test(tcase, older_caller);
    tcase_add_test(tcase, overflowing_adapter);
    tcase_add_test(tcase, failing_allocations);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
