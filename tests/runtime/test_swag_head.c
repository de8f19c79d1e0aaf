/* The label rows of method swag: trained at their own rate, averaged and drawn with the matrices, in files and out. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/core/alloc.h"
#include "runtime/io/safetensors.h"
#include "tests/runtime/swag_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/method_test.h"
#include "tests/support/tiny_model.h"

enum { N_LABELS = 2 };

/* What evaluations say of "out" as a whole, and of the adapter files in it. */
static void with_other(struct cr_train_run *run, const char *output)
{
    head_init(run, output);
    run->options.valid = cr_train_kept("other.jsonl");
}

static void export_to(const char *from, const char *to, struct cr_export_options o, cr_status want, const char *part)
{
    struct cr_error err = {0};
    o.size = sizeof o;
    o.adapter = cr_train_kept(from);
    o.output = cr_train_kept(to);
    cr_status status = cr_export(&o, NULL, &err);
    ck_assert_msg(status == want, "%d %s", status, err.message);
    ck_assert_msg(part == NULL || strstr(err.message, part) != NULL, "\"%s\" lacks \"%s\"", err.message, part);
}

/* AdamW's first step is its rate, where the gradient is far above eps: that of the rows is theirs. */
START_TEST(rate_of_its_own)
{
    struct cr_train_run run;
    struct cr_checkpoint at[2];
    struct cr_adapter *adapter = NULL;
    struct cr_adapter_base base;
    head_init(&run, "out");
    run.options.warmup = 0;
    run.options.weight_decay = 0;
    run.options.lr_schedule = CR_LR_CONSTANT;
    run.options.max_grad_norm = 0;
    run.options.head_lr = _i == 0 ? 0 : 3e-2;
    cr_train_must(&run);
    ck_assert_int_eq(
        cr_adapter_read(cr_train_path("out/checkpoints/step-00000000.cck"), NULL, false, &adapter, &base, NULL), CR_OK);
    ck_assert_uint_eq(run.result.n_params, adapter->n_trainable);
    cr_method_step("out", 0, &at[0]);
    cr_method_step("out", 1, &at[1]);
    const float *w[2] = {cr_method_section(&at[0], CR_CKPT_TRAINED, NULL),
                         cr_method_section(&at[1], CR_CKPT_TRAINED, NULL)};
    double farthest[2] = {0};
    for (size_t i = 0; i < adapter->n_params; i++) {
        bool row = i >= cr_adapter_rows_begin(adapter);
        farthest[row] = fmax(farthest[row], fabs((double)w[1][i] - (double)w[0][i]));
    }
    double want = _i == 0 ? run.options.lr : 3e-2;
    ck_assert_double_eq_tol(farthest[0], run.options.lr, 1e-3 * run.options.lr);
    ck_assert_double_eq_tol(farthest[1], want, 1e-3 * want);
    cr_adapter_destroy(adapter);
    cr_checkpoint_close(&at[0]);
    cr_checkpoint_close(&at[1]);
}
END_TEST

/* The mean answers with its rows; adapter files are without them; summary.json says the NLL of both. */
START_TEST(with_and_without)
{
    struct cr_train_run run;
    size_t n;
    with_other(&run, "out");
    cr_train_must(&run);
    json_t *facts = facts_of("out");
    double own = json_real_value(json_object_get(facts, "nll"));
    double model = json_real_value(json_object_get(facts, "nll_model_head"));
    ck_assert_str_eq(json_string_value(json_object_get(facts, "head")), "trained");
    json_decref(facts);
    ck_assert_double_gt(fabs(own - model), 1e-2);
    /* sums in double of the same f32 results, in two orders */
    ck_assert_double_eq_tol(own, cr_method_nll("out", 0, -1, &n), 1e-12 * own);
    export_to("out", "bare.gguf", (struct cr_export_options){.drop_head = true, .format = "gguf"}, CR_OK, NULL);
    export_to("out", "bare", (struct cr_export_options){.drop_head = true}, CR_OK, NULL);
    ck_assert(!cr_train_exists("out/adapter.gguf"));
    ck_assert_double_eq_tol(model, cr_method_nll("bare", 0, -1, &n), 1e-12 * model);
    ck_assert(cr_method_nll("bare.gguf", 0, -1, &n) == cr_method_nll("bare", 0, -1, &n));
    /* A checkpoint holds the mean with its rows, too. */
    struct cr_posterior *p = cr_method_open("out/checkpoints/step-00000010.cck");
    ck_assert_uint_eq(p->adapter->n_labels, N_LABELS);
    cr_posterior_close(p);
    /* Draws next to the mean are next to it with its rows, not with the model's; others are elsewhere. */
    double near = cr_method_nll("out", 4, 1e-14, &n);
    ck_assert_double_lt(fabs(near - own), fabs(own - model) / 10);
    double drawn = cr_method_nll("out", 4, 0, &n);
    ck_assert(drawn != own && drawn == cr_method_nll("out", 4, 0, &n));
}
END_TEST

/* A draw moves the rows, and those of another draw are others. */
START_TEST(rows_are_drawn)
{
    struct cr_train_run run;
    head_init(&run, "out");
    cr_train_must(&run);
    struct cr_posterior *p = cr_method_open("out");
    size_t n = p->adapter->n_params, begin = cr_adapter_rows_begin(p->adapter);
    float *draws = cr_alloc(n, 2 * sizeof *draws);
    for (uint32_t s = 0; s < 2; s++) {
        struct cr_posterior_draw draw = {.sample = s, .temperature = 1};
        ck_assert_int_eq(cr_posterior_draw(p, &draw, draws + s * n, NULL), CR_OK);
    }
    double variance = 0, moved = 0, apart = 0, floats = (double)N_LABELS * p->adapter->n_embd;
    for (size_t i = begin; i < n; i++) {
        double m2 = (double)p->swag.m2[i], last = 0;
        for (uint32_t age = 0; age < 2; age++) {
            uint32_t bits = (uint32_t)cr_swag_row(&p->swag, age)[i] << 16;
            float row;
            memcpy(&row, &bits, sizeof row);
            last += (double)row * (double)row;
        }
        variance += p->swag_scale * (m2 / 3 + last); /* K - 1 = 1 */
        moved += ((double)draws[i] - (double)p->swag.mean[i]) * ((double)draws[i] - (double)p->swag.mean[i]);
        apart += ((double)draws[i] - (double)draws[n + i]) * ((double)draws[i] - (double)draws[n + i]);
    }
    ck_assert_double_gt(variance / floats, 1e-9);
    /* two normals shared by all rows decide most of it: a factor of 16 either way is beyond four of their deviations
     * above, and a chance of some percent below, of a fixed seed */
    ck_assert(moved > variance / 16 && moved < 16 * variance);
    ck_assert_double_gt(apart, 0);
    cr_free(draws);
    cr_posterior_close(p);
}
END_TEST

/* Where the rows have no place they are left out only when that is asked for, and the file says so. */
START_TEST(exports_without)
{
    struct cr_train_run run;
    struct cr_finetune_options *o = &run.options;
    head_init(&run, "out");
    cr_train_must(&run);
    const char *model = cr_train_kept("model.gguf");
    export_to("out", "none", (struct cr_export_options){.format = "gguf"}, CR_E_USAGE, "--drop-head");
    export_to("out", "none", (struct cr_export_options){.format = "peft"}, CR_E_USAGE, "--model expected");
    export_to("out", "none", (struct cr_export_options){.model = model}, CR_E_USAGE, "is its embedding");
    export_to("out/checkpoints/step-00000010.cck", "none", (struct cr_export_options){0}, CR_E_USAGE, "--drop-head");
    ck_assert(!cr_train_exists("none"));
    export_to("out", "mean", (struct cr_export_options){.drop_head = true}, CR_OK, NULL);
    ck_assert(cr_train_same("mean/adapter_model.safetensors", "out/adapter_model.safetensors"));
    struct cr_posterior *p = cr_method_open("mean");
    ck_assert_str_eq(p->adapter->method, "headless-swag");
    cr_posterior_close(p);
    /* What goes on from there, without them, is told; it may have rows of its own. */
    const char *from = cr_train_kept("out");
    head_init(&run, "on");
    o->adapter = from;
    o->no_valid = true;
    o->keep_best = false;
    cr_train_must(&run);
    ck_assert_ptr_nonnull(strstr(run.last_warning, "label rows of its own, which are not here"));
    p = cr_method_open("on");
    ck_assert_uint_eq(p->adapter->n_labels, N_LABELS);
    cr_posterior_close(p);
    full_init(&run, "frozen");
    cr_train_must(&run);
    export_to("frozen", "none", (struct cr_export_options){.drop_head = true}, CR_E_USAGE, "no label rows of its own");
}
END_TEST

/* With an output matrix of its own, the pair on lm_head of an exported draw adds what its rows differ by from the
 * model's. */
START_TEST(pair_on_lm_head)
{
    struct cr_tiny_spec spec = {.type = CR_Q_Q8_0, .seed = 11, .untied = true};
    struct cr_error err = {0};
    struct cr_model *model = NULL;
    struct cr_safetensors *st = NULL;
    struct cr_train_run run;
    const char *path = cr_train_kept("untied.gguf");
    ck_assert_msg(cr_tiny_model_file(&spec, path, &err) == CR_OK, "%s", err.message);
    head_init(&run, "out");
    run.options.model = path;
    cr_train_must(&run);
    export_to("out", "draw", (struct cr_export_options){.model = path, .sample_set = true, .sample = 1}, CR_OK, NULL);
    struct cr_posterior *p = cr_method_open("out");
    ck_assert_int_eq(cr_model_open(path, &model, &err), CR_OK);
    ck_assert_int_eq(cr_safetensors_open(cr_train_path("draw/adapter_model.safetensors"), &st, &err), CR_OK);
    const struct cr_st_tensor *t = cr_safetensors_find(st, "base_model.model.lm_head.lora_A.weight");
    size_t n = (size_t)N_LABELS * model->config.n_embd;
    ck_assert(t != NULL && t->n == n);
    float *a = cr_alloc(n, sizeof *a), *base = cr_alloc(n, sizeof *base),
          *draw = cr_alloc(p->adapter->n_params, sizeof *draw);
    struct cr_posterior_draw which = {.sample = 1, .temperature = 1};
    ck_assert_int_eq(cr_safetensors_read_f32(st, t, a, &err), CR_OK);
    ck_assert_int_eq(cr_posterior_draw(p, &which, draw, &err), CR_OK);
    ck_assert_ptr_nonnull(p->swag_head.label_ids);
    cr_model_label_rows(model, CR_TIER_SCALAR, p->swag_head.label_ids, N_LABELS, base);
    for (size_t i = 0; i < n; i++) {
        ck_assert(a[i] == draw[cr_adapter_rows_begin(p->adapter) + i] - base[i]);
        ck_assert(a[i] != 0);
    }
    cr_free(a);
    cr_free(base);
    cr_free(draw);
    cr_safetensors_close(st);
    cr_model_close(model);
    cr_posterior_close(p);
}
END_TEST

static void texts_init(struct cr_train_run *run, const char *output)
{
    full_init(run, output);
    run->options.data = cr_train_kept("texts.jsonl");
}

static void automatic(struct cr_train_run *run, const char *output)
{
    texts_init(run, output);
    run->options.swag_head = CR_AUTO;
}

START_TEST(refusals)
{
    struct cr_train_run run;
    CR_TRAIN_REFUSE(run, texts_init, swag_head, CR_YES, "label rows need questions with choices");
    CR_TRAIN_REFUSE(run, automatic, head_lr, 1e-3, "--head-lr 0.001");
    CR_TRAIN_REFUSE(run, full_init, head_lr, 1e-3, "--swag-head trained trains them");
    CR_TRAIN_REFUSE(run, head_init, head_lr, -1, "--head-lr -1");
    CR_TRAIN_REFUSE(run, full_init, swag_head, (enum cr_tristate)3, "--swag-head");
    ck_assert(!cr_train_exists("out"));
    /* As the paper's preset has it: for choices, and not for texts. */
    automatic(&run, "texts");
    cr_train_must(&run);
    struct cr_posterior *p = cr_method_open("texts");
    ck_assert_uint_eq(p->adapter->n_labels, 0);
    cr_posterior_close(p);
    full_init(&run, "choices");
    run.options.swag_head = CR_AUTO;
    cr_train_must(&run);
    p = cr_method_open("choices");
    ck_assert_uint_eq(p->adapter->n_labels, N_LABELS);
    cr_posterior_close(p);
    /* Rows of the deviations that are cut, and questions with more choices than there are rows. */
    const char more[] = "{\"question\":\"?\",\"choices\":[\"a\",\"b\",\"c\"],\"answer\":2}\n";
    cr_train_write("more.jsonl", more, sizeof more - 1);
    struct cr_eval_options o;
    struct cr_eval_result result = {0};
    struct cr_error err = {0};
    struct cr_host host = {.n_threads = 1};
    cr_eval_options_init(&o);
    o.model = cr_train_kept("model.gguf");
    o.data = cr_train_kept("more.jsonl");
    o.adapter = cr_train_kept("choices");
    ck_assert_int_eq(cr_eval(&o, &host, &result, &err), CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, "label rows of its own for questions with at most 2 choices"));
    size_t n;
    uint8_t *bytes = cr_train_bytes("choices/" CR_POSTERIOR_FILE, &n);
    static const char name[] = "lm_head.label_rows.dev";
    uint8_t *at = NULL;
    for (size_t i = 0; i + sizeof name < n && at == NULL; i++) {
        at = memcmp(bytes + i, name, sizeof name - 1) == 0 ? bytes + i : NULL;
    }
    ck_assert_ptr_nonnull(at);
    at[0] = 'L';
    cr_train_write("choices/" CR_POSTERIOR_FILE, bytes, n);
    cr_free(bytes);
    ck_assert_int_eq(cr_posterior_open(o.adapter, NULL, false, NULL, CR_TIER_SCALAR, &p, &err), CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, "lm_head.label_rows.dev"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swag_head");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 300);
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_add_loop_test(all, rate_of_its_own, 0, 2);
    tcase_add_test(all, with_and_without);
    tcase_add_test(all, rows_are_drawn);
    tcase_add_test(all, exports_without);
    tcase_add_test(all, pair_on_lm_head);
    tcase_add_test(all, refusals);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
