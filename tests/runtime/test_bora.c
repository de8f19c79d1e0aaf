/* BoRA: stored penalties and gradients, the joint optimum of quadratic tasks, gradients by differences. */
#include <math.h>
#include <string.h>

#include "runtime/posterior/bora.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_test.h"

enum { TASKS = 3, N_FIRST = 4, N = 7 }; /* two tensors: 2 x 2 and 3 */

static double theta[TASKS][N], common[N], grad[TASKS][N], common_grad[N];

static void setup(const json_t *file)
{
    double all[TASKS * N];
    cr_golden_fill(file, "theta", all, TASKS * N);
    memcpy(theta, all, sizeof theta);
    cr_golden_fill(file, "Theta", common, N);
    memset(grad, 0, sizeof grad);
    memset(common_grad, 0, sizeof common_grad);
}

/* Every tensor of every task once; the sum of penalties. */
static double pull(enum cr_bora_prior prior, double weight)
{
    double sum = 0;
    for (size_t d = 0; d < TASKS; d++) {
        for (size_t begin = 0; begin < N; begin += N_FIRST) {
            size_t n = begin == 0 ? N_FIRST : N - N_FIRST;
            sum += cr_bora_pull_f64(prior, weight, theta[d] + begin, common + begin, n, grad[d] + begin,
                                    common_grad + begin);
        }
    }
    return sum;
}

START_TEST(stored_penalties)
{
    static const char *const names[] = {"paper_squared", "code_norm"};
    static const char *const values[] = {"reg_half_sum_sq", "reg_sum_norms"};
    json_t *file = cr_golden_load("bora.json");
    const json_t *one = cr_golden_get(file, names[_i]);
    setup(file);
    double tau = cr_golden_number(file, "tau");
    double lengths[TASKS], nll[TASKS];
    cr_golden_fill(file, "train_len", lengths, TASKS);
    cr_golden_fill(file, "mean_token_nll_per_task", nll, TASKS);
    double data = 0; /* the authors': every task's mean NLL of a token times its documents */
    for (size_t d = 0; d < TASKS; d++) {
        data += lengths[d] * nll[d];
    }
    double penalty = pull(_i == 0 ? CR_BORA_SQ : CR_BORA_NORM, tau);
    double objective = data + tau * penalty;
    cr_golden_expect(file, "weighted_data_term", &data, 1, 1e-10);
    cr_golden_expect(one, values[_i], &penalty, 1, 1e-10);
    cr_golden_expect(one, "objective", &objective, 1, 1e-10);
    cr_golden_expect(one, "dtheta", grad[0], TASKS * N, 1e-10);
    cr_golden_expect(one, "dTheta", common_grad, N, 1e-10);
    json_decref(file);
}
END_TEST

/* f32 storage: a difference of rounded numbers is off by 2^-24 of both, the result by 2^-24 of itself. */
START_TEST(single_precision)
{
    json_t *file = cr_golden_load("bora.json");
    setup(file);
    for (int prior = CR_BORA_SQ; prior <= CR_BORA_NORM; prior++) {
        float x[N], center[N], dx[N] = {0}, dcenter[N] = {0};
        double want[N] = {0}, minus[N] = {0}, norm = 0, size = 0;
        for (size_t i = 0; i < N; i++) {
            x[i] = (float)theta[1][i];
            center[i] = (float)common[i];
            norm += (theta[1][i] - common[i]) * (theta[1][i] - common[i]);
            size = fmax(size, fmax(fabs(theta[1][i]), fabs(common[i])));
        }
        norm = sqrt(norm);
        double exact = cr_bora_pull_f64(prior, 2, theta[1], common, N, want, minus);
        double got = cr_bora_pull_f32(prior, 2, x, center, N, dx, dcenter);
        double slope = prior == CR_BORA_SQ ? 2 : 2 * 2 / norm; /* of the gradient; NORM also moves through its norm */
        double bound = 4 * 0x1p-24 * size * slope * sqrt(N);
        ck_assert_double_eq_tol(got, exact, 2 * 0x1p-24 * size * sqrt(N) * (prior == CR_BORA_SQ ? norm : 1));
        for (size_t i = 0; i < N; i++) {
            ck_assert_double_eq_tol((double)dx[i], want[i], bound);
            ck_assert(dcenter[i] == -dx[i]);
        }
    }
    json_decref(file);
}
END_TEST

/* Gradients are differences of the penalty: second-order error h^2 times the third derivative (norms above 0.1: below
 * 3 / norm^2 < 300), rounding 2^-52 * 10 / h. */
START_TEST(differences)
{
    const double h = 1e-5;
    struct cr_rng rng = cr_rng_make(40);
    for (int prior = CR_BORA_SQ; prior <= CR_BORA_NORM; prior++) {
        double x[9], center[9], dx[9] = {0}, dcenter[9] = {0};
        for (size_t i = 0; i < 9; i++) {
            x[i] = (double)cr_rng_uniform(&rng, -1, 1);
            center[i] = (double)cr_rng_uniform(&rng, -1, 1);
        }
        cr_bora_pull_f64(prior, 3, x, center, 9, dx, dcenter);
        for (size_t i = 0; i < 18; i++) {
            double *at = i < 9 ? &x[i] : &center[i - 9], kept = *at;
            *at = kept + h;
            double above = cr_bora_pull_f64(prior, 3, x, center, 9, NULL, NULL);
            *at = kept - h;
            double below = cr_bora_pull_f64(prior, 3, x, center, 9, NULL, NULL);
            *at = kept;
            ck_assert_double_eq_tol(3 * (above - below) / (2 * h), i < 9 ? dx[i] : dcenter[i - 9],
                                    3 * (h * h * 300 + 0x1p-52 * 10 / h));
        }
    }
}
END_TEST

/* No gradient of the norm at its kink, none of either without weight; no center means zeros; gradients are added. */
START_TEST(edges)
{
    double x[3] = {3, 0, 4}, same[3] = {3, 0, 4}, g[3] = {1, 2, 3}, c[3] = {0};
    ck_assert_double_eq(cr_bora_pull_f64(CR_BORA_NORM, 5, x, same, 3, g, c), 0);
    ck_assert(g[0] == 1 && g[1] == 2 && g[2] == 3 && c[0] == 0);
    ck_assert_double_eq(cr_bora_pull_f64(CR_BORA_NORM, 0, x, NULL, 3, g, c), 5);
    ck_assert(g[0] == 1 && g[1] == 2 && g[2] == 3 && c[0] == 0);
    ck_assert_double_eq(cr_bora_pull_f64(CR_BORA_SQ, 2, x, NULL, 3, g, NULL), 12.5);
    ck_assert(g[0] == 7 && g[1] == 2 && g[2] == 11);
    ck_assert_double_eq(cr_bora_pull_f64(CR_BORA_SQ, 2, x, NULL, 0, g, NULL), 0);
    x[1] = (double)NAN;
    ck_assert(isnan(cr_bora_pull_f64(CR_BORA_NORM, 1, x, NULL, 3, g, NULL)) && isnan(g[1]));
}
END_TEST

enum { C = 3 };

/* Block-wise descent on quadratic tasks s_d/2 ||theta_d - c_d||^2 by Newton steps with our gradient and our center;
 * near the optimum an error shrinks by mean(tau / (s + tau)) a round, 0.998 at tau 1000. */
static void descend(const double *s, double (*c)[C], double tau, size_t rounds, double (*x)[C], double *center)
{
    const double *tasks[TASKS] = {x[0], x[1], x[2]};
    for (size_t round = 0; round < rounds; round++) {
        for (size_t d = 0; d < TASKS; d++) {
            double g[C];
            for (size_t i = 0; i < C; i++) {
                g[i] = s[d] * (x[d][i] - c[d][i]);
            }
            cr_bora_pull_f64(CR_BORA_SQ, tau, x[d], center, C, g, NULL);
            for (size_t i = 0; i < C; i++) {
                x[d][i] -= g[i] / (s[d] + tau);
            }
        }
        cr_bora_center_f64(tasks, TASKS, C, center);
    }
}

START_TEST(joint_optimum)
{
    static const char *const taus[] = {"0.0", "1.0", "10.0", "1000.0"};
    json_t *file = cr_golden_load("bora.json");
    const json_t *map = cr_golden_get(file, "map_fixed_point"), *all = cr_golden_get(map, "solutions");
    double s[TASKS], c[TASKS][C], flat[TASKS * C];
    cr_golden_fill(map, "s", s, TASKS);
    cr_golden_fill(map, "c", flat, TASKS * C);
    memcpy(c, flat, sizeof c);
    ck_assert_uint_eq(json_object_size(all), 4);
    for (size_t t = 0; t < 4; t++) {
        double x[TASKS][C] = {{0}}, center[C] = {0}, tau = strtod(taus[t], NULL);
        const json_t *want = cr_golden_get(all, taus[t]);
        descend(s, c, tau, 20000, x, center);
        memcpy(flat, x, sizeof flat);
        cr_golden_expect(want, "theta", flat, TASKS * C, 1e-10);
        if (t > 0) {
            cr_golden_expect(want, "Theta", center, C, 1e-10);
        }
    }
    /* A strong prior: one model, the optimum of the summed losses, up to (c range) s / tau < 1e-4 of each. */
    double x[TASKS][C] = {{0}}, center[C];
    for (size_t i = 0; i < C; i++) {
        double top = 0, bottom = 0;
        for (size_t d = 0; d < TASKS; d++) {
            top += s[d] * c[d][i];
            bottom += s[d];
        }
        center[i] = top / bottom;
    }
    for (size_t round = 0; round < 2; round++) {
        descend(s, c, 1e6, 1, x, center);
    }
    for (size_t i = 0; i < TASKS * C; i++) {
        ck_assert_double_eq_tol(x[i / C][i % C], center[i % C], 1e-4);
    }
    json_decref(file);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bora");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_loop_test(all, stored_penalties, 0, 2);
    tcase_add_test(all, single_precision);
    tcase_add_test(all, differences);
    tcase_add_test(all, edges);
    tcase_add_test(all, joint_optimum);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
