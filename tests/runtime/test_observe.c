/* What an engine shows of a training pass: products of it are the gradients that the pass itself adds up. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "credence/kernels/tl16.h"
#include "runtime/thread/parallel.h"
#include "tests/support/engine_test.h"
#include "tests/support/kernel_test.h"

static const int32_t label_ids[3] = {256, 257, 258};
enum { ALL_TARGETS = (1 << CR_N_PROJ) - 1, RANK = 3, TOKENS = 160, WIDEST = 512, SLOTS = 3 * CR_N_PROJ };

/* One side of one projection, [token][feature] with zeros where there is no token. */
struct seen {
    float wide[TOKENS][WIDEST], narrow[TOKENS][RANK];
    size_t n_wide, n_views;
    uint32_t n_real;
};

struct record {
    struct seen *sides; /* [SLOTS][input, gradient] */
};

static float value_of(const struct cr_engine_view *view, size_t token, size_t k)
{
    const char *block = (const char *)view->wide + token / 16 * view->wide_stride;
    float x;
    if (view->type == CR_X_F32) {
        return ((const float *)(const void *)block)[cr_tl16_f32(k, token % 16)];
    }
    uint32_t bits = (uint32_t)((const uint16_t *)(const void *)block)[cr_tl16_bf16(k, token % 16)] << 16;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void look(void *ctx, const struct cr_engine_view *views, size_t n)
{
    struct record *record = ctx;
    for (size_t v = 0; v < n; v++) {
        const struct cr_engine_view *view = &views[v];
        struct seen *seen = &record->sides[2 * (view->layer * CR_N_PROJ + view->proj) + view->gradient];
        seen->n_views++;
        seen->n_wide = view->n_wide;
        ck_assert_uint_eq(view->rank, RANK);
        ck_assert_uint_le(view->n_wide, WIDEST);
        ck_assert_uint_le(view->n_blocks * 16, TOKENS);
        for (size_t t = 0; t < view->n_blocks * 16; t++) {
            if (view->real[t] == UINT32_MAX) {
                continue;
            }
            seen->n_real++;
            for (size_t k = 0; k < view->n_wide; k++) {
                seen->wide[t][k] = value_of(view, t, k);
            }
            for (size_t i = 0; i < RANK; i++) {
                seen->narrow[t][i] = view->narrow[t / 16 * view->narrow_stride + i * 16 + t % 16];
            }
        }
    }
}

/* Sum over tokens of narrow [i] times wide [k] against got at i rs + k ks. f32 chains; on bf16 tiers four roundings of
 * 2^-9 each: of a gradient, and of g, u and their product, from which the backward pass makes the input of down again.
 */
static void check_product(const struct seen *narrow, const struct seen *wide, size_t n_wide, const float *got,
                          size_t rs, size_t ks, double relative, const char *what)
{
    for (size_t i = 0; i < RANK; i++) {
        for (size_t k = 0; k < n_wide; k++) {
            double sum = 0, size = 0;
            for (size_t t = 0; t < TOKENS; t++) {
                double term = (double)narrow->narrow[t][i] * (double)wide->wide[t][k];
                sum += term;
                size += fabs(term);
            }
            ck_assert_msg(fabs((double)got[i * rs + k * ks] - sum) <= relative * size + 1e-12,
                          "%s [%zu][%zu]: %.9g, %.9g size %g", what, i, k, (double)got[i * rs + k * ks], sum, size);
        }
    }
}

START_TEST(views_are_the_gradients)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_parallel parallel;
    cr_parallel_openmp(&parallel, 2);
    uint32_t n_labels = _i % 2 == 0 ? 3 : 0, lengths[3] = {13, 50, 17}, examples[3] = {7, 9, 10};
    struct cr_token_batch batch = cr_test_batch_make(lengths, examples, 3, n_labels, 0.25f);
    struct cr_tiny_spec spec = {.type = CR_Q_Q8_0, .n_layers = 3};
    struct cr_test_model m = cr_test_model_make(&spec);
    struct cr_test_lora lora = cr_test_lora_make(m.model, ALL_TARGETS, RANK, 2.0f, 0.2f);
    struct record record = {calloc(2 * SLOTS, sizeof *record.sides)};
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_engine_options options = {.model = m.model,
                                            .lora = lora.lora,
                                            .parallel = &parallel,
                                            .tier = tiers[t],
                                            .max_tokens = TOKENS,
                                            .max_seq = 64,
                                            .label_ids = n_labels > 0 ? label_ids : NULL,
                                            .n_labels = n_labels,
                                            .train = true,
                                            .recompute = _i >= 2};
        struct cr_engine *e;
        struct cr_error err = {0};
        struct cr_engine_noise noise = {0};
        double loss = 0;
        ck_assert_int_eq(cr_engine_create(&options, &e, &err), CR_OK);
        memset(lora.grads, 0, lora.n_params * sizeof(float));
        memset(record.sides, 0, 2 * SLOTS * sizeof *record.sides);
        cr_engine_observe(e, look, &record);
        ck_assert_int_eq(cr_engine_train(e, &batch, &noise, &loss, &err), CR_OK);
        for (size_t i = 0; i < SLOTS; i++) {
            const struct seen *in = &record.sides[2 * i], *back = in + 1;
            const struct cr_lora *l = &lora.lora[i];
            bool rows = i / CR_N_PROJ == 2 && i % CR_N_PROJ >= CR_PROJ_O;
            bool bf16 = cr_test_rounds(tiers[t]);
            ck_assert_uint_eq(in->n_views, 1);
            ck_assert_uint_eq(back->n_views, 1);
            ck_assert_uint_eq(in->n_real, rows ? batch.n_rows : 80);
            ck_assert_uint_eq(back->n_real, in->n_real);
            ck_assert(in->n_wide == l->n_in && back->n_wide == l->n_out);
            check_product(back, in, l->n_in, l->grad_a, l->n_in, 1, bf16 ? 0x1p-6 : 0x1p-16,
                          cr_proj_hf_name(i % CR_N_PROJ));
            check_product(in, back, l->n_out, l->grad_b, 1, RANK, bf16 ? 0x1p-6 : 0x1p-16,
                          cr_proj_hf_name(i % CR_N_PROJ));
        }
        cr_engine_observe(e, NULL, NULL);
        ck_assert_int_eq(cr_engine_train(e, &batch, &noise, &loss, &err), CR_OK);
        ck_assert_uint_eq(record.sides[0].n_views, 1);
        cr_engine_destroy(e);
    }
    free(record.sides);
    cr_test_batch_free(&batch);
    cr_test_lora_free(&lora);
    cr_test_model_free(&m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("observe");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 120);
    tcase_add_loop_test(all, views_are_the_gradients, 0, 4);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
