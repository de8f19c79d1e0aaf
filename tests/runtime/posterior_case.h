/* posterior_case: predictions with the posteriors of two short runs, and calls with everything their callbacks saw. */
#ifndef CR_TESTS_POSTERIOR_CASE_H
#define CR_TESTS_POSTERIOR_CASE_H

#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/posterior/method.h"
#include "runtime/thread/parallel.h"
#include "tests/support/kernel_test.h"
#include "tests/support/train_test.h"

enum { SAMPLES = 4, N = CR_TRAIN_CHOICES };

static struct cr_parallel serial;
static char model[1024], data[1024], other[1024];

static inline void train_ivon(const char *output, const char *file, uint64_t seed)
{
    struct cr_train_run run;
    cr_train_run_init(&run, output);
    run.options.method = "ivon";
    run.options.data = file;
    run.options.lr = 0.2;
    run.options.clip_radius = 0.01;
    run.options.ess = 2e5;
    run.options.steps = 6;
    run.options.seed = seed;
    cr_train_must(&run);
}

static inline void train_adamw(const char *output, const char *targets, uint32_t rank, double dropout)
{
    struct cr_train_run run;
    cr_train_run_init(&run, output);
    run.options.targets = targets;
    run.options.rank = rank;
    run.options.dropout = dropout;
    run.options.steps = 6;
    run.options.lr = 2e-2;
    run.options.seed = rank;
    cr_train_must(&run);
}

static inline void setup(void)
{
    cr_train_dir_make();
    cr_parallel_serial(&serial);
    snprintf(model, sizeof model, "%s", cr_train_path("model.gguf"));
    snprintf(data, sizeof data, "%s", cr_train_path("choices.jsonl"));
    snprintf(other, sizeof other, "%s", cr_train_path("other.jsonl"));
    train_ivon("ivon", data, 0);
}

/* One evaluation or prediction. Paths of adapters are kept here. */
struct call {
    struct cr_eval_options options;
    struct cr_host host;
    struct cr_error err;
    struct cr_eval_result result;
    const char *adapters[3];
    char paths[3][1024], data[1024];
    json_t *lines; /* of predict */
    char first_warning[256];
};

static inline void on_log(void *ctx, enum cr_log_level level, const char *line)
{
    struct call *call = ctx;
    if (level == CR_LOG_WARNING && call->first_warning[0] == '\0') {
        snprintf(call->first_warning, sizeof call->first_warning, "%s", line);
    }
}

static inline bool on_line(void *ctx, const char *line)
{
    struct call *call = ctx;
    json_t *value = json_loads(line, 0, NULL);
    ck_assert_ptr_nonnull(value);
    json_array_append_new(call->lines, value);
    return true;
}

static inline void add_adapter(struct call *call, const char *name)
{
    char *path = call->paths[call->options.n_adapters];
    snprintf(path, sizeof call->paths[0], "%s", cr_train_path(name));
    call->adapters[call->options.n_adapters++] = path;
    call->options.adapters = call->adapters;
}

static inline void use_data(struct call *call, const char *name)
{
    snprintf(call->data, sizeof call->data, "%s", cr_train_path(name));
    call->options.data = call->data;
}

static inline void call_init(struct call *call, const char *adapter)
{
    memset(call, 0, sizeof *call);
    cr_eval_options_init(&call->options);
    call->options.model = model;
    use_data(call, "other.jsonl");
    call->host = (struct cr_host){.parallel = &serial, .cpu_cap = cr_test_cap(), .log = on_log, .ctx = call};
    call->lines = json_array();
    if (adapter != NULL) {
        add_adapter(call, adapter);
    }
}

static inline void call_free(struct call *call)
{
    cr_eval_result_deinit(&call->result);
    json_decref(call->lines);
}

static inline void eval(struct call *call)
{
    ck_assert_msg(cr_eval(&call->options, &call->host, &call->result, &call->err) == CR_OK, "%s", call->err.message);
}

static inline void predict(struct call *call)
{
    ck_assert_msg(cr_predict(&call->options, &call->host, on_line, call, &call->err) == CR_OK, "%s", call->err.message);
}

static inline void refuse(struct call *call, cr_status want, const char *part)
{
    cr_status status = cr_eval(&call->options, &call->host, &call->result, &call->err);
    ck_assert_msg(status == want && strstr(call->err.message, part) != NULL, "%d %s (expected %d %s)", status,
                  call->err.message, want, part);
    ck_assert_ptr_null(strchr(call->err.message, '\n'));
    call_free(call);
}

static inline const json_t *line_of(const struct call *call, size_t i)
{
    return json_array_get(call->lines, i);
}

static inline void export_set(const char *adapter, const char *output, bool sample, uint32_t k, double prune)
{
    char from[1024], to[1024];
    struct cr_error err = {0};
    snprintf(from, sizeof from, "%s", cr_train_path(adapter));
    snprintf(to, sizeof to, "%s", cr_train_path(output));
    struct cr_export_options o = {.size = sizeof o, .adapter = from, .output = to, .format = "peft"};
    o.mean = !sample;
    o.sample_set = sample;
    o.sample = k;
    o.prune = prune;
    ck_assert_msg(cr_export(&o, NULL, &err) == CR_OK, "%s", err.message);
}

#endif
