/* blob_real: sums and gradients over one element type, for blob.c, which sets REAL and OF(name). */

double OF(cr_blob_kl)(const REAL *mu, const REAL *rho, size_t n, double prior_std, double weight, REAL *d_mu,
                      REAL *d_rho)
{
    double sum = 0, spread = 2 * prior_std * prior_std + GUARD, constant = cr_ln(prior_std + GUARD) - 0.5;
    for (size_t i = 0; i < n; i++) {
        double m = (double)mu[i], root = (double)rho[i], sigma = root * root;
        sum += constant - cr_ln(sigma + GUARD) + (sigma * sigma + m * m) / spread;
        if (d_mu != NULL) {
            double d_sigma = 2 * sigma / spread - 1 / (sigma + GUARD);
            d_mu[i] = (REAL)((double)d_mu[i] + weight * 2 * m / spread);
            d_rho[i] = (REAL)((double)d_rho[i] + weight * 2 * root * d_sigma);
        }
    }
    return sum;
}

void OF(cr_blob_noise)(const REAL *e, const REAL *rho, size_t n, REAL *noise)
{
    for (size_t i = 0; i < n; i++) {
        noise[i] = (REAL)((double)e[i] * ((double)rho[i] * (double)rho[i]));
    }
}
