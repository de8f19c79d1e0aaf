/* The model forward and backward on tiny models: gradients, identities of packing, threads, recomputation. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/thread/parallel.h"
#include "tests/support/engine_test.h"
#include "tests/support/kernel_test.h"
#include "tests/support/threads_test.h"

static const int32_t label_ids[3] = {256, 257, 258};
enum { ALL_TARGETS = (1 << CR_N_PROJ) - 1 };

static struct cr_engine *make_engine(const struct cr_model *model, const struct cr_test_lora *lora,
                                     const struct cr_parallel *parallel, enum cr_tier tier, uint32_t n_labels,
                                     bool train, bool recompute)
{
    struct cr_engine_options options = {.model = model,
                                        .lora = lora != NULL ? lora->lora : NULL,
                                        .parallel = parallel,
                                        .tier = tier,
                                        .max_tokens = 160,
                                        .max_seq = 100,
                                        .label_ids = n_labels > 0 ? label_ids : NULL,
                                        .n_labels = n_labels,
                                        .train = train,
                                        .recompute = recompute};
    return cr_test_engine(&options);
}

static double train(struct cr_engine *e, struct cr_test_lora *lora, const struct cr_token_batch *batch, double dropout,
                    uint32_t step)
{
    struct cr_engine_noise noise = {.dropout = dropout, .seed = 3, .step = step};
    double loss = 0;
    memset(lora->grads, 0, lora->n_params * sizeof(float));
    cr_test_train(e, batch, &noise, &loss);
    return loss;
}

static void check_matrix(struct cr_engine *e, const struct cr_token_batch *batch, uint32_t n_labels, float *param,
                         const float *grad, size_t n, const char *what)
{
    cr_test_gradient_by(cr_test_loss, e, batch, n_labels, param, grad, n, what);
}

static void check_gradients(const struct cr_tiny_spec *spec, uint32_t n_labels)
{
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_tiny_spec sized = *spec;
    sized.n_layers = cr_tiny_width(spec->type) > 64 ? 1 : 2; /* wide blocks make a wide model: keep the test short */
    struct cr_test_model m = cr_test_model_make(&sized);
    struct cr_test_lora lora = cr_test_lora_make(m.model, ALL_TARGETS, 3, 2.0f, 0.2f);
    uint32_t lengths[3] = {7, 20, 3}, examples[3] = {4, 9, 2};
    struct cr_token_batch batch = cr_test_batch_make(lengths, examples, 3, n_labels, 1.0f / 3);
    struct cr_engine *e = make_engine(m.model, &lora, &parallel, CR_TIER_SCALAR, n_labels, true, false);

    double loss = train(e, &lora, &batch, 0, 0);
    double again = cr_test_loss(e, &batch, n_labels);
    ck_assert_msg(fabs(loss - again) <= 1e-5 * fabs(loss), "loss %.9g, forward only %.9g", loss, again);
    for (uint32_t i = 0; i < m.model->config.n_layers * CR_N_PROJ; i++) {
        char what[64];
        struct cr_lora *l = &lora.lora[i];
        snprintf(what, sizeof what, "layer %u %s A", i / CR_N_PROJ, cr_proj_hf_name(i % CR_N_PROJ));
        check_matrix(e, &batch, n_labels, l->a, l->grad_a, (size_t)l->rank * l->n_in, what);
        what[strlen(what) - 1] = 'B';
        check_matrix(e, &batch, n_labels, l->b, l->grad_b, (size_t)l->rank * l->n_out, what);
    }
    cr_engine_destroy(e);
    cr_test_batch_free(&batch);
    cr_test_lora_free(&lora);
    cr_test_model_free(&m);
}

static const int types[] = {CR_Q_F32,  CR_Q_F16,  CR_Q_BF16, CR_Q_Q4_0, CR_Q_Q4_1, CR_Q_Q5_0,
                            CR_Q_Q5_1, CR_Q_Q8_0, CR_Q_Q4_K, CR_Q_Q5_K, CR_Q_Q6_K, CR_Q_IQ4_NL};
enum { N_TYPES = sizeof types / sizeof types[0] };

START_TEST(gradients_llama)
{
    struct cr_tiny_spec spec = {.type = types[_i], .seed = (uint64_t)_i, .rope_factors = _i % 2 == 1};
    check_gradients(&spec, 3);
    check_gradients(&spec, 0);
}
END_TEST

START_TEST(gradients_qwen2)
{
    struct cr_tiny_spec spec = {.architecture = "qwen2",
                                .type = types[_i],
                                .untied = true,
                                .seed = (uint64_t)_i,
                                .linear_scaling = _i % 2 == 1 ? 4.0f : 0.0f};
    check_gradients(&spec, _i % 2 == 0 ? 3 : 0);
}
END_TEST

START_TEST(gradients_head_shapes)
{
    static const uint32_t shapes[][2] = {{4, 4}, {4, 1}, {8, 2}, {2, 1}};
    struct cr_tiny_spec spec = {.type = CR_Q_Q8_0, .n_heads = shapes[_i][0], .n_kv = shapes[_i][1]};
    check_gradients(&spec, 0);
}
END_TEST

/* With dropout the loss of one (seed, step) is a fixed function of the adapters: its gradient is checked like any. The
 * passes that only measure it add to gradients that nobody reads. */
static const struct cr_engine_noise fixed_noise = {.dropout = 0.3, .seed = 11, .step = 4};

static double noisy_loss(struct cr_engine *e, const struct cr_token_batch *batch, uint32_t n_labels)
{
    double loss = 0;
    (void)n_labels;
    cr_test_train(e, batch, &fixed_noise, &loss);
    return loss;
}

START_TEST(gradients_with_dropout)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_tiny_spec spec = {.type = CR_Q_Q8_0};
    struct cr_test_model m = cr_test_model_make(&spec);
    struct cr_test_lora lora = cr_test_lora_make(m.model, ALL_TARGETS, 3, 2.0f, 0.2f);
    float *grads = malloc(lora.n_params * sizeof(float));
    uint32_t lengths[3] = {7, 20, 3}, examples[3] = {4, 9, 2};
    struct cr_token_batch batch = cr_test_batch_make(lengths, examples, 3, 3, 1.0f / 3);
    for (size_t t = 0; t < n_tiers; t++) {
        if (cr_test_rounds(tiers[t])) {
            continue; /* rounding of operands is larger than the differences */
        }
        struct cr_engine *e = make_engine(m.model, &lora, &parallel, tiers[t], 3, true, false);
        memset(lora.grads, 0, lora.n_params * sizeof(float));
        noisy_loss(e, &batch, 3);
        memcpy(grads, lora.grads, lora.n_params * sizeof(float));
        for (uint32_t i = 0; i < m.model->config.n_layers * CR_N_PROJ; i++) {
            struct cr_lora *l = &lora.lora[i];
            cr_test_gradient_by(noisy_loss, e, &batch, 3, l->a, grads + (l->a - lora.params), (size_t)l->rank * l->n_in,
                                cr_proj_hf_name(i % CR_N_PROJ));
            cr_test_gradient_by(noisy_loss, e, &batch, 3, l->b, grads + (l->b - lora.params),
                                (size_t)l->rank * l->n_out, cr_proj_hf_name(i % CR_N_PROJ));
        }
        cr_engine_destroy(e);
    }
    free(grads);
    cr_test_batch_free(&batch);
    cr_test_lora_free(&lora);
    cr_test_model_free(&m);
}
END_TEST

/* Row results and, to the last bit, losses of an example do not depend on what it is packed with. */
START_TEST(packing)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_tiny_spec spec = {.type = CR_Q_Q4_1};
    struct cr_test_model m = cr_test_model_make(&spec);
    struct cr_test_lora lora = cr_test_lora_make(m.model, ALL_TARGETS, 4, 2.0f, 0.2f);
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_engine *labels = make_engine(m.model, &lora, &parallel, tiers[t], 3, false, false);
        struct cr_engine *texts = make_engine(m.model, &lora, &parallel, tiers[t], 0, false, false);
        uint32_t many_lengths[5] = {13, 1, 50, 31, 17}, many_examples[5] = {7, 8, 9, 10, 11};
        struct cr_token_batch many = cr_test_batch_make(many_lengths, many_examples, 5, 3, 1);
        struct cr_token_batch many_texts = cr_test_batch_make(many_lengths, many_examples, 5, 0, 1);
        float together[5 * 3], alone[3];
        float nll[160], nll_alone[160];
        struct cr_error err = {0};
        ck_assert(cr_engine_label_logits(labels, &many, together, &err) == CR_OK);
        ck_assert(cr_engine_token_nll(texts, &many_texts, nll, &err) == CR_OK);
        size_t row = 0;
        for (size_t i = 0; i < 5; i++) {
            struct cr_token_batch one = cr_test_batch_make(&many_lengths[i], &many_examples[i], 1, 3, 1);
            ck_assert(cr_engine_label_logits(labels, &one, alone, &err) == CR_OK);
            cr_expect_same(cr_tier_name(tiers[t]), &together[i * 3], alone, 3);
            cr_test_batch_free(&one);
            if (many_lengths[i] > 1) {
                one = cr_test_batch_make(&many_lengths[i], &many_examples[i], 1, 0, 1);
                ck_assert(cr_engine_token_nll(texts, &one, nll_alone, &err) == CR_OK);
                cr_expect_same(cr_tier_name(tiers[t]), &nll[row], nll_alone, one.n_rows);
                row += one.n_rows;
                cr_test_batch_free(&one);
            }
        }
        cr_test_batch_free(&many);
        cr_test_batch_free(&many_texts);
        cr_engine_destroy(labels);
        cr_engine_destroy(texts);
    }
    cr_test_lora_free(&lora);
    cr_test_model_free(&m);
}
END_TEST

/* What a step of training gives on these workers, against the first one that this was asked of. */
struct step_case {
    const struct cr_test_model *model;
    struct cr_test_lora *lora;
    enum cr_tier tier;
    uint32_t n_labels;
    double dropout, loss; /* of the first */
    float *first;         /* gradient of the first; NULL: this is the first */
};

static void check_step(struct step_case *c, const struct cr_parallel *parallel, bool recompute, const char *what)
{
    uint32_t lengths[4] = {33, 20, 5, 61}, examples[4] = {1, 2, 3, 4};
    struct cr_token_batch batch = cr_test_batch_make(lengths, examples, 4, c->n_labels, 0.01f);
    struct cr_engine *e = make_engine(c->model->model, c->lora, parallel, c->tier, c->n_labels, true, recompute);
    double loss = train(e, c->lora, &batch, c->dropout, 5);
    if (c->first == NULL) {
        c->first = malloc(c->lora->n_params * sizeof(float));
        memcpy(c->first, c->lora->grads, c->lora->n_params * sizeof(float));
        c->loss = loss;
    }
    ck_assert_msg(loss == c->loss, "%s, %d workers: loss %.17g, serial %.17g", what, parallel->n_workers, loss,
                  c->loss);
    cr_expect_same(what, c->lora->grads, c->first, c->lora->n_params);
    cr_engine_destroy(e);
    cr_test_batch_free(&batch);
}

/* Gradients: the same bits for 1...16 threads of every kind, and with layers recomputed. Labels or texts, with or
 * without dropout: each number of threads sees three of the four, one a kind of threads. */
START_TEST(threads_and_recompute)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_tiny_spec spec = {.type = CR_Q_Q5_0, .n_layers = 3};
    struct cr_test_model m = cr_test_model_make(&spec);
    struct cr_test_lora lora = cr_test_lora_make(m.model, ALL_TARGETS, 4, 2.0f, 0.2f);
    struct cr_parallel serial;
    cr_parallel_serial(&serial);
    for (size_t t = 0; t < n_tiers; t++) {
        struct step_case cases[4];
        for (int i = 0; i < 4; i++) {
            cases[i] = (struct step_case){
                .model = &m, .lora = &lora, .tier = tiers[t], .n_labels = i & 1 ? 3 : 0, .dropout = i & 2 ? 0.25 : 0};
            check_step(&cases[i], &serial, false, "serial");
            check_step(&cases[i], &serial, true, "recomputed");
        }
        for (int run = 0; run < 16 * CR_TEST_BACKENDS; run++) {
            enum cr_test_backend backend = (enum cr_test_backend)(run % CR_TEST_BACKENDS);
            int n_workers = 1 + run / CR_TEST_BACKENDS;
            struct cr_test_threads threads;
            cr_test_threads_start(&threads, backend, n_workers);
            check_step(&cases[run % 4], &threads.parallel, (run / 4 + run) % 2 == 0, cr_test_backend_name(backend));
            cr_test_threads_end(&threads);
        }
        for (int i = 0; i < 4; i++) {
            free(cases[i].first);
        }
    }
    cr_test_lora_free(&lora);
    cr_test_model_free(&m);
}
END_TEST

/* Every tier against the scalar definition: cosine and norm of the gradient, within what bf16 operands allow. */
START_TEST(tiers_agree)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_tiny_spec spec = {.type = CR_Q_Q4_0};
    struct cr_test_model m = cr_test_model_make(&spec);
    struct cr_test_lora lora = cr_test_lora_make(m.model, ALL_TARGETS, 8, 2.0f, 0.1f);
    uint32_t lengths[4] = {33, 20, 5, 61}, examples[4] = {1, 2, 3, 4};
    struct cr_token_batch batch = cr_test_batch_make(lengths, examples, 4, 0, 0.01f);
    float *reference = calloc(lora.n_params, sizeof(float));
    double loss0 = 0;
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_engine *e = make_engine(m.model, &lora, &parallel, tiers[t], 0, true, false);
        double loss = train(e, &lora, &batch, 0, 0);
        if (t == 0) {
            memcpy(reference, lora.grads, lora.n_params * sizeof(float));
            loss0 = loss;
        }
        bool bf16 = cr_test_rounds(tiers[t]);
        double cosine = cr_test_cosine(lora.grads, reference, lora.n_params), loss_error = fabs(loss - loss0) / loss0;
        ck_assert_msg(1 - cosine <= cr_test_gradient_slack(tiers[t]), "%s: 1 - cosine %.3g", cr_tier_name(tiers[t]),
                      1 - cosine);
        ck_assert_msg(loss_error <= (bf16 ? 1e-2 : 1e-5), "%s: loss off by %.3g", cr_tier_name(tiers[t]), loss_error);
        cr_engine_destroy(e);
    }
    free(reference);
    cr_test_batch_free(&batch);
    cr_test_lora_free(&lora);
    cr_test_model_free(&m);
}
END_TEST

/* Any subset of targets, alone, gives the same gradient as within the whole set when the others are zero. */
START_TEST(single_targets)
{
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_tiny_spec spec = {.type = CR_Q_Q8_0};
    struct cr_test_model m = cr_test_model_make(&spec);
    struct cr_test_lora lora = cr_test_lora_make(m.model, 1u << _i, 2, 2.0f, 0.2f);
    uint32_t lengths[3] = {7, 20, 3}, examples[3] = {4, 9, 2};
    struct cr_token_batch batch = cr_test_batch_make(lengths, examples, 3, 3, 1.0f / 3);
    struct cr_engine *e = make_engine(m.model, &lora, &parallel, CR_TIER_SCALAR, 3, true, false);
    train(e, &lora, &batch, 0, 0);
    for (uint32_t i = (uint32_t)_i; i < m.model->config.n_layers * CR_N_PROJ; i += CR_N_PROJ) {
        struct cr_lora *l = &lora.lora[i];
        check_matrix(e, &batch, 3, l->a, l->grad_a, (size_t)l->rank * l->n_in, cr_proj_hf_name(_i));
        check_matrix(e, &batch, 3, l->b, l->grad_b, (size_t)l->rank * l->n_out, cr_proj_hf_name(_i));
    }
    cr_engine_destroy(e);
    cr_test_batch_free(&batch);
    cr_test_lora_free(&lora);
    cr_test_model_free(&m);
}
END_TEST

/* The whole logits agree with the chunked statistics. */
START_TEST(logits_and_nll)
{
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_tiny_spec spec = {.type = CR_Q_Q6_K, .untied = true};
    struct cr_test_model m = cr_test_model_make(&spec);
    uint32_t length = 20, example = 1;
    struct cr_token_batch batch = cr_test_batch_make(&length, &example, 1, 0, 1);
    struct cr_engine *e = make_engine(m.model, NULL, &parallel, CR_TIER_SCALAR, 0, false, false);
    struct cr_error err = {0};
    float *logits = calloc(batch.n_rows * CR_TINY_VOCAB, sizeof(float));
    float nll[32];
    cr_test_logits(e, &batch, logits);
    ck_assert(cr_engine_token_nll(e, &batch, nll, &err) == CR_OK);
    for (size_t row = 0; row < batch.n_rows; row++) {
        double sum = 0, z = (double)logits[row * CR_TINY_VOCAB + (size_t)batch.row_target[row]];
        for (size_t v = 0; v < CR_TINY_VOCAB; v++) {
            sum += exp((double)logits[row * CR_TINY_VOCAB + v] - z);
        }
        /* 288 additions of f32 terms and one subtraction of numbers of about 10 */
        ck_assert_double_eq_tol((double)nll[row], log(sum), 300 * 6e-8 * 10);
    }
    free(logits);
    cr_engine_destroy(e);
    cr_test_batch_free(&batch);
    cr_test_model_free(&m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("engine");
    TCase *gradients = tcase_create("gradients");
    tcase_set_timeout(gradients, 120);
    tcase_add_loop_test(gradients, gradients_llama, 0, N_TYPES);
    tcase_add_loop_test(gradients, gradients_qwen2, 0, N_TYPES);
    tcase_add_loop_test(gradients, gradients_head_shapes, 0, 4);
    tcase_add_loop_test(gradients, single_targets, 0, CR_N_PROJ);
    tcase_add_test(gradients, gradients_with_dropout);
    suite_add_tcase(suite, gradients);
    TCase *identities = tcase_create("identities");
    tcase_set_timeout(identities, 120);
    tcase_add_test(identities, packing);
    tcase_add_test(identities, threads_and_recompute);
    tcase_add_test(identities, tiers_agree);
    tcase_add_test(identities, logits_and_nll);
    suite_add_tcase(suite, identities);
    return cr_run_suite(suite);
}
