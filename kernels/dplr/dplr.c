/* dplr: the variant of each tier, and the log-density from the sums. */
#include "credence/kernels/dplr.h"

#include "kernels/common/tiers.h"
#include "kernels/dplr/dplr_element.h"

CR_TIER_OPS_INIT(dplr)

size_t cr_dplr_n_sums(size_t n_rows)
{
    return n_rows <= DPLR_ROWS_MAX ? 2 + n_rows + n_rows * (n_rows + 1) / 2 : SIZE_MAX;
}

/* Row k of the Cholesky factor of I + ratio G into l [K][K], the solution's element into y [K]. Returns l[k][k]^2. */
static double factor_row(const double *totals, size_t n_rows, double ratio, size_t k, double *l, double *y)
{
    double right = totals[dplr_u(k)];
    for (size_t j = 0; j <= k; j++) {
        double sum = ratio * totals[dplr_g(n_rows, k, j)] + (j == k ? 1 : 0);
        for (size_t i = 0; i < j; i++) {
            sum -= l[k * n_rows + i] * l[j * n_rows + i];
        }
        l[k * n_rows + j] = j < k ? sum / l[j * n_rows + j] : sum;
    }
    for (size_t j = 0; j < k; j++) {
        right -= l[k * n_rows + j] * y[j];
    }
    double square = l[k * n_rows + k];
    l[k * n_rows + k] = __builtin_sqrt(square);
    y[k] = right / l[k * n_rows + k];
    return square;
}

double cr_dplr_log_density(const double *totals, size_t n_params, size_t n_rows, double a, double b, double *scratch)
{
    const double ln_2pi = 0x1.d67f1c864beb5p+0;
    double *l = scratch, *y = scratch + n_rows * n_rows;
    double log_det = (double)n_params * (ln_2pi + cr_ln(a)) + totals[1], explained = 0;
    for (size_t k = 0; k < n_rows; k++) {
        log_det += cr_ln(factor_row(totals, n_rows, b / a, k, l, y));
        explained += y[k] * y[k];
    }
    double log_p = -0.5 * (log_det + totals[0] / a - b / a / a * explained);
    return log_p - log_p == 0 ? log_p : __builtin_nan("");
}
