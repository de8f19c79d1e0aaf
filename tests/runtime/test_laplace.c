/* Laplace: stored variances, determinants and draws; dense inverses; the incremental factor; evidence; both layouts. */
#include <math.h>
#include <string.h>

#include "runtime/metrics/metrics.h"
#include "runtime/posterior/dense.h"
#include "runtime/posterior/laplace.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_test.h"

enum { N = 5, R = 2, K = 3, P = N * R, C = 3 };

struct stored {
    double large[N * K], small[R * R], jacobian[C * P], s2;
    double basis[N * K], rotation[R * R], large_values[K], small_values[R];
    struct cr_laplace_factor factor;
};

static json_t *setup(struct stored *s)
{
    json_t *file = cr_golden_load("laplace.json");
    cr_golden_fill(file, "large_factor_lowrank", s->large, N * K);
    cr_golden_fill(file, "small_factor", s->small, R * R);
    cr_golden_fill(file, "J", s->jacobian, C * P);
    s->s2 = cr_golden_number(file, "prior_variance");
    s->factor = (struct cr_laplace_factor){.n = N,
                                           .r = R,
                                           .k = K,
                                           .basis = s->basis,
                                           .rotation = s->rotation,
                                           .large_values = s->large_values,
                                           .small_values = s->small_values};
    double large[N * K], small[R * R];
    memcpy(large, s->large, sizeof large);
    memcpy(small, s->small, sizeof small);
    ck_assert(cr_laplace_factor_init(&s->factor, large, 1, small, 1));
    return file;
}

START_TEST(stored_variance)
{
    struct stored s;
    json_t *file = setup(&s);
    double var[C * C] = {0}, scratch[(C + 1) * K * R], values[K * R];
    cr_laplace_var_add_f64(&s.factor, s.s2, s.jacobian, P, C, scratch, var);
    cr_golden_expect(file, "f_var", var, C * C, 1e-10);
    cr_laplace_spectrum(&s.factor, values);
    double log_det = cr_laplace_log_det(values, K * R, s.s2);
    cr_golden_expect(file, "log_det_I_plus_s2H", &log_det, 1, 1e-10);
    log_det -= P * log(s.s2);
    cr_golden_expect(file, "log_det_posterior_precision", &log_det, 1, 1e-10);
    json_decref(file);
}
END_TEST

/* The parameters of A lie small side first: transposing the Jacobian changes nothing. Scales may be on either side. f32
 * Jacobians: their rounding alone, 2^-24 of each of the P products twice. */
START_TEST(layouts)
{
    struct stored s;
    json_t *file = setup(&s);
    double var[C * C] = {0}, scratch[(C + 1) * K * R], turned[C * P], size = 0;
    float single[C * P];
    for (size_t i = 0; i < C * P; i++) {
        size_t c = i / P, row = i % P / R, j = i % R;
        turned[c * P + j * N + row] = s.jacobian[i];
        single[c * P + j * N + row] = (float)s.jacobian[i];
        size = fmax(size, fabs(s.jacobian[i]));
    }
    double large[N * K], small[R * R];
    for (size_t i = 0; i < N * K; i++) {
        large[i] = s.large[i] * sqrt(8);
    }
    for (size_t i = 0; i < R * R; i++) {
        small[i] = s.small[i] / 4;
    }
    ck_assert(cr_laplace_factor_init(&s.factor, large, 0.125, small, 4));
    s.factor.small_first = true;
    cr_laplace_var_add_f64(&s.factor, s.s2, turned, P, C, scratch, var);
    cr_golden_expect(file, "f_var", var, C * C, 1e-10);
    memset(var, 0, sizeof var);
    cr_laplace_var_add_f32(&s.factor, s.s2, single, P, C, scratch, var);
    double want[C * C];
    cr_golden_fill(file, "f_var", want, C * C);
    for (size_t i = 0; i < C * C; i++) {
        ck_assert_double_eq_tol(var[i], want[i], 2 * s.s2 * P * size * size * 0x1p-23);
    }
    json_decref(file);
}
END_TEST

/* precision [P][P] = Large kron Small + I / s2 in the order of the stored Jacobian. */
static void dense_precision(const struct stored *s, double s2, double *precision)
{
    for (size_t i = 0; i < P * P; i++) {
        size_t a = i / P, b = i % P;
        double sum = 0;
        for (size_t k = 0; k < K; k++) {
            sum += s->large[a / R * K + k] * s->large[b / R * K + k];
        }
        precision[i] = sum * s->small[a % R * R + b % R] + (a == b ? 1 / s2 : 0);
    }
}

/* Columns of very different size, one twice: against the inverse of the dense precision, J P^-1 J^T = X^T X with
 * L X = J^T. Accuracy: 2^-52 times the condition of P, below 1e4 here, and some. */
START_TEST(uneven_columns)
{
    struct stored s;
    json_t *file = setup(&s);
    double precision[P * P], x[C][P], var[C * C] = {0}, want[C * C] = {0}, scratch[(C + 1) * K * R];
    for (size_t i = 0; i < N; i++) {
        s.large[i * K] *= 10;
        s.large[i * K + 1] = s.large[i * K];
        s.large[i * K + 2] *= 0.2;
    }
    dense_precision(&s, s.s2, precision);
    ck_assert(cr_dense_cholesky(precision, P) && cr_laplace_factor_init(&s.factor, s.large, 1, s.small, 1));
    for (size_t i = 0; i < C * P; i++) {
        size_t c = i / P, row = i % P;
        x[c][row] = s.jacobian[i];
        for (size_t j = 0; j < row; j++) {
            x[c][row] -= precision[row * P + j] * x[c][j];
        }
        x[c][row] /= precision[row * P + row];
        for (size_t d = 0; row == P - 1 && d <= c; d++) {
            for (size_t j = 0; j < P; j++) {
                want[c * C + d] += x[c][j] * x[d][j];
            }
            want[d * C + c] = want[c * C + d];
        }
    }
    cr_laplace_var_add_f64(&s.factor, s.s2, s.jacobian, P, C, scratch, var);
    cr_golden_near("variance", var, want, C * C, 1e-10);
    ck_assert(s.large_values[1] < 1e-3 * s.large_values[0] && s.large_values[1] > 0 && s.large_values[2] == 0);
    json_decref(file);
}
END_TEST

/* A draw is P^-1/2 of the normals: its matrix, column by column, squared times P is I; for both layouts. */
START_TEST(weight_draws)
{
    struct stored s;
    json_t *file = setup(&s);
    double precision[P * P], root[P * P], scratch[2 * K * R], mean[P], zero[P] = {0};
    dense_precision(&s, s.s2, precision);
    for (size_t i = 0; i < P; i++) {
        double out[P] = {0};
        out[i] = 1;
        cr_laplace_draw_f64(&s.factor, s.s2, zero, scratch, out);
        for (size_t j = 0; j < P; j++) {
            root[j * P + i] = out[j];
            mean[j] = (double)j;
        }
    }
    for (size_t i = 0; i < P * P; i++) {
        double sum = 0;
        for (size_t j = 0; j < P * P; j++) {
            sum += precision[i / P * P + j / P] * root[j / P * P + j % P] * root[j % P * P + i % P];
        }
        ck_assert_double_eq_tol(sum, i / P == i % P, 1e-12);
    }
    double z[P], turned[P], mean_turned[P];
    float single[P], mean_single[P];
    for (size_t i = 0; i < P; i++) {
        size_t at = i % R * N + i / R;
        z[i] = sin((double)i);
        turned[at] = z[i], mean_turned[at] = mean[i], single[i] = (float)z[i], mean_single[i] = (float)mean[i];
    }
    cr_laplace_draw_f64(&s.factor, s.s2, mean, scratch, z);
    cr_laplace_draw_f32(&s.factor, s.s2, mean_single, scratch, single);
    s.factor.small_first = true;
    cr_laplace_draw_f64(&s.factor, s.s2, mean_turned, scratch, turned);
    for (size_t i = 0; i < P; i++) {
        ck_assert_double_eq_tol(turned[i % R * N + i / R], z[i], 1e-14 * 10);
        ck_assert_double_eq_tol((double)single[i], z[i], 16 * 0x1p-24 * 10);
    }
    json_decref(file);
}
END_TEST

START_TEST(stored_draws)
{
    struct stored s;
    json_t *file = setup(&s);
    double mean[C], var[C * C], z[4 * C], sampled[4 * C], probs[C], want[C], middle[C] = {0};
    cr_golden_fill(file, "f_mu", mean, C);
    cr_golden_fill(file, "f_var", var, C * C);
    cr_golden_fill(file, "z", z, 4 * C);
    cr_golden_fill(file, "sampled_logits", sampled, 4 * C);
    cr_laplace_probit(mean, var, C, probs);
    cr_golden_expect(file, "probit_multiclass", probs, C, 1e-10);
    ck_assert_double_eq(cr_laplace_factor_var(var, C), cr_golden_number(file, "jitter"));
    for (size_t i = 0; i < 4; i++) {
        cr_laplace_predict(mean, var, C, z + i * C, NULL, NULL, 1, probs, NULL);
        cr_softmax(sampled + i * C, C, want);
        cr_golden_near("softmax of a stored draw", probs, want, C, 1e-10);
        for (size_t c = 0; c < C; c++) {
            middle[c] += z[i * C + c] / 4;
        }
    }
    cr_laplace_predict(mean, var, C, z, NULL, NULL, 4, probs, NULL);
    cr_golden_expect(file, "mean_softmax", probs, C, 1e-10);
    cr_laplace_predict(mean, var, C, middle, NULL, NULL, 1, probs, NULL); /* logits are linear in z */
    cr_golden_expect(file, "softmax_of_mean_logits", probs, C, 1e-10);
    json_decref(file);
}
END_TEST

/* Our own draws: two classes, difference of logits N(m, v); the mean of its sigmoid by the trapezoid rule. Five
 * standard errors of numbers in [0, 1]. Draws are the same in any call, others for another example. */
START_TEST(own_draws)
{
    enum { DRAWS = 40000 };
    struct cr_rng_ops ops;
    ck_assert_int_eq(cr_rng_ops_init(&ops, CR_TIER_SCALAR), CR_OK);
    double mean[2] = {1.5, -0.5}, var[4] = {2, 0.5, 0.5, 3}, probs[2], again[2], want = 0;
    double m = mean[0] - mean[1], deviation = sqrt(var[0] + var[3] - 2 * var[1]);
    for (int i = -8000; i <= 8000; i++) {
        double x = i * 1e-3;
        want += 1e-3 * exp(-0.5 * x * x) / sqrt(2 * acos(-1)) / (1 + exp(-(m + deviation * x)));
    }
    ck_assert_double_eq(cr_laplace_factor_var(var, 2), 1e-6);
    struct cr_noise noise = {.key = {1, 2}, .tensor = 3};
    cr_laplace_predict(mean, var, 2, NULL, &noise, &ops, DRAWS, probs, NULL);
    ck_assert_double_eq_tol(probs[0], want, 5 * 0.5 / sqrt(DRAWS));
    ck_assert_double_eq_tol(probs[0] + probs[1], 1, 1e-12);
    cr_laplace_predict(mean, var, 2, NULL, &noise, &ops, DRAWS, again, NULL);
    ck_assert_mem_eq(again, probs, sizeof probs);
    noise.tensor = 4;
    cr_laplace_predict(mean, var, 2, NULL, &noise, &ops, DRAWS, again, NULL);
    ck_assert(again[0] != probs[0]);
    double flat[4] = {0}, wild[4] = {-5, 0, 0, 1}, slight[4] = {1, 1 + 1e-5, 1 + 1e-5, 1};
    ck_assert_double_eq(cr_laplace_factor_var(flat, 2), 1e-6); /* no uncertainty: the softmax of the mean, nearly */
    ck_assert_double_eq(cr_laplace_factor_var(wild, 2), 0);
    ck_assert_double_eq_tol(cr_laplace_factor_var(slight, 2), 1e-4, 1e-18);
}
END_TEST

enum { LARGE = 37, COLUMNS = 6, ROWS = 70 };

static float rows[ROWS * LARGE];
static double large[LARGE * COLUMNS], moment[LARGE * LARGE], vectors[LARGE * LARGE], eigenvalues[LARGE];
static double scratch[LARGE * (COLUMNS + CR_LAPLACE_BLOCK) + 4000];

/* Rows that are mixtures of `rank` directions, and weight times their second moment. */
static void make_rows(uint64_t stream, size_t n_rows, size_t rank, double weight)
{
    struct cr_rng rng = cr_rng_make(stream);
    float directions[ROWS * LARGE];
    cr_fill_f32(&rng, directions, rank * LARGE, -1, 1);
    memset(rows, 0, sizeof rows);
    memset(moment, 0, sizeof moment);
    memset(large, 0, sizeof large);
    for (size_t t = 0; t < n_rows; t++) {
        for (size_t d = 0; d < rank; d++) { /* with eighths everything is exact */
            float share = (float)(cr_rng_below(&rng, 17)) / 8 - 1;
            for (size_t i = 0; i < LARGE; i++) {
                rows[t * LARGE + i] += share * roundf(directions[d * LARGE + i] * 64) / 64;
            }
        }
        for (size_t i = 0; i < LARGE * LARGE; i++) {
            moment[i] += weight * (double)rows[t * LARGE + i / LARGE] * (double)rows[t * LARGE + i % LARGE];
        }
    }
}

static double product(size_t i, size_t j)
{
    double sum = 0;
    for (size_t k = 0; k < COLUMNS; k++) {
        sum += large[i * COLUMNS + k] * large[j * COLUMNS + k];
    }
    return sum;
}

/* As many dimensions as columns: nothing is lost, over several blocks and calls. */
START_TEST(incremental_exact)
{
    ck_assert_uint_le(cr_laplace_scratch(LARGE, COLUMNS), sizeof scratch / sizeof *scratch);
    make_rows(90, ROWS, COLUMNS, 0.3);
    ck_assert(cr_laplace_large_add(large, LARGE, COLUMNS, rows, 50, 0.3, scratch));
    ck_assert(cr_laplace_large_add(large, LARGE, COLUMNS, rows + 50 * LARGE, ROWS - 50, 0.3, scratch));
    ck_assert(cr_laplace_large_add(large, LARGE, COLUMNS, rows, 0, 1, scratch));
    double size = 0;
    for (size_t i = 0; i < LARGE * LARGE; i++) {
        size = fmax(size, fabs(moment[i]));
    }
    for (size_t i = 0; i < LARGE * LARGE; i++) { /* squares of 2^-50 relative accuracy, four rounds */
        ck_assert_double_eq_tol(product(i / LARGE, i % LARGE), moment[i], 1e-12 * size * COLUMNS);
    }
}
END_TEST

/* One block: the best approximation of its moment, so what is left over is the tail of the spectrum. Over several
 * blocks never more than the moment itself, and most of its trace. */
START_TEST(incremental_best)
{
    make_rows(91, CR_LAPLACE_BLOCK, 20, 1);
    ck_assert(cr_laplace_large_add(large, LARGE, COLUMNS, rows, CR_LAPLACE_BLOCK, 1, scratch));
    static double copy[LARGE * LARGE];
    memcpy(copy, moment, sizeof copy);
    ck_assert(cr_dense_eigen(copy, LARGE, eigenvalues, vectors));
    for (size_t i = 0; i < LARGE * LARGE; i++) {
        double best = 0;
        for (size_t k = 0; k < COLUMNS; k++) {
            best += eigenvalues[k] * vectors[i / LARGE * LARGE + k] * vectors[i % LARGE * LARGE + k];
        }
        ck_assert_double_eq_tol(product(i / LARGE, i % LARGE), best, 1e-10 * eigenvalues[0]);
    }
    make_rows(92, ROWS, 20, 1);
    ck_assert(cr_laplace_large_add(large, LARGE, COLUMNS, rows, ROWS, 1, scratch));
    double trace = 0, kept = 0;
    for (size_t i = 0; i < LARGE; i++) {
        trace += moment[i * LARGE + i], kept += product(i, i);
    }
    for (size_t i = 0; i < LARGE * LARGE; i++) {
        copy[i] = moment[i] - product(i / LARGE, i % LARGE);
    }
    ck_assert(cr_dense_eigen(copy, LARGE, eigenvalues, vectors));
    ck_assert_double_ge(eigenvalues[LARGE - 1], -1e-10 * trace);
    ck_assert(kept < trace && kept > 0.5 * trace);
    rows[3] = NAN;
    ck_assert(!cr_laplace_large_add(large, LARGE, COLUMNS, rows, 1, 1, scratch));
}
END_TEST

START_TEST(small_factor)
{
    const float x[4] = {1, 2, -3, 0.5f};
    double small[4] = {100, 0, 0, 0};
    cr_laplace_small_add(small, 2, x, 2, 2);
    ck_assert_double_eq(small[0], 100 + 2 * (1 + 9));
    ck_assert_double_eq(small[1], 2 * (2 - 1.5));
    ck_assert_double_eq(small[2], small[1]);
    ck_assert_double_eq(small[3], 2 * (4 + 0.25));
}
END_TEST

/* Dense determinant by Cholesky; the best precision beats its neighbours and makes the slope vanish. */
START_TEST(evidence)
{
    struct stored s;
    json_t *file = setup(&s);
    double values[K * R + 2] = {0}, norm2 = 0.7, precision[P * P];
    cr_laplace_spectrum(&s.factor, values); /* two zeros more: directions that nothing is known about */
    for (double s2 = 0.01; s2 < 100; s2 *= 7) {
        dense_precision(&s, s2, precision);
        ck_assert(cr_dense_cholesky(precision, P));
        double log_det = P * log(s2);
        for (size_t i = 0; i < P; i++) {
            log_det += 2 * log(precision[i * P + i]);
        }
        ck_assert_double_eq_tol(cr_laplace_log_det(values, K * R + 2, s2), log_det, 1e-12 * (1 + fabs(log_det)) * P);
        ck_assert_double_eq_tol(cr_laplace_evidence(values, K * R, norm2, -3, s2), -3 - 0.5 * (log_det + norm2 / s2),
                                1e-12 * (1 + fabs(log_det) + norm2 / s2) * P);
    }
    double p = cr_laplace_best_precision(values, K * R + 2, norm2), sum = 0;
    double best = cr_laplace_evidence(values, K * R + 2, norm2, 0, 1 / p);
    for (size_t i = 0; i < K * R; i++) {
        sum += values[i] / (values[i] + p);
    }
    ck_assert_double_eq_tol(sum, p * norm2, 1e-12 * sum);
    for (double step = 1.01; step < 1e4; step *= 3) {
        ck_assert(cr_laplace_evidence(values, K * R, norm2, 0, 1 / (p * step)) < best);
        ck_assert(cr_laplace_evidence(values, K * R, norm2, 0, step / p) < best);
    }
    ck_assert_double_eq_tol(cr_laplace_best_precision(values, K * R, 0), 1e8,
                            1); /* weights of zero: as narrow as it goes */
    ck_assert_double_eq_tol(cr_laplace_best_precision(values, 0, 1), 1e-8, 1e-16);
    const double tiny = 1e-20;
    ck_assert_double_eq_tol(cr_laplace_log_det(&tiny, 1, 2), 2e-20, 1e-34);
    json_decref(file);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("laplace");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, stored_variance);
    tcase_add_test(all, layouts);
    tcase_add_test(all, uneven_columns);
    tcase_add_test(all, weight_draws);
    tcase_add_test(all, stored_draws);
    tcase_add_test(all, own_draws);
    tcase_add_test(all, incremental_exact);
    tcase_add_test(all, incremental_best);
    tcase_add_test(all, small_factor);
    tcase_add_test(all, evidence);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
