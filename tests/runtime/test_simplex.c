/* Simplex: stored mixtures, prefix gradients and cosine terms; moments and independence of the draws; equal vertices.
 */
#include <math.h>
#include <string.h>

#include "runtime/model/simplex.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_test.h"

enum { M = 3, ROWS = 2, DH = 4, T = 3, N = ROWS * DH, KEYS = ROWS + T };

static double vertex_k[M][N], vertex_v[M][N], lambda[M];

static json_t *setup(void)
{
    json_t *file = cr_golden_load("prefix_subspace.json");
    double flat[M * N], e[M];
    cr_golden_fill(file, "vertices_K", flat, M * N);
    memcpy(vertex_k, flat, sizeof flat);
    cr_golden_fill(file, "vertices_V", flat, M * N);
    memcpy(vertex_v, flat, sizeof flat);
    cr_golden_fill(file, "exponential_draws", e, M);
    cr_simplex_normalise(e, M, lambda);
    return file;
}

START_TEST(stored_mixtures)
{
    json_t *file = setup();
    const double *k[M] = {vertex_k[0], vertex_k[1], vertex_k[2]}, *v[M] = {vertex_v[0], vertex_v[1], vertex_v[2]};
    double out[N], centroid[M];
    cr_golden_expect(file, "lambda_", lambda, M, 1e-10);
    cr_simplex_mix_f64(lambda, k, M, N, out);
    cr_golden_expect(file, "prefix_K", out, N, 1e-10);
    cr_simplex_mix_f64(lambda, v, M, N, out);
    cr_golden_expect(file, "prefix_V", out, N, 1e-10);
    cr_simplex_centroid(M, centroid);
    cr_simplex_mix_f64(centroid, k, M, N, out);
    cr_golden_expect(file, "centroid_K", out, N, 1e-10);
    cr_simplex_mix_f64(centroid, v, M, N, out);
    cr_golden_expect(file, "centroid_V", out, N, 1e-10);
    json_decref(file);
}
END_TEST

/* One head in double: keys and values are ROWS prefix rows and T tokens; token t sees the prefix and tokens 0 ... t.
 * Returns the output; with d_out also the gradients of the prefix. */
static void attend(double (*q)[DH], double (*k)[DH], double (*v)[DH], double (*out)[DH], double (*d_out)[DH],
                   double *d_prefix_k, double *d_prefix_v)
{
    for (size_t t = 0; t < T; t++) {
        double p[KEYS], sum = 0, d_p[KEYS], d_mean = 0;
        for (size_t j = 0; j <= ROWS + t; j++) {
            double dot = 0;
            for (size_t i = 0; i < DH; i++) {
                dot += q[t][i] * k[j][i];
            }
            p[j] = exp(dot / sqrt(DH));
            sum += p[j];
        }
        memset(out[t], 0, sizeof out[t]);
        for (size_t j = 0; j <= ROWS + t; j++) {
            p[j] /= sum;
            d_p[j] = 0;
            for (size_t i = 0; i < DH; i++) {
                out[t][i] += p[j] * v[j][i];
                d_p[j] += d_out[t][i] * v[j][i];
            }
            d_mean += p[j] * d_p[j];
        }
        for (size_t j = 0; j < ROWS; j++) {
            for (size_t i = 0; i < DH; i++) {
                d_prefix_v[j * DH + i] += p[j] * d_out[t][i];
                d_prefix_k[j * DH + i] += p[j] * (d_p[j] - d_mean) * q[t][i] / sqrt(DH);
            }
        }
    }
}

START_TEST(stored_gradients)
{
    json_t *file = setup();
    const double *mixed[2][M] = {{vertex_k[0], vertex_k[1], vertex_k[2]}, {vertex_v[0], vertex_v[1], vertex_v[2]}};
    double q[T][DH], k[KEYS][DH], v[KEYS][DH], out[T][DH], d_out[T][DH], d_k[N] = {0}, d_v[N] = {0};
    double got[2][M][N] = {{{0}}};
    cr_golden_fill(file, "Q", q[0], T * DH);
    cr_golden_fill(file, "K", k[ROWS], T * DH);
    cr_golden_fill(file, "V", v[ROWS], T * DH);
    cr_golden_fill(file, "dO", d_out[0], T * DH);
    cr_simplex_mix_f64(lambda, mixed[0], M, N, k[0]);
    cr_simplex_mix_f64(lambda, mixed[1], M, N, v[0]);
    attend(q, k, v, out, d_out, d_k, d_v);
    cr_golden_expect(file, "O", out[0], T * DH, 1e-10);
    double *to_k[M] = {got[0][0], got[0][1], got[0][2]}, *to_v[M] = {got[1][0], got[1][1], got[1][2]};
    cr_simplex_scatter_f64(lambda, d_k, M, N, to_k);
    cr_simplex_scatter_f64(lambda, d_v, M, N, to_v);
    cr_golden_expect(file, "d_vertices_K", got[0][0], M * N, 1e-10);
    cr_golden_expect(file, "d_vertices_V", got[1][0], M * N, 1e-10);
    cr_simplex_scatter_f64(lambda, d_k, M, N, to_k); /* adds */
    for (size_t i = 0; i < M * N; i++) {
        double want = 2 * lambda[i / N] * d_k[i % N];
        ck_assert_double_eq_tol(got[0][i / N][i % N], want, 1e-15 * fabs(want));
    }
    json_decref(file);
}
END_TEST

static double cosine(size_t i, size_t j, struct cr_simplex_dots *dots)
{
    *dots = (struct cr_simplex_dots){0};
    cr_simplex_dots_f64(vertex_k[i], vertex_k[j], N, dots);
    cr_simplex_dots_f64(vertex_v[i], vertex_v[j], N, dots);
    return cr_simplex_cos2(dots);
}

START_TEST(stored_cosine)
{
    json_t *file = setup();
    const json_t *want = cr_golden_get(file, "cosine_regulariser");
    struct cr_simplex_dots dots;
    double pair[2], du[2 * N] = {0}, dv[2 * N] = {0}, mean = 0;
    cr_golden_fill(want, "pair", pair, 2);
    size_t i = (size_t)pair[0], j = (size_t)pair[1];
    double value = cosine(i, j, &dots);
    cr_golden_expect(want, "value", &value, 1, 1e-10);
    for (int part = 0; part < 2; part++) {
        cr_simplex_cos2_grad_f64(&dots, 1, part == 0 ? vertex_k[i] : vertex_v[i], part == 0 ? vertex_k[j] : vertex_v[j],
                                 N, du + part * N, dv + part * N);
    }
    cr_golden_expect(want, "grad_i", du, 2 * N, 1e-10);
    cr_golden_expect(want, "grad_j", dv, 2 * N, 1e-10);
    for (i = 0; i < M; i++) {
        for (j = i + 1; j < M; j++) {
            mean += cosine(i, j, &dots) / (M * (M - 1) / 2);
        }
    }
    cr_golden_expect(want, "all_pairs_mean", &mean, 1, 1e-10);
    json_decref(file);
}
END_TEST

/* No direction in a zero vector: value and gradients 0. Parallel vectors: 1, and no gradient left. */
START_TEST(cosine_edges)
{
    double zero[2] = {0}, u[2] = {3, 4}, v[2] = {-6, -8}, du[2] = {0}, dv[2] = {0};
    struct cr_simplex_dots dots = {0};
    cr_simplex_dots_f64(zero, u, 2, &dots);
    ck_assert_double_eq(cr_simplex_cos2(&dots), 0);
    cr_simplex_cos2_grad_f64(&dots, 1, zero, u, 2, du, dv);
    ck_assert(du[0] == 0 && du[1] == 0 && dv[0] == 0 && dv[1] == 0);
    dots = (struct cr_simplex_dots){0};
    cr_simplex_dots_f64(u, v, 2, &dots);
    ck_assert_double_eq(cr_simplex_cos2(&dots), 1);
    cr_simplex_cos2_grad_f64(&dots, 1, u, v, 2, du, dv);
    ck_assert(du[0] == 0 && du[1] == 0 && dv[0] == 0 && dv[1] == 0);
}
END_TEST

/* f32 storage against double: numbers exact in both, results rounded once (and sums once more). */
START_TEST(single_precision)
{
    enum { V = 5, LENGTH = 37 };
    struct cr_rng rng = cr_rng_make(50);
    static float x[V][LENGTH], g[LENGTH], dx[V][LENGTH], out[LENGTH], du[2][LENGTH];
    static double xd[V][LENGTH], gd[LENGTH], dxd[V][LENGTH], outd[LENGTH], dud[2][LENGTH];
    const float *in[V];
    const double *ind[V];
    float *to[V];
    double *tod[V], weights[V];
    cr_fill_f32(&rng, g, LENGTH, -1, 1);
    for (size_t j = 0; j < V; j++) {
        cr_fill_f32(&rng, x[j], LENGTH, -1, 1);
        in[j] = x[j], ind[j] = xd[j], to[j] = dx[j], tod[j] = dxd[j];
        for (size_t i = 0; i < LENGTH; i++) {
            xd[j][i] = (double)x[j][i], gd[i] = (double)g[i];
        }
    }
    cr_simplex_weights(&(struct cr_simplex_point){.seed = 3}, V, weights);
    cr_simplex_mix_f32(weights, in, V, LENGTH, out);
    cr_simplex_mix_f64(weights, ind, V, LENGTH, outd);
    cr_simplex_scatter_f32(weights, g, V, LENGTH, to);
    cr_simplex_scatter_f64(weights, gd, V, LENGTH, tod);
    struct cr_simplex_dots dots = {0}, same = {0};
    cr_simplex_dots_f32(x[0], x[1], LENGTH, &dots);
    cr_simplex_dots_f64(xd[0], xd[1], LENGTH, &same);
    ck_assert_mem_eq(&dots, &same, sizeof dots);
    cr_simplex_cos2_grad_f32(&dots, 2, x[0], x[1], LENGTH, du[0], du[1]);
    cr_simplex_cos2_grad_f64(&dots, 2, xd[0], xd[1], LENGTH, dud[0], dud[1]);
    for (size_t i = 0; i < LENGTH; i++) {
        ck_assert(out[i] == (float)outd[i] && du[0][i] == (float)dud[0][i] && du[1][i] == (float)dud[1][i]);
        for (size_t j = 0; j < V; j++) {
            ck_assert(dx[j][i] == (float)dxd[j][i]);
        }
    }
}
END_TEST

/* With equal vertices the point does not matter: weights sum to 1 within a rounding each. */
START_TEST(equal_vertices)
{
    struct cr_rng rng = cr_rng_make(51);
    float w[16];
    const float *same[9] = {w, w, w, w, w, w, w, w, w};
    cr_fill_f32(&rng, w, 16, -1, 1);
    for (uint32_t m = 1; m <= 9; m++) {
        for (uint32_t e = 0; e < 20; e++) {
            double weights[9];
            float out[16];
            cr_simplex_weights(&(struct cr_simplex_point){.seed = 9, .example = e}, m, weights);
            cr_simplex_mix_f32(weights, same, m, 16, out);
            for (size_t i = 0; i < 16; i++) {
                ck_assert_float_eq_tol(out[i], w[i], 0x1p-23f * fabsf(w[i]));
            }
            ck_assert(m > 1 || weights[0] == 1);
        }
    }
}
END_TEST

/* Dirichlet(1, ..., 1): mean 1/m, variance (m-1) / (m^2 (m+1)), covariance -1 / (m^2 (m+1)). The tolerance is five
 * standard errors; the fourth moments that they need are bounded by those of numbers in [0, 1]. */
START_TEST(moments)
{
    enum { DRAWS = 40000, MOST = 5 };
    for (size_t m = 2; m <= MOST; m++) {
        double mean[MOST] = {0}, second[MOST][MOST] = {{0}}, size = (double)m;
        for (uint32_t s = 0; s < DRAWS; s++) { /* examples and layers both vary */
            double w[MOST];
            struct cr_simplex_point point = {.seed = 77, .stream = 1, .example = s / 8, .layer = s % 8};
            cr_simplex_weights(&point, m, w);
            double sum = 0;
            for (size_t i = 0; i < m; i++) {
                sum += w[i];
                mean[i] += w[i] / DRAWS;
                for (size_t j = 0; j < m; j++) {
                    second[i][j] += w[i] * w[j] / DRAWS;
                }
            }
            ck_assert_double_eq_tol(sum, 1, 1e-15 * size);
        }
        double variance = (size - 1) / (size * size * (size + 1));
        double slack = 5 * sqrt(2 / (size * (size + 1)) / DRAWS); /* Var(w_i w_j) <= E w_i^2 = 2 / (m (m + 1)) */
        for (size_t i = 0; i < m; i++) {
            ck_assert_double_eq_tol(mean[i], 1 / size, 5 * sqrt(variance / DRAWS));
            for (size_t j = 0; j < m; j++) {
                ck_assert_double_eq_tol(second[i][j], (i == j ? 2 : 1) / (size * (size + 1)), slack);
            }
        }
    }
}
END_TEST

/* Points that differ in any field, in the low or in the high word of the seed, are uncorrelated: the sum of n products
 * of centred weights of three vertices (variance 1/18) has standard deviation sqrt(n) / 18. Equal points are equal. */
START_TEST(independence)
{
    enum { DRAWS = 20000 };
    const struct cr_simplex_point steps[] = {{.seed = 1}, {.seed = UINT64_C(1) << 32}, {.stream = 1},
                                             {.draw = 1}, {.example = DRAWS},          {.layer = 1}};
    for (size_t c = 0; c < sizeof steps / sizeof *steps; c++) {
        double sum = 0;
        for (uint32_t s = 0; s < DRAWS; s++) {
            double a[M], b[M];
            struct cr_simplex_point point = {.seed = 5, .stream = 2, .draw = 3, .example = s, .layer = 4};
            cr_simplex_weights(&point, M, a);
            cr_simplex_weights(&point, M, b);
            ck_assert_mem_eq(a, b, sizeof a);
            point.seed += steps[c].seed, point.stream += steps[c].stream, point.draw += steps[c].draw;
            point.example += steps[c].example, point.layer += steps[c].layer;
            cr_simplex_weights(&point, M, b);
            sum += (a[0] - 1.0 / M) * (b[0] - 1.0 / M);
        }
        ck_assert_double_le(fabs(sum), 5 * sqrt(DRAWS) / 18);
    }
}
END_TEST

/* Every pair of four equally often: five standard deviations of a binomial count. */
START_TEST(pairs)
{
    enum { DRAWS = 12000 };
    unsigned count[4][4] = {{0}};
    for (uint32_t s = 0; s < DRAWS; s++) {
        size_t i, j;
        cr_simplex_pair(&(struct cr_simplex_point){.seed = 6, .draw = s}, 4, &i, &j);
        ck_assert(i < j && j < 4);
        count[i][j]++;
    }
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = i + 1; j < 4; j++) {
            ck_assert_double_eq_tol(count[i][j], DRAWS / 6.0, 5 * sqrt(DRAWS * 5 / 36.0));
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("simplex");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, stored_mixtures);
    tcase_add_test(all, stored_gradients);
    tcase_add_test(all, stored_cosine);
    tcase_add_test(all, cosine_edges);
    tcase_add_test(all, single_precision);
    tcase_add_test(all, equal_vertices);
    tcase_add_test(all, moments);
    tcase_add_test(all, independence);
    tcase_add_test(all, pairs);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
