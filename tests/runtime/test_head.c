/* The loss over a vocabulary of several chunks, and its gradient, against double: ordinary, sure and hopeless tokens;
 * the same bits for any number of threads and any packing. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/model/engine_internal.h"
#include "runtime/thread/parallel.h"
#include "tests/support/engine_test.h"
#include "tests/support/tl16_test.h"

/* Two whole chunks and one that ends in half a pair; tokens of two groups, the last block with free lanes. */
enum { ROWS = 2 * CR_HEAD_CHUNK + 405, TOKENS = 33 * CR_LANES + 5, WIDTH = 64 };

/* One model whose vocabulary is ours. */
struct setup {
    struct cr_test_model m;
    struct cr_test_lora lora;
    float *w;
    float norm[WIDTH];
    float *x; /* [TOKENS][WIDTH] */
    int32_t target[TOKENS];
    float weight[TOKENS];
};

static struct setup make_setup(float spread)
{
    struct setup s = {0};
    struct cr_rng rng = cr_rng_make(900);
    struct cr_tiny_spec spec = {.type = CR_Q_Q8_0, .n_layers = 1};
    s.m = cr_test_model_make(&spec);
    s.lora = cr_test_lora_make(s.m.model, 1, 2, 1, 0.1f);
    s.w = malloc(ROWS * WIDTH * sizeof *s.w);
    s.x = malloc(TOKENS * WIDTH * sizeof *s.x);
    cr_fill_f32(&rng, s.w, ROWS * WIDTH, -0.5f, 0.5f);
    for (size_t i = (ROWS - 300) * WIDTH; i < ROWS * WIDTH; i++) {
        s.w[i] *= 3; /* so that the largest logit comes late */
    }
    cr_fill_f32(&rng, s.x, TOKENS * WIDTH, -1, 1);
    for (size_t t = 0; t < TOKENS; t++) {
        s.weight[t] = t % 11 == 5 ? 0 : cr_rng_uniform(&rng, 0.01f, 1);
    }
    for (size_t f = 0; f < WIDTH; f++) {
        s.norm[f] = spread;
    }
    s.m.model->output = (struct cr_qmat){s.w, WIDTH * sizeof(float), ROWS, WIDTH, CR_Q_F32};
    return s;
}

static void free_setup(struct setup *s)
{
    free(s->w);
    free(s->x);
    cr_test_lora_free(&s->lora);
    cr_test_model_free(&s->m);
}

static struct cr_engine *make_engine(struct setup *s, const struct cr_parallel *parallel, enum cr_tier tier)
{
    struct cr_engine_options options = {.model = s->m.model,
                                        .lora = s->lora.lora,
                                        .parallel = parallel,
                                        .tier = tier,
                                        .max_tokens = TOKENS,
                                        .max_seq = 32,
                                        .train = true};
    return cr_test_engine(&options);
}

/* Runs the head on tokens [first, first + n) as if they were all. */
static double run_head(struct setup *s, struct cr_engine *e, size_t first, size_t n)
{
    static struct cr_token_batch batch; /* outlives the call: the engine keeps its address */
    static uint32_t tokens[TOKENS], zeros[TOKENS];
    batch = (struct cr_token_batch){.row_target = s->target + first,
                                    .row_weight = s->weight + first,
                                    .n_rows = n,
                                    .n_blocks = cr_tl16_blocks(n),
                                    .pos = zeros,
                                    .example = zeros,
                                    .row_token = tokens};
    for (uint32_t t = 0; t < n; t++) {
        tokens[t] = t;
    }
    const float *norm = e->model->output_norm;
    struct cr_error err = {0};
    ck_assert_msg(cr_parts_set(e, &batch, &err) == CR_OK, "%s", err.message);
    memset(e->x_rows, 0, e->rows.n_blocks * CR_LANES * WIDTH * sizeof(float));
    for (size_t t = 0; t < n; t++) {
        for (size_t f = 0; f < WIDTH; f++) {
            cr_tl16_put(e->x_rows, CR_X_F32, WIDTH * 64, t / CR_LANES, f, t % CR_LANES, s->x[(first + t) * WIDTH + f]);
        }
    }
    s->m.model->output_norm = s->norm;
    cr_head_norm(e);
    double loss = 0;
    cr_head_token_loss(e, &loss);
    s->m.model->output_norm = norm;
    return loss;
}

static float *dn_of(const struct cr_engine *e, size_t t, float out[WIDTH])
{
    for (size_t f = 0; f < WIDTH; f++) {
        out[f] = cr_tl16_get(e->dn, CR_X_F32, WIDTH * 64, t / CR_LANES, f, t % CR_LANES);
    }
    return out;
}

/* What a product multiplies with. */
static double weight_at(const struct setup *s, bool bf16, size_t v, size_t f)
{
    float w = s->w[v * WIDTH + f];
    return (double)(bf16 ? cr_bf16_to_f32(cr_f32_to_bf16(w)) : w);
}

/* Logits of a token in double and the largest bound of their error: (K + 2) roundings of a chain. */
static double logits_of(const struct setup *s, const struct cr_engine *e, size_t t, double *z)
{
    bool bf16 = e->xt == CR_X_BF16;
    double worst = 0;
    for (size_t v = 0; v < ROWS; v++) {
        double sum = 0, size = 0;
        for (size_t f = 0; f < WIDTH; f++) {
            float h = cr_tl16_get(e->head_x, e->xt, cr_tl16_bytes(e->xt, WIDTH), t / CR_LANES, f, t % CR_LANES);
            double term = weight_at(s, bf16, v, f) * (double)h;
            sum += term;
            size += fabs(term);
        }
        z[v] = sum;
        worst = fmax(worst, (WIDTH + 2) * CR_U32 * size);
    }
    return worst;
}

/* Labels of three kinds, from the logits of the scalar tier: any, the likeliest, the least likely. */
static void choose_labels(struct setup *s)
{
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_engine *e = make_engine(s, &parallel, CR_TIER_SCALAR);
    double *z = malloc(ROWS * sizeof *z);
    struct cr_rng rng = cr_rng_make(901);
    run_head(s, e, 0, TOKENS);
    for (size_t t = 0; t < TOKENS; t++) {
        s->target[t] = (int32_t)cr_rng_below(&rng, ROWS);
        if (t % 3 != 0) {
            logits_of(s, e, t, z);
            for (size_t v = 0; v < ROWS; v++) {
                double gain = z[v] - z[s->target[t]];
                s->target[t] = (t % 3 == 1 ? gain : -gain) > 0 ? (int32_t)v : s->target[t];
            }
        }
    }
    free(z);
    cr_engine_destroy(e);
}

/* One token. With q_v = p_v / Z and l the label, dH = weight sum_v q_v (W_v - W_l) over v != l. Errors: p_v rounds to
 * the operand's type (u each, the label's row carries the same); logits, the differences to the reference and exp make
 * q_v and Z relatively wrong by `rel` each; the sum over v is a chain of a chunk and one addition a chunk, the mass
 * one of half a job's rows; then a handful of roundings. Returns the bound of the loss. */
static double check_token(const struct setup *s, const struct cr_engine *e, size_t t, double *z, double *loss)
{
    bool bf16 = e->xt == CR_X_BF16;
    size_t l = (size_t)s->target[t];
    double error = logits_of(s, e, t, z), total = 0, top = -INFINITY, low = INFINITY;
    for (size_t v = 0; v < ROWS; v++) {
        top = fmax(top, z[v]);
        low = fmin(low, z[v]);
        total += exp(z[v] - z[l]);
    }
    double rel = 2 * error + (top - low + 4 + CR_HEAD_ROWS / 2) * CR_U32;
    double chain = (CR_HEAD_CHUNK + 3 + CR_HEAD_ROWS / 2 + 8) * CR_U32;
    double want[WIDTH] = {0}, bound[WIDTH] = {0}, weight = (double)s->weight[t];
    for (size_t v = 0; v < ROWS; v++) {
        double q = v == l ? 0 : exp(z[v] - z[l]) / total * weight;
        for (size_t f = 0; f < WIDTH; f++) {
            double a = weight_at(s, bf16, v, f), b = weight_at(s, bf16, l, f);
            want[f] += q * (a - b);
            bound[f] += q * (fabs(a - b) * (cr_unit_of(e->xt) + 2 * rel) + (fabs(a) + fabs(b)) * chain) * 1.02;
        }
    }
    float got[WIDTH];
    cr_expect_within(cr_tier_name(e->options.tier), dn_of(e, t, got), want, bound, WIDTH);
    *loss += weight * log(total);
    /* ln of 1 + S: S is relatively wrong by rel; doubles cancel in 1 + S and in z_l - m. */
    return weight * (rel * (total - 1) / total * 1.01 + (fabs(top) + fabs(low) + 1) * 0x1p-50);
}

START_TEST(against_double)
{
    static const float spreads[] = {1, 12};
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct setup s = make_setup(spreads[_i]);
    choose_labels(&s);
    double *z = malloc(ROWS * sizeof *z);
    for (size_t i = 0; i < n_tiers; i++) {
        struct cr_engine *e = make_engine(&s, &parallel, tiers[i]);
        /* the whole, whose every 13th token is looked at, and then some tokens whose losses are added */
        run_head(&s, e, 0, TOKENS);
        for (size_t t = 0; t < TOKENS; t += 13) {
            double loss = 0;
            check_token(&s, e, t, z, &loss);
        }
        for (size_t t = 0; t < 9; t += 3) {
            double got = run_head(&s, e, t, 3), want = 0, bound = 0;
            struct setup part = s;
            memmove(part.target, s.target + t, 3 * sizeof *s.target);
            memmove(part.weight, s.weight + t, 3 * sizeof *s.weight);
            for (size_t k = 0; k < 3; k++) {
                bound += check_token(&part, e, k, z, &want);
            }
            ck_assert_msg(fabs(got - want) <= bound, "%s: loss %.9g, expected %.9g within %.2g", cr_tier_name(tiers[i]),
                          got, want, bound);
        }
        cr_engine_destroy(e);
    }
    free(z);
    free_setup(&s);
}
END_TEST

START_TEST(threads_and_packing)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct setup s = make_setup(12);
    choose_labels(&s);
    float *first = malloc(TOKENS * WIDTH * sizeof *first), row[WIDTH];
    for (size_t i = 0; i < n_tiers; i++) {
        double loss = 0;
        for (int workers = 1; workers <= 3; workers++) {
            struct cr_parallel parallel;
            cr_parallel_openmp(&parallel, workers);
            struct cr_engine *e = make_engine(&s, &parallel, tiers[i]);
            double got = run_head(&s, e, 0, TOKENS);
            loss = workers == 1 ? got : loss;
            ck_assert_msg(got == loss && isfinite(loss), "%d workers: loss %.17g, one %.17g", workers, got, loss);
            for (size_t t = 0; t < TOKENS; t++) {
                float *at = first + t * WIDTH;
                cr_expect_same("threads", dn_of(e, t, workers == 1 ? at : row), at, WIDTH);
            }
            run_head(&s, e, 200, 21); /* other neighbours, other places */
            for (size_t t = 0; t < 21; t++) {
                cr_expect_same("packing", dn_of(e, t, row), first + (200 + t) * WIDTH, WIDTH);
            }
            cr_engine_destroy(e);
        }
    }
    free(first);
    free_setup(&s);
}
END_TEST

/* A token that cannot be computed says so in the loss and leaves the others alone. */
START_TEST(not_a_number)
{
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct setup s = make_setup(1);
    choose_labels(&s);
    struct cr_engine *e = make_engine(&s, &parallel, CR_TIER_SCALAR);
    float row[WIDTH], again[WIDTH];
    run_head(&s, e, 0, 3);
    dn_of(e, 2, row);
    s.x[WIDTH + 7] = NAN;
    ck_assert(isnan(run_head(&s, e, 0, 3)));
    cr_expect_same("neighbour", dn_of(e, 2, again), row, WIDTH);
    ck_assert(isnan(dn_of(e, 1, again)[0]));
    cr_engine_destroy(e);
    free_setup(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("head");
    TCase *tc = tcase_create("texts");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, against_double, 0, 2);
    tcase_add_test(tc, threads_and_packing);
    tcase_add_test(tc, not_a_number);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
