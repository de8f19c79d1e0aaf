/* laplace_fit_case: adapters of short runs, calls of cr_laplace on them, and what cr_eval answers with the results. */
#ifndef CR_TESTS_LAPLACE_FIT_CASE_H
#define CR_TESTS_LAPLACE_FIT_CASE_H

#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/eval/scoring.h"
#include "tests/support/kernel_test.h"
#include "tests/support/train_test.h"

static char model[1024], data[1024], other[1024], texts[1024];

static inline void train(const char *output, const char *method)
{
    struct cr_train_run run;
    cr_train_run_init(&run, output);
    run.options.method = method;
    run.options.targets = "q_proj,v_proj,down_proj";
    run.options.rank = 3;
    run.options.steps = 20;
    run.options.lr = method[0] == 'i' ? 0.2 : 1e-2;
    cr_train_must(&run);
}

static inline void setup(void)
{
    cr_train_dir_make();
    snprintf(model, sizeof model, "%s", cr_train_path("model.gguf"));
    snprintf(data, sizeof data, "%s", cr_train_path("choices.jsonl"));
    snprintf(other, sizeof other, "%s", cr_train_path("other.jsonl"));
    snprintf(texts, sizeof texts, "%s", cr_train_path("texts.jsonl"));
    train("point", "adamw");
}

struct call {
    struct cr_laplace_options options;
    struct cr_laplace_result result;
    struct cr_host host;
    struct cr_error err;
    char adapter[1024], output[1024];
    char warning[256], note[256];
};

static inline void on_log(void *ctx, enum cr_log_level level, const char *line)
{
    struct call *call = ctx;
    if (level == CR_LOG_WARNING) {
        snprintf(call->warning, sizeof call->warning, "%s", line);
    } else if (strstr(line, "held out") != NULL) {
        snprintf(call->note, sizeof call->note, "%s", line);
    }
}

static inline void call_init(struct call *call, const char *adapter, const char *output)
{
    memset(call, 0, sizeof *call);
    snprintf(call->adapter, sizeof call->adapter, "%s", cr_train_path(adapter));
    snprintf(call->output, sizeof call->output, "%s", cr_train_path(output));
    call->options = (struct cr_laplace_options){
        .size = sizeof call->options, .model = model, .data = data, .adapter = call->adapter, .output = call->output};
    call->host = (struct cr_host){.n_threads = 1, .cpu_cap = cr_test_cap(), .log = on_log, .ctx = call};
}

static inline void fit(struct call *call)
{
    ck_assert_msg(cr_laplace(&call->options, &call->host, &call->result, &call->err) == CR_OK, "%s", call->err.message);
}

/* A model with the trained adapter, ready for gradients. */
static inline void open_scoring(struct cr_scoring *s, const char *adapter)
{
    static const char *path;
    static char name[1024];
    struct cr_eval_options o;
    struct cr_error err = {0};
    static struct cr_host host;
    host = (struct cr_host){.n_threads = 1, .cpu_cap = cr_test_cap()};
    snprintf(name, sizeof name, "%s", cr_train_path(adapter));
    path = name;
    cr_eval_options_init(&o);
    o.model = model;
    o.data = data;
    o.adapters = &path;
    o.n_adapters = 1;
    o.mean = true;
    memset(s, 0, sizeof *s);
    s->differentiates = true;
    ck_assert_msg(cr_scoring_open(&o, &host, s, &err) == CR_OK, "%s", err.message);
}

struct answer {
    struct cr_eval_options options;
    struct cr_eval_result result;
    struct cr_host host;
    struct cr_error err;
    const char *paths[2];
    char adapters[2][1024];
    json_t *lines;
};

static inline void answer_init(struct answer *a, const char *adapter)
{
    memset(a, 0, sizeof *a);
    cr_eval_options_init(&a->options);
    snprintf(a->adapters[0], sizeof a->adapters[0], "%s", cr_train_path(adapter));
    a->paths[0] = a->adapters[0];
    a->paths[1] = a->adapters[1];
    a->options.model = model;
    a->options.data = other;
    a->options.adapters = a->paths;
    a->options.n_adapters = 1;
    a->host.n_threads = 1;
    a->lines = json_array();
}

static inline void answer_free(struct answer *a)
{
    cr_eval_result_deinit(&a->result);
    json_decref(a->lines);
}

static inline double nll_of(struct answer *a)
{
    ck_assert_msg(cr_eval(&a->options, &a->host, &a->result, &a->err) == CR_OK, "%s", a->err.message);
    double nll = a->result.all.nll;
    cr_eval_result_deinit(&a->result);
    return nll;
}

#endif
