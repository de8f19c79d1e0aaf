/* What runs with method ensemble leave: predictions, files that do not fit, refusals. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/posterior/method.h"
#include "runtime/posterior/posterior.h"
#include "tests/runtime/ensemble_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/train_test.h"

static cr_status score(const char *adapter, const char *second, uint32_t samples, const char *data,
                       struct cr_eval_result *result, struct cr_error *err)
{
    struct cr_eval_options o;
    const char *adapters[] = {cr_train_kept(adapter), second != NULL ? cr_train_kept(second) : NULL};
    struct cr_host host = {.n_threads = 1};
    cr_eval_options_init(&o);
    o.model = cr_train_kept("model.gguf");
    o.data = cr_train_kept(data);
    o.adapters = adapters;
    o.n_adapters = second != NULL ? 2 : 1;
    o.samples = samples;
    return cr_eval(&o, &host, result, err);
}

static double nll_of(const char *adapter, const char *second, uint32_t samples, const char *data, size_t n_members)
{
    struct cr_eval_result result = {0};
    struct cr_error err = {0};
    ck_assert_msg(score(adapter, second, samples, data, &result, &err) == CR_OK, "%s", err.message);
    ck_assert_uint_eq(result.n_members, n_members);
    double nll = result.all.nll;
    if (result.classification && n_members > 1) {
        ck_assert_double_gt(result.pair_distance, 0);
        ck_assert(result.pair_disagreement >= 0 && result.pair_disagreement <= 1);
    }
    cr_eval_result_deinit(&result);
    return nll;
}

/* Validation is the NLL of the predictor that an evaluation uses; the first members are a smaller ensemble. */
START_TEST(predictions)
{
    struct cr_train_run run;
    const char *data = _i == 0 ? "choices.jsonl" : "texts.jsonl", *valid = _i == 0 ? "other.jsonl" : "texts.jsonl";
    full_init(&run, "out");
    run.options.data = cr_train_kept(data);
    run.options.valid = cr_train_kept(valid);
    cr_train_must(&run);
    double all = nll_of("out", NULL, 0, valid, N_MEMBERS);
    ck_assert_double_eq_tol(all, run.result.best_nll, 1e-12 * all); /* two orders of a sum in double */
    ck_assert(all == nll_of("out", NULL, N_MEMBERS, valid, N_MEMBERS));
    double first = nll_of("out/members/00", NULL, 0, valid, 1);
    ck_assert(first == nll_of("out", NULL, 1, valid, 1));
    ck_assert(nll_of("out/members/00", "out/members/01", 0, valid, 2) == nll_of("out", NULL, 2, valid, 2));
    export_member("out", 2, "third");
    double third = nll_of("third", NULL, 0, valid, 1);
    ck_assert(third == nll_of("out/members/02", NULL, 0, valid, 1) && third != first);
    /* The last checkpoint is the ensemble too. */
    full_init(&run, "last");
    run.options.data = cr_train_kept(data);
    run.options.keep_best = false;
    cr_train_must(&run);
    ck_assert(nll_of("last", NULL, 0, valid, N_MEMBERS) ==
              nll_of("last/checkpoints/step-00000009.cck", NULL, 0, valid, N_MEMBERS));
    struct cr_eval_result result = {0};
    struct cr_error err;
    ck_assert_int_eq(score("out", NULL, N_MEMBERS + 1, valid, &result, &err), CR_E_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "has 3 members"));
}
END_TEST

/* Label rows answer with their member, from the output and from a checkpoint; without them it is another adapter. */
START_TEST(predictions_with_heads)
{
    struct cr_train_run run;
    struct cr_error err = {0};
    struct cr_eval_result result = {0};
    full_init(&run, "out");
    with_heads(&run, true);
    run.options.valid = cr_train_kept("other.jsonl");
    cr_train_must(&run);
    double all = nll_of("out", NULL, 0, "other.jsonl", N_MEMBERS);
    ck_assert_double_eq_tol(all, run.result.best_nll, 1e-12 * all); /* two orders of a sum in double */
    ck_assert(nll_of("out", NULL, 1, "other.jsonl", 1) != nll_of("out/members/00", NULL, 0, "other.jsonl", 1));
    full_init(&run, "last");
    with_heads(&run, true);
    run.options.keep_best = false;
    cr_train_must(&run);
    ck_assert(nll_of("last", NULL, 0, "other.jsonl", N_MEMBERS) ==
              nll_of("last/checkpoints/step-00000009.cck", NULL, 0, "other.jsonl", N_MEMBERS));
    ck_assert_int_eq(score("out", NULL, 0, "texts.jsonl", &result, &err), CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, "label rows of its own for questions with at most 2 choices"));
    static const char three[] = "{\"question\":\"q\",\"choices\":[\"a\",\"b\",\"c\"],\"answer\":0}\n";
    cr_train_write("three", three, strlen(three));
    ck_assert_int_eq(score("out", NULL, 0, "three", &result, &err), CR_E_INPUT);
    struct cr_export_options e = {.size = sizeof e,
                                  .adapter = cr_train_kept("out"),
                                  .output = cr_train_kept("none"),
                                  .format = "gguf",
                                  .member_set = true};
    ck_assert_int_eq(cr_export(&e, NULL, &err), CR_E_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "a GGUF adapter has no place"));
    full_init(&run, "on");
    run.options.method = "adamw";
    run.options.adapter = cr_train_kept("last/checkpoints/step-00000009.cck");
    cr_train_must_fail(&run, CR_E_USAGE, "cannot be continued from");
    full_init(&run, "texts");
    with_heads(&run, true);
    run.options.data = cr_train_kept("texts.jsonl");
    cr_train_must_fail(&run, CR_E_USAGE, "need questions with choices");
}
END_TEST

START_TEST(files_that_do_not_fit)
{
    struct cr_train_run run;
    struct cr_posterior *p = NULL;
    struct cr_error err = {0};
    full_init(&run, "out");
    run.options.steps = 2;
    cr_train_must(&run);
    ck_assert_int_eq(cr_posterior_open(cr_train_kept("out"), NULL, false, NULL, CR_TIER_SCALAR, &p, &err), CR_OK);
    ck_assert_uint_eq(p->sets.n, N_MEMBERS);
    ck_assert_str_eq(p->adapter->method, "ensemble");
    cr_posterior_close(p);
    /* Another first member than the posterior's. */
    size_t n;
    uint8_t *bytes = cr_train_bytes("out/members/01/adapter_model.safetensors", &n);
    cr_train_write("out/members/00/adapter_model.safetensors", bytes, n);
    cr_free(bytes);
    ck_assert_int_eq(cr_posterior_open(cr_train_kept("out"), NULL, false, NULL, CR_TIER_SCALAR, &p, &err), CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, "not the one in members/00"));
    /* Members alone are no ensemble. */
    ck_assert_int_eq(remove(cr_train_path("out/" CR_POSTERIOR_FILE)), 0);
    ck_assert_int_eq(cr_posterior_open(cr_train_kept("out"), NULL, false, NULL, CR_TIER_SCALAR, &p, &err), CR_E_IO);
    ck_assert_ptr_nonnull(strstr(err.message, CR_POSTERIOR_FILE));
}
END_TEST

START_TEST(refusals)
{
    struct cr_train_run run;
    CR_TRAIN_REFUSE(run, full_init, members, 0, "--members 0");
    CR_TRAIN_REFUSE(run, full_init, members, CR_WEIGHT_SETS_MAX + 1, "--members 1025");
    CR_TRAIN_REFUSE(run, full_init, init_gain, -1, "--init-gain");
    CR_TRAIN_REFUSE(run, full_init, init_gain, (double)NAN, "--init-gain");
    CR_TRAIN_REFUSE(run, full_init, member_init, "zero", "\"zero\" unknown");
    CR_TRAIN_REFUSE(run, full_init, head_lr, -1, "--head-lr -1");
    CR_TRAIN_REFUSE(run, full_init, head_noise, (double)NAN, "label rows");
    CR_TRAIN_REFUSE(run, full_init, adapter, cr_train_kept("model.gguf"), "start apart");
    ck_assert(!cr_train_exists("out"));
    struct cr_finetune_options o;
    struct cr_error err;
    ck_assert_int_eq(cr_finetune_options_for(&o, "ensemble", "paper", &err), CR_OK);
    ck_assert(o.members == 16 && o.init_gain == 10 && o.member_heads && o.lr_schedule == CR_LR_COSINE);
    ck_assert(o.epochs == 16 && o.batch_size == 32 && o.warmup == 500 && o.lr == 1e-4);
    ck_assert_int_eq(cr_finetune_options_for(&o, "ensemble", NULL, &err), CR_OK);
    ck_assert_str_eq(o.targets, "q_proj,k_proj,v_proj,o_proj");
    /* Settings are recorded: another number of members is another run. */
    full_init(&run, "out");
    run.options.steps = 2;
    cr_train_must(&run);
    full_init(&run, "out");
    run.options.steps = 2;
    run.options.resume = true;
    run.options.init_gain = 3;
    cr_train_must_fail(&run, CR_E_BUSY, "init-gain");
    struct cr_export_options e = {
        .size = sizeof e, .adapter = cr_train_kept("out"), .output = cr_train_kept("none"), .format = "peft"};
    ck_assert_int_eq(cr_export(&e, NULL, &err), CR_E_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "--member K, 0 to 2"));
    e.member_set = true;
    e.member = N_MEMBERS;
    ck_assert_int_eq(cr_export(&e, NULL, &err), CR_E_USAGE);
    ck_assert(!cr_train_exists("none"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ensemble_train files");
    TCase *all = tcase_create("ensemble_train files");
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_set_timeout(all, 300);
    tcase_add_loop_test(all, predictions, 0, 2);
    tcase_add_test(all, predictions_with_heads);
    tcase_add_test(all, files_that_do_not_fit);
    tcase_add_test(all, refusals);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
