#include "runtime/posterior/dense.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Both Jacobi methods converge quadratically after a few sweeps: ten are many. */
enum { MOST_SWEEPS = 40 };

bool cr_dense_cholesky(double *a, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j <= i; j++) {
            double sum = a[i * n + j];
            for (size_t k = 0; k < j; k++) {
                sum -= a[i * n + k] * a[j * n + k];
            }
            if (i == j && !(sum > 0 && sum <= DBL_MAX)) {
                return false;
            }
            a[i * n + j] = i == j ? sqrt(sum) : sum / a[j * n + j];
        }
        memset(a + i * n + i + 1, 0, (n - i - 1) * sizeof *a);
    }
    return true;
}

/* Cosine and sine of the rotation that makes the off-diagonal `off` of [[app, off], [off, aqq]] zero. */
static void rotation(double app, double aqq, double off, double *c, double *s)
{
    double tau = (aqq - app) / (2 * off);
    double t = (tau >= 0 ? 1 : -1) / (fabs(tau) + sqrt(1 + tau * tau));
    *c = 1 / sqrt(1 + t * t);
    *s = t * *c;
}

/* Columns p and q of a [m][n] turned: (x, y) <- (c x - s y, s x + c y). */
static void turn_columns(double *a, size_t m, size_t n, size_t p, size_t q, double c, double s)
{
    for (size_t i = 0; i < m; i++) {
        double x = a[i * n + p], y = a[i * n + q];
        a[i * n + p] = c * x - s * y;
        a[i * n + q] = s * x + c * y;
    }
}

static void turn_rows(double *a, size_t n, size_t p, size_t q, double c, double s)
{
    for (size_t i = 0; i < n; i++) {
        double x = a[p * n + i], y = a[q * n + i];
        a[p * n + i] = c * x - s * y;
        a[q * n + i] = s * x + c * y;
    }
}

static void identity(double *a, size_t n)
{
    memset(a, 0, n * n * sizeof *a);
    for (size_t i = 0; i < n; i++) {
        a[i * n + i] = 1;
    }
}

static void swap_columns(double *a, size_t m, size_t n, size_t p, size_t q)
{
    for (size_t i = 0; i < m; i++) {
        double x = a[i * n + p];
        a[i * n + p] = a[i * n + q];
        a[i * n + q] = x;
    }
}

/* Largest first, the columns of v [n][n] and (not NULL) a [m][n] along with them. */
static void order(double *values, double *v, double *a, size_t m, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t best = i;
        for (size_t j = i + 1; j < n; j++) {
            best = values[j] > values[best] ? j : best;
        }
        if (best != i) {
            double x = values[i];
            values[i] = values[best];
            values[best] = x;
            swap_columns(v, n, n, i, best);
            if (a != NULL) {
                swap_columns(a, m, n, i, best);
            }
        }
    }
}

static bool all_finite(const double *a, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += 0 * a[i];
    }
    return sum == 0;
}

bool cr_dense_eigen(double *a, size_t n, double *values, double *vectors)
{
    if (!all_finite(a, n * n)) {
        return false;
    }
    double norm2 = 0;
    for (size_t i = 0; i < n * n; i++) {
        norm2 += a[i] * a[i];
    }
    /* An off-diagonal element below this moves no eigenvalue by more than a rounding of the norm. */
    double least = 0x1p-54 * sqrt(norm2) / (double)(n > 0 ? n : 1);
    bool turned = true;
    identity(vectors, n);
    for (int sweep = 0; turned && sweep < MOST_SWEEPS; sweep++) {
        turned = false;
        for (size_t p = 0; p < n; p++) {
            for (size_t q = p + 1; q < n; q++) {
                double c, s, off = a[p * n + q];
                if (fabs(off) <= least) {
                    continue;
                }
                rotation(a[p * n + p], a[q * n + q], off, &c, &s);
                turn_columns(a, n, n, p, q, c, s);
                turn_rows(a, n, p, q, c, s);
                a[p * n + q] = a[q * n + p] = 0;
                turn_columns(vectors, n, n, p, q, c, s);
                turned = true;
            }
        }
    }
    for (size_t i = 0; i < n; i++) {
        values[i] = a[i * n + i];
    }
    order(values, vectors, NULL, 0, n);
    return true;
}

bool cr_dense_svd(double *a, size_t m, size_t n, double *d, double *v)
{
    if (!all_finite(a, m * n)) {
        return false;
    }
    bool turned = true;
    identity(v, n);
    for (int sweep = 0; turned && sweep < MOST_SWEEPS; sweep++) {
        turned = false;
        for (size_t p = 0; p < n; p++) {
            for (size_t q = p + 1; q < n; q++) {
                double c, s, pp = 0, qq = 0, pq = 0;
                for (size_t i = 0; i < m; i++) {
                    double x = a[i * n + p], y = a[i * n + q];
                    pp += x * x, qq += y * y, pq += x * y;
                }
                if (fabs(pq) <= 0x1p-51 * sqrt(pp) * sqrt(qq)) {
                    continue;
                }
                rotation(pp, qq, pq, &c, &s);
                turn_columns(a, m, n, p, q, c, s);
                turn_columns(v, n, n, p, q, c, s);
                turned = true;
            }
        }
    }
    for (size_t j = 0; j < n; j++) {
        double sum = 0;
        for (size_t i = 0; i < m; i++) {
            sum += a[i * n + j] * a[i * n + j];
        }
        d[j] = sqrt(sum);
    }
    order(d, v, a, m, n);
    return true;
}
