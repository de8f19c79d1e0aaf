/* A host with parameter arrays of its own runs IVON (price form, two samples a step) on a quadratic loss
 *   L(w) = sum_e a[e] / 2 (w[e] - c[e])^2,   gradient a (w - c)
 * whose posterior is known: the mean goes to c and the curvature to a. Each step is checked against plain C in double,
 * with the noise that the library regenerates for any element. Written in the common part of C11 and C++17. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <credence/kernels.h>

enum { D = 3 * CR_IVON_CHUNK + 77, N_SAMPLES = 2, N_CHECKED = 3, N_STEPS = 600 };

static const double lr = 0.05, ess = 1e4, weight_decay = 1e-3, beta1 = 0.9, beta2 = 0.99, hess_init = 0.5;

/* ---- the host's model ---- */

static float mean[D], momentum[D], hess[D]; /* the optimiser's state is the host's too */
static float w[D], grad[D], avg_grad[D], avg_curv[D];
static float a[D], c[D];

static void gradient(void)
{
    for (size_t e = 0; e < D; e++) {
        grad[e] = a[e] * (w[e] - c[e]);
    }
}

/* ---- one step in plain C and double ---- */

struct plain {
    double *mean, *momentum, *hess;
};

static struct cr_noise noise_of(uint32_t step, uint32_t sample)
{
    struct cr_noise noise = {{7, 1}, step, sample, 0};
    return noise;
}

static void plain_step(struct plain *p, uint32_t t)
{
    for (size_t e = 0; e < D; e++) {
        double g_mean = 0, price = 0, precision = p->hess[e] + weight_decay;
        for (uint32_t s = 1; s <= N_SAMPLES; s++) {
            struct cr_noise noise = noise_of(t, s);
            double delta = (double)cr_normal_at(&noise, e) / sqrt(ess * precision);
            double g = (double)a[e] * (p->mean[e] + delta - (double)c[e]);
            g_mean += g / N_SAMPLES;
            price += delta * g / N_SAMPLES;
        }
        double f = price * ess * precision, h = p->hess[e];
        p->hess[e] = beta2 * h + (1 - beta2) * f + (1 - beta2) * (1 - beta2) / 2 * (h - f) * (h - f) / precision;
        p->momentum[e] = beta1 * p->momentum[e] + (1 - beta1) * g_mean;
        double unbiased = p->momentum[e] / (1 - pow(beta1, t));
        double change = (unbiased + weight_decay * p->mean[e]) / (p->hess[e] + weight_decay);
        p->mean[e] -= lr * (hess_init + weight_decay) * change;
    }
}

/* ---- the same through the library ---- */

static void library_step(const struct cr_ivon_ops *ops, struct cr_ivon_args *args, uint32_t t)
{
    args->t = t;
    for (uint32_t s = 1; s <= N_SAMPLES; s++) {
        gradient(); /* at w, which the pass before wrote */
        args->sample = s;
        args->noise = noise_of(t, s);
        args->noise_next = s < N_SAMPLES ? noise_of(t, s + 1) : noise_of(t + 1, 1);
        cr_ivon_fn *pass = s < N_SAMPLES ? ops->accumulate : ops->step;
        /* Any threads might take these ranges, in any order. */
        for (size_t begin = 0; begin < D; begin += CR_IVON_CHUNK) {
            size_t end = begin + CR_IVON_CHUNK;
            pass(args, begin, end < D ? end : (size_t)D);
        }
    }
}

static double worst_difference(const float *found, const double *expected)
{
    double worst = 0;
    for (size_t e = 0; e < D; e++) {
        double difference = fabs((double)found[e] - expected[e]);
        if (!(difference <= worst)) {
            worst = difference;
        }
    }
    return worst;
}

/* The whole of the arrays, first draw of the first step. */
static void set_args(struct cr_ivon_args *args)
{
    memset(args, 0, sizeof *args);
    args->mean = mean;
    args->momentum = momentum;
    args->hess = hess;
    args->grad = grad;
    args->avg_grad = avg_grad;
    args->avg_curv = avg_curv;
    args->next = w;
    args->lr = lr;
    args->ess = ess;
    args->weight_decay = weight_decay;
    args->beta1 = beta1;
    args->beta2 = beta2;
    args->hess_init = hess_init;
    args->clip_radius = HUGE_VAL;
    args->grad_scale = 1;
    args->clip = 1;
    args->t = 1;
    args->sample = 1;
    args->debias = true;
    args->rescale_lr = true;
    args->noise_next = noise_of(1, 1);
}

/* As many steps as asked for; where they are N_STEPS, mean and curvature have to have arrived. */
static int run(enum cr_tier tier, uint32_t n_steps)
{
    struct cr_ivon_ops ops;
    struct cr_ivon_args args;
    struct plain plain;
    int good = cr_ivon_ops_init(&ops, tier) == CR_OK;
    double *state = (double *)calloc(3 * (size_t)D, sizeof(double));
    if (!good || state == NULL) {
        return 0;
    }
    plain.mean = state;
    plain.momentum = state + D;
    plain.hess = state + 2 * (size_t)D;
    for (size_t e = 0; e < D; e++) {
        a[e] = 0.25f + (float)(e % 64) / 32.0f;
        c[e] = (float)(e % 101) / 50.0f - 1.0f;
        mean[e] = momentum[e] = 0;
        hess[e] = (float)hess_init;
        plain.hess[e] = hess_init;
    }
    set_args(&args);
    ops.perturb(&args, 0, D);

    for (uint32_t t = 1; t <= n_steps; t++) {
        library_step(&ops, &args, t);
        if (t <= N_CHECKED) {
            plain_step(&plain, t);
            /* Numbers below 4, some forty roundings a step, errors of one step fed to the next. */
            const double bound = t * 160.0 * ldexp(1, -24);
            double off_mean = worst_difference(mean, plain.mean), off_hess = worst_difference(hess, plain.hess);
            good = good && off_mean <= bound && off_hess <= bound;
            printf("  step %u: mean off by %.1e, hess by %.1e, bound %.1e\n", (unsigned)t, off_mean, off_hess, bound);
        }
    }
    free(state);
    if (n_steps < N_STEPS) {
        return good;
    }
    double off = 0, ratio = 0;
    for (size_t e = 0; e < D; e++) {
        off += fabs((double)mean[e] - (double)c[e]) / D;
        ratio += (double)hess[e] / (double)a[e] / D;
    }
    printf("  after %d steps: |mean - c| %.4f on average, hess / a %.3f\n", (int)N_STEPS, off, ratio);
    return good && off < 0.02 && fabs(ratio - 1) < 0.1;
}

int main(void)
{
    struct cr_cpu cpu;
    cr_cpu_detect(&cpu);
    int good = 1;
    printf("%s\n", cr_tier_name(CR_TIER_SCALAR));
    good = run(CR_TIER_SCALAR, N_CHECKED) && good;
    printf("%s\n", cr_tier_name(cpu.tier));
    good = run(cpu.tier, N_STEPS) && good;
    return good ? 0 : 1;
}
