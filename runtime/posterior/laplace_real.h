/* laplace_real: what touches Jacobians and weights, over one element type, for laplace.c, which sets REAL and OF(name).
 */

/* q [k][r] = basis^T G rotation, G the parameters of x as an n x r matrix; half is scratch of k r. */
static void OF(project)(const struct cr_laplace_factor *f, const REAL *x, double *half, double *q)
{
    size_t n = f->n, r = f->r, k = f->k;
    memset(half, 0, k * r * sizeof *half);
    for (size_t row = 0; row < n; row++) {
        for (size_t j = 0; j < r; j++) {
            double g = (double)(f->small_first ? x[j * n + row] : x[row * r + j]);
            for (size_t i = 0; i < k; i++) {
                half[i * r + j] += f->basis[row * k + i] * g;
            }
        }
    }
    turn(f, half, q);
}

/* In eight chains, joined in order: the compiler may use vectors, the bits stay. */
static double OF(dot)(const REAL *x, const REAL *y, size_t n)
{
    double chain[8] = {0}, sum = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (size_t c = 0; c < 8; c++) {
            chain[c] += (double)x[i + c] * (double)y[i + c];
        }
    }
    for (; i < n; i++) {
        chain[i % 8] += (double)x[i] * (double)y[i];
    }
    for (size_t c = 0; c < 8; c++) {
        sum += chain[c];
    }
    return sum;
}

void OF(cr_laplace_var_add)(const struct cr_laplace_factor *factor, double s2, const REAL *jacobian, size_t stride,
                            size_t n_classes, double *scratch, double *var)
{
    size_t kr = factor->k * factor->r, n_params = factor->n * factor->r;
    double *half = scratch + n_classes * kr;
    for (size_t c = 0; c < n_classes; c++) {
        OF(project)(factor, jacobian + c * stride, half, scratch + c * kr);
    }
    for (size_t a = 0; a < n_classes; a++) {
        const REAL *x = jacobian + a * stride;
        for (size_t b = 0; b <= a; b++) {
            const REAL *y = jacobian + b * stride;
            double sum = s2 * OF(dot)(x, y, n_params) - explained(factor, s2, scratch + a * kr, scratch + b * kr);
            var[a * n_classes + b] += sum;
            var[b * n_classes + a] += a == b ? 0 : sum;
        }
    }
}

void OF(cr_laplace_draw)(const struct cr_laplace_factor *factor, double s2, const REAL *mean, double *scratch,
                         REAL *out)
{
    size_t n = factor->n, r = factor->r, k = factor->k;
    double *q = scratch, *half = scratch + k * r, root = sqrt(s2);
    OF(project)(factor, out, half, q);
    shrink(factor, s2, q, half);
    for (size_t row = 0; row < n; row++) {
        for (size_t j = 0; j < r; j++) {
            size_t at = factor->small_first ? j * n + row : row * r + j;
            double sum = (double)out[at];
            for (size_t i = 0; i < k; i++) {
                sum -= factor->basis[row * k + i] * half[i * r + j];
            }
            out[at] = (REAL)((double)mean[at] + root * sum);
        }
    }
}
