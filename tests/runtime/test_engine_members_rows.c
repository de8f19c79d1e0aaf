/* Several adapters in one pass over the frozen weights: label rows of their own, refusals of bad parts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/thread/parallel.h"
#include "tests/runtime/engine_members_case.h"
#include "tests/support/kernel_test.h"

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
    cr_test_train(e, batch, &noise, &loss);
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
        cr_test_train(e, &p.all, noise, loss);
        cr_engine_destroy(e);
        for (size_t i = 0; i < p.n; i++) { /* the first with its rows, the others as if nobody had any */
            float *grads = calloc(own.n, sizeof *grads);
            struct cr_label_rows rows = {own.values[i], grads};
            struct kind alone = kind;
            double want = 0;
            alone.own_rows = i == 0 ? &rows : NULL;
            memset(s.lora[i].grads, 0, s.lora[i].n_params * sizeof(float));
            e = make_engine(&s, s.lora[i].lora, 1, &alone, &serial);
            cr_test_train(e, &p.own[i], noise, &want);
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
    Suite *suite = suite_create("engine members rows");
    TCase *tcase = tcase_create("engine members rows");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, rows_of_their_own);
    tcase_add_test(tcase, bad_parts);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
