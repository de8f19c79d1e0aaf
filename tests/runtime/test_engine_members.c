/* Several adapters in one pass over the frozen weights: every member gets, to the last bit, what it gets alone. */
#include <stdlib.h>
#include <string.h>

#include "runtime/thread/parallel.h"
#include "tests/runtime/engine_members_case.h"
#include "tests/support/kernel_test.h"

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
        cr_test_logits(e, batch, logits);
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
        cr_test_train(e, &p.own[i], &noise[member], &alone[member]);
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
        cr_test_train(e, &p.all, noise, loss);
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

int main(void)
{
    Suite *suite = suite_create("engine members");
    TCase *tcase = tcase_create("engine members");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, forward_as_alone);
    tcase_add_test(tcase, train_as_alone);
    tcase_add_test(tcase, tiles_as_alone);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
