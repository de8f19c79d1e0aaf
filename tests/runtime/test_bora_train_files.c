/* What runs with method bora leave: predictions by task, texts, files that do not fit; refusals. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/posterior/method.h"
#include "runtime/posterior/posterior.h"
#include "tests/runtime/bora_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/train_test.h"

static void init_data(struct cr_train_run *run, const char *output)
{
    full_init(run, output, "data");
}

struct shot {
    const char *adapter, *data;
    bool mean, strict;
    uint32_t samples, batch_size;
};

static cr_status shoot(const struct shot *shot, struct cr_eval_result *result, struct cr_error *err)
{
    struct cr_eval_options o;
    struct cr_host host = {.n_threads = 1};
    cr_eval_options_init(&o);
    o.model = cr_train_kept("model.gguf");
    o.data = cr_train_kept(shot->data);
    o.adapter = cr_train_kept(shot->adapter);
    o.mean = shot->mean;
    o.strict_task = shot->strict;
    o.samples = shot->samples;
    o.batch_size = shot->batch_size;
    return cr_eval(&o, &host, result, err);
}

/* NLL of all, and of task `group` when it is not negative. */
static double nll_of(struct shot shot, int group, uint64_t n_global)
{
    struct cr_eval_result result = {0};
    struct cr_error err = {0};
    ck_assert_msg(shoot(&shot, &result, &err) == CR_OK, "%s", err.message);
    ck_assert_uint_eq(result.n_members, 1);
    ck_assert_uint_eq(result.n_global, n_global);
    double nll = group < 0 ? result.all.nll : result.groups[group].nll;
    cr_eval_result_deinit(&result);
    return nll;
}

static void export_task(const char *task, const char *to)
{
    struct cr_error err = {0};
    struct cr_export_options o = {
        .size = sizeof o, .adapter = cr_train_kept("out"), .output = cr_train_kept(to), .format = "peft", .task = task};
    ck_assert_msg(cr_export(&o, NULL, &err) == CR_OK, "%s", err.message);
}

/* Every task by its own adapter, as if it were alone; others by the common one. */
START_TEST(predictions)
{
    struct cr_train_run run;
    put_choices("data", 3, -1, -1);
    put_choices("only1", 3, 1, -1);
    put_choices("five", 5, -1, -1);
    full_init(&run, "out", "data");
    run.options.valid = cr_train_kept("data");
    run.options.tau = _i;
    run.options.bora_mode = _i == 0 ? NULL : "joined";
    cr_train_must(&run);
    double all = nll_of((struct shot){.adapter = "out", .data = "data"}, -1, 0);
    ck_assert_double_eq_tol(all, run.result.best_nll, 1e-12 * all); /* sums of doubles in two orders */
    ck_assert(all == nll_of((struct shot){.adapter = "out", .data = "data", .batch_size = 5}, -1, 0));
    export_task("t1", "task1");
    double task1 = nll_of((struct shot){.adapter = "task1", .data = "only1"}, -1, 0);
    ck_assert(task1 == nll_of((struct shot){.adapter = "out", .data = "data"}, 1, 0));
    ck_assert(task1 == nll_of((struct shot){.adapter = "out/tasks/t1", .data = "only1"}, -1, 0));
    export_task(NULL, "common");
    double common = nll_of((struct shot){.adapter = "common", .data = "only1"}, -1, 0);
    ck_assert(common != task1);
    ck_assert(common == nll_of((struct shot){.adapter = "out", .data = "only1", .mean = true}, -1, 0));
    export_task("t0", "task0");
    ck_assert(nll_of((struct shot){.adapter = "out", .data = "five"}, 4, 9) ==
              nll_of((struct shot){.adapter = "common", .data = "five"}, 4, 0));
    ck_assert(nll_of((struct shot){.adapter = "out", .data = "five"}, 0, 9) ==
              nll_of((struct shot){.adapter = "task0", .data = "five"}, 0, 0));
    /* A checkpoint knows its tasks. */
    full_init(&run, "last", "data");
    run.options.keep_best = false;
    run.options.bora_mode = _i == 0 ? NULL : "joined";
    cr_train_must(&run);
    ck_assert(nll_of((struct shot){.adapter = "last/checkpoints/step-00000009.cck", .data = "data"}, -1, 0) ==
              nll_of((struct shot){.adapter = "last", .data = "data"}, -1, 0));
    struct cr_eval_result result = {0};
    struct cr_error err;
    ck_assert_int_eq(shoot(&(struct shot){.adapter = "out", .data = "five", .strict = true}, &result, &err),
                     CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, ":4: task \"t3\" is unknown"));
    ck_assert_int_eq(shoot(&(struct shot){.adapter = "out", .data = "data", .samples = 2}, &result, &err), CR_E_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "--samples 2"));
}
END_TEST

/* Texts: documents weigh the same in the loss and in validation, tokens in the perplexity. */
START_TEST(texts)
{
    struct cr_train_run run;
    struct cr_eval_result result = {0};
    struct cr_error err = {0};
    put_texts("data");
    full_init(&run, "out", "data");
    run.options.valid = cr_train_kept("data");
    run.options.tau = (double)NAN;
    cr_train_must(&run);
    ck_assert_msg(shoot(&(struct shot){.adapter = "out", .data = "data"}, &result, &err) == CR_OK, "%s", err.message);
    double documents = result.all.nll * (double)result.all.n / N_LINES;
    ck_assert_double_eq_tol(run.result.best_nll, documents, 1e-12 * documents);
    ck_assert_double_eq_tol(result.all.perplexity, exp(result.all.nll), 1e-12 * result.all.perplexity);
    ck_assert_uint_eq(result.n_groups, 3);
    /* 24 documents are one batch, of three tasks. */
    double log_ppl = (result.groups[0].nll + result.groups[1].nll + result.groups[2].nll) / 3;
    ck_assert_double_eq_tol(result.bora_perplexity, exp(log_ppl), 1e-12 * result.bora_perplexity);
    cr_eval_result_deinit(&result);
    size_t n;
    uint8_t *summary = cr_train_bytes("out/summary.json", &n);
    json_t *object = json_loadb((const char *)summary, n, 0, NULL);
    json_t *facts = json_object_get(object, "posterior");
    ck_assert_double_eq(json_number_value(json_object_get(facts, "tau")), 300);
    ck_assert_uint_eq(json_object_size(json_object_get(facts, "distance")), 3);
    json_decref(object);
    cr_free(summary);
}
END_TEST

START_TEST(files_that_do_not_fit)
{
    struct cr_train_run run;
    struct cr_posterior *p = NULL;
    struct cr_error err = {0};
    static const char odd[] = "{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":0,\"task\":\"../a b\"}\n"
                              "{\"question\":\"r\",\"choices\":[\"a\",\"b\"],\"answer\":1,\"task\":\"t\"}\n";
    cr_train_write("odd", odd, strlen(odd));
    full_init(&run, "out", "odd");
    run.options.no_valid = true;
    run.options.keep_best = false;
    cr_train_must(&run);
    ck_assert(cr_train_exists("out/tasks/%2E.%2Fa%20b/adapter_model.safetensors"));
    ck_assert(cr_train_exists("out/tasks/t/adapter_model.safetensors"));
    ck_assert_int_eq(cr_posterior_open(cr_train_kept("out"), NULL, false, NULL, CR_TIER_SCALAR, &p, &err), CR_OK);
    ck_assert_uint_eq(cr_weight_sets_find(&p->sets, "../a b"), 1);
    ck_assert_uint_eq(cr_weight_sets_find(&p->sets, "other"), 0);
    cr_posterior_close(p);
    size_t n;
    uint8_t *own = cr_train_bytes("out/adapter_model.safetensors", &n);
    own[n - 1] ^= 1; /* the exponent of the last weight */
    cr_train_write("out/adapter_model.safetensors", own, n);
    ck_assert_int_eq(cr_posterior_open(cr_train_kept("out"), NULL, false, NULL, CR_TIER_SCALAR, &p, &err), CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, "mean is not the adapter beside it"));
    cr_free(own);
}
END_TEST

static void init_paper(struct cr_train_run *run, const char *output)
{
    struct cr_finetune_options own;
    ck_assert_int_eq(cr_finetune_options_for(&own, "bora", "paper", NULL), CR_OK);
    init_data(run, output);
    own.model = run->options.model;
    own.data = run->options.data;
    own.output = run->options.output;
    own.steps = 2;
    run->options = own;
}

/* The rate goes with tau; patience without a word about what is kept keeps the best. */
START_TEST(paper)
{
    static const double taus[] = {100, 10, 0}, rates[] = {1e-3, 1e-4, 1e-4};
    struct cr_train_run run;
    put_choices("data", 3, -1, -1);
    init_paper(&run, "out");
    const struct cr_finetune_options *o = &run.options;
    ck_assert(o->tau == 100 && o->rank == 16 && o->alpha == 16 && o->batch_size == 64 && o->max_seq_length == 128);
    ck_assert(o->patience == 8 && o->epochs == 1000 && strcmp(o->bora_prior, "norm") == 0);
    ck_assert(o->lr_schedule == CR_LR_CONSTANT && o->max_grad_norm == 0);
    for (int i = 0; i < 3; i++) {
        init_paper(&run, i == 0 ? "own" : i == 1 ? "ten" : "apart");
        run.options.tau = taus[i];
        cr_train_must(&run);
        size_t n;
        uint8_t *summary = cr_train_bytes(i == 0   ? "own/summary.json"
                                          : i == 1 ? "ten/summary.json"
                                                   : "apart/summary.json",
                                          &n);
        json_t *object = json_loadb((const char *)summary, n, 0, NULL), *settings = json_object_get(object, "settings");
        ck_assert_double_eq_tol(json_number_value(json_object_get(settings, "lr")), rates[i], 1e-15);
        ck_assert_str_eq(json_string_value(json_object_get(settings, "keep")), "best");
        json_decref(object);
        cr_free(summary);
    }
    CR_TRAIN_REFUSE(run, init_paper, no_valid, true, "--patience 8 of --preset paper");
    run.options.patience = 0;
    cr_train_must(&run);
}
END_TEST

START_TEST(refusals)
{
    struct cr_train_run run;
    static const char half[] = "{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":0,\"task\":\"x\"}\n"
                               "{\"question\":\"r\",\"choices\":[\"a\",\"b\"],\"answer\":1}\n";
    put_choices("data", 2, -1, -1);
    cr_train_write("half", half, strlen(half));
    CR_TRAIN_REFUSE(run, init_data, tau, -1, "--tau -1");
    CR_TRAIN_REFUSE(run, init_data, tau, (double)INFINITY, "--tau inf");
    CR_TRAIN_REFUSE(run, init_data, bora_spread, -1, "spread");
    CR_TRAIN_REFUSE(run, init_data, bora_prior, "l1", "\"l1\" unknown");
    CR_TRAIN_REFUSE(run, init_data, bora_mode, "both", "\"both\" unknown");
    full_init(&run, "out", "data");
    run.options.bora_mode = "joined";
    run.options.tau = 0;
    cr_train_must_fail(&run, CR_E_USAGE, "need a number above 0");
    full_init(&run, "out", "texts.jsonl");
    cr_train_must_fail(&run, CR_E_INPUT, "no line names a task");
    full_init(&run, "out", "half");
    run.options.no_valid = true;
    run.options.keep_best = false;
    cr_train_must_fail(&run, CR_E_INPUT, ":2: names no task");
    ck_assert(!cr_train_exists("out"));
    run.options.bora_mode = "global";
    cr_train_must(&run);
    struct cr_error err;
    struct cr_export_options e = {.size = sizeof e,
                                  .adapter = cr_train_kept("out"),
                                  .output = cr_train_kept("none"),
                                  .format = "peft",
                                  .task = "x"};
    ck_assert_int_eq(cr_export(&e, NULL, &err), CR_E_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "has no task"));
    ck_assert(!cr_train_exists("none"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bora_train files");
    TCase *all = tcase_create("bora_train files");
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_set_timeout(all, 300);
    tcase_add_loop_test(all, predictions, 0, 2);
    tcase_add_test(all, texts);
    tcase_add_test(all, files_that_do_not_fit);
    tcase_add_test(all, paper);
    tcase_add_test(all, refusals);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
