#include "runtime/posterior/laplace.h"

#include <math.h>
#include <string.h>

#include "credence/kernels/math.h"
#include "runtime/metrics/metrics.h"
#include "runtime/posterior/dense.h"

void cr_laplace_small_add(double *small, size_t r, const float *x, size_t n_rows, double weight)
{
    for (size_t t = 0; t < n_rows; t++, x += r) {
        for (size_t i = 0; i < r; i++) {
            for (size_t j = 0; j < r; j++) {
                small[i * r + j] += weight * (double)x[i] * (double)x[j];
            }
        }
    }
}

/* Columns, Gram matrix, its values and vectors, of k + CR_LAPLACE_BLOCK columns. */
size_t cr_laplace_scratch(size_t n, size_t k)
{
    size_t m = k + CR_LAPLACE_BLOCK;
    return n * m + 2 * m * m + m;
}

/* gram [m][m] = columns^T columns, columns [n][m]. */
static void gram_of(const double *columns, size_t n, size_t m, double *gram)
{
    memset(gram, 0, m * m * sizeof *gram);
    for (size_t row = 0; row < n; row++) {
        const double *x = columns + row * m;
        for (size_t i = 0; i < m; i++) {
            for (size_t j = 0; j <= i; j++) {
                gram[i * m + j] += x[i] * x[j];
            }
        }
    }
    for (size_t i = 0; i < m; i++) {
        for (size_t j = i + 1; j < m; j++) {
            gram[i * m + j] = gram[j * m + i];
        }
    }
}

/* out [n][k] = columns [n][m] times the first k columns of vectors [m][m]. */
static void times_vectors(const double *columns, size_t n, size_t m, const double *vectors, size_t k, double *out)
{
    for (size_t row = 0; row < n; row++) {
        for (size_t i = 0; i < k; i++) {
            double sum = 0;
            for (size_t j = 0; j < m; j++) {
                sum += columns[row * m + j] * vectors[j * m + i];
            }
            out[row * k + i] = sum;
        }
    }
}

bool cr_laplace_large_add(double *large, size_t n, size_t k, const float *x, size_t n_rows, double weight,
                          double *scratch)
{
    double root = sqrt(weight);
    for (size_t begin = 0; begin < n_rows; begin += CR_LAPLACE_BLOCK) {
        size_t n_new = n_rows - begin < CR_LAPLACE_BLOCK ? n_rows - begin : CR_LAPLACE_BLOCK, m = k + n_new;
        double *columns = scratch, *gram = columns + n * m, *vectors = gram + m * m, *values = vectors + m * m;
        for (size_t row = 0; row < n; row++) {
            memcpy(columns + row * m, large + row * k, k * sizeof *columns);
            for (size_t t = 0; t < n_new; t++) {
                columns[row * m + k + t] = root * (double)x[(begin + t) * n + row];
            }
        }
        gram_of(columns, n, m, gram);
        if (!cr_dense_eigen(gram, m, values, vectors)) {
            return false;
        }
        times_vectors(columns, n, m, vectors, k, large);
    }
    return true;
}

bool cr_laplace_factor_init(struct cr_laplace_factor *factor, double *large, double large_scale, double *small,
                            double small_scale)
{
    size_t n = factor->n, r = factor->r, k = factor->k;
    double gram[CR_LAPLACE_COLUMNS_MAX * CR_LAPLACE_COLUMNS_MAX],
        vectors[CR_LAPLACE_COLUMNS_MAX * CR_LAPLACE_COLUMNS_MAX];
    gram_of(large, n, k, gram);
    if (!cr_dense_eigen(gram, k, factor->large_values, vectors) ||
        !cr_dense_eigen(small, r, factor->small_values, factor->rotation)) {
        return false;
    }
    times_vectors(large, n, k, vectors, k, factor->basis);
    for (size_t i = 0; i < k; i++) {
        /* What is below rounding of the largest has no direction of its own. */
        bool real = factor->large_values[i] > 0x1p-50 * factor->large_values[0];
        double norm = real ? sqrt(factor->large_values[i]) : 0;
        for (size_t row = 0; row < n; row++) {
            factor->basis[row * k + i] = real ? factor->basis[row * k + i] / norm : 0;
        }
        factor->large_values[i] = real ? factor->large_values[i] * large_scale : 0;
    }
    for (size_t j = 0; j < r; j++) {
        factor->small_values[j] = fmax(0, factor->small_values[j] * small_scale);
    }
    return true;
}

/* q [k][r] = half [k][r] rotation */
static void turn(const struct cr_laplace_factor *f, const double *half, double *q)
{
    for (size_t i = 0; i < f->k; i++) {
        for (size_t j = 0; j < f->r; j++) {
            double sum = 0;
            for (size_t l = 0; l < f->r; l++) {
                sum += half[i * f->r + l] * f->rotation[l * f->r + j];
            }
            q[i * f->r + j] = sum;
        }
    }
}

/* What the data took away from s2 x.y, x and y projected: s2 - 1 / (1/s2 + v) = s2 (s2 v) / (1 + s2 v). */
static double explained(const struct cr_laplace_factor *f, double s2, const double *x, const double *y)
{
    double sum = 0;
    for (size_t i = 0; i < f->k; i++) {
        for (size_t j = 0; j < f->r; j++) {
            double v = s2 * f->large_values[i] * f->small_values[j];
            sum += s2 * (v / (1 + v)) * x[i * f->r + j] * y[i * f->r + j];
        }
    }
    return sum;
}

/* out [k][r] = (1 - 1 / sqrt(1 + s2 v)) q, turned back; q is spoilt. */
static void shrink(const struct cr_laplace_factor *f, double s2, double *q, double *out)
{
    for (size_t i = 0; i < f->k; i++) {
        for (size_t j = 0; j < f->r; j++) {
            double root = sqrt(1 + s2 * f->large_values[i] * f->small_values[j]);
            q[i * f->r + j] *= 1 - 1 / root;
        }
        for (size_t l = 0; l < f->r; l++) {
            double sum = 0;
            for (size_t j = 0; j < f->r; j++) {
                sum += q[i * f->r + j] * f->rotation[l * f->r + j];
            }
            out[i * f->r + l] = sum;
        }
    }
}

#define REAL float
#define OF(name) name##_f32
#include "runtime/posterior/laplace_real.h"
#undef REAL
#undef OF
#define REAL double
#define OF(name) name##_f64
#include "runtime/posterior/laplace_real.h"

void cr_laplace_spectrum(const struct cr_laplace_factor *factor, double *values)
{
    for (size_t i = 0; i < factor->k * factor->r; i++) {
        values[i] = factor->large_values[i / factor->r] * factor->small_values[i % factor->r];
    }
}

/* ln(1 + x), x >= 0, to rounding: the quotient undoes the rounding of 1 + x (Goldberg 1991, theorem 4). */
static double ln1p(double x)
{
    double y = 1 + x;
    return y == 1 ? x : cr_ln(y) * (x / (y - 1));
}

double cr_laplace_log_det(const double *values, size_t n_values, double s2)
{
    double sum = 0;
    for (size_t i = 0; i < n_values; i++) {
        sum += ln1p(s2 * values[i]);
    }
    return sum;
}

double cr_laplace_evidence(const double *values, size_t n_values, double norm2, double log_lik, double s2)
{
    return log_lik - 0.5 * (cr_laplace_log_det(values, n_values, s2) + norm2 / s2);
}

/* Twice the slope of the evidence in ln p: falls from the number of values to -inf. */
static double slope(const double *values, size_t n_values, double norm2, double p)
{
    double sum = 0;
    for (size_t i = 0; i < n_values; i++) {
        sum += values[i] / (values[i] + p);
    }
    return sum - p * norm2;
}

double cr_laplace_best_precision(const double *values, size_t n_values, double norm2)
{
    double high = cr_ln(CR_LAPLACE_PRECISION_MAX), low = -high;
    while (true) {
        double middle = 0.5 * (low + high);
        if (middle <= low || middle >= high) {
            return cr_exp(middle);
        }
        if (slope(values, n_values, norm2, cr_exp(middle)) > 0) {
            low = middle;
        } else {
            high = middle;
        }
    }
}

double cr_laplace_factor_var(double *var, size_t n)
{
    double kept[CR_LAPLACE_CLASSES_MAX * CR_LAPLACE_CLASSES_MAX];
    memcpy(kept, var, n * n * sizeof *kept);
    for (double jitter = 1e-6; jitter <= 1; jitter *= 10) {
        memcpy(var, kept, n * n * sizeof *kept);
        for (size_t i = 0; i < n; i++) {
            var[i * n + i] += jitter;
        }
        if (cr_dense_cholesky(var, n)) {
            return jitter;
        }
    }
    return 0;
}

enum { DRAWS_PER_BLOCK = 16 };

void cr_laplace_predict(const double *mean, const double *chol, size_t n, const double *z, const struct cr_noise *noise,
                        const struct cr_rng_ops *ops, size_t n_draws, double *probs, double *entropy)
{
    float normals[DRAWS_PER_BLOCK * CR_LAPLACE_CLASSES_MAX];
    double entropies = 0;
    memset(probs, 0, n * sizeof *probs);
    for (size_t s = 0; s < n_draws; s++) {
        double logits[CR_LAPLACE_CLASSES_MAX];
        if (z == NULL && s % DRAWS_PER_BLOCK == 0) {
            struct cr_noise block = *noise;
            block.sample += (uint32_t)(s / DRAWS_PER_BLOCK);
            ops->normals(&block, normals, 0, DRAWS_PER_BLOCK * CR_LAPLACE_CLASSES_MAX);
        }
        const float *drawn = normals + s % DRAWS_PER_BLOCK * CR_LAPLACE_CLASSES_MAX;
        for (size_t c = 0; c < n; c++) {
            logits[c] = mean[c];
            for (size_t j = 0; j <= c; j++) {
                logits[c] += chol[c * n + j] * (z != NULL ? z[s * n + j] : (double)drawn[j]);
            }
        }
        cr_softmax(logits, n, logits);
        for (size_t c = 0; c < n; c++) {
            probs[c] += logits[c];
            entropies -= entropy != NULL && logits[c] > 0 ? logits[c] * cr_ln(logits[c]) : 0;
        }
    }
    for (size_t c = 0; c < n; c++) {
        probs[c] /= (double)n_draws;
    }
    if (entropy != NULL) {
        *entropy = entropies / (double)n_draws;
    }
}

void cr_laplace_probit(const double *mean, const double *var, size_t n, double *probs)
{
    for (size_t c = 0; c < n; c++) {
        probs[c] = mean[c] / sqrt(1 + M_PI / 8 * var[c * n + c]);
    }
    cr_softmax(probs, n, probs);
}
