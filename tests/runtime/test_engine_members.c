/* Several adapters in one pass over the frozen weights: every member gets, to the last bit, what it gets alone. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/thread/parallel.h"
#include "tests/support/engine_test.h"
#include "tests/support/kernel_test.h"

static const int32_t label_ids[3] = {256, 257, 258};
enum {
    ALL_TARGETS = (1 << CR_N_PROJ) - 1,
    N_MEMBERS = 4,
    N_LABELS = 3,
    MAX_TOKENS = 1600,
    MAX_SEQ = 128,
    N_WORKERS = 3,
};

/* Adapters of different ranks and scales; the third has none on q and down, the last none in this batch. */
struct setup {
    struct cr_test_model m;
    struct cr_test_lora lora[N_MEMBERS];
    struct cr_lora *together; /* [N_MEMBERS][n_slots], gradients of their own */
    float *grads[N_MEMBERS];
    size_t n_slots;
};

static void make_setup(struct setup *s)
{
    static const uint32_t ranks[N_MEMBERS] = {4, 1, 7, 9};
    struct cr_tiny_spec spec = {.type = CR_Q_Q4_1, .n_layers = 3};
    s->m = cr_test_model_make(&spec);
    s->n_slots = (size_t)spec.n_layers * CR_N_PROJ;
    s->together = calloc(N_MEMBERS * s->n_slots, sizeof *s->together);
    for (size_t i = 0; i < N_MEMBERS; i++) {
        uint32_t targets = i == 2 ? ALL_TARGETS & ~(1u << CR_PROJ_Q | 1u << CR_PROJ_DOWN) : ALL_TARGETS;
        s->lora[i] = cr_test_lora_make(s->m.model, targets, ranks[i], 2.0f + (float)i, 0.2f);
        s->grads[i] = calloc(s->lora[i].n_params, sizeof(float));
        struct cr_lora *own = s->together + i * s->n_slots;
        memcpy(own, s->lora[i].lora, s->n_slots * sizeof *own);
        for (size_t slot = 0; slot < s->n_slots; slot++) {
            if (own[slot].rank > 0) {
                own[slot].grad_a = s->grads[i] + (own[slot].grad_a - s->lora[i].grads);
                own[slot].grad_b = s->grads[i] + (own[slot].grad_b - s->lora[i].grads);
            }
        }
    }
}

static void free_setup(struct setup *s)
{
    for (size_t i = 0; i < N_MEMBERS; i++) {
        cr_test_lora_free(&s->lora[i]);
        free(s->grads[i]);
    }
    free(s->together);
    cr_test_model_free(&s->m);
}

struct kind {
    enum cr_tier tier;
    uint32_t n_labels;
    bool train, recompute;
    const struct cr_label_rows *own_rows;
};

static struct cr_engine *make_engine(const struct setup *s, const struct cr_lora *lora, uint32_t n_members,
                                     const struct kind *kind, const struct cr_parallel *parallel)
{
    struct cr_engine_options options = {.model = s->m.model,
                                        .lora = lora,
                                        .n_members = n_members,
                                        .own_rows = kind->own_rows,
                                        .parallel = parallel,
                                        .tier = kind->tier,
                                        .max_tokens = MAX_TOKENS,
                                        .max_seq = MAX_SEQ,
                                        .label_ids = kind->n_labels > 0 ? label_ids : NULL,
                                        .n_labels = kind->n_labels,
                                        .train = kind->train,
                                        .recompute = kind->recompute};
    struct cr_engine *e;
    struct cr_error err = {0};
    ck_assert_msg(cr_engine_create(&options, &e, &err) == CR_OK, "%s", err.message);
    return e;
}

/* Batches of the members present and all of them behind each other. */
struct parts {
    struct cr_token_batch own[N_MEMBERS], all;
    uint32_t member[N_MEMBERS], end[N_MEMBERS];
    size_t n, first_row[N_MEMBERS];
};

static void append(struct cr_token_batch *all, const struct cr_token_batch *own)
{
    size_t at = all->n_blocks * 16;
    memcpy(all->ids + at, own->ids, own->n_blocks * 16 * sizeof *own->ids);
    memcpy(all->pos + at, own->pos, own->n_blocks * 16 * sizeof *own->pos);
    memcpy(all->example + at, own->example, own->n_blocks * 16 * sizeof *own->example);
    for (size_t i = 0; i <= own->n_seg; i++) {
        all->seg[all->n_seg + i] = (uint32_t)at + own->seg[i];
    }
    for (size_t i = 0; i < own->n_rows; i++) {
        all->row_token[all->n_rows + i] = (uint32_t)at + own->row_token[i];
        all->row_target[all->n_rows + i] = own->row_target[i];
        all->row_choices[all->n_rows + i] = own->row_choices[i];
        all->row_weight[all->n_rows + i] = own->row_weight[i];
    }
    all->n_seg += own->n_seg;
    all->n_rows += own->n_rows;
    all->n_blocks += own->n_blocks;
    all->n_tokens += own->n_tokens;
}

static void add_part(struct parts *p, uint32_t member, const uint32_t *lengths, const uint32_t *examples, size_t n,
                     uint32_t n_labels)
{
    size_t i = p->n++;
    p->own[i] = cr_test_batch_make(lengths, examples, n, n_labels, 0.01f);
    p->first_row[i] = p->all.n_rows;
    append(&p->all, &p->own[i]);
    p->member[i] = member;
    p->end[i] = (uint32_t)p->all.n_blocks;
    p->all.n_parts = p->n;
}

/* The same examples for two members and others for the third. `large`: the second has more than 48 blocks and more than
 * 48 blocks of rows, so that tiles are cut within it. */
static void make_parts(struct parts *p, uint32_t n_labels, bool large)
{
    enum { MANY = 10 };
    static const uint32_t lengths[3] = {33, 1, 29}, examples[3] = {1, 2, 3}, others[3] = {3, 9, 8};
    uint32_t long_lengths[MANY], long_examples[MANY];
    for (uint32_t i = 0; i < MANY; i++) {
        long_lengths[i] = 101 + i;
        long_examples[i] = 20 + i;
    }
    *p = (struct parts){.n = 0};
    uint32_t room = MAX_TOKENS;
    p->all = cr_test_batch_make(&room, &examples[0], 1, 0, 1); /* buffers */
    free(p->all.seg);
    p->all.seg = calloc(MAX_TOKENS, sizeof *p->all.seg);
    p->all.n_seg = p->all.n_rows = p->all.n_blocks = p->all.n_tokens = 0;
    p->all.part_member = p->member;
    p->all.part_end = p->end;
    add_part(p, 0, lengths, examples, 3, n_labels);
    if (large) {
        add_part(p, 1, long_lengths, long_examples, MANY, n_labels);
    } else {
        add_part(p, 1, lengths, examples, 3, n_labels);
    }
    add_part(p, 2, others, examples, 3, n_labels);
}

static void free_parts(struct parts *p)
{
    for (size_t i = 0; i < p->n; i++) {
        cr_test_batch_free(&p->own[i]);
    }
    cr_test_batch_free(&p->all);
}

/* Masks of their own: none, some; the fourth is not asked. */
static void make_noise(struct cr_engine_noise *noise, bool dropout)
{
    memset(noise, 0, N_MEMBERS * sizeof *noise);
    for (uint32_t i = 1; dropout && i < N_MEMBERS; i++) {
        noise[i] = (struct cr_engine_noise){.dropout = 0.1 * i, .seed = 5 + i, .step = 3 * i};
    }
}

static void forward(struct cr_engine *e, const struct kind *kind, const struct cr_token_batch *batch, float *rows,
                    float *logits)
{
    struct cr_error err = {0};
    cr_status status =
        kind->n_labels > 0 ? cr_engine_label_logits(e, batch, rows, &err) : cr_engine_token_nll(e, batch, rows, &err);
    if (status == CR_OK && logits != NULL) {
        status = cr_engine_logits(e, batch, logits, &err);
    }
    ck_assert_msg(status == CR_OK, "%s", err.message);
}

static void check_forward(const struct setup *s, const struct kind *kind, const struct cr_parallel *parallel,
                          bool dropout)
{
    struct parts p;
    struct cr_engine_noise noise[N_MEMBERS];
    make_parts(&p, kind->n_labels, false);
    make_noise(noise, dropout);
    struct cr_parallel serial;
    cr_parallel_serial(&serial);
    size_t width = kind->n_labels > 0 ? kind->n_labels : 1;
    bool texts = kind->n_labels == 0;
    float *rows = calloc(p.all.n_rows, width * sizeof *rows), *alone = calloc(p.all.n_rows, width * sizeof *alone);
    float *logits = texts ? calloc(p.all.n_rows, CR_TINY_VOCAB * sizeof *logits) : NULL;
    float *own_logits = texts ? calloc(p.all.n_rows, CR_TINY_VOCAB * sizeof *own_logits) : NULL;
    struct cr_engine *e = make_engine(s, s->together, N_MEMBERS, kind, parallel);
    cr_engine_dropout(e, noise);
    forward(e, kind, &p.all, rows, logits);
    cr_engine_destroy(e);
    for (size_t i = 0; i < p.n; i++) {
        uint32_t member = p.member[i];
        e = make_engine(s, s->lora[member].lora, 1, kind, &serial);
        cr_engine_dropout(e, &noise[member]);
        forward(e, kind, &p.own[i], alone, own_logits);
        cr_expect_same("rows", rows + p.first_row[i] * width, alone, p.own[i].n_rows * width);
        if (texts) {
            cr_expect_same("logits", logits + p.first_row[i] * CR_TINY_VOCAB, own_logits,
                           p.own[i].n_rows * CR_TINY_VOCAB);
        }
        cr_engine_destroy(e);
    }
    free(rows);
    free(alone);
    free(logits);
    free(own_logits);
    free_parts(&p);
}

START_TEST(forward_as_alone)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct setup s;
    make_setup(&s);
    for (size_t t = 0; t < n_tiers; t++) {
        for (int i = 0; i < 4; i++) {
            struct kind kind = {.tier = tiers[t], .n_labels = i & 1 ? N_LABELS : 0};
            struct cr_parallel parallel;
            cr_parallel_openmp(&parallel, 1 + (int)(t + (size_t)i) % N_WORKERS);
            check_forward(&s, &kind, &parallel, (i & 2) != 0);
        }
    }
    free_setup(&s);
}
END_TEST

static void train(struct cr_engine *e, const struct cr_token_batch *batch, const struct cr_engine_noise *noise,
                  double *loss)
{
    struct cr_error err = {0};
    ck_assert_msg(cr_engine_train(e, batch, noise, loss, &err) == CR_OK, "%s", err.message);
}

static void check_train(struct setup *s, const struct kind *kind, bool dropout, bool large)
{
    struct parts p;
    struct cr_engine_noise noise[N_MEMBERS];
    double alone[N_MEMBERS] = {0};
    struct cr_parallel serial;
    cr_parallel_serial(&serial);
    make_parts(&p, kind->n_labels, large);
    make_noise(noise, dropout);
    for (size_t i = 0; i < p.n; i++) {
        uint32_t member = p.member[i];
        struct cr_engine *e = make_engine(s, s->lora[member].lora, 1, kind, &serial);
        memset(s->lora[member].grads, 0, s->lora[member].n_params * sizeof(float));
        train(e, &p.own[i], &noise[member], &alone[member]);
        cr_engine_destroy(e);
    }
    for (int workers = 1; workers <= N_WORKERS; workers++) {
        struct cr_parallel parallel;
        struct kind shared = *kind;
        double loss[N_MEMBERS] = {0};
        cr_parallel_openmp(&parallel, workers);
        shared.recompute = workers % 2 == 0;
        for (size_t i = 0; i < N_MEMBERS; i++) {
            memset(s->grads[i], 0, s->lora[i].n_params * sizeof(float));
        }
        struct cr_engine *e = make_engine(s, s->together, N_MEMBERS, &shared, &parallel);
        train(e, &p.all, noise, loss);
        for (size_t i = 0; i < N_MEMBERS; i++) { /* the one that is not in the batch: zeros */
            ck_assert_msg(loss[i] == alone[i], "member %zu: loss %.17g, alone %.17g", i, loss[i], alone[i]);
            cr_expect_same("gradient", s->grads[i], s->lora[i].grads, s->lora[i].n_params);
        }
        cr_engine_destroy(e);
    }
    free_parts(&p);
}

START_TEST(train_as_alone)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct setup s;
    make_setup(&s);
    for (size_t t = 0; t < n_tiers; t++) {
        for (int i = 0; i < 4; i++) {
            struct kind kind = {.tier = tiers[t], .n_labels = i & 1 ? N_LABELS : 0, .train = true};
            check_train(&s, &kind, (i & 2) != 0, false);
        }
    }
    free_setup(&s);
}
END_TEST

/* A part that is cut into tiles gives the same sums wherever it begins. */
START_TEST(tiles_as_alone)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct setup s;
    make_setup(&s);
    for (size_t t = 0; t < n_tiers; t++) {
        struct kind kind = {.tier = tiers[t], .train = true};
        check_train(&s, &kind, t % 2 != 0, true);
    }
    free_setup(&s);
}
END_TEST

/* Label rows: of the first member other ones, of the second the model's, of the third a copy of the model's. */
struct own_rows {
    float *values[N_MEMBERS], *grads[N_MEMBERS];
    struct cr_label_rows rows[N_MEMBERS];
    size_t n;
};

static void make_own_rows(struct own_rows *own, const struct cr_model *model, enum cr_tier tier)
{
    own->n = N_LABELS * model->config.n_embd;
    for (size_t i = 0; i < N_MEMBERS; i++) {
        own->values[i] = calloc(own->n, sizeof(float));
        own->grads[i] = calloc(own->n, sizeof(float));
        cr_model_label_rows(model, tier, label_ids, N_LABELS, own->values[i]);
        own->rows[i] = (struct cr_label_rows){i == 1 ? NULL : own->values[i], own->grads[i]};
    }
    for (size_t i = 0; i < own->n; i++) {
        own->values[0][i] += 0.01f * (float)(i % 17);
    }
}

static double loss_of_first(struct setup *s, const struct kind *kind, const struct cr_token_batch *batch)
{
    struct cr_engine_noise noise = {0};
    struct cr_parallel serial;
    double loss = 0;
    cr_parallel_serial(&serial);
    struct cr_engine *e = make_engine(s, s->lora[0].lora, 1, kind, &serial);
    train(e, batch, &noise, &loss);
    cr_engine_destroy(e);
    return loss;
}

/* The gradient of a row against a difference of losses: two f32 logits' rounding over twice the step, and the cube of
 * the step. */
static void check_slope(struct setup *s, const struct kind *kind, const struct cr_token_batch *batch,
                        struct own_rows *own)
{
    float gradient[4];
    size_t at[4] = {0, 7, own->n / 2, own->n - 1};
    struct kind alone = *kind;
    alone.own_rows = own->rows;
    for (int i = 0; i < 4; i++) {
        gradient[i] = own->grads[0][at[i]];
    }
    for (int i = 0; i < 4; i++) {
        float kept = own->values[0][at[i]];
        own->values[0][at[i]] = kept + 0.02f;
        double up = loss_of_first(s, &alone, batch);
        own->values[0][at[i]] = kept - 0.02f;
        double down = loss_of_first(s, &alone, batch);
        own->values[0][at[i]] = kept;
        ck_assert_double_eq_tol((up - down) / 0.04, (double)gradient[i], 1e-3 * fabs((double)gradient[i]) + 1e-5);
    }
}

START_TEST(rows_of_their_own)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct setup s;
    make_setup(&s);
    for (size_t t = 0; t < n_tiers; t++) {
        struct own_rows own;
        struct parts p;
        struct cr_parallel serial;
        struct cr_engine_noise noise[N_MEMBERS] = {{0}};
        double loss[N_MEMBERS] = {0};
        struct kind kind = {.tier = tiers[t], .n_labels = N_LABELS, .train = true};
        cr_parallel_serial(&serial);
        make_parts(&p, N_LABELS, false);
        make_own_rows(&own, s.m.model, tiers[t]);
        kind.own_rows = own.rows;
        for (size_t i = 0; i < N_MEMBERS; i++) {
            memset(s.grads[i], 0, s.lora[i].n_params * sizeof(float));
        }
        struct cr_engine *e = make_engine(&s, s.together, N_MEMBERS, &kind, &serial);
        train(e, &p.all, noise, loss);
        cr_engine_destroy(e);
        for (size_t i = 0; i < p.n; i++) { /* the first with its rows, the others as if nobody had any */
            float *grads = calloc(own.n, sizeof *grads);
            struct cr_label_rows rows = {own.values[i], grads};
            struct kind alone = kind;
            double want = 0;
            alone.own_rows = i == 0 ? &rows : NULL;
            memset(s.lora[i].grads, 0, s.lora[i].n_params * sizeof(float));
            e = make_engine(&s, s.lora[i].lora, 1, &alone, &serial);
            train(e, &p.own[i], noise, &want);
            cr_engine_destroy(e);
            ck_assert_msg(loss[i] == want, "member %zu: loss %.17g, alone %.17g", i, loss[i], want);
            cr_expect_same("gradient", s.grads[i], s.lora[i].grads, s.lora[i].n_params);
            if (i < 2) {
                cr_expect_same("rows", own.grads[i], grads, own.n); /* those of the model have none */
            }
            free(grads);
        }
        check_slope(&s, &kind, &p.own[0], &own);
        for (size_t i = 0; i < N_MEMBERS; i++) {
            free(own.values[i]);
            free(own.grads[i]);
        }
        free_parts(&p);
    }
    free_setup(&s);
}
END_TEST

static void refuse(struct cr_engine *e, const struct cr_token_batch *batch, const char *what)
{
    float logits[16 * N_LABELS];
    struct cr_error err = {0};
    ck_assert_msg(cr_engine_label_logits(e, batch, logits, &err) == CR_E_USAGE, "%s is taken", what);
}

START_TEST(bad_parts)
{
    struct setup s;
    make_setup(&s);
    struct kind kind = {.tier = CR_TIER_SCALAR, .n_labels = N_LABELS};
    struct cr_parallel serial;
    cr_parallel_serial(&serial);
    struct cr_engine *e = make_engine(&s, s.together, N_MEMBERS, &kind, &serial);
    struct parts p;
    make_parts(&p, N_LABELS, false);
    p.member[2] = N_MEMBERS;
    refuse(e, &p.all, "a member that does not exist");
    p.member[2] = 1;
    refuse(e, &p.all, "a member twice");
    p.member[2] = 2;
    p.end[0]--;
    refuse(e, &p.all, "a part that ends within a sequence");
    p.end[0]++;
    p.all.n_parts--;
    refuse(e, &p.all, "a batch with blocks of nobody");
    p.all.n_parts++;
    uint32_t token = p.all.row_token[0];
    p.all.row_token[0] = p.all.row_token[p.all.n_rows - 1];
    refuse(e, &p.all, "rows out of order");
    p.all.row_token[0] = token;
    float logits[16 * N_LABELS];
    struct cr_error err = {0};
    ck_assert_msg(cr_engine_label_logits(e, &p.all, logits, &err) == CR_OK, "%s", err.message);
    cr_engine_destroy(e);
    free_parts(&p);
    free_setup(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("engine members");
    TCase *tcase = tcase_create("members");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, forward_as_alone);
    tcase_add_test(tcase, train_as_alone);
    tcase_add_test(tcase, tiles_as_alone);
    tcase_add_test(tcase, rows_of_their_own);
    tcase_add_test(tcase, bad_parts);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
