/* Whole runs with method prefix whose texts or layers share points of the simplex, or whose vertices are turned away
 * from each other. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "credence/kernels/rng.h"
#include "runtime/adapter/prefix_adapter.h"
#include "runtime/core/alloc.h"
#include "runtime/eval/sets.h"
#include "runtime/model/simplex.h"
#include "runtime/posterior/method.h"
#include "runtime/posterior/posterior.h"
#include "runtime/thread/parallel.h"
#include "tests/support/kernel_test.h"
#include "tests/support/method_test.h"
#include "tests/support/train_test.h"

enum { VERTICES = 3, OPTIMISER_HEAD = 16 };

static void init(struct cr_train_run *run, const char *output)
{
    cr_train_run_init(run, output);
    run->options.method = "prefix";
    run->options.vertices = VERTICES;
    run->options.prefix_length = 5;
    run->options.valid_draws = 2;
    run->options.lr = 2e-2;
    run->options.head_lr = 2e-3;
    run->options.steps = 6;
    run->options.save_every = 1;
    run->options.keep_checkpoints = 20;
    run->options.report_every = 1;
}

/* A method's state on a small prefix, without a model. */
struct learner {
    struct cr_finetune_options options;
    struct cr_adapter *adapter;
    struct cr_parallel parallel;
    void *state;
};

static void make(struct learner *l, const char *lambda_per)
{
    const struct cr_prefix shape = {
        .n_layers = 2, .n_vertices = VERTICES, .n_rows = 4, .n_features = 16, .n_labels = 2, .n_embd = 32};
    struct cr_error err = {0};
    ck_assert_int_eq(cr_finetune_options_for(&l->options, "prefix", NULL, &err), CR_OK);
    l->options.lambda_per = lambda_per;
    l->options.seed = 7;
    cr_parallel_serial(&l->parallel);
    ck_assert_int_eq(cr_prefix_adapter_create(&shape, true, &l->adapter, &err), CR_OK);
    struct cr_method_setup setup = {.options = &l->options,
                                    .adapter = l->adapter,
                                    .parallel = &l->parallel,
                                    .tier = CR_TIER_SCALAR,
                                    .n_targets = 1,
                                    .n_examples = 1,
                                    .n_steps = 1,
                                    .steps_per_epoch = 1};
    ck_assert_msg(cr_method_prefix.create(&setup, &l->state, &err) == CR_OK, "%s", err.message);
}

static bool differ(const struct cr_prefix *p, uint32_t example, uint32_t layer, uint32_t other_example,
                   uint32_t other_layer)
{
    double a[VERTICES], b[VERTICES];
    p->weights(p->ctx, 0, example, layer, a);
    p->weights(p->ctx, 0, other_example, other_layer, b);
    ck_assert_double_eq_tol(a[0] + a[1] + a[2], 1, 1e-15);
    return memcmp(a, b, sizeof a) != 0;
}

/* Layer 2 is the label rows. Looks of validation are a text's own in any case, their layers as in training. */
START_TEST(who_shares_a_point)
{
    static const struct {
        const char *name;
        bool texts, layers;
    } cases[] = {{NULL, true, true},
                 {"text-layer", true, true},
                 {"text", true, false},
                 {"layer", false, true},
                 {"step", false, false}};
    struct learner l;
    make(&l, cases[_i].name);
    const struct cr_prefix *p = l.adapter->prefix;
    for (int look = 0; look < 2; look++) {
        if (look == 0) {
            cr_method_prefix.begin_pass(l.state, 5, 0);
        } else {
            cr_method_prefix.look(l.state, 1);
        }
        ck_assert(differ(p, 3, 0, 4, 0) == (cases[_i].texts || look == 1));
        ck_assert(differ(p, 3, 0, 3, 1) == cases[_i].layers);
        ck_assert(differ(p, 3, 0, 3, 2) == cases[_i].layers);
    }
    double a[VERTICES], b[VERTICES];
    cr_method_prefix.begin_pass(l.state, 5, 0);
    p->weights(p->ctx, 0, 3, 1, a);
    cr_method_prefix.begin_pass(l.state, 6, 0); /* every step anew */
    p->weights(p->ctx, 0, 3, 1, b);
    ck_assert(memcmp(a, b, sizeof a) != 0);
    ck_assert(p->one_point == !cases[_i].layers);
    cr_method_prefix.destroy(l.state);
    cr_adapter_destroy(l.adapter);
}
END_TEST

/* What is said is what is not said: the same bytes. */
START_TEST(defaults)
{
    static const char *const names[] = {CR_POSTERIOR_FILE, "adapter_model.safetensors",
                                        "checkpoints/step-00000006.cck"};
    struct cr_train_run run;
    init(&run, "silent");
    cr_train_must(&run);
    init(&run, "said");
    run.options.lambda_per = "text-layer";
    run.options.cosine_weight = 0;
    cr_train_must(&run);
    cr_train_same_files("silent", "said", names, 3);
    init(&run, "other");
    run.options.lambda_per = "text";
    cr_train_must(&run);
    ck_assert(!cr_train_same("silent/adapter_model.safetensors", "other/adapter_model.safetensors"));
}
END_TEST

/* cos2 of two vertices whose numbers are w, in double; vertex numbers lie in one piece a layer, then the label rows. */
static double cosine2(const struct cr_prefix *p, const double *w, size_t i, size_t j)
{
    double uv = 0, uu = 0, vv = 0;
    for (uint32_t k = 0; k <= p->n_layers; k++) {
        size_t head = (size_t)p->n_labels * p->n_embd, rows = cr_prefix_rows_floats(p);
        size_t n = k < p->n_layers ? 2 * cr_prefix_tensor(p) : head;
        const double *u = w + (k < p->n_layers ? cr_prefix_at(p, k, (uint32_t)i) : rows + i * head);
        const double *v = w + (k < p->n_layers ? cr_prefix_at(p, k, (uint32_t)j) : rows + j * head);
        for (size_t at = 0; at < n; at++) {
            uv += u[at] * v[at];
            uu += u[at] * u[at];
            vv += v[at] * v[at];
        }
    }
    return uv * uv / (uu * vv);
}

/* The first moment of AdamW after one step, which is a tenth of its gradient; the start beside it. Owned. */
static float *first_gradient(const char *output, double weight, struct cr_posterior **start)
{
    struct cr_train_run run;
    char name[300];
    init(&run, output);
    run.options.steps = 1;
    run.options.batch_size = CR_TRAIN_CHOICES; /* several micro-batches: the term counts once */
    run.options.grad_accumulation_steps = 1;
    run.options.max_grad_norm = 0;
    run.options.no_valid = true;
    run.options.cosine_weight = weight;
    cr_train_must(&run);
    snprintf(name, sizeof name, "%s/checkpoints/step-00000000.cck", output);
    *start = cr_method_open(name);
    struct cr_checkpoint at;
    size_t n, n_params = (*start)->adapter->n_params;
    cr_method_step(output, 1, &at);
    const float *state = cr_method_section(&at, CR_CKPT_OPTIMISER, &n);
    ck_assert_uint_eq(n, OPTIMISER_HEAD + 2 * n_params);
    float *out = cr_alloc(n_params, sizeof *out);
    memcpy(out, state + OPTIMISER_HEAD, n_params * sizeof *out);
    cr_checkpoint_close(&at);
    return out;
}

/* With the weight the gradient of a step has beta d cos2 more, of the pair that seed and step draw. Both gradients are
 * f32 and so are their sum and the moments: 4 roundings of 2^-24 of what stands there. Central differences in double at
 * 1e-4 of numbers of size 1 are off by 1e-8 of the third derivative, which is of the size of the first. */
START_TEST(gradient_of_the_term)
{
    enum { STRIDE = 37 };
    const double weight = 8, h = 1e-4;
    struct cr_posterior *start, *again;
    float *without = first_gradient("without", 0, &start), *with = first_gradient("with", weight, &again);
    const struct cr_prefix *p = start->adapter->prefix;
    size_t n = start->adapter->n_params, i, j, n_moved = 0;
    cr_expect_same("start", again->adapter->params, start->adapter->params, n);
    struct cr_simplex_point point = {.seed = 0, .stream = CR_SIMPLEX_TRAINING, .draw = 0};
    cr_simplex_pair(&point, VERTICES, &i, &j);
    double *w = cr_alloc(n, sizeof *w), worst = 0, largest = 0;
    for (size_t k = 0; k < n; k++) {
        w[k] = (double)start->adapter->params[k];
    }
    for (size_t k = 0; k < n; k += STRIDE) {
        double own = w[k], got = 10 * ((double)with[k] - (double)without[k]);
        w[k] = own + h;
        double above = cosine2(p, w, i, j);
        w[k] = own - h;
        double below = cosine2(p, w, i, j);
        w[k] = own;
        double want = weight * (above - below) / (2 * h);
        double size = 10 * (fabs((double)with[k]) + fabs((double)without[k]));
        double off = fabs(got - want) - 4 * 0x1p-24 * size;
        worst = fmax(worst, off);
        largest = fmax(largest, fabs(want));
        n_moved += want != 0;
    }
    ck_assert_msg(worst <= 1e-6 * largest && largest > 0, "off by %g of %g", worst, largest);
    ck_assert_uint_gt(n_moved, n / STRIDE / 10); /* two of three vertices; zeros past the last row */
    cr_free(w);
    cr_free(with);
    cr_free(without);
    cr_posterior_close(start);
    cr_posterior_close(again);
}
END_TEST

static json_t *facts_of(const char *output)
{
    char name[300];
    snprintf(name, sizeof name, "%s/summary.json", output);
    json_t *summary = json_load_file(cr_train_path(name), 0, NULL);
    json_t *facts = json_incref(json_object_get(summary, "posterior"));
    json_decref(summary);
    return facts;
}

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

/* The vertices of a run with the weight stand closer to right angles; the term is a fact and in no loss. */
START_TEST(angles_open)
{
    struct cr_train_run run;
    init(&run, "without");
    run.options.steps = 30;
    cr_train_must(&run);
    init(&run, "with");
    run.options.steps = 30;
    run.options.cosine_weight = 20;
    cr_train_must(&run);
    json_t *without = facts_of("without"), *with = facts_of("with");
    ck_assert_msg(number(with, "cosine2") < 0.5 * number(without, "cosine2"), "cos2 %g, without %g",
                  number(with, "cosine2"), number(without, "cosine2"));
    ck_assert_ptr_null(json_object_get(without, "cosine_term"));
    ck_assert(number(with, "cosine_term") > 0 && number(with, "cosine_term") <= 20);
    /* The first losses are of the same start: 20 cos2 would show. */
    char *journals[2] = {cr_train_journal("without"), cr_train_journal("with")};
    json_t *first[2];
    for (int k = 0; k < 2; k++) {
        first[k] = json_loads(journals[k], JSON_DISABLE_EOF_CHECK, NULL);
        cr_free(journals[k]);
    }
    ck_assert(number(first[0], "loss") == number(first[1], "loss"));
    ck_assert(number(first[0], "grad_norm") < number(first[1], "grad_norm"));
    json_decref(first[0]);
    json_decref(first[1]);
    json_decref(without);
    json_decref(with);
}
END_TEST

static void full_init(struct cr_train_run *run, const char *output, const char *lambda_per)
{
    init(run, output);
    run->options.eval_every = 2;
    run->options.grad_accumulation_steps = 2;
    run->options.lambda_per = lambda_per;
    run->options.cosine_weight = 3;
}

START_TEST(stop_and_resume)
{
    static const char *const names[] = {CR_POSTERIOR_FILE, "adapter_model.safetensors"};
    const char *lambda_per = _i == 0 ? "step" : "layer";
    struct cr_train_run run;
    full_init(&run, "whole", lambda_per);
    cr_train_must_on(&run, 2);
    full_init(&run, "cut", lambda_per);
    cr_train_stop(&run, 3);
    struct cr_train_run other = run;
    other.options.resume = true;
    other.options.cosine_weight = 0;
    cr_train_must_fail(&other, CR_E_BUSY, "cosine-weight 3");
    other.options.cosine_weight = 3;
    other.options.lambda_per = NULL;
    cr_train_must_fail(&other, CR_E_BUSY, "lambda-per \"");
    cr_train_must(&run);
    cr_train_same_files("whole", "cut", names, 2);
    cr_train_same_journals("whole", "cut");
    json_t *facts = facts_of("whole");
    ck_assert_str_eq(json_string_value(json_object_get(facts, "lambda_per")), run.options.lambda_per);
    json_decref(facts);
}
END_TEST

/* Weights of an evaluation's draws: a text's own, one point for all layers where training had one. */
static void draws_of(const char *adapter, bool one_point)
{
    struct cr_model *model = NULL;
    struct cr_sets sets = {0};
    struct cr_eval_options o;
    struct cr_error err = {0};
    const char *path = cr_train_kept(adapter);
    ck_assert_int_eq(cr_model_open(cr_train_path("model.gguf"), &model, &err), CR_OK);
    cr_eval_options_init(&o);
    o.adapters = &path;
    o.n_adapters = 1;
    o.samples = 2;
    ck_assert_msg(cr_sets_open(&o, model, CR_TIER_SCALAR, NULL, &sets, &err) == CR_OK, "%s", err.message);
    const struct cr_prefix *p = cr_sets_prefix(&sets);
    ck_assert_msg(differ(p, 3, 0, 4, 0), "%s: texts alike", adapter);
    ck_assert_msg(differ(p, 3, 0, 3, 1) == !one_point, "%s: layers", adapter);
    cr_sets_close(&sets);
    cr_model_close(model);
}

START_TEST(later_draws)
{
    static const char *const names[] = {"text-layer", "text", "layer", "step"};
    for (int i = 0; i < 4; i++) {
        struct cr_train_run run;
        char at[64];
        init(&run, names[i]);
        run.options.steps = 1;
        run.options.lambda_per = names[i];
        cr_train_must(&run);
        draws_of(names[i], i % 2 == 1);
        snprintf(at, sizeof at, "%s/checkpoints/step-00000001.cck", names[i]);
        draws_of(at, i % 2 == 1);
    }
}
END_TEST

START_TEST(refusals)
{
    struct cr_train_run run;
    CR_TRAIN_REFUSE(run, init, lambda_per, "batch", "--lambda-per \"batch\" unknown");
    CR_TRAIN_REFUSE(run, init, cosine_weight, -1, "--cosine-weight -1");
    CR_TRAIN_REFUSE(run, init, cosine_weight, (double)NAN, "--cosine-weight nan");
    CR_TRAIN_REFUSE(run, init, cosine_weight, (double)INFINITY, "--cosine-weight inf");
    init(&run, "out");
    run.options.vertices = 1;
    run.options.cosine_weight = 1;
    cr_train_must_fail(&run, CR_E_USAGE, "one vertex makes no angle");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("prefix simplex");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 120);
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_add_loop_test(all, who_shares_a_point, 0, 5);
    tcase_add_test(all, defaults);
    tcase_add_test(all, gradient_of_the_term);
    tcase_add_test(all, angles_open);
    tcase_add_loop_test(all, stop_and_resume, 0, 2);
    tcase_add_test(all, later_draws);
    tcase_add_test(all, refusals);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
