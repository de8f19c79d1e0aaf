/* eval_case: cr_eval and cr_predict on a tiny model over made-up questions, and what their callbacks saw. */
#ifndef CR_TESTS_EVAL_CASE_H
#define CR_TESTS_EVAL_CASE_H

#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/buf.h"
#include "runtime/io/json.h"
#include "runtime/thread/parallel.h"
#include "tests/support/kernel_test.h"
#include "tests/support/train_test.h"

enum { N = 40, N_TEXTS = CR_TRAIN_TEXTS };

static struct cr_parallel serial;
static char model[1024], data[1024], texts[1024];

/* Example i: 2 ... 4 choices, tasks "x", "y" and none in turn, "z" once. */
static inline void put_example(struct cr_buf *buf, int i)
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

static inline void setup(void)
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

static inline void teardown(void)
{
    cr_train_dir_drop();
}

/* A call in the making, with everything its callbacks saw. */
struct call {
    struct cr_eval_options options;
    struct cr_host host;
    struct cr_error err;
    struct cr_eval_result result;
    struct cr_buf lines; /* of predict */
    size_t n_lines, stop_after_lines;
    bool stop;
    char last_phase[16];
    uint64_t n_progress, last_step, last_total, n_reports, n_warnings;
};

static inline void on_progress(void *ctx, const struct cr_progress *p)
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

static inline void on_log(void *ctx, enum cr_log_level level, const char *line)
{
    struct call *call = ctx;
    (void)line;
    call->n_warnings += level == CR_LOG_WARNING;
}

static inline bool on_stop(void *ctx)
{
    const struct call *call = ctx;
    return call->stop && call->last_step > 0;
}

static inline bool on_line(void *ctx, const char *line)
{
    struct call *call = ctx;
    ck_assert(strchr(line, '\n') == NULL);
    cr_buf_puts(&call->lines, line);
    cr_buf_putc(&call->lines, '\n');
    call->n_lines++;
    return call->n_lines != call->stop_after_lines;
}

static inline void call_init(struct call *call)
{
    *call = (struct call){0};
    cr_eval_options_init(&call->options);
    call->options.model = model;
    call->options.data = data;
    call->host = (struct cr_host){.parallel = &serial,
                                  .cpu_cap = cr_test_cap(),
                                  .log = on_log,
                                  .progress = on_progress,
                                  .stop = on_stop,
                                  .ctx = call};
}

static inline void call_free(struct call *call)
{
    cr_eval_result_deinit(&call->result);
    cr_buf_free(&call->lines);
}

static inline void eval(struct call *call)
{
    call->last_step = 0;
    ck_assert_msg(cr_eval(&call->options, &call->host, &call->result, &call->err) == CR_OK, "%s", call->err.message);
}

static inline void predict(struct call *call)
{
    call->last_step = 0;
    ck_assert_msg(cr_predict(&call->options, &call->host, on_line, call, &call->err) == CR_OK, "%s", call->err.message);
}

/* Lines of a prediction as JSON. Owned. */
static inline json_t *parse_lines(const char *text)
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

/* Sums of at most 40 terms below 16, two exps or logs each: 40 * 16 * 8 * 2^-52 < 2e-12. */
#define TOLERANCE 2e-12

#endif
