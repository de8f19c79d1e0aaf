/* What the label rows of an ensemble's members are worth: summary.json says the held-out NLL with and without them. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include "tests/support/kernel_test.h"
#include "tests/support/train_test.h"

enum { N_MEMBERS = 3 };

static void train(const char *output, bool heads)
{
    struct cr_train_run run;
    cr_train_full_init(&run, output);
    run.options.method = "ensemble";
    run.options.members = N_MEMBERS;
    run.options.member_heads = heads;
    run.options.head_lr = 1e-2;
    run.options.head_noise = 0.05;
    run.options.valid = cr_train_kept("other.jsonl");
    cr_train_must(&run);
}

static json_t *facts(const char *output)
{
    char path[64];
    snprintf(path, sizeof path, "%s/summary.json", output);
    json_t *summary = json_load_file(cr_train_path(path), 0, NULL);
    ck_assert_ptr_nonnull(summary);
    json_t *found = json_incref(json_object_get(summary, "posterior"));
    json_decref(summary);
    return found;
}

static double nll_of(const char *const *adapters, size_t n)
{
    struct cr_eval_options o;
    struct cr_eval_result result = {0};
    struct cr_host host = {.n_threads = 1};
    struct cr_error err = {0};
    cr_eval_options_init(&o);
    o.model = cr_train_kept("model.gguf");
    o.data = cr_train_kept("other.jsonl");
    o.adapters = adapters;
    o.n_adapters = n;
    ck_assert_msg(cr_eval(&o, &host, &result, &err) == CR_OK, "%s", err.message);
    double nll = result.all.nll;
    cr_eval_result_deinit(&result);
    return nll;
}

/* The second is that of the members' own files, which have no place for the rows. */
START_TEST(with_and_without)
{
    train("out", true);
    json_t *said = facts("out");
    double own = json_real_value(json_object_get(said, "nll"));
    double model = json_real_value(json_object_get(said, "nll_model_head"));
    const char *whole[] = {cr_train_kept("out")};
    const char *files[] = {cr_train_kept("out/members/00"), cr_train_kept("out/members/01"),
                           cr_train_kept("out/members/02")};
    /* Sums in double of the same f32 results, in two orders. */
    ck_assert_double_eq_tol(own, nll_of(whole, 1), 1e-12 * own);
    ck_assert_double_eq_tol(model, nll_of(files, N_MEMBERS), 1e-12 * model);
    ck_assert(own != model);
    json_decref(said);
}
END_TEST

START_TEST(frozen_head_has_one)
{
    train("out", false);
    json_t *said = facts("out");
    ck_assert_ptr_null(json_object_get(said, "nll_model_head"));
    ck_assert_str_eq(json_string_value(json_object_get(said, "head")), "frozen");
    json_decref(said);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ensemble_heads");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_add_test(all, with_and_without);
    tcase_add_test(all, frozen_head_has_one);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
