/* Tokens that examples begin with, computed once for several: the numbers of whole examples, and the same bits whoever
 * shares them. Every test runs without a learned prefix and with one, of rows that end within a block. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/data/batch.h"
#include "runtime/thread/parallel.h"
#include "tests/runtime/prefix_case.h"
#include "tests/support/engine_test.h"
#include "tests/support/kernel_test.h"

static const int32_t label_ids[3] = {256, 257, 258};
enum {
    ALL_TARGETS = (1 << CR_N_PROJ) - 1,
    N_EXAMPLES = 5,
    N_LABELS = 3,
    PREFIX_ROWS = 13,
    MAX_IDS = 70,
    MAX_TOKENS = 640,
    N_WORKERS = 3,
};

struct setup {
    struct cr_test_model m;
    struct cr_test_lora lora[2];
    struct cr_prefix prefix;
    bool shows; /* the prefix to all engines */
    int32_t ids[N_EXAMPLES][MAX_IDS];
    struct cr_example examples[N_EXAMPLES];
    struct cr_dataset data;
    struct cr_token_batch batch;
};

/* Weights that no example changes, others for each member and layer. */
static void weigh(const void *ctx, uint32_t member, uint32_t example, uint32_t layer, double *lambda)
{
    (void)example;
    draw(ctx, member, 0, layer, lambda);
}

/* Examples of different lengths whose first 20 tokens are alike. */
static void make_setup(struct setup *s, bool with_prefix)
{
    static const uint32_t lengths[N_EXAMPLES] = {22, 37, 21, MAX_IDS, 48};
    struct cr_tiny_spec spec = {.type = CR_Q_Q4_1, .n_layers = 3};
    s->m = cr_test_model_make(&spec);
    for (int i = 0; i < 2; i++) {
        s->lora[i] = cr_test_lora_make(s->m.model, ALL_TARGETS, 4, 2.0f + (float)i, 0.2f);
    }
    make_prefix(&s->prefix, s->m.model, 3, PREFIX_ROWS, N_LABELS);
    s->prefix.weights = weigh;
    s->shows = with_prefix;
    for (uint32_t i = 0; i < N_EXAMPLES; i++) {
        for (uint32_t t = 0; t < MAX_IDS; t++) {
            s->ids[i][t] = (int32_t)((t < 20 ? 7 * t : 31 * t + 97 * i) % 256);
        }
        s->examples[i] = (struct cr_example){.ids = s->ids[i],
                                             .n_ids = lengths[i],
                                             .n_targets = 1,
                                             .kind = CR_EXAMPLE_CHOICE,
                                             .n_choices = N_LABELS,
                                             .answer = i % N_LABELS,
                                             .task = -1};
    }
    s->data = (struct cr_dataset){.examples = s->examples, .n = N_EXAMPLES, .max_ids = MAX_IDS};
    struct cr_error err = {0};
    ck_assert_msg(cr_batch_init(&s->batch, MAX_TOKENS, &err) == CR_OK, "%s", err.message);
}

static void free_setup(struct setup *s)
{
    cr_batch_deinit(&s->batch);
    cr_test_lora_free(&s->lora[0]);
    cr_test_lora_free(&s->lora[1]);
    free_prefix(&s->prefix);
    cr_test_model_free(&s->m);
}

static void share(struct setup *s, uint32_t n_lead)
{
    for (size_t i = 0; i < N_EXAMPLES; i++) {
        s->examples[i].n_lead = n_lead;
    }
}

struct kind {
    enum cr_tier tier;
    bool recompute;
    int n_workers;
};

static struct cr_engine *make_engine(const struct setup *s, const struct cr_lora *lora, uint32_t n_members,
                                     const struct kind *kind, struct cr_parallel *parallel)
{
    cr_parallel_openmp(parallel, kind->n_workers);
    struct cr_engine_options options = {.model = s->m.model,
                                        .lora = lora,
                                        .n_members = n_members,
                                        .parallel = parallel,
                                        .tier = kind->tier,
                                        .max_tokens = MAX_TOKENS,
                                        .max_seq = MAX_IDS,
                                        .label_ids = label_ids,
                                        .n_labels = N_LABELS,
                                        .prefix = s->shows ? &s->prefix : NULL,
                                        .max_lead = 20,
                                        .max_prefixes = 2 * N_EXAMPLES,
                                        .train = true,
                                        .recompute = kind->recompute};
    return cr_test_engine(&options);
}

/* Logits, loss and gradients of examples order[0 ... n-1] under the first adapter. */
struct result {
    float logits[N_EXAMPLES * N_LABELS];
    double loss;
    float *grads; /* owned: of the adapter, then of the vertices */
};

static size_t n_grads(const struct setup *s)
{
    return s->lora[0].n_params + cr_prefix_floats(&s->prefix);
}

static void clear_grads(struct setup *s)
{
    memset(s->lora[0].grads, 0, s->lora[0].n_params * sizeof(float));
    memset(s->prefix.grads, 0, cr_prefix_floats(&s->prefix) * sizeof(float));
}

static struct result run(struct setup *s, const struct kind *kind, const uint32_t *order, size_t n)
{
    struct cr_parallel parallel;
    struct cr_error err = {0};
    const struct cr_engine_noise noise = {0};
    struct result r = {.grads = calloc(n_grads(s), sizeof(float))};
    struct cr_engine *e = make_engine(s, s->lora[0].lora, 1, kind, &parallel);
    cr_batch_fill(&s->batch, &s->data, order, n, 0.2f);
    clear_grads(s);
    ck_assert_msg(cr_engine_label_logits(e, &s->batch, r.logits, &err) == CR_OK, "%s", err.message);
    cr_test_train(e, &s->batch, &noise, &r.loss);
    memcpy(r.grads, s->lora[0].grads, s->lora[0].n_params * sizeof(float));
    memcpy(r.grads + s->lora[0].n_params, s->prefix.grads, cr_prefix_floats(&s->prefix) * sizeof(float));
    cr_engine_destroy(e);
    return r;
}

static double distance(const float *a, const float *b, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        difference += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / norm);
}

/* Order of sums alone differs: of f32, some hundred roundings of 2^-24 in a row; on bf16 tiers a last bit of f32 may
 * turn an operand's rounding, 2^-8 of it, here and there. Forgotten gradients of the shared tokens are .09 and more. */
START_TEST(as_whole_examples)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    static const uint32_t order[N_EXAMPLES] = {3, 0, 4, 1, 2};
    struct setup s;
    make_setup(&s, _i == 1);
    for (size_t t = 0; t < n_tiers; t++) {
        struct kind kind = {.tier = tiers[t], .n_workers = 1};
        double bound = cr_test_rounds(tiers[t]) ? 0x1p-6 : 1e-4;
        share(&s, 0);
        struct result whole = run(&s, &kind, order, N_EXAMPLES);
        for (uint32_t n_lead = 1; n_lead <= 20; n_lead += n_lead < 15 ? 7 : 1) { /* 1, 8, 15 to 20 */
            share(&s, n_lead);
            struct result shared = run(&s, &kind, order, N_EXAMPLES);
            double logits = distance(shared.logits, whole.logits, N_EXAMPLES * N_LABELS);
            size_t n = s.lora[0].n_params;
            double grads = distance(shared.grads, whole.grads, n);
            double rows = s.shows ? distance(shared.grads + n, whole.grads + n, cr_prefix_floats(&s.prefix)) : 0;
            ck_assert_msg(logits < bound && grads < bound && rows < bound &&
                              fabs(shared.loss - whole.loss) < bound * whole.loss,
                          "%s, %u tokens: logits %g, gradients %g, of vertices %g, loss %g and %g",
                          cr_tier_name(tiers[t]), n_lead, logits, grads, rows, shared.loss, whole.loss);
            free(shared.grads);
        }
        free(whole.grads);
    }
    free_setup(&s);
}
END_TEST

START_TEST(same_bits_for_any_company)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    static const uint32_t order[N_EXAMPLES] = {0, 1, 2, 3, 4};
    struct setup s;
    make_setup(&s, _i == 1);
    share(&s, 17);
    for (size_t t = 0; t < n_tiers; t++) {
        struct kind kind = {.tier = tiers[t], .n_workers = 1};
        struct result all = run(&s, &kind, order, N_EXAMPLES);
        for (size_t i = 0; i < N_EXAMPLES; i++) {
            struct result one = run(&s, &kind, &order[i], 1);
            cr_expect_same("logits", all.logits + i * N_LABELS, one.logits, N_LABELS);
            free(one.grads);
        }
        for (kind.n_workers = 2; kind.n_workers <= N_WORKERS; kind.n_workers++) {
            kind.recompute = kind.n_workers == 2;
            struct result again = run(&s, &kind, order, N_EXAMPLES);
            cr_expect_same("gradients", again.grads, all.grads, n_grads(&s));
            free(again.grads);
        }
        free(all.grads);
    }
    free_setup(&s);
}
END_TEST

/* Two members, the second of which sees fewer examples. With a prefix, whose gradients are the sum over both, it sees
 * the same mixtures. */
static void weigh_alike(const void *ctx, uint32_t member, uint32_t example, uint32_t layer, double *lambda)
{
    (void)member;
    weigh(ctx, 0, example, layer, lambda);
}

START_TEST(members_as_alone)
{
    static const uint32_t order[N_EXAMPLES] = {2, 3, 0, 1, 4};
    struct setup s;
    struct cr_parallel parallel;
    struct kind kind = {.tier = CR_TIER_SCALAR, .n_workers = 2};
    enum cr_tier tiers[CR_TEST_TIERS];
    kind.tier = tiers[cr_test_tiers(tiers) - 1];
    make_setup(&s, _i == 1);
    s.prefix.weights = weigh_alike;
    share(&s, 9);
    const struct cr_engine_noise noise[2] = {{0}};
    double loss[2] = {0};
    size_t n_slots = 3 * CR_N_PROJ;
    struct cr_lora *both = calloc(2 * n_slots, sizeof *both);
    memcpy(both, s.lora[1].lora, n_slots * sizeof *both);
    memcpy(both + n_slots, s.lora[0].lora, n_slots * sizeof *both);
    struct result alone = run(&s, &kind, order, 3);
    clear_grads(&s);
    struct cr_engine *e = make_engine(&s, both, 2, &kind, &parallel);
    cr_batch_clear(&s.batch);
    cr_batch_add_part(&s.batch, 0, &s.data, order, N_EXAMPLES, 0.2f);
    cr_batch_add_part(&s.batch, 1, &s.data, order, 3, 0.2f);
    cr_test_train(e, &s.batch, noise, loss);
    ck_assert_msg(loss[1] == alone.loss, "loss %.17g, alone %.17g", loss[1], alone.loss);
    cr_expect_same("gradients", s.lora[0].grads, alone.grads, s.lora[0].n_params);
    cr_engine_destroy(e);
    free(alone.grads);
    free(both);
    free_setup(&s);
}
END_TEST

START_TEST(refusals)
{
    static const uint32_t order[N_EXAMPLES] = {0, 1, 2, 3, 4};
    struct setup s;
    struct cr_parallel parallel;
    struct cr_error err = {0};
    struct kind kind = {.tier = CR_TIER_SCALAR, .n_workers = 1};
    float logits[N_EXAMPLES * N_LABELS];
    make_setup(&s, _i == 1);
    struct cr_engine *e = make_engine(&s, s.lora[0].lora, 1, &kind, &parallel);
    share(&s, 20);
    cr_batch_fill(&s.batch, &s.data, order, N_EXAMPLES, 0.2f);
    s.batch.n_lead = 21;
    ck_assert_int_eq(cr_engine_label_logits(e, &s.batch, logits, &err), CR_E_USAGE);
    s.batch.n_lead = 19; /* the first sequence has 20 */
    ck_assert_int_eq(cr_engine_label_logits(e, &s.batch, logits, &err), CR_E_USAGE);
    s.batch.n_lead = 20;
    ck_assert_int_eq(cr_engine_label_logits(e, &s.batch, logits, &err), CR_OK);
    if (s.shows) { /* what follows shared tokens is no beginning */
        ck_assert_int_eq(cr_engine_fill_prefix(e, 0, &s.batch, &err), CR_E_USAGE);
    }
    cr_engine_destroy(e);
    free_setup(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("engine lead");
    TCase *cases = tcase_create("lead");
    tcase_set_timeout(cases, 120);
    tcase_add_loop_test(cases, as_whole_examples, 0, 2);
    tcase_add_loop_test(cases, same_bits_for_any_company, 0, 2);
    tcase_add_loop_test(cases, members_as_alone, 0, 2);
    tcase_add_loop_test(cases, refusals, 0, 2);
    suite_add_tcase(suite, cases);
    return cr_run_suite(suite);
}
