/* Noise on adapters with signs of every token's own: products against sums in double with the definition's signs,
 * gradients against difference quotients, the same bits for threads, recomputation and packing. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/core/alloc.h"
#include "runtime/model/flipout.h"
#include "runtime/posterior/blob.h"
#include "runtime/thread/parallel.h"
#include "tests/support/engine_test.h"
#include "tests/support/flipout_model.h"
#include "tests/support/kernel_test.h"

static const int32_t label_ids[3] = {256, 257, 258};
enum { ALL_TARGETS = (1 << CR_N_PROJ) - 1, RANK = 5, N_IN = 200, BLOCKS = 3, TOKENS = BLOCKS * CR_LANES };

/* Operands of one call, their values in double, and what the definition says of them. */
struct products {
    struct cr_engine engine;
    struct cr_lora lora;
    struct cr_lowrank_args args;
    uint32_t position[TOKENS], example[TOKENS];
    float noise[RANK * N_IN], grad[RANK * N_IN], u[BLOCKS * RANK * CR_LANES], y[BLOCKS * N_IN * CR_LANES];
    _Alignas(64) float x[BLOCKS * N_IN * CR_LANES]; /* or bf16 */
    double wide_x[TOKENS][N_IN], wide_v[TOKENS][RANK], wide_noise[RANK * N_IN];
    float signs_in[TOKENS][N_IN], signs_out[TOKENS][RANK];
    char *scratch;
};

static float *u_at(struct products *p, size_t token, size_t i)
{
    return &p->u[token / CR_LANES * RANK * CR_LANES + i * CR_LANES + token % CR_LANES];
}

static void set_x(struct products *p, size_t token, size_t k, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    p->wide_x[token][k] = (double)value;
    if (p->args.x_type == CR_X_BF16) {
        uint16_t *x = (uint16_t *)(void *)((char *)p->x + token / CR_LANES * p->args.x_stride);
        x[cr_tl16_bf16(k, token % CR_LANES)] = (uint16_t)(bits >> 16);
    } else {
        p->x[token / CR_LANES * N_IN * CR_LANES + cr_tl16_f32(k, token % CR_LANES)] = value;
    }
}

static float random_value(uint32_t *state) /* a few bits: bf16 holds it exactly */
{
    *state = *state * 1664525u + 1013904223u;
    return ((float)(*state >> 25) - 64) / 64;
}

static void signs_of(const struct products *p, size_t token, uint32_t which, size_t n, float *out)
{
    const struct cr_dropout *who = &p->args.dropout;
    struct cr_blob_signs signs = {{who->key[0] ^ CR_NOISE_FLIPOUT, who->key[1]}, who->step, which};
    cr_blob_signs(&signs, p->position[token] + CR_FLIPOUT_EXAMPLE * p->example[token], n, out);
}

static struct products *make_products(enum cr_tier tier, enum cr_xtype type)
{
    uint32_t state = 7;
    struct products *p = cr_zalloc(1, sizeof *p);
    struct cr_engine *e = &p->engine;
    e->options.flipout = true;
    e->embd = e->q = N_IN;
    ck_assert_int_eq(cr_lowrank_ops_init(&e->lowrank, tier), CR_OK);
    e->flipout_at = (cr_lowrank_scratch_bytes(N_IN, CR_RANK_MAX) + 63) / 64 * 64;
    p->scratch = aligned_alloc(64, (e->flipout_at + cr_flipout_scratch_bytes(e) + 63) / 64 * 64);
    p->lora = (struct cr_lora){.noise = p->noise, .grad_noise = p->grad, .rank = RANK, .n_in = N_IN};
    p->args = (struct cr_lowrank_args){.p_rs = N_IN,
                                       .p_ks = 1,
                                       .g = p->grad,
                                       .g_rs = N_IN,
                                       .g_ks = 1,
                                       .x = p->x,
                                       .x_type = type,
                                       .x_stride = cr_tl16_bytes(type, N_IN),
                                       .y = p->y,
                                       .y_stride = N_IN * CR_LANES,
                                       .u = p->u,
                                       .u_stride = RANK * CR_LANES,
                                       .rank = RANK,
                                       .n_features = N_IN,
                                       .n_blocks = BLOCKS,
                                       .scale = 0.5f,
                                       .dropout = {65536, {3, 9}, 4, p->position, p->example}};
    for (size_t i = 0; i < RANK * N_IN; i++) {
        p->noise[i] = random_value(&state);
        p->wide_noise[i] = (double)p->noise[i];
    }
    for (size_t t = 0; t < TOKENS; t++) {
        p->position[t] = (uint32_t)t % 20;
        p->example[t] = 100 + (uint32_t)t / 20;
        for (size_t k = 0; k < N_IN; k++) {
            set_x(p, t, k, random_value(&state));
        }
        for (size_t i = 0; i < RANK; i++) {
            *u_at(p, t, i) = random_value(&state);
            p->wide_v[t][i] = (double)*u_at(p, t, i);
        }
        signs_of(p, t, 0, N_IN, p->signs_in[t]);
        signs_of(p, t, 1, RANK, p->signs_out[t]);
    }
    return p;
}

/* Terms are at most 1 in magnitude and sums of n of them have the error of f32 chains. */
static double tolerance(size_t n)
{
    return (double)(n + 4) * 0x1p-24 * (double)n;
}

static void widen(const float *signs, size_t n, double *out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = (double)signs[i];
    }
}

START_TEST(products_and_signs)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    for (size_t t = 0; t < n_tiers; t++) {
        for (int type = CR_X_F32; type <= CR_X_BF16; type++) {
            struct products *p = make_products(tiers[t], (enum cr_xtype)type);
            double(*h)[RANK] = calloc(TOKENS, sizeof *h), (*dx)[N_IN] = calloc(TOKENS, sizeof *dx);
            double *d_noise = calloc(RANK * N_IN, sizeof *d_noise), minus = 0;
            for (size_t i = 0; i < TOKENS; i++) {
                double in[N_IN], out[RANK];
                widen(p->signs_in[i], N_IN, in);
                widen(p->signs_out[i], RANK, out);
                cr_flipout_model(p->wide_noise, p->wide_x[i], in, out, RANK, N_IN, h[i]);
                cr_flipout_model_back(p->wide_noise, p->wide_x[i], in, out, RANK, N_IN, p->wide_v[i], d_noise,
                                         dx[i]);
                for (size_t k = 0; k < N_IN; k++) {
                    minus += in[k] < 0;
                }
            }
            /* 9,600 fair coins: four standard deviations are 196 */
            ck_assert_double_eq_tol(minus, TOKENS * N_IN / 2.0, 196);
            cr_flipout_up(&p->engine, &p->lora, &p->args, 0, 1, p->scratch);
            cr_flipout_up(&p->engine, &p->lora, &p->args, 1, BLOCKS, p->scratch);
            cr_flipout_grad(&p->engine, &p->lora, &p->args, 0, 96, p->scratch);
            cr_flipout_grad(&p->engine, &p->lora, &p->args, 96, 160, p->scratch);
            cr_flipout_grad(&p->engine, &p->lora, &p->args, 160, N_IN, p->scratch);
            for (size_t i = 0; i < RANK * N_IN; i++) {
                ck_assert_double_eq_tol((double)p->grad[i], d_noise[i], tolerance(TOKENS));
            }
            cr_flipout_down(&p->engine, &p->lora, &p->args, 0, BLOCKS, p->scratch); /* u was V until here */
            for (size_t i = 0; i < TOKENS; i++) {
                const float *y = p->y + i / CR_LANES * N_IN * CR_LANES + i % CR_LANES;
                for (size_t k = 0; k < N_IN; k++) {
                    ck_assert_double_eq_tol((double)y[k * CR_LANES], dx[i][k], tolerance(RANK));
                }
                for (size_t j = 0; j < RANK; j++) {
                    ck_assert_double_eq_tol((double)*u_at(p, i, j), p->wide_v[i][j] + 0.5 * h[i][j], tolerance(N_IN));
                }
            }
            free(h);
            free(dx);
            free(d_noise);
            free(p->scratch);
            cr_free(p);
        }
    }
}
END_TEST

/* A tiny model whose adapters have noise. */
struct setup {
    struct cr_test_model m;
    struct cr_test_lora lora;
    float *noise, *grad_noise; /* in the layout of the parameters */
};

static void make_setup(struct setup *s)
{
    struct cr_tiny_spec spec = {.type = CR_Q_Q8_0};
    uint32_t state = 5;
    s->m = cr_test_model_make(&spec);
    s->lora = cr_test_lora_make(s->m.model, ALL_TARGETS, 3, 2.0f, 0.2f);
    s->noise = calloc(s->lora.n_params, sizeof(float));
    s->grad_noise = calloc(s->lora.n_params, sizeof(float));
    for (size_t i = 0; i < s->lora.n_params; i++) {
        s->noise[i] = 0.2f * random_value(&state);
    }
    for (uint32_t i = 0; i < s->m.model->config.n_layers * CR_N_PROJ; i++) {
        struct cr_lora *l = &s->lora.lora[i];
        l->noise = s->noise + (l->a - s->lora.params);
        l->grad_noise = s->grad_noise + (l->a - s->lora.params);
    }
}

static void free_setup(struct setup *s)
{
    free(s->noise);
    free(s->grad_noise);
    cr_test_lora_free(&s->lora);
    cr_test_model_free(&s->m);
}

static struct cr_engine *make_engine(const struct setup *s, const struct cr_parallel *parallel, enum cr_tier tier,
                                     uint32_t n_labels, bool recompute)
{
    struct cr_engine_options options = {.model = s->m.model,
                                        .lora = s->lora.lora,
                                        .parallel = parallel,
                                        .tier = tier,
                                        .max_tokens = 160,
                                        .max_seq = 64,
                                        .label_ids = n_labels > 0 ? label_ids : NULL,
                                        .n_labels = n_labels,
                                        .train = true,
                                        .flipout = true,
                                        .recompute = recompute};
    return cr_test_engine(&options);
}

static double train(struct cr_engine *e, const struct setup *s, const struct cr_token_batch *batch, bool flipout)
{
    struct cr_engine_noise noise = {.seed = 11, .step = 4, .flipout = flipout};
    double loss = 0;
    memset(s->lora.grads, 0, s->lora.n_params * sizeof(float));
    memset(s->grad_noise, 0, s->lora.n_params * sizeof(float));
    cr_test_train(e, batch, &noise, &loss);
    return loss;
}

/* Difference quotient along the gradient against its norm: steps that move the loss by 1e-2 or so, the best of three,
 * as rounding of the f32 loss and the cubic term pull in opposite directions. */
static void check_matrix(struct cr_engine *e, const struct setup *s, const struct cr_token_batch *batch, float *param,
                         const float *grad, size_t n, const char *what)
{
    double norm = 0, best = HUGE_VAL;
    float *saved = malloc(n * sizeof(float)), *direction = malloc(n * sizeof(float));
    memcpy(saved, param, n * sizeof(float));
    memcpy(direction, grad, n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        norm += (double)direction[i] * (double)direction[i];
    }
    norm = sqrt(norm);
    ck_assert_msg(norm > 1e-6, "%s: gradient norm %g", what, norm);
    for (double move = 3e-2; move > 3e-3; move /= 3) {
        double step = move / norm, loss[2];
        for (int side = 0; side < 2; side++) {
            for (size_t i = 0; i < n; i++) {
                param[i] = (float)((double)saved[i] + (side == 0 ? -step : step) * (double)direction[i] / norm);
            }
            loss[side] = train(e, s, batch, true);
        }
        double error = fabs((loss[1] - loss[0]) / (2 * step) - norm) / norm;
        best = error < best ? error : best;
    }
    memcpy(param, saved, n * sizeof(float));
    train(e, s, batch, true);
    ck_assert_msg(best <= 1e-3, "%s: difference quotient off by %.2e of the gradient (norm %g)", what, best, norm);
    free(saved);
    free(direction);
}

START_TEST(gradients)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    uint32_t n_labels = _i == 0 ? 3 : 0, lengths[3] = {7, 20, 3}, examples[3] = {4, 9, 2};
    struct cr_token_batch batch = cr_test_batch_make(lengths, examples, 3, n_labels, _i == 0 ? 1.0f / 3 : 1.0f / 27);
    struct setup s;
    make_setup(&s);
    for (size_t t = 0; t < n_tiers; t++) {
        if (cr_test_rounds(tiers[t])) {
            continue; /* rounding of operands is larger than the differences */
        }
        struct cr_engine *e = make_engine(&s, &parallel, tiers[t], n_labels, false);
        train(e, &s, &batch, true);
        for (uint32_t i = 0; i < s.m.model->config.n_layers * CR_N_PROJ; i++) {
            struct cr_lora *l = &s.lora.lora[i];
            const char *name = cr_proj_hf_name(i % CR_N_PROJ);
            check_matrix(e, &s, &batch, l->noise, l->grad_noise, (size_t)l->rank * l->n_in, name);
            check_matrix(e, &s, &batch, l->a, l->grad_a, (size_t)l->rank * l->n_in, name);
            check_matrix(e, &s, &batch, l->b, l->grad_b, (size_t)l->rank * l->n_out, name);
        }
        cr_engine_destroy(e);
    }
    free_setup(&s);
    cr_test_batch_free(&batch);
}
END_TEST

START_TEST(same_bits)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    uint32_t lengths[4] = {13, 50, 31, 17}, examples[4] = {7, 9, 10, 11};
    struct cr_token_batch batch = cr_test_batch_make(lengths, examples, 4, 3, 0.25f);
    struct setup s;
    make_setup(&s);
    size_t n = s.lora.n_params;
    float *grads = malloc(n * sizeof(float)), *noise = malloc(n * sizeof(float));
    for (size_t t = 0; t < n_tiers; t++) {
        double loss = 0;
        for (int workers = 1; workers <= 4; workers++) {
            struct cr_parallel parallel;
            cr_parallel_openmp(&parallel, workers);
            struct cr_engine *e = make_engine(&s, &parallel, tiers[t], 3, workers % 2 == 0);
            double own = train(e, &s, &batch, true);
            if (workers == 1) {
                loss = own;
                memcpy(grads, s.lora.grads, n * sizeof(float));
                memcpy(noise, s.grad_noise, n * sizeof(float));
                ck_assert(train(e, &s, &batch, false) != loss);
            } else {
                ck_assert(own == loss);
                cr_expect_same("gradient", s.lora.grads, grads, n);
                cr_expect_same("gradient of the noise", s.grad_noise, noise, n);
            }
            cr_engine_destroy(e);
        }
    }
    free(grads);
    free(noise);
    free_setup(&s);
    cr_test_batch_free(&batch);
}
END_TEST

/* Forward: an example alone and among others; and a noise of zeros is none. */
START_TEST(packing_and_nothing)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    uint32_t lengths[4] = {13, 50, 31, 17}, examples[4] = {7, 9, 10, 11};
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_token_batch batch = cr_test_batch_make(lengths, examples, 4, 3, 0.25f);
    struct cr_engine_noise on = {.seed = 2, .step = 1, .flipout = true};
    struct cr_error err = {0};
    struct setup s;
    make_setup(&s);
    size_t n = s.lora.n_params;
    float *grads = malloc(n * sizeof(float)), together[12], alone[3];
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_engine *e = make_engine(&s, &parallel, tiers[t], 3, false);
        cr_engine_dropout(e, &on);
        ck_assert(cr_engine_label_logits(e, &batch, together, &err) == CR_OK);
        for (size_t i = 0; i < 4; i++) {
            struct cr_token_batch one = cr_test_batch_make(&lengths[i], &examples[i], 1, 3, 1);
            ck_assert(cr_engine_label_logits(e, &one, alone, &err) == CR_OK);
            cr_expect_same("logits", together + 3 * i, alone, 3);
            cr_test_batch_free(&one);
        }
        double loss = train(e, &s, &batch, false);
        memcpy(grads, s.lora.grads, n * sizeof(float));
        float *kept = malloc(n * sizeof(float));
        memcpy(kept, s.noise, n * sizeof(float));
        memset(s.noise, 0, n * sizeof(float));
        ck_assert(train(e, &s, &batch, true) == loss);
        cr_expect_same("gradient", s.lora.grads, grads, n);
        memcpy(s.noise, kept, n * sizeof(float));
        free(kept);
        cr_engine_destroy(e);
    }
    free(grads);
    free_setup(&s);
    cr_test_batch_free(&batch);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("flipout");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 300);
    tcase_add_test(all, products_and_signs);
    tcase_add_loop_test(all, gradients, 0, 2);
    tcase_add_test(all, same_bits);
    tcase_add_test(all, packing_and_nothing);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
