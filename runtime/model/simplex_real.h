/* simplex_real: mixtures over one element type, for simplex.c, which sets REAL and OF(name). */

void OF(cr_simplex_mix)(const double *lambda, const REAL *const *vertex, size_t m, size_t n, REAL *out)
{
    for (size_t begin = 0; begin < n; begin += STRETCH) { /* so that a compiler sees vectors */
        double sum[STRETCH] = {0};
        size_t left = n - begin, width = left < STRETCH ? left : STRETCH;
        for (size_t j = 0; j < m; j++) {
            for (size_t i = 0; i < width; i++) {
                sum[i] += lambda[j] * (double)vertex[j][begin + i];
            }
        }
        for (size_t i = 0; i < width; i++) {
            out[begin + i] = (REAL)sum[i];
        }
    }
}

void OF(cr_simplex_scatter)(const double *lambda, const REAL *grad, size_t m, size_t n, REAL *const *d_vertex)
{
    for (size_t j = 0; j < m; j++) {
        REAL *out = d_vertex[j];
        for (size_t i = 0; i < n; i++) {
            out[i] = (REAL)((double)out[i] + lambda[j] * (double)grad[i]);
        }
    }
}

void OF(cr_simplex_dots)(const REAL *u, const REAL *v, size_t n, struct cr_simplex_dots *dots)
{
    for (size_t i = 0; i < n; i++) {
        double a = (double)u[i], b = (double)v[i];
        dots->uv += a * b;
        dots->uu += a * a;
        dots->vv += b * b;
    }
}

void OF(cr_simplex_cos2_grad)(const struct cr_simplex_dots *dots, double beta, const REAL *u, const REAL *v, size_t n,
                              REAL *du, REAL *dv)
{
    if (dots->uu == 0 || dots->vv == 0) {
        return;
    }
    /* d cos2 / du = 2 c (v - (u.v / |u|^2) u), c = u.v / (|u|^2 |v|^2), and the same with u and v changed over. */
    double c = 2 * beta * (dots->uv / dots->uu / dots->vv);
    double along_u = dots->uv / dots->uu, along_v = dots->uv / dots->vv;
    for (size_t i = 0; i < n; i++) {
        double a = (double)u[i], b = (double)v[i];
        du[i] = (REAL)((double)du[i] + c * (b - along_u * a));
        dv[i] = (REAL)((double)dv[i] + c * (a - along_v * b));
    }
}
