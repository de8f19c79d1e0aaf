#include "runtime/posterior/blob.h"

#include <math.h>
#include <string.h>

#include "credence/kernels/math.h"
#include "credence/kernels/rng.h"
#include "runtime/posterior/dense.h"

#define ROOT_HALF 0.70710678118654752440
#define GUARD 1e-6 /* of the authors' logarithms and quotients */

#define REAL float
#define OF(name) name##_f32
#include "runtime/posterior/blob_real.h"
#undef REAL
#undef OF
#define REAL double
#define OF(name) name##_f64
#include "runtime/posterior/blob_real.h"

void cr_blob_rho_start(const uint32_t key[2], double eps, float *rho, size_t n)
{
    cr_uniform_f32(key, (float)(eps * ROOT_HALF), (float)eps, rho, n);
}

/* 2^-n, 0 where there is no such double. */
static double power_of_half(uint64_t n)
{
    return n > 1074 ? 0 : ldexp(1, -(int)n);
}

double cr_blob_pi(uint64_t step, uint64_t cycle)
{
    uint64_t i = step % cycle == 0 ? cycle : step % cycle;
    return power_of_half(cycle + 1 - i) / (1 - power_of_half(cycle + 1));
}

uint64_t cr_blob_cycle(uint64_t n_examples, uint64_t batch)
{
    double steps = 100 * cr_pow((double)n_examples, M_PI / 8) / (double)batch;
    return steps < 1 ? 1 : (uint64_t)steps;
}

void cr_blob_signs(const struct cr_blob_signs *signs, uint32_t token, size_t n, float *out)
{
    uint32_t words[4] = {0};
    for (size_t i = 0; i < n; i++) {
        if (i % 128 == 0) {
            const uint32_t counter[4] = {token, signs->which, signs->sample, (uint32_t)(i / 128)};
            cr_philox4x32(counter, signs->key, words);
        }
        out[i] = (words[i / 32 % 4] >> (i % 32) & 1u) != 0 ? -1.0f : 1.0f;
    }
}

bool cr_blob_tfb_rotate(double *b, double *a, size_t n_out, size_t r, size_t n_in, double *d)
{
    double v[CR_BLOB_RANK_MAX * CR_BLOB_RANK_MAX], column[CR_BLOB_RANK_MAX];
    if (!cr_dense_svd(b, n_out, r, d, v)) {
        return false;
    }
    for (size_t i = 0; i < n_in; i++) {
        for (size_t j = 0; j < r; j++) {
            column[j] = a[j * n_in + i];
        }
        for (size_t k = 0; k < r; k++) {
            double sum = 0;
            for (size_t j = 0; j < r; j++) {
                sum += v[j * r + k] * column[j];
            }
            a[k * n_in + i] = sum;
        }
    }
    return true;
}

double cr_blob_tfb_sigma(double sigma_q, double d)
{
    return sigma_q / (d + GUARD);
}
