/* BLoB and TFB: stored divergence, flipout and rotation; gradients by differences; the weights of a cycle; signs; the
 * search keeps what passed. */
#include <math.h>
#include <string.h>

#include "runtime/posterior/blob.h"
#include "tests/support/flipout_model.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_test.h"

enum { R = 2, N = 3, B = 2, T = 3, OUT = 4 };

START_TEST(stored_divergence)
{
    json_t *file = cr_golden_load("blob_tfb.json");
    const json_t *want = cr_golden_get(file, "blob");
    double mu[R * N], rho[R * N], d_mu[R * N] = {0}, d_rho[R * N] = {0}, sp = cr_golden_number(want, "prior_std");
    float mu_f[R * N], rho_f[R * N], d_mu_f[R * N] = {0}, d_rho_f[R * N] = {0};
    cr_golden_fill(want, "mu", mu, R * N);
    cr_golden_fill(want, "rho", rho, R * N);
    double kl = cr_blob_kl_f64(mu, rho, R * N, sp, 1, d_mu, d_rho);
    cr_golden_expect(want, "kl", &kl, 1, 1e-10);
    cr_golden_expect(want, "d_mu", d_mu, R * N, 1e-10);
    cr_golden_expect(want, "d_rho", d_rho, R * N, 1e-10);
    ck_assert_double_eq(cr_blob_kl_f64(mu, rho, R * N, sp, 1, NULL, NULL), kl);
    for (size_t i = 0; i < R * N; i++) {
        mu_f[i] = (float)mu[i], rho_f[i] = (float)rho[i];
    }
    /* Inputs are off by 2^-24 of themselves, gradients go with a power of at most 2, and are rounded once. */
    ck_assert_double_eq_tol(cr_blob_kl_f32(mu_f, rho_f, R * N, sp, 2, d_mu_f, d_rho_f), kl, 4 * 0x1p-24 * kl);
    for (size_t i = 0; i < R * N; i++) {
        ck_assert_double_eq_tol((double)d_mu_f[i], 2 * d_mu[i], 4 * 0x1p-24 * fabs(2 * d_mu[i]));
        ck_assert_double_eq_tol((double)d_rho_f[i], 2 * d_rho[i], 4 * 0x1p-24 * fabs(2 * d_rho[i]));
    }
    json_decref(file);
}
END_TEST

/* Differences of the KL, also where the first term of rho's gradient counts; error h^2 f'''/6 with ln's third
 * derivative 4 / rho^3 and rounding 2^-50 / h. */
START_TEST(divergence_gradients)
{
    const double rho[4] = {0.05, 0.3, 0.8, 1.2}, h = 1e-6;
    for (size_t i = 0; i < 4; i++) {
        double mu = 0.3 - 0.2 * (double)i, at = rho[i], d_mu = 0, d_rho = 0, above, below;
        cr_blob_kl_f64(&mu, &at, 1, 0.4, 1, &d_mu, &d_rho);
        double left = mu - h, right = mu + h;
        above = cr_blob_kl_f64(&right, &at, 1, 0.4, 1, NULL, NULL);
        below = cr_blob_kl_f64(&left, &at, 1, 0.4, 1, NULL, NULL);
        ck_assert_double_eq_tol((above - below) / (2 * h), d_mu, 1e-8);
        left = at - h, right = at + h;
        above = cr_blob_kl_f64(&mu, &right, 1, 0.4, 1, NULL, NULL);
        below = cr_blob_kl_f64(&mu, &left, 1, 0.4, 1, NULL, NULL);
        ck_assert_double_eq_tol((above - below) / (2 * h), d_rho, 1e-7);
    }
    double mu = 0, rho_prior = sqrt(0.2), zero = 0; /* the prior itself: 0 but for the guard in the quotient */
    ck_assert_double_eq_tol(cr_blob_kl_f64(&mu, &rho_prior, 1, 0.2, 1, NULL, NULL), 0, 1e-5);
    ck_assert(isfinite(cr_blob_kl_f64(&mu, &zero, 1, 0.2, 1, &mu, &zero)));
}
END_TEST

START_TEST(cycle_weights)
{
    json_t *file = cr_golden_load("blob_tfb.json");
    const json_t *want = cr_golden_get(cr_golden_get(file, "blob"), "kl_weights");
    uint64_t cycle = (uint64_t)cr_golden_number(want, "M");
    double pi[5], sum = 0;
    ck_assert_uint_eq(cycle, 5);
    for (uint64_t step = 1; step <= cycle; step++) {
        pi[step - 1] = cr_blob_pi(step, cycle);
        sum += pi[step - 1];
        ck_assert_double_eq(cr_blob_pi(step + 3 * cycle, cycle), pi[step - 1]);
    }
    ck_assert_double_eq(cr_blob_pi(0, cycle), pi[4]);
    cr_golden_expect(want, "pi", pi, 5, 1e-15);
    cr_golden_expect(want, "sum", &sum, 1, 1e-15);
    for (cycle = 1; cycle < 100000; cycle = cycle * 3 + 1) { /* where 2^cycle is no double */
        ck_assert_double_eq_tol(cr_blob_pi(cycle, cycle), 0.5 / (1 - pow(0.5, (double)cycle + 1)), 1e-16);
        ck_assert(cr_blob_pi(1, cycle) >= 0 && cr_blob_pi(1, cycle) <= 2.0 / 3);
    }
    ck_assert_double_eq(cr_blob_pi(1, 5000), 0);
    ck_assert_uint_eq(cr_blob_cycle(640, 4), 316);
    ck_assert_uint_eq(cr_blob_cycle(1, 1000), 1);
    json_decref(file);
}
END_TEST

struct flip {
    double noise[R * N], x[B * T * N], sign_in[B * T * N], sign_out[B * T * R], b[OUT * R], mu[R * N], e[R * N],
        rho[R * N];
    double scale;
};

static json_t *setup(struct flip *f)
{
    json_t *file = cr_golden_load("blob_tfb.json");
    const json_t *blob = cr_golden_get(file, "blob"), *one = cr_golden_get(blob, "flipout");
    cr_golden_fill(blob, "mu", f->mu, R * N);
    cr_golden_fill(blob, "rho", f->rho, R * N);
    cr_golden_fill(one, "eps", f->e, R * N);
    cr_golden_fill(one, "x_BTD", f->x, B * T * N);
    cr_golden_fill(one, "sign_in", f->sign_in, B * T * N);
    cr_golden_fill(one, "sign_out", f->sign_out, B * T * R);
    cr_golden_fill(one, "B", f->b, OUT * R);
    f->scale = cr_golden_number(one, "scaling");
    cr_blob_noise_f64(f->e, f->rho, R * N, f->noise);
    return file;
}

/* s B h of every token. */
static void outputs(const struct flip *f, const double *h, double *y)
{
    for (size_t i = 0; i < B * T * OUT; i++) {
        y[i] = 0;
        for (size_t j = 0; j < R; j++) {
            y[i] += f->scale * f->b[i % OUT * R + j] * h[i / OUT * R + j];
        }
    }
}

START_TEST(stored_flipout)
{
    struct flip f;
    json_t *file = setup(&f);
    const json_t *one = cr_golden_get(cr_golden_get(file, "blob"), "flipout");
    double h[B * T * R] = {0}, mean[B * T * R] = {0}, y[B * T * OUT], ones[N] = {1, 1, 1};
    for (size_t t = 0; t < B * T; t++) {
        cr_flipout_model(f.noise, f.x + t * N, f.sign_in + t * N, f.sign_out + t * R, R, N, h + t * R);
        cr_flipout_model(f.mu, f.x + t * N, ones, ones, R, N, mean + t * R); /* without signs a plain product */
    }
    outputs(&f, h, y);
    cr_golden_expect(one, "noise_term", y, B * T * OUT, 1e-10);
    outputs(&f, mean, y);
    cr_golden_expect(one, "mean_term", y, B * T * OUT, 1e-10);
    json_decref(file);
}
END_TEST

/* sum over tokens of g.h(rho, x): a polynomial of low degree, so central differences are exact to rounding. */
static double total(const struct flip *f, const double *rho, const double *x)
{
    double noise[R * N], sum = 0;
    cr_blob_noise_f64(f->e, rho, R * N, noise);
    for (size_t t = 0; t < B * T; t++) {
        double h[R] = {0};
        cr_flipout_model(noise, x + t * N, f->sign_in + t * N, f->sign_out + t * R, R, N, h);
        sum += h[0] * (1 + (double)t) - 2 * h[1];
    }
    return sum;
}

START_TEST(flipout_gradients)
{
    struct flip f;
    json_t *file = setup(&f);
    double d_noise[R * N] = {0}, d_rho[R * N], dx[B * T * N] = {0}, h = 1e-4;
    for (size_t t = 0; t < B * T; t++) {
        const double d_h[R] = {1 + (double)t, -2};
        cr_flipout_model_back(f.noise, f.x + t * N, f.sign_in + t * N, f.sign_out + t * R, R, N, d_h, d_noise,
                                 dx + t * N);
    }
    for (size_t i = 0; i < R * N; i++) {
        d_rho[i] = 2 * f.rho[i] * f.e[i] * d_noise[i];
    }
    for (size_t i = 0; i < R * N + B * T * N; i++) {
        double *at = i < R * N ? &f.rho[i] : &f.x[i - R * N], kept = *at;
        *at = kept + h;
        double above = total(&f, f.rho, f.x);
        *at = kept - h;
        double below = total(&f, f.rho, f.x);
        *at = kept;
        ck_assert_double_eq_tol((above - below) / (2 * h), i < R * N ? d_rho[i] : dx[i - R * N], 1e-10);
    }
    json_decref(file);
}
END_TEST

/* Signs are fair and unrelated between tokens, sides, samples and neighbours (five standard deviations); rho starts
 * where it should. */
START_TEST(draws)
{
    enum { LONG = 20000 };
    static float a[LONG], b[4][LONG], rho[LONG];
    struct cr_blob_signs signs = {{7, 8}, 3, 0};
    cr_blob_signs(&signs, 1, LONG, a);
    cr_blob_signs(&signs, 2, LONG, b[0]);
    signs.which = 1;
    cr_blob_signs(&signs, 1, LONG, b[1]);
    signs.which = 0, signs.sample = 4;
    cr_blob_signs(&signs, 1, LONG, b[2]);
    memcpy(b[3], a + 1, sizeof a - sizeof *a);
    double sum = 0;
    for (size_t i = 0; i < LONG; i++) {
        ck_assert(fabsf(a[i]) == 1);
        sum += (double)a[i];
    }
    ck_assert_double_le(fabs(sum), 5 * sqrt(LONG));
    for (int c = 0; c < 4; c++) {
        double cross = 0;
        for (size_t i = 0; i + 1 < LONG; i++) {
            cross += (double)a[i] * (double)b[c][i];
        }
        ck_assert_double_le(fabs(cross), 5 * sqrt(LONG));
    }
    signs.sample = 3;
    cr_blob_signs(&signs, 1, 130, b[0]);
    ck_assert_mem_eq(b[0], a, 130 * sizeof *a);
    cr_blob_rho_start((const uint32_t[2]){5, 6}, 0.05, rho, LONG);
    double low = 0.05 * sqrt(0.5), mean = 0;
    for (size_t i = 0; i < LONG; i++) {
        ck_assert((double)rho[i] >= low * (1 - 0x1p-23) && (double)rho[i] <= 0.05 * (1 + 0x1p-23));
        mean += (double)rho[i] / LONG;
    }
    ck_assert_double_eq_tol(mean, (low + 0.05) / 2, 5 * (0.05 - low) / sqrt(12.0 * LONG));
}
END_TEST

START_TEST(stored_rotation)
{
    json_t *file = cr_golden_load("blob_tfb.json");
    const json_t *want = cr_golden_get(file, "tfb");
    double b[OUT * R], a[R * N], d[R], gram[R * R] = {0}, product[OUT * N] = {0}, sigma[R * N];
    cr_golden_fill(want, "B", b, OUT * R);
    cr_golden_fill(want, "A", a, R * N);
    ck_assert(cr_blob_tfb_rotate(b, a, OUT, R, N, d));
    cr_golden_expect(want, "singular_values", d, R, 1e-10);
    for (size_t o = 0; o < OUT; o++) {
        for (size_t i = 0; i < R * R; i++) {
            gram[i] += b[o * R + i / R] * b[o * R + i % R];
        }
        for (size_t i = 0; i < N * R; i++) {
            product[o * N + i % N] += b[o * R + i / N] * a[i];
        }
    }
    cr_golden_expect(want, "B_prime_gram", gram, R * R, 1e-10);
    cr_golden_expect(want, "product_check", product, OUT * N, 1e-10);
    for (size_t i = 0; i < R * N; i++) {
        sigma[i] = cr_blob_tfb_sigma(cr_golden_number(want, "beta"), d[i / N]);
    }
    cr_golden_expect(want, "sigma", sigma, R * N, 1e-10);
    b[0] = (double)NAN;
    ck_assert(!cr_blob_tfb_rotate(b, a, OUT, R, N, d));
    json_decref(file);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("blob");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, stored_divergence);
    tcase_add_test(all, divergence_gradients);
    tcase_add_test(all, cycle_weights);
    tcase_add_test(all, stored_flipout);
    tcase_add_test(all, flipout_gradients);
    tcase_add_test(all, draws);
    tcase_add_test(all, stored_rotation);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
