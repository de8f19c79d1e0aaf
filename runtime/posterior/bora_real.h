/* bora_real: the penalties over one element type, for bora.c, which sets REAL and OF(name). */

/* Sum of squares of theta - center in eight chains, joined in order: the compiler may use vectors, the bits stay. */
static double OF(distance2)(const REAL *theta, const REAL *center, size_t n)
{
    double chain[8] = {0};
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (size_t c = 0; c < 8; c++) {
            double d = (double)theta[i + c] - (center != NULL ? (double)center[i + c] : 0);
            chain[c] += d * d;
        }
    }
    for (; i < n; i++) {
        double d = (double)theta[i] - (center != NULL ? (double)center[i] : 0);
        chain[i % 8] += d * d;
    }
    double sum = 0;
    for (int c = 0; c < 8; c++) {
        sum += chain[c];
    }
    return sum;
}

static void OF(add_scaled)(double factor, const REAL *theta, const REAL *center, size_t n, REAL *out)
{
    for (size_t i = 0; out != NULL && i < n; i++) {
        double d = (double)theta[i] - (center != NULL ? (double)center[i] : 0);
        out[i] = (REAL)((double)out[i] + factor * d);
    }
}

double OF(cr_bora_pull)(enum cr_bora_prior prior, double weight, const REAL *theta, const REAL *center, size_t n,
                        REAL *grad, REAL *center_grad)
{
    double square = OF(distance2)(theta, center, n);
    double norm = sqrt(square);
    double factor = prior == CR_BORA_SQ ? weight : norm == 0 ? 0 : weight / norm;
    if (factor != 0) {
        OF(add_scaled)(factor, theta, center, n, grad);
        OF(add_scaled)(-factor, theta, center, n, center_grad);
    }
    return prior == CR_BORA_SQ ? 0.5 * square : norm;
}

void OF(cr_bora_center)(const REAL *const *theta, size_t n_tasks, size_t n, REAL *center)
{
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t d = 0; d < n_tasks; d++) {
            sum += (double)theta[d][i];
        }
        center[i] = (REAL)(sum / (double)n_tasks);
    }
}
