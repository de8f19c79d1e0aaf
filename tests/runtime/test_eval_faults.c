/* cr_eval and cr_predict stopped and refused: progress, options, older callers, outputs that overflow, failing
 * allocations. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/adapter/adapter.h"
#include "runtime/core/alloc.h"
#include "runtime/eval/scoring.h"
#include "tests/runtime/eval_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/train_test.h"

static void refuse(struct call *call, cr_status want, const char *part)
{
    struct cr_eval_result untouched = call->result;
    cr_status status = cr_eval(&call->options, &call->host, &call->result, &call->err);
    ck_assert_msg(status == want && strstr(call->err.message, part) != NULL, "%d %s", status, call->err.message);
    ck_assert(strchr(call->err.message, '\n') == NULL);
    ck_assert_mem_eq(&call->result, &untouched, sizeof untouched);
}

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
    call.options.settings_json = "7";
    refuse(&call, CR_E_USAGE, "settings_json: an integer, one JSON object expected");
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

/* What is kept of the options does not depend on the struct that they were given in. */
START_TEST(options_outlive_what_was_given)
{
    struct cr_eval_options given, kept;
    struct cr_error err = {0};
    cr_eval_options_init(&given);
    given.model = given.data = "m";
    given.adapter = "a";
    ck_assert_msg(cr_eval_check_options(&given, &kept, &err) == CR_OK, "%s", err.message);
    given.adapter = "b";
    ck_assert_uint_eq(kept.n_adapters, 1);
    ck_assert_str_eq(kept.adapters[0], "a");
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
    Suite *suite = suite_create("eval faults");
    TCase *tcase = tcase_create("eval faults");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, progress_and_stop);
    tcase_add_test(tcase, refusals);
    tcase_add_test(tcase, older_caller);
    tcase_add_test(tcase, options_outlive_what_was_given);
    tcase_add_test(tcase, overflowing_adapter);
    tcase_add_test(tcase, failing_allocations);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
