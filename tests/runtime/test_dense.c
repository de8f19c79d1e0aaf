/* Dense: reconstruction, orthogonality and order of the decompositions, known cases, degenerate and refused matrices.
 */
#include <check.h>
#include <math.h>
#include <string.h>

#include "runtime/posterior/dense.h"
#include "tests/support/kernel_test.h"

enum { MOST = 45 };

static double a[MOST * MOST], kept[MOST * MOST], v[MOST * MOST], values[MOST];

static void fill(struct cr_rng *rng, double *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = (double)cr_rng_uniform(rng, -1, 1);
    }
}

/* kept = X X^T / m of X [n][m]: positive definite for m >= n, of rank m below. */
static void covariance(struct cr_rng *rng, size_t n, size_t m)
{
    fill(rng, v, n * m);
    for (size_t i = 0; i < n * n; i++) {
        kept[i] = 0;
        for (size_t k = 0; k < m; k++) {
            kept[i] += v[i / n * m + k] * v[i % n * m + k] / (double)m;
        }
    }
    memcpy(a, kept, n * n * sizeof *a);
}

static double norm(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += x[i] * x[i];
    }
    return sqrt(sum);
}

START_TEST(cholesky)
{
    struct cr_rng rng = cr_rng_make(80);
    for (size_t n = 1; n <= 20; n++) {
        covariance(&rng, n, n + 5);
        for (size_t i = 0; i < n; i++) {
            for (size_t j = i + 1; j < n; j++) {
                a[i * n + j] = (double)NAN; /* is not read */
            }
        }
        ck_assert(cr_dense_cholesky(a, n));
        for (size_t i = 0; i < n * n; i++) {
            double sum = 0;
            for (size_t k = 0; k < n; k++) {
                sum += a[i / n * n + k] * a[i % n * n + k];
            }
            ck_assert_double_eq_tol(sum, kept[i], (double)n * 0x1p-50);
            ck_assert(i % n <= i / n || a[i] == 0);
        }
    }
    double bad[3][4] = {{1, 2, 2, 1}, {0, 0, 0, 0}, {1, (double)NAN, (double)NAN, 1}};
    double large[4] = {(double)INFINITY, 0, 0, 1};
    for (int i = 0; i < 3; i++) {
        ck_assert(!cr_dense_cholesky(bad[i], 2));
    }
    ck_assert(!cr_dense_cholesky(large, 2));
    ck_assert(cr_dense_cholesky(large, 0));
}
END_TEST

/* V^T V = I. */
static void check_orthogonal(const double *x, size_t m, size_t n, double slack)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            for (size_t k = 0; k < m; k++) {
                sum += x[k * n + i] * x[k * n + j];
            }
            ck_assert_double_eq_tol(sum, i == j, slack);
        }
    }
}

START_TEST(eigen)
{
    struct cr_rng rng = cr_rng_make(81);
    for (size_t n = 1; n <= MOST; n += n < 6 ? 1 : 13) {
        for (int kind = 0; kind < 3; kind++) { /* definite, of half the rank, indefinite */
            covariance(&rng, n, kind == 1 ? (n + 1) / 2 : n);
            for (size_t i = 0; i < n && kind == 2; i++) {
                a[i * n + i] = kept[i * n + i] -= 1;
            }
            double slack = (double)n * 0x1p-50;
            ck_assert(cr_dense_eigen(a, n, values, v));
            check_orthogonal(v, n, n, slack);
            for (size_t i = 0; i < n * n; i++) {
                double sum = 0;
                for (size_t k = 0; k < n; k++) {
                    sum += v[i / n * n + k] * values[k] * v[i % n * n + k];
                }
                ck_assert(i == 0 || i >= n || values[i] <= values[i - 1]);
                ck_assert_double_eq_tol(sum, kept[i], slack * (1 + norm(kept, n * n)));
            }
        }
    }
    double two[4] = {2, 1, 1, 2}, nan[4] = {1, (double)NAN, (double)NAN, 1}, same[9] = {3, 0, 0, 0, 3, 0, 0, 0, 3};
    ck_assert(cr_dense_eigen(two, 2, values, v));
    ck_assert_double_eq_tol(values[0], 3, 1e-15);
    ck_assert_double_eq_tol(values[1], 1, 1e-15);
    ck_assert(!cr_dense_eigen(nan, 2, values, v));
    ck_assert(cr_dense_eigen(same, 3, values, v) && values[0] == 3 && values[2] == 3);
}
END_TEST

/* a = (U d) V^T, with columns in order of d; also far below the size of a square matrix's rank. */
START_TEST(svd)
{
    static const size_t shapes[][3] = {{1, 1, 1}, {4, 2, 2}, {7, 7, 7}, {40, 8, 8}, {30, 6, 3}, {45, 16, 16}};
    struct cr_rng rng = cr_rng_make(82);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        size_t m = shapes[s][0], n = shapes[s][1], rank = shapes[s][2];
        fill(&rng, a, m * n);
        for (size_t i = 0; i < m * n;
             i++) { /* columns from `rank` on repeat the first ones, each column its own size */
            a[i] = i % n >= rank ? a[i / n * n + i % n - rank] : a[i] * pow(10, -(double)(i % n));
        }
        memcpy(kept, a, m * n * sizeof *a);
        double slack = 0x1p-48 * norm(kept, m * n);
        ck_assert(cr_dense_svd(a, m, n, values, v));
        check_orthogonal(v, n, n, 0x1p-46);
        for (size_t i = 0; i < m * n; i++) {
            double sum = 0;
            for (size_t k = 0; k < n; k++) {
                sum += a[i / n * n + k] * v[i % n * n + k];
            }
            ck_assert_double_eq_tol(sum, kept[i], slack);
        }
        for (size_t p = 0; p < n; p++) {
            ck_assert(p == 0 || values[p] <= values[p - 1]);
            for (size_t q = 0; q <= p; q++) {
                double sum = 0;
                for (size_t i = 0; i < m; i++) {
                    sum += a[i * n + p] * a[i * n + q];
                }
                ck_assert_double_eq_tol(sum, p == q ? values[p] * values[p] : 0, slack * slack + slack * values[q]);
            }
            ck_assert(p < rank || values[p] <= slack);
        }
    }
    double bad[2] = {(double)INFINITY, 1}, zero[4] = {0};
    ck_assert(!cr_dense_svd(bad, 2, 1, values, v));
    ck_assert(cr_dense_svd(zero, 2, 2, values, v) && values[0] == 0 && values[1] == 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dense");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, cholesky);
    tcase_add_test(all, eigen);
    tcase_add_test(all, svd);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
