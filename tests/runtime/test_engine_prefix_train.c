/* Gradients of learned prefixes: finite differences, threads, recomputation, tiers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/thread/parallel.h"
#include "tests/runtime/engine_prefix_case.h"
#include "tests/support/engine_test.h"
#include "tests/support/kernel_test.h"

/* Rows of vertices, their label rows, and the lanes that hold no row. */
static void check_gradients(const struct cr_tiny_spec *spec, uint32_t n_rows, uint32_t n_labels, bool recompute)
{
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_test_model m = cr_test_model_make(spec);
    struct cr_prefix p;
    make_prefix(&p, m.model, 3, n_rows, n_labels);
    uint32_t lengths[3] = {7, 20, 3}, examples[3] = {4, 9, 2};
    struct cr_token_batch batch = cr_test_batch_make(lengths, examples, 3, n_labels, 1.0f / 3);
    struct kind kind = {.tier = CR_TIER_SCALAR, .n_labels = n_labels, .train = true, .recompute = recompute};
    struct cr_engine *e = make_engine(m.model, &p, &parallel, &kind);
    double loss = train(e, &p, &batch), again = cr_test_loss(e, &batch, n_labels);
    ck_assert_msg(fabs(loss - again) <= 1e-5 * fabs(loss), "loss %.9g, forward only %.9g", loss, again);
    size_t tensor = cr_prefix_tensor(&p), head = (size_t)n_labels * p.n_embd;
    for (uint32_t i = 0; i < p.n_layers * p.n_vertices * 2; i++) {
        char what[64];
        snprintf(what, sizeof what, "layer %u, vertex %u, %s", i / 2 / p.n_vertices, i / 2 % p.n_vertices,
                 i % 2 == 0 ? "keys" : "values");
        cr_test_gradient_by(cr_test_loss, e, &batch, n_labels, p.params + i * tensor, p.grads + i * tensor, tensor,
                            what);
        for (size_t at = 0; at < tensor; at++) {
            size_t row = at / (p.n_features * 16) * 16 + at % 16;
            ck_assert_msg(row < n_rows || p.grads[i * tensor + at] == 0, "%s: row %zu has a gradient", what, row);
        }
    }
    for (uint32_t j = 0; j < p.n_vertices && n_labels > 0; j++) {
        size_t at = cr_prefix_rows_floats(&p) + j * head;
        cr_test_gradient_by(cr_test_loss, e, &batch, n_labels, p.params + at, p.grads + at, head, "label rows");
    }
    cr_engine_destroy(e);
    cr_test_batch_free(&batch);
    free_prefix(&p);
    cr_test_model_free(&m);
}

START_TEST(gradients)
{
    static const uint32_t shapes[][2] = {{4, 2}, {4, 1}, {4, 4}, {8, 2}};
    struct cr_tiny_spec spec = {.type = CR_Q_Q8_0, .n_heads = shapes[_i][0], .n_kv = shapes[_i][1], .n_layers = 3};
    check_gradients(&spec, 5, N_LABELS, _i % 2 == 0);
    check_gradients(&spec, 19, 0, _i % 2 != 0);
}
END_TEST

/* Loss and gradients: the same bits for any number of threads and with layers recomputed. */
START_TEST(threads_and_recompute)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_tiny_spec spec = {.type = CR_Q_Q5_0, .n_layers = 3};
    struct cr_test_model m = cr_test_model_make(&spec);
    uint32_t lengths[4] = {33, 20, 5, 61}, examples[4] = {1, 2, 3, 4};
    for (size_t i = 0; i < 2 * n_tiers; i++) {
        struct kind kind = {.tier = tiers[i / 2], .n_labels = i % 2 == 0 ? N_LABELS : 0, .train = true};
        struct cr_prefix p;
        make_prefix(&p, m.model, 3, 10, kind.n_labels);
        struct cr_token_batch batch = cr_test_batch_make(lengths, examples, 4, kind.n_labels, 0.01f);
        float *first = calloc(cr_prefix_floats(&p), sizeof(float));
        double loss0 = 0;
        for (int workers = 1; workers <= N_WORKERS; workers++) {
            struct cr_parallel parallel;
            cr_parallel_openmp(&parallel, workers);
            kind.recompute = workers % 2 == 0;
            struct cr_engine *e = make_engine(m.model, &p, &parallel, &kind);
            double loss = train(e, &p, &batch);
            if (workers == 1) {
                loss0 = loss;
                memcpy(first, p.grads, cr_prefix_floats(&p) * sizeof(float));
            }
            ck_assert_msg(loss == loss0, "%d workers: loss %.17g, with one %.17g", workers, loss, loss0);
            cr_expect_same("gradient", p.grads, first, cr_prefix_floats(&p));
            cr_engine_destroy(e);
        }
        free(first);
        cr_test_batch_free(&batch);
        free_prefix(&p);
    }
    cr_test_model_free(&m);
}
END_TEST

/* Every tier against the scalar definition, within what bf16 operands allow: as for adapters in test_engine. */
START_TEST(tiers_agree)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_tiny_spec spec = {.type = CR_Q_Q4_0};
    struct cr_test_model m = cr_test_model_make(&spec);
    struct cr_prefix p;
    make_prefix(&p, m.model, 2, 10, N_LABELS);
    uint32_t lengths[4] = {33, 20, 5, 61}, examples[4] = {1, 2, 3, 4};
    struct cr_token_batch batch = cr_test_batch_make(lengths, examples, 4, N_LABELS, 0.25f);
    size_t n = cr_prefix_floats(&p);
    float *reference = calloc(n, sizeof *reference);
    for (size_t t = 0; t < n_tiers; t++) {
        struct kind kind = {.tier = tiers[t], .n_labels = N_LABELS, .train = true};
        struct cr_engine *e = make_engine(m.model, &p, &parallel, &kind);
        train(e, &p, &batch);
        if (t == 0) {
            memcpy(reference, p.grads, n * sizeof *reference);
        }
        double cosine = cr_test_cosine(p.grads, reference, n);
        ck_assert_msg(1 - cosine <= cr_test_gradient_slack(tiers[t]), "%s: 1 - cosine %.3g", cr_tier_name(tiers[t]),
                      1 - cosine);
        cr_engine_destroy(e);
    }
    free(reference);
    cr_test_batch_free(&batch);
    free_prefix(&p);
    cr_test_model_free(&m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("engine prefix train");
    TCase *tcase = tcase_create("engine prefix train");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, gradients, 0, 4);
    tcase_add_test(tcase, threads_and_recompute);
    tcase_add_test(tcase, tiers_agree);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
