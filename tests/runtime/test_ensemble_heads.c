/* The label rows of an ensemble's members: what they are worth (summary.json says the held-out NLL with and without
 * them), and how a member takes them along to PEFT. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include "credence/kernels/dequant.h"
#include "runtime/core/alloc.h"
#include "runtime/io/safetensors.h"
#include "runtime/model/model.h"
#include "tests/support/kernel_test.h"
#include "tests/support/tiny_model.h"
#include "tests/support/train_test.h"

enum { N_MEMBERS = 3, N_LABELS = 2 };

/* model NULL: that of the directory. */
static void train(const char *output, bool heads, const char *model)
{
    struct cr_train_run run;
    cr_train_full_init(&run, output);
    run.options.model = model != NULL ? model : run.options.model;
    run.options.method = "ensemble";
    run.options.members = N_MEMBERS;
    run.options.member_heads = heads;
    run.options.head_lr = heads ? 1e-2 : 0;
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
    train("out", true, NULL);
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
    train("out", false, NULL);
    json_t *said = facts("out");
    ck_assert_ptr_null(json_object_get(said, "nll_model_head"));
    ck_assert_str_eq(json_string_value(json_object_get(said, "head")), "frozen");
    json_decref(said);
}
END_TEST

/* Owned: the numbers of a tensor of two dimensions. */
static float *tensor(const struct cr_safetensors *st, const char *name, uint64_t rows, uint64_t columns)
{
    struct cr_error err = {0};
    const struct cr_st_tensor *t = cr_safetensors_find(st, name);
    ck_assert_msg(t != NULL, "no tensor %s", name);
    ck_assert_uint_eq(t->n_dims, 2);
    ck_assert_uint_eq(t->shape[0], rows);
    ck_assert_uint_eq(t->shape[1], columns);
    float *values = cr_alloc(t->n, sizeof *values);
    ck_assert_msg(cr_safetensors_read_f32(st, t, values, &err) == CR_OK, "%s", err.message);
    return values;
}

static struct cr_safetensors *open_tensors(const char *path)
{
    struct cr_safetensors *st = NULL;
    struct cr_error err = {0};
    ck_assert_msg(cr_safetensors_open(path, &st, &err) == CR_OK, "%s", err.message);
    return st;
}

/* With an output matrix of its own, the pair on lm_head adds to each label's row what it differs by from the model's,
 * and to no other row anything. */
START_TEST(pair_on_lm_head)
{
    struct cr_tiny_spec spec = {.type = CR_Q_Q8_0, .seed = 11, .untied = true};
    struct cr_error err = {0};
    struct cr_host host = {.n_threads = 1};
    struct cr_model *model = NULL;
    const char *path = cr_train_kept("untied.gguf");
    ck_assert_msg(cr_tiny_model_file(&spec, path, &err) == CR_OK, "%s", err.message);
    train("out", true, path);
    struct cr_export_options o = {.size = sizeof o,
                                  .model = path,
                                  .adapter = cr_train_kept("out"),
                                  .output = cr_train_kept("second"),
                                  .member_set = true,
                                  .member = 1};
    ck_assert_msg(cr_export(&o, &host, &err) == CR_OK, "%s", err.message);
    ck_assert_msg(cr_model_open(path, &model, &err) == CR_OK, "%s", err.message);
    struct cr_safetensors *from = open_tensors(cr_train_path("out/posterior.safetensors"));
    struct cr_safetensors *to = open_tensors(cr_train_path("second/adapter_model.safetensors"));
    uint32_t width = model->config.n_embd, n_vocab = model->config.n_vocab;
    float *rows = tensor(from, "base_model.model.lm_head.label_rows.member1", N_LABELS, width);
    float *a = tensor(to, "base_model.model.lm_head.lora_A.weight", N_LABELS, width);
    float *b = tensor(to, "base_model.model.lm_head.lora_B.weight", n_vocab, N_LABELS);
    float *base = cr_alloc((size_t)N_LABELS * width, sizeof *base);
    int ids[N_LABELS], n = 0;
    ck_assert_int_eq(sscanf(cr_safetensors_metadata(from, "credence.labels", NULL), "%d,%d%n", &ids[0], &ids[1], &n),
                     N_LABELS);
    cr_model_label_rows(model, CR_TIER_SCALAR, ids, N_LABELS, base);
    for (size_t i = 0; i < (size_t)N_LABELS * width; i++) {
        ck_assert(a[i] == rows[i] - base[i]);
        ck_assert(a[i] != 0); /* noise at the start: a row that stayed the model's would show nothing */
    }
    for (uint32_t v = 0; v < n_vocab; v++) {
        for (int l = 0; l < N_LABELS; l++) {
            ck_assert(b[(size_t)v * N_LABELS + (size_t)l] == (v == (uint32_t)ids[l] ? 1.0F : 0.0F));
        }
    }
    cr_free(rows);
    cr_free(a);
    cr_free(b);
    cr_free(base);
    cr_safetensors_close(from);
    cr_safetensors_close(to);
    cr_model_close(model);
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
    tcase_add_test(all, pair_on_lm_head);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
