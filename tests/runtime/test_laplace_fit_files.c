/* Laplace posteriors of whole adapters: files, refusals, failing allocations. */
#include <check.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/posterior/posterior.h"
#include "runtime/thread/machine.h"
#include "tests/runtime/laplace_fit_case.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"
#include "tests/support/train_test.h"

static void refuse(struct call *call, cr_status want, const char *part)
{
    cr_status status = cr_laplace(&call->options, &call->host, &call->result, &call->err);
    ck_assert_msg(status == want && strstr(call->err.message, part) != NULL, "%d %s (expected %d %s)", status,
                  call->err.message, want, part);
    ck_assert_ptr_null(strchr(call->err.message, '\n'));
}

static void refuse_answer(struct answer *a, const char *part)
{
    cr_status status = cr_eval(&a->options, &a->host, &a->result, &a->err);
    ck_assert_msg(status == CR_E_USAGE && strstr(a->err.message, part) != NULL, "%d %s (expected %s)", status,
                  a->err.message, part);
    answer_free(a);
}

START_TEST(refused_options)
{
    struct call call;
    train("ivon", "ivon");
    call_init(&call, "ivon", "out");
    refuse(&call, CR_E_USAGE, "of method ivon; Laplace wants");
    call_init(&call, "point", "out");
    call.options.data = texts;
    refuse(&call, CR_E_USAGE, "questions with choices");
    call_init(&call, "point", "out");
    call.options.valid = texts;
    refuse(&call, CR_E_INPUT, "--valid");
    call_init(&call, "point", "out");
    call.options.valid = data;
    refuse(&call, CR_E_USAGE, "--valid is the same file as --data");
    call_init(&call, "point", "point");
    call.options.force = true;
    refuse(&call, CR_E_USAGE, "--output is the same as --adapter");
    call_init(&call, "point", "ivon");
    refuse(&call, CR_E_USAGE, "--force");
    call_init(&call, "point", "out");
    call.options.prior_precision = -1;
    refuse(&call, CR_E_USAGE, "--prior-precision -1");
    call.options.prior_precision = (double)NAN;
    refuse(&call, CR_E_USAGE, "--prior-precision");
    call.options.prior_precision = 1;
    call.options.valid = other;
    refuse(&call, CR_E_USAGE, "exclude each other");
    call_init(&call, "point", "out");
    call.options.valid = other;
    call.options.no_valid = true;
    refuse(&call, CR_E_USAGE, "--valid and --no-valid exclude each other");
    call_init(&call, "point", "out");
    call.host.memory_bytes = 1 << 20;
    refuse(&call, CR_E_MEMORY, "MiB");
    ck_assert(!cr_train_exists("out"));
}
END_TEST

START_TEST(refused_adapters)
{
    struct call call;
    struct cr_train_run run;
    call_init(&call, "nowhere", "out");
    refuse(&call, CR_E_IO, "nowhere");
    train("ensemble", "ensemble");
    call_init(&call, "ensemble", "out");
    refuse(&call, CR_E_USAGE, "of method ensemble");
    cr_train_run_init(&run, "prefix");
    run.options.method = "prefix";
    run.options.vertices = 2;
    run.options.prefix_length = 3;
    run.options.steps = 1;
    cr_train_must(&run);
    call_init(&call, "prefix", "out");
    refuse(&call, CR_E_USAGE, "of method prefix");
    ck_assert(!cr_train_exists("out"));
}
END_TEST

START_TEST(refused_answers)
{
    struct call call;
    struct answer a;
    call_init(&call, "point", "laplace");
    fit(&call);
    answer_init(&a, "point");
    a.options.weights = true;
    refuse_answer(&a, "--weights");
    train("ensemble", "ensemble");
    answer_init(&a, "ensemble");
    a.options.weights = true;
    refuse_answer(&a, "--weights");
    answer_init(&a, "laplace");
    a.options.weights = a.options.mean = true;
    refuse_answer(&a, "--mean");
    answer_init(&a, "laplace");
    a.options.prune = 0.5;
    refuse_answer(&a, "--prune");
    answer_init(&a, "laplace");
    a.options.data = texts;
    refuse_answer(&a, "--weights or --mean");
    answer_init(&a, "laplace");
    a.options.data = texts;
    a.options.weights = true;
    nll_of(&a);
    ck_assert_uint_eq(a.result.n_members, 10);
    answer_free(&a);
    answer_init(&a, "laplace");
    snprintf(a.adapters[1], sizeof a.adapters[1], "%s", cr_train_path("point"));
    a.options.n_adapters = 2;
    refuse_answer(&a, "answers alone");
    a.options.n_adapters = 1;
}
END_TEST

/* Of another adapter, or damaged: no posterior. */
START_TEST(files)
{
    struct call call;
    struct cr_posterior *p = NULL;
    struct cr_error err;
    char path[1024];
    size_t n;
    call_init(&call, "point", "laplace");
    fit(&call);
    snprintf(path, sizeof path, "%s", cr_train_path("laplace"));
    uint8_t *bytes = cr_train_bytes("laplace/" CR_POSTERIOR_FILE, &n);
    uint64_t header;
    memcpy(&header, bytes, sizeof header);
    long live = cr_alloc_live();
    size_t refused = 0;
    for (size_t i = 0; i < 200; i++) {
        size_t at = i < 40 ? n * i / 40 : i * 7919 % (size_t)(header + 8);
        uint8_t kept = bytes[at];
        bytes[at] = (uint8_t)(i < 40 ? kept : kept ^ (1u << i % 8));
        cr_train_write("laplace/" CR_POSTERIOR_FILE, bytes, i < 40 ? at : n);
        bytes[at] = kept;
        cr_status status = cr_posterior_open(path, NULL, false, NULL, CR_TIER_SCALAR, &p, &err);
        ck_assert_msg(status == CR_OK || status == CR_E_INPUT, "%zu: %d %s", at, status, err.message);
        ck_assert(i >= 40 || status == CR_E_INPUT);
        refused += status == CR_E_INPUT;
        if (status == CR_OK) {
            ck_assert(p->laplace.precision > 0);
            cr_posterior_close(p);
        }
        ck_assert_int_eq(cr_alloc_live(), live);
    }
    ck_assert_uint_gt(refused, 150);
    static const uint8_t infinity[4] = {0, 0, 0x80, 0x7f};
    uint8_t last[4];
    memcpy(last, bytes + n - 4, 4);
    memcpy(bytes + n - 4, infinity, 4);
    cr_train_write("laplace/" CR_POSTERIOR_FILE, bytes, n);
    ck_assert_int_eq(cr_posterior_open(path, NULL, false, NULL, CR_TIER_SCALAR, &p, &err), CR_E_INPUT);
    memcpy(bytes + n - 4, last, 4);
    cr_train_write("point/" CR_POSTERIOR_FILE, bytes, n);
    snprintf(path, sizeof path, "%s", cr_train_path("point"));
    ck_assert_int_eq(cr_posterior_open(path, NULL, false, NULL, CR_TIER_SCALAR, &p, &err), CR_E_INPUT);
    cr_free(bytes);
}
END_TEST

static bool at_end;

/* The model is touched before the first example, or behind the last of the data. */
static void touch_model(void *ctx, const struct cr_progress *p)
{
    (void)ctx;
    if (strcmp(p->phase, "eval") == 0 && p->step == (at_end ? p->n_steps : 0) && (p->n_steps > 0) == at_end) {
        ck_assert_int_eq(utimensat(AT_FDCWD, model, NULL, 0), 0);
    }
}

/* Noticed in the data, in the validation file, and where neither is read any more. */
START_TEST(model_changes)
{
    struct call call;
    at_end = _i > 0;
    call_init(&call, "point", "out");
    call.options.no_valid = _i == 2;
    call.host.progress = touch_model;
    refuse(&call, CR_E_IO, "model.gguf: the model file changed while in use");
    ck_assert(!cr_train_exists("out"));
}
END_TEST

/* What is predicted is reached but for less than the gradients of single examples: nothing of that size counts twice.
 * The least room that is asked for beyond what is named: 6 MiB and 128 KiB a thread. */
START_TEST(memory_is_predicted)
{
    struct cr_train_run run;
    struct call call;
    struct cr_buf buf = {0};
    double predicted = 0, mib = 1024 * 1024;
    for (int i = 0; i < 4; i++) { /* gradients of 26 choices are kept at once */
        cr_buf_printf(&buf, "{\"question\":\"%d\",\"choices\":[\"a\"", i);
        for (int c = 1; c < 26; c++) {
            cr_buf_printf(&buf, ",\"%c\"", 'a' + c);
        }
        cr_buf_printf(&buf, "],\"answer\":%d}\n", i);
    }
    cr_train_write("letters.jsonl", buf.data, buf.n);
    cr_buf_free(&buf);
    snprintf(data, sizeof data, "%s", cr_train_path("letters.jsonl"));
    cr_train_run_init(&run, "wide");
    run.options.data = data;
    run.options.targets = "all";
    run.options.rank = 64;
    run.options.steps = 1;
    run.options.no_valid = true;
    cr_train_must(&run);
    call_init(&call, "wide", "out");
    call.host.memory_bytes = 1;
    refuse(&call, CR_E_MEMORY, "MiB predicted");
    ck_assert_int_eq(sscanf(call.err.message, "memory: %lf MiB predicted", &predicted), 1);
    call.host.memory_bytes = 0;
    fit(&call);
    struct cr_scoring s;
    open_scoring(&s, "wide");
    const struct cr_adapter *adapter = s.sets.posteriors[0]->adapter;
    double jacobian = (double)cr_jacobian_bytes(adapter, s.n_labels) / mib;
    uint64_t beside = cr_laplace_make_bytes(adapter);
    size_t written;
    cr_free(cr_train_bytes("out/" CR_POSTERIOR_FILE, &written)); /* stands in memory as it is written, at most twice */
    ck_assert(beside > written - 16384 && beside < 3 * written); /* the header is in JSON; eigenvalues */
    cr_scoring_close(&s);
    double peak = (double)cr_machine_peak_rss() / mib;
    ck_assert_double_gt(jacobian, 4);
    ck_assert(CR_TEST_SANITIZED || predicted + 0.5 >= peak);
    ck_assert_double_lt(predicted - 0.5 - 6.2, peak + jacobian / 2);
}
END_TEST

struct refits {
    long n_writing, n_named; /* failed once there was an output; once its summary had its name */
};

static cr_status refit(void *arg, struct cr_error *err)
{
    struct call call;
    char command[1100];
    struct refits *refits = arg;
    call_init(&call, "small", "out");
    call.options.force = true; /* over what the failure before left */
    cr_status status = cr_laplace(&call.options, &call.host, NULL, err);
    refits->n_writing += status != CR_OK && cr_train_exists("out");
    refits->n_named += status != CR_OK && cr_train_exists("out/summary.json");
    if (status == CR_OK) {
        ck_assert(cr_train_exists("out/summary.json"));
        snprintf(command, sizeof command, "rm -r '%s'", cr_train_path("out"));
        ck_assert_int_eq(system(command), 0);
    }
    return status;
}

/* Every allocation may fail, while writing as well, and nothing leaks. What was written until then is no finished
 * posterior: its summary is missing, but where its name alone could not be made to last, the last thing of all. */
START_TEST(memory)
{
    struct refits refits = {0, 0};
    struct cr_train_run run;
    cr_train_run_init(&run, "small");
    run.options.targets = "q_proj";
    run.options.rank = 1;
    run.options.steps = 1;
    cr_train_must(&run);
    ck_assert_int_gt(cr_test_alloc_sweep_long("laplace", refit, &refits, 23), 200);
    ck_assert_int_gt(refits.n_writing, 5);
    ck_assert_int_le(refits.n_named, 2); /* alone, and with all later ones */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("laplace_fit files");
    TCase *all = tcase_create("laplace_fit files");
    tcase_add_checked_fixture(all, setup, cr_train_dir_drop);
    tcase_set_timeout(all, 300);
    tcase_add_test(all, refused_options);
    tcase_add_test(all, refused_adapters);
    tcase_add_test(all, refused_answers);
    tcase_add_test(all, files);
    tcase_add_loop_test(all, model_changes, 0, 3);
    tcase_add_test(all, memory);
    tcase_add_test(all, memory_is_predicted);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
