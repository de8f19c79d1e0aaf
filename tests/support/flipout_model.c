#include "tests/support/flipout_model.h"

void cr_flipout_model(const double *noise, const double *x, const double *sign_in, const double *sign_out, size_t r,
                      size_t n, double *h)
{
    for (size_t j = 0; j < r; j++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            sum += noise[j * n + i] * sign_in[i] * x[i];
        }
        h[j] += sign_out[j] * sum;
    }
}

void cr_flipout_model_back(const double *noise, const double *x, const double *sign_in, const double *sign_out,
                           size_t r, size_t n, const double *d_h, double *d_noise, double *dx)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < r; j++) {
            double d = sign_out[j] * d_h[j] * sign_in[i];
            d_noise[j * n + i] += d * x[i];
            dx[i] += d * noise[j * n + i];
        }
    }
}
