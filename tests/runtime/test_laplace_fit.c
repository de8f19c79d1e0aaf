/* Laplace posteriors of whole adapters: curvature from views and from passes against sums by the definition, Jacobians,
 * the evidence, the linearised answers against draws of weights, files, refusals. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/tl16.h"
#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/eval/curvature.h"
#include "runtime/eval/metrics.h"
#include "runtime/eval/scoring.h"
#include "runtime/posterior/posterior.h"
#include "runtime/thread/parallel.h"
#include "tests/support/kernel_test.h"
#include "tests/support/method_test.h"
#include "tests/support/train_test.h"

static char model[1024], data[1024], other[1024], texts[1024];

static void train(const char *output, const char *method)
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

static void setup(void)
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
    char warning[256];
};

static void on_log(void *ctx, enum cr_log_level level, const char *line)
{
    struct call *call = ctx;
    if (level == CR_LOG_WARNING) {
        snprintf(call->warning, sizeof call->warning, "%s", line);
    }
}

static void call_init(struct call *call, const char *adapter, const char *output)
{
    memset(call, 0, sizeof *call);
    snprintf(call->adapter, sizeof call->adapter, "%s", cr_train_path(adapter));
    snprintf(call->output, sizeof call->output, "%s", cr_train_path(output));
    call->options = (struct cr_laplace_options){
        .size = sizeof call->options, .model = model, .data = data, .adapter = call->adapter, .output = call->output};
    call->host = (struct cr_host){.n_threads = 1, .log = on_log, .ctx = call};
}

static void fit(struct call *call)
{
    ck_assert_msg(cr_laplace(&call->options, &call->host, &call->result, &call->err) == CR_OK, "%s", call->err.message);
}

static void refuse(struct call *call, cr_status want, const char *part)
{
    cr_status status = cr_laplace(&call->options, &call->host, &call->result, &call->err);
    ck_assert_msg(status == want && strstr(call->err.message, part) != NULL, "%d %s (expected %d %s)", status,
                  call->err.message, want, part);
    ck_assert_ptr_null(strchr(call->err.message, '\n'));
}

/* product [n][n] = L L^T */
static void square(const double *columns, size_t n, size_t k, double *product)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            product[i * n + j] = 0;
            for (size_t c = 0; c < k; c++) {
                product[i * n + j] += columns[i * k + c] * columns[j * k + c];
            }
        }
    }
}

/* Views with fewer real tokens than columns are kept exactly; pads do not count; scales stand where they belong. */
START_TEST(moments_of_views)
{
    enum { IN = 12, OUT = 14, RANK = 2, REAL = 7, N = 4 };
    _Alignas(64) static float wide[CR_LANES * OUT], narrow[CR_LANES * RANK];
    uint32_t real[CR_LANES];
    float params[RANK * (IN + OUT)] = {0};
    struct cr_lora slots[CR_N_PROJ] = {
        [CR_PROJ_V] = {.a = params, .b = params + RANK * IN, .rank = RANK, .n_in = IN, .n_out = OUT, .scale = 0.5f}};
    struct cr_adapter adapter = {
        .n_layers = 1, .slots = slots, .params = params, .n_params = RANK * (IN + OUT), .rank = RANK};
    struct cr_parallel parallel;
    struct cr_laplace_set set;
    struct cr_curvature c;
    cr_parallel_openmp(&parallel, 2);
    for (int gradient = 0; gradient < 2; gradient++) {
        size_t n = gradient ? OUT : IN;
        double want[OUT * OUT] = {0}, want_small[RANK * RANK] = {0}, got[OUT * OUT];
        double factor = gradient ? 0.5 : 1, narrow_factor = gradient ? 1 : 2; /* s dY, V; x, h = U / s */
        ck_assert_int_eq(cr_laplace_set_init(&set, &adapter, NULL), CR_OK);
        ck_assert_int_eq(cr_curvature_init(&c, &set, &adapter, &parallel, NULL), CR_OK);
        for (size_t t = 0; t < CR_LANES; t++) {
            real[t] = t < REAL ? 3 : UINT32_MAX;
            for (size_t k = 0; k < n; k++) {
                wide[cr_tl16_f32(k, t)] = (float)((t * 7 + k * k * 3 + k) % 11) - 5;
            }
            for (size_t i = 0; i < RANK; i++) {
                narrow[cr_tl16_f32(i, t)] = (float)((t + 3) * (i + 1) % 7) - 3;
            }
        }
        for (size_t t = 0; t < REAL; t++) {
            for (size_t i = 0; i < n * n; i++) {
                want[i] += factor * factor * (double)wide[cr_tl16_f32(i / n, t)] * (double)wide[cr_tl16_f32(i % n, t)];
            }
            for (size_t i = 0; i < RANK * RANK; i++) {
                want_small[i] += narrow_factor * narrow_factor * (double)narrow[cr_tl16_f32(i / RANK, t)] *
                                 (double)narrow[cr_tl16_f32(i % RANK, t)];
            }
        }
        struct cr_engine_view view = {.proj = CR_PROJ_V,
                                      .gradient = gradient != 0,
                                      .wide = wide,
                                      .type = CR_X_F32,
                                      .wide_stride = n * 64,
                                      .n_wide = n,
                                      .narrow = narrow,
                                      .narrow_stride = RANK * CR_LANES,
                                      .rank = RANK,
                                      .n_blocks = 1,
                                      .real = real};
        cr_curvature_view(&c, &view, 1); /* inputs are not asked for: nothing of them */
        c.inputs = true;
        if (!gradient) {
            cr_curvature_view(&c, &view, 1);
        }
        const struct cr_laplace_matrix *large = &set.items[gradient ? 1 : 0], *small = &set.items[gradient ? 0 : 1];
        square(large->large, n, large->k, got);
        for (size_t i = 0; i < n * n; i++) {
            ck_assert_double_eq_tol(got[i], want[i], 1e-9);
        }
        for (size_t i = 0; i < RANK * RANK; i++) {
            ck_assert_double_eq_tol(small->small[i], want_small[i], 1e-12);
        }
        /* Means over the examples on the side of the inputs only. */
        ck_assert_int_eq(cr_curvature_finish(&c, N, NULL), CR_OK);
        square(large->large, n, large->k, got);
        for (size_t i = 0; i < n * n; i++) {
            ck_assert_double_eq_tol(got[i], gradient ? want[i] : want[i] / N, 1e-9);
        }
        for (size_t i = 0; i < RANK * RANK; i++) {
            ck_assert_double_eq_tol(small->small[i], gradient ? want_small[i] : want_small[i] / N, 1e-12);
        }
        cr_curvature_deinit(&c);
        cr_laplace_set_free(&set);
    }
}
END_TEST

/* A model with the trained adapter, ready for gradients. */
static void open_scoring(struct cr_scoring *s, const char *adapter)
{
    static const char *path;
    static char name[1024];
    struct cr_eval_options o;
    struct cr_error err = {0};
    static const struct cr_host host = {.n_threads = 1};
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

/* What is small, in double, of gradients taken class by class with whole weights. */
struct expectation {
    const struct cr_laplace_set *set;
    const struct cr_adapter *adapter;
    double **small; /* of A, by slot */
    double weight;
};

static void add_gradients(void *ctx, const struct cr_engine_view *views, size_t n)
{
    struct expectation *x = ctx;
    for (size_t v = 0; v < n && views[v].gradient; v++) {
        const struct cr_engine_view *view = &views[v];
        double *small = x->small[view->layer * CR_N_PROJ + view->proj];
        for (size_t t = 0; t < view->n_blocks * CR_LANES; t++) {
            const float *at = view->narrow + t / CR_LANES * view->narrow_stride + t % CR_LANES;
            for (size_t i = 0; i < view->rank * view->rank && view->real[t] != UINT32_MAX; i++) {
                small[i] += x->weight * (double)at[i / view->rank * CR_LANES] * (double)at[i % view->rank * CR_LANES];
            }
        }
    }
}

/* The small factors of A in a fitted posterior: sums over examples of E_y sum_t g g^T, example by example. */
START_TEST(expectation_over_classes)
{
    struct call call;
    struct cr_posterior *p = NULL;
    struct cr_scoring s;
    struct cr_error err = {0};
    call_init(&call, "point", "laplace");
    fit(&call);
    p = cr_method_open("laplace");
    open_scoring(&s, "point");
    size_t n_slots = (size_t)p->adapter->n_layers * CR_N_PROJ;
    struct expectation x = {.set = &p->laplace, .adapter = p->adapter, .small = calloc(n_slots, sizeof *x.small)};
    for (size_t i = 0; i < n_slots; i++) {
        x.small[i] = calloc(9, sizeof **x.small);
    }
    cr_engine_observe(s.engine, add_gradients, &x);
    double log_lik = 0;
    const struct cr_dataset whole = cr_dataset_whole(&s.main.data); /* as the fit sees it: every token counts */
    for (size_t i = 0; i < s.main.n; i++) {
        const struct cr_example *example = &s.main.data.examples[s.main.order[i]];
        double z[CR_LABELS_MAX], probs[CR_LABELS_MAX];
        cr_batch_fill(&s.batch, &whole, &s.main.order[i], 1, 1);
        ck_assert_int_eq(cr_engine_label_logits(s.engine, &s.batch, s.scratch, &err), CR_OK);
        for (uint32_t c = 0; c < example->n_choices; c++) {
            z[c] = (double)s.scratch[c];
        }
        cr_softmax(z, example->n_choices, probs);
        log_lik += log(probs[example->answer]);
        for (uint32_t c = 0; c < example->n_choices; c++) {
            s.batch.row_target[0] = (int32_t)c;
            x.weight = probs[c];
            ck_assert_int_eq(cr_engine_train(s.engine, &s.batch, s.jacobian.noise, s.jacobian.loss, &err), CR_OK);
        }
    }
    ck_assert_double_eq_tol(call.result.log_likelihood, log_lik, 1e-5 * fabs(log_lik));
    size_t item = 0;
    for (size_t i = 0; i < n_slots; i++) {
        if (p->adapter->slots[i].rank == 0) {
            continue;
        }
        const struct cr_laplace_matrix *m = &p->laplace.items[item];
        double trace = x.small[i][0] + x.small[i][4] + x.small[i][8];
        ck_assert_double_gt(trace, 0);
        for (size_t j = 0; j < 9; j++) { /* roots of weights and gradients in f32, bf16 operands on some tiers */
            ck_assert_double_eq_tol(m->small[j], x.small[i][j], 0x1p-5 * trace);
        }
        item += 2;
    }
    ck_assert_uint_eq(p->laplace.n_examples, s.main.n);
    for (size_t i = 0; i < n_slots; i++) {
        free(x.small[i]);
    }
    free(x.small);
    cr_posterior_close(p);
    cr_scoring_close(&s);
}
END_TEST

/* A row is the gradient of log p(class) of that example alone, to the last bit; rows weighted by p(class) cancel. */
START_TEST(rows_of_the_jacobian)
{
    struct cr_scoring s;
    struct cr_error err = {0};
    open_scoring(&s, "point");
    struct cr_jacobian *j = &s.jacobian;
    size_t n = j->n_params, taken = cr_jacobian_take(j, &s.main.data, s.main.order, s.main.n);
    ck_assert_uint_ge(taken, 2);
    ck_assert_int_eq(cr_jacobian_run(j, s.engine, &s.shared, &s.main.data, s.main.order, taken, &err), CR_OK);
    float *rows = calloc(j->n_parts, n * sizeof *rows);
    memcpy(rows, j->grads, j->n_parts * n * sizeof *rows);
    const float *row = rows;
    for (size_t i = 0; i < taken; i++) {
        const struct cr_example *example = &s.main.data.examples[s.main.order[i]];
        double z[CR_LABELS_MAX], probs[CR_LABELS_MAX], *sum = calloc(n, sizeof *sum), largest = 0;
        cr_batch_fill(&s.batch, &s.main.data, &s.main.order[i], 1, 1);
        ck_assert_int_eq(cr_engine_label_logits(s.engine, &s.batch, s.scratch, &err), CR_OK);
        for (uint32_t c = 0; c < example->n_choices; c++) {
            z[c] = (double)s.scratch[c];
        }
        cr_softmax(z, example->n_choices, probs);
        for (uint32_t c = 0; c < example->n_choices; c++, row += n) {
            cr_batch_fill(&s.batch, &s.main.data, &s.main.order[i], 1, -1);
            s.batch.row_target[0] = (int32_t)c;
            memset(j->grads, 0, n * sizeof *j->grads);
            ck_assert_int_eq(cr_engine_train(s.engine, &s.batch, j->noise, j->loss, &err), CR_OK);
            cr_expect_same("row", row, j->grads, n);
            for (size_t k = 0; k < n; k++) {
                sum[k] += probs[c] * (double)row[k];
                largest = fmax(largest, fabs((double)row[k]));
            }
        }
        ck_assert_double_gt(largest, 0);
        for (size_t k = 0; k < n; k++) {
            ck_assert_double_eq_tol(sum[k], 0, 0x1p-6 * largest);
        }
        free(sum);
    }
    free(rows);
    cr_scoring_close(&s);
}
END_TEST

/* The same bytes for any number of threads. */
START_TEST(any_thread_count)
{
    struct call call;
    for (int i = 0; i < 2; i++) {
        call_init(&call, "point", i == 0 ? "one" : "many");
        call.options.valid = other;
        call.host.n_threads = i == 0 ? 1 : 3;
        fit(&call);
    }
    ck_assert(cr_train_same("one/" CR_POSTERIOR_FILE, "many/" CR_POSTERIOR_FILE));
    cr_train_same_outputs("one", "many");
}
END_TEST

/* The evidence is largest at the precision that was taken. */
START_TEST(precision_by_the_evidence)
{
    struct call call;
    struct cr_posterior *p = NULL;
    call_init(&call, "point", "laplace");
    fit(&call);
    p = cr_method_open("laplace");
    size_t n = cr_laplace_set_n_values(&p->laplace);
    double *values = calloc(n, sizeof *values), norm2 = 0, at = call.result.prior_precision;
    cr_laplace_set_values(&p->laplace, values);
    for (size_t i = 0; i < p->adapter->n_params; i++) {
        norm2 += (double)p->adapter->params[i] * (double)p->adapter->params[i];
    }
    double best = cr_laplace_evidence(values, n, norm2, call.result.log_likelihood, 1 / at);
    ck_assert_double_eq_tol(best, call.result.evidence, 1e-3); /* factors in f32 */
    ck_assert_double_gt(best, cr_laplace_evidence(values, n, norm2, call.result.log_likelihood, 1.1 / at));
    ck_assert_double_gt(best, cr_laplace_evidence(values, n, norm2, call.result.log_likelihood, 1 / 1.1 / at));
    ck_assert(p->laplace.precision == at);
    free(values);
    cr_posterior_close(p);
}
END_TEST

/* Draws of weights through the Jacobian have the covariance that the linearised model takes. */
START_TEST(draws_and_the_linear_model)
{
    enum { DRAWS = 4000 };
    struct call call;
    struct cr_posterior *p = NULL;
    struct cr_scoring s;
    struct cr_error err = {0};
    double var[CR_LABELS_MAX * CR_LABELS_MAX], sum = 0, sum2 = 0;
    call_init(&call, "point", "laplace");
    fit(&call);
    p = cr_method_open("laplace");
    open_scoring(&s, "point");
    size_t n = p->adapter->n_params;
    uint32_t n_classes = s.main.data.examples[s.main.order[0]].n_choices;
    ck_assert_int_eq(cr_jacobian_run(&s.jacobian, s.engine, &s.shared, &s.main.data, s.main.order, 1, &err), CR_OK);
    cr_laplace_set_var(&p->laplace, 1 / p->laplace.precision, s.jacobian.grads, n, n_classes, var);
    float *draw = calloc(n, sizeof *draw);
    for (uint32_t i = 0; i < DRAWS; i++) {
        struct cr_posterior_draw d = {.seed = 3, .sample = i, .temperature = i % 2 == 0 ? 1 : 0.25};
        double moved = 0;
        ck_assert_int_eq(cr_posterior_draw(p, &d, draw, &err), CR_OK);
        for (size_t k = 0; k < n; k++) {
            moved += (double)s.jacobian.grads[k] * ((double)draw[k] - (double)p->adapter->params[k]);
        }
        moved *= i % 2 == 0 ? 1 : 2;
        sum += moved;
        sum2 += moved * moved;
    }
    /* five standard deviations of the mean and the mean square of so many normals */
    ck_assert_double_gt(var[0], 0);
    ck_assert_double_le(fabs(sum / DRAWS), 5 * sqrt(var[0] / DRAWS));
    ck_assert_double_eq_tol(sum2 / DRAWS / var[0], 1, 5 * sqrt(2.0 / DRAWS) + 1e-3);
    free(draw);
    cr_posterior_close(p);
    cr_scoring_close(&s);
}
END_TEST

struct answer {
    struct cr_eval_options options;
    struct cr_eval_result result;
    struct cr_host host;
    struct cr_error err;
    const char *paths[2];
    char adapters[2][1024];
    json_t *lines;
};

static bool on_line(void *ctx, const char *line)
{
    json_array_append_new(((struct answer *)ctx)->lines, json_loads(line, 0, NULL));
    return true;
}

static void answer_init(struct answer *a, const char *adapter)
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

static void answer_free(struct answer *a)
{
    cr_eval_result_deinit(&a->result);
    json_decref(a->lines);
}

static double nll_of(struct answer *a)
{
    ck_assert_msg(cr_eval(&a->options, &a->host, &a->result, &a->err) == CR_OK, "%s", a->err.message);
    double nll = a->result.all.nll;
    cr_eval_result_deinit(&a->result);
    return nll;
}

static void refuse_answer(struct answer *a, const char *part)
{
    cr_status status = cr_eval(&a->options, &a->host, &a->result, &a->err);
    ck_assert_msg(status == CR_E_USAGE && strstr(a->err.message, part) != NULL, "%d %s (expected %s)", status,
                  a->err.message, part);
    answer_free(a);
}

START_TEST(answers)
{
    struct call call;
    struct answer a, b;
    call_init(&call, "point", "laplace");
    fit(&call);
    answer_init(&a, "point");
    double point = nll_of(&a);
    answer_free(&a);
    answer_init(&a, "laplace");
    double linear = nll_of(&a);
    ck_assert_uint_eq(a.result.samples, 10000);
    ck_assert_uint_eq(a.result.n_members, 1);
    ck_assert(linear != point);
    a.options.posterior_temperature = 1e-12; /* 1e-6 of jitter remains */
    ck_assert_double_eq_tol(nll_of(&a), point, 1e-4);
    a.options.posterior_temperature = 0;
    a.options.mean = true;
    ck_assert(nll_of(&a) == point);
    a.options.mean = false;
    a.options.weights = true;
    nll_of(&a);
    ck_assert_uint_eq(a.result.n_members, 10);
    a.options.samples = 1;
    double drawn = nll_of(&a);
    struct cr_export_options o = {.size = sizeof o, .adapter = call.output, .format = "peft", .sample_set = true};
    char draw[1024];
    snprintf(draw, sizeof draw, "%s", cr_train_path("draw"));
    o.output = draw;
    ck_assert_int_eq(cr_export(&o, NULL, NULL), CR_OK);
    answer_init(&b, "draw");
    ck_assert(nll_of(&b) == drawn);
    answer_free(&a);
    answer_free(&b);
    /* The same lines for any batches and threads. */
    answer_init(&a, "laplace");
    answer_init(&b, "laplace");
    b.options.batch_size = 3;
    b.host.n_threads = 3;
    ck_assert_int_eq(cr_predict(&a.options, &a.host, on_line, &a, &a.err), CR_OK);
    ck_assert_int_eq(cr_predict(&b.options, &b.host, on_line, &b, &b.err), CR_OK);
    ck_assert_uint_eq(json_array_size(a.lines), CR_TRAIN_CHOICES);
    ck_assert(json_equal(a.lines, b.lines));
    double information = json_real_value(json_object_get(json_array_get(a.lines, 0), "mutual_information"));
    ck_assert_double_gt(information, 0);
    answer_free(&a);
    answer_free(&b);
}
END_TEST

/* A validation file takes the best of the precisions it tried. */
START_TEST(precision_by_validation)
{
    struct call call;
    call_init(&call, "point", "chosen");
    call.options.valid = other;
    fit(&call);
    json_t *summary = json_load_file(cr_train_path("chosen/summary.json"), 0, NULL);
    const json_t *trials = json_object_get(summary, "trials");
    double best = HUGE_VAL;
    ck_assert_uint_eq(json_array_size(trials), 9);
    for (size_t i = 0; i < 9; i++) {
        best = fmin(best, json_real_value(json_object_get(json_array_get(trials, i), "valid_nll")));
    }
    ck_assert(call.result.valid_nll[1] == best);
    ck_assert_str_eq(json_string_value(json_object_get(summary, "chosen_by")), "validation");
    json_decref(summary);
    struct answer a;
    answer_init(&a, "chosen");
    a.options.samples = 1000; /* as in the trials; factors were not yet rounded to f32 there */
    ck_assert_double_eq_tol(nll_of(&a), best, 1e-4);
    answer_free(&a);
    answer_init(&a, "point");
    ck_assert_double_eq_tol(nll_of(&a), call.result.valid_nll[0], 1e-6);
    answer_free(&a);
    call_init(&call, "point", "given");
    call.options.prior_precision = 7;
    fit(&call);
    ck_assert(call.result.prior_precision == 7 && isnan(call.result.valid_nll[0]));
}
END_TEST

START_TEST(refusals)
{
    struct call call;
    struct answer a;
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
    call_init(&call, "nowhere", "out");
    refuse(&call, CR_E_IO, "nowhere");
    call_init(&call, "point", "out");
    call.host.memory_bytes = 1 << 20;
    refuse(&call, CR_E_MEMORY, "MiB");
    ck_assert(!cr_train_exists("out"));
    call_init(&call, "point", "laplace");
    fit(&call);
    answer_init(&a, "point");
    a.options.weights = true;
    refuse_answer(&a, "--weights");
    train("ensemble", "ensemble");
    answer_init(&a, "ensemble");
    a.options.weights = true;
    refuse_answer(&a, "--weights");
    call_init(&call, "ensemble", "out");
    refuse(&call, CR_E_USAGE, "of method ensemble");
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
    struct cr_train_run run;
    cr_train_run_init(&run, "prefix");
    run.options.method = "prefix";
    run.options.vertices = 2;
    run.options.prefix_length = 3;
    run.options.steps = 1;
    cr_train_must(&run);
    call_init(&call, "prefix", "out");
    refuse(&call, CR_E_USAGE, "of method prefix");
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

/* Every allocation may fail, and nothing leaks or is left behind. */
START_TEST(memory)
{
    struct call call;
    cr_status status = CR_E_MEMORY;
    long live = cr_alloc_live();
    for (long at = 1; status != CR_OK; at += at < 40 ? 1 : 7) {
        call_init(&call, "point", "out");
        cr_alloc_fail_at(at, at % 2 == 0);
        status = cr_laplace(&call.options, &call.host, NULL, &call.err);
        cr_alloc_fail_at(0, false);
        ck_assert_msg(status == CR_OK || status == CR_E_MEMORY, "%ld: %d %s", at, status, call.err.message);
        ck_assert_int_eq(cr_alloc_live(), live);
        ck_assert_int_lt(at, 5000);
        if (status != CR_OK && cr_train_exists("out")) {
            break; /* while writing: the directory is there already */
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("laplace_fit");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 300);
    tcase_add_checked_fixture(all, setup, cr_train_dir_drop);
    tcase_add_test(all, moments_of_views);
    tcase_add_test(all, expectation_over_classes);
    tcase_add_test(all, rows_of_the_jacobian);
    tcase_add_test(all, any_thread_count);
    tcase_add_test(all, precision_by_the_evidence);
    tcase_add_test(all, draws_and_the_linear_model);
    tcase_add_test(all, answers);
    tcase_add_test(all, precision_by_validation);
    tcase_add_test(all, refusals);
    tcase_add_test(all, files);
    tcase_add_test(all, memory);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
