/* LoRA-Ensemble: stored logits of two members averaged and compared, initialisations. What members compute and learn is
 * in test_engine_members.c, their joint clip in test_ensemble_train.c. */
#include <math.h>
#include <string.h>

#include "runtime/metrics/diversity.h"
#include "runtime/metrics/metrics.h"
#include "runtime/posterior/members.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_test.h"

enum { M = 2, B = 3, C = 3 };

static struct cr_rng_ops best_ops(void)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    struct cr_rng_ops ops;
    ck_assert_int_eq(cr_rng_ops_init(&ops, tiers[cr_test_tiers(tiers) - 1]), CR_OK);
    return ops;
}

/* The two ways of averaging (by the functions that evaluation uses), the loss of the members, and the differences
 * between them. */
START_TEST(stored_predictions)
{
    json_t *file = cr_golden_load("lora_ensemble.json");
    double logits[M][B][C], labels[B], mixed[B][C], pooled[B][C], nll = 0, loss = 0;
    struct cr_diversity sum = {0};
    cr_golden_fill(file, "logits_MBC", logits[0][0], M * B * C);
    cr_golden_fill(file, "labels", labels, B);
    for (size_t n = 0; n < B; n++) {
        double probs[M][C], mean[C] = {0};
        for (size_t m = 0; m < M; m++) {
            cr_softmax(logits[m][n], C, probs[m]);
            loss += cr_softmax_nll(logits[m][n], C, (size_t)labels[n]) / (M * B);
            for (size_t c = 0; c < C; c++) {
                mean[c] += logits[m][n][c] / M;
            }
        }
        cr_mean_probs(probs[0], M, C, mixed[n]);
        cr_softmax(mean, C, pooled[n]);
        nll -= log(mixed[n][(size_t)labels[n]]) / B;
        cr_diversity_add(probs[0], M, C, &sum);
    }
    cr_golden_expect(file, "loss_mean_over_members_and_batch", &loss, 1, 1e-10);
    cr_golden_expect(file, "mean_probs", mixed[0], B * C, 1e-10);
    cr_golden_expect(file, "probs_softmax_of_mean_logits", pooled[0], B * C, 1e-10);
    cr_golden_expect(file, "nll_of_mean_probs", &nll, 1, 1e-10);
    ck_assert_uint_eq(sum.n_pairs, B);
    ck_assert_uint_eq(sum.n_disagree, (uint64_t)cr_golden_number(file, "pairwise_disagreement_count"));
    double root = sqrt(sum.half_kl);
    cr_golden_expect(file, "pairwise_symmetric_kl_sqrt", &root, 1, 1e-10);
    ck_assert_double_eq_tol(cr_diversity_disagreement(&sum), 1.0 / 3, 1e-15);
    ck_assert_double_eq_tol(cr_diversity_distance(&sum), sum.distance / 3, 1e-15);
    json_decref(file);
}
END_TEST

START_TEST(stored_bounds)
{
    json_t *file = cr_golden_load("lora_ensemble.json");
    const json_t *xavier = cr_golden_get(file, "xavier_uniform_bound");
    const json_t *kaiming = cr_golden_get(file, "kaiming_uniform_a_sqrt5_bound");
    double bound =
        cr_members_spread(CR_MEMBERS_XAVIER, cr_golden_number(xavier, "gain"),
                          (size_t)cr_golden_number(xavier, "fan_in"), (size_t)cr_golden_number(xavier, "fan_out"));
    cr_golden_expect(xavier, "bound", &bound, 1, 1e-10);
    bound = cr_members_spread(CR_MEMBERS_PEFT, 99, (size_t)cr_golden_number(kaiming, "fan_in"), 8);
    cr_golden_expect(kaiming, "bound", &bound, 1, 0x1p-23); /* made in f32, as in the plain adapter */
    ck_assert_double_eq(cr_members_spread(CR_MEMBERS_NORMAL, 0.02, 768, 8), 0.02);
    json_decref(file);
}
END_TEST

/* Mean 0, variance spread^2/3 or spread^2, within five standard errors; bounds kept; no two of members and tensors
 * alike; the same numbers again. */
START_TEST(initialisations)
{
    enum { RANK = 8, N_IN = 576, N = RANK * N_IN };
    static float a[6][N], again[N];
    struct cr_rng_ops ops = best_ops();
    for (int init = CR_MEMBERS_PEFT; init <= CR_MEMBERS_NORMAL; init++) {
        double gain = init == CR_MEMBERS_NORMAL ? 0.02 : 10, spread = cr_members_spread(init, gain, N_IN, RANK);
        double variance = init == CR_MEMBERS_NORMAL ? spread * spread : spread * spread / 3;
        double fourth = init == CR_MEMBERS_NORMAL ? 2 : 0.8; /* Var(x^2) / Var(x)^2 */
        for (uint32_t i = 0; i < 6; i++) {
            cr_members_start(&ops, init, gain, cr_members_seed(21, i / 2), i % 2, RANK, N_IN, a[i]);
            double sum = 0, square = 0;
            for (size_t k = 0; k < N; k++) {
                double x = (double)a[i][k];
                sum += x, square += x * x;
                ck_assert(init == CR_MEMBERS_NORMAL || fabs(x) <= spread * (1 + 0x1p-23));
            }
            ck_assert_double_le(fabs(sum / N), 5 * sqrt(variance / N));
            ck_assert_double_le(fabs(square / N - variance), 5 * variance * sqrt(fourth / N));
            for (uint32_t j = 0; j < i; j++) {
                double cross = 0;
                for (size_t k = 0; k < N; k++) {
                    cross += (double)a[i][k] * (double)a[j][k];
                }
                ck_assert_double_le(fabs(cross / N), 5 * variance / sqrt(N));
            }
        }
        cr_members_start(&ops, init, gain, cr_members_seed(21, 2), 1, RANK, N_IN, again);
        ck_assert_mem_eq(again, a[5], sizeof again);
    }
}
END_TEST

/* Member 0 starts as the plain adapter does: uniform from the key (seed, tensor), bound 1 / sqrt(in) in f32. */
START_TEST(first_member_is_the_plain_adapter)
{
    struct cr_rng_ops ops = best_ops();
    float got[4 * 33], want[4 * 33], bound = 1.0f / sqrtf(33.0f);
    cr_members_start(&ops, CR_MEMBERS_PEFT, 1, cr_members_seed(87, 0), 11, 4, 33, got);
    cr_uniform_f32((const uint32_t[2]){87, 11}, -bound, bound, want, 4 * 33);
    ck_assert_mem_eq(got, want, sizeof got);
    for (uint32_t m = 1; m < 200; m++) {
        ck_assert(cr_members_seed(87, m) != 87 && cr_members_seed(87, m) >> 32 == 0);
    }
    ck_assert_uint_eq(cr_members_seed(UINT64_C(7) << 32, 3) >> 32, 7);
    for (uint32_t seed = 0; seed < 50; seed++) { /* runs with seeds beside one another share no member */
        for (uint32_t m = 1; m < 64; m++) {
            uint64_t other = cr_members_seed(seed, m);
            ck_assert(other > 1000 && other < UINT32_MAX - 1000);
        }
    }
}
END_TEST

START_TEST(near)
{
    enum { N = 3000 };
    static float base[N], out[N], normal[N];
    struct cr_rng rng = cr_rng_make(61);
    struct cr_rng_ops ops = best_ops();
    struct cr_noise noise = {{1, 2}, 3, 4, 5};
    cr_fill_f32(&rng, base, N, -1, 1);
    cr_members_near(&ops, &noise, base, 0.001, N, out);
    ops.normals(&noise, normal, 0, N);
    for (size_t i = 0; i < N; i++) {
        ck_assert(out[i] == (float)((double)base[i] + 0.001 * (double)normal[i]));
    }
    cr_members_near(&ops, &noise, base, 0, N, out);
    ck_assert_mem_eq(out, base, sizeof out);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("members");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, stored_predictions);
    tcase_add_test(all, stored_bounds);
    tcase_add_test(all, initialisations);
    tcase_add_test(all, first_member_is_the_plain_adapter);
    tcase_add_test(all, near);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
