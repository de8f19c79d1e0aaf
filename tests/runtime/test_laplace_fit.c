/* Laplace posteriors of whole adapters: curvature from views and from passes against sums by the definition, Jacobians.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/tl16.h"
#include "runtime/eval/curvature.h"
#include "runtime/eval/scoring.h"
#include "runtime/metrics/metrics.h"
#include "runtime/posterior/posterior.h"
#include "runtime/thread/parallel.h"
#include "tests/runtime/laplace_fit_case.h"
#include "tests/support/engine_test.h"
#include "tests/support/kernel_test.h"
#include "tests/support/method_test.h"
#include "tests/support/train_test.h"

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

enum { IN = 12, OUT = 14, RANK = 2, REAL = 7 };

/* One block of a view: n wide and RANK narrow columns of its tokens, of which REAL are no pads. */
struct block {
    _Alignas(64) float wide[CR_LANES * OUT], narrow[CR_LANES * RANK];
    uint32_t real[CR_LANES];
};

static void fill_block(struct block *b, size_t n)
{
    for (size_t t = 0; t < CR_LANES; t++) {
        b->real[t] = t < REAL ? 3 : UINT32_MAX;
        for (size_t k = 0; k < n; k++) {
            b->wide[cr_tl16_f32(k, t)] = (float)((t * 7 + k * k * 3 + k) % 11) - 5;
        }
        for (size_t i = 0; i < RANK; i++) {
            b->narrow[cr_tl16_f32(i, t)] = (float)((t + 3) * (i + 1) % 7) - 3;
        }
    }
}

/* moments [n][n] += factor^2 sum over real tokens of x x^T */
static void add_moments(const struct block *b, const float *columns, size_t n, double factor, double *moments)
{
    for (size_t t = 0; t < CR_LANES; t++) {
        for (size_t i = 0; i < n * n && b->real[t] != UINT32_MAX; i++) {
            moments[i] +=
                factor * factor * (double)columns[cr_tl16_f32(i / n, t)] * (double)columns[cr_tl16_f32(i % n, t)];
        }
    }
}

/* Views with fewer real tokens than columns are kept exactly; pads do not count; scales stand where they belong. */
START_TEST(moments_of_views)
{
    enum { N = 4 };
    static struct block b;
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
        fill_block(&b, n);
        add_moments(&b, b.wide, n, factor, want);
        add_moments(&b, b.narrow, RANK, narrow_factor, want_small);
        struct cr_engine_view view = {.proj = CR_PROJ_V,
                                      .gradient = gradient != 0,
                                      .wide = b.wide,
                                      .type = CR_X_F32,
                                      .wide_stride = n * 64,
                                      .n_wide = n,
                                      .narrow = b.narrow,
                                      .narrow_stride = RANK * CR_LANES,
                                      .rank = RANK,
                                      .n_blocks = 1,
                                      .real = b.real};
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

/* The small factors of A in a fitted posterior: sums over the examples that were trained on of E_y sum_t g g^T, example
 * by example. */
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
    uint32_t kept[CR_TRAIN_CHOICES], held_out[CR_TRAIN_CHOICES];
    size_t n_kept, n_out;
    cr_dataset_split(&s.main.data, 0, CR_HELD_OUT_SHARE, kept, &n_kept, held_out, &n_out);
    ck_assert_uint_gt(n_out, 0);
    const struct cr_dataset whole = cr_dataset_whole(&s.main.data); /* as the fit sees it: every token counts */
    for (size_t i = 0; i < n_kept; i++) {
        const struct cr_example *example = &s.main.data.examples[kept[i]];
        double z[CR_LABELS_MAX], probs[CR_LABELS_MAX];
        cr_batch_fill(&s.batch, &whole, &kept[i], 1, 1);
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
    ck_assert_uint_eq(p->laplace.n_examples, n_kept);
    for (size_t i = 0; i < n_slots; i++) {
        free(x.small[i]);
    }
    free(x.small);
    cr_posterior_close(p);
    cr_scoring_close(&s);
}
END_TEST

/* A row is the gradient of log p(class) of that example alone, to the last bit; rows weighted by p(class) cancel, which
 * they do not by equal weights. What is left is rounding: on its way back a gradient passes up to 14 products, whose
 * operands in bf16 add a variance of 2 (2^-9)^2 / 3 each, sums of 128 terms in f32 128 (2^-24)^2 / 3: 0.6 % and 1.5e-6
 * of the largest element, of which 2^-6 and 2^-18 are 2.6 deviations. */
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
    double slack = cr_test_rounds(s.workers.tier) ? 0x1p-6 : 0x1p-18, uneven = 0;
    for (size_t i = 0; i < taken; i++) {
        const struct cr_example *example = &s.main.data.examples[s.main.order[i]];
        double z[CR_LABELS_MAX], probs[CR_LABELS_MAX], largest = 0;
        double *sum = calloc(n, sizeof *sum), *equal = calloc(n, sizeof *equal);
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
                equal[k] += (double)row[k] / example->n_choices;
                largest = fmax(largest, fabs((double)row[k]));
            }
        }
        ck_assert_double_gt(largest, 0);
        for (size_t k = 0; k < n; k++) {
            ck_assert_double_eq_tol(sum[k], 0, slack * largest);
            uneven = fmax(uneven, fabs(equal[k]) / largest);
        }
        free(sum);
        free(equal);
    }
    ck_assert_double_gt(uneven, 4 * slack);
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

int main(void)
{
    Suite *suite = suite_create("laplace_fit");
    TCase *all = tcase_create("laplace_fit");
    tcase_add_checked_fixture(all, setup, cr_train_dir_drop);
    tcase_set_timeout(all, 300);
    tcase_add_test(all, moments_of_views);
    tcase_add_test(all, expectation_over_classes);
    tcase_add_test(all, rows_of_the_jacobian);
    tcase_add_test(all, any_thread_count);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
