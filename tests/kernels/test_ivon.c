/* ivon: a double reference with derived bounds, every tier, mode, size and split, the statistics, and what the method
 * promises: positivity, the right curvature. (Stored traces: test_ivon_stored.c.) */
#include <math.h>
#include <string.h>

#include "credence/kernels/ivon.h"
#include "kernels/common/half.h"
#include "tests/kernels/ivon_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/tl16_test.h"

/* ---- every mode, tier, size and split ---- */

static const size_t sizes[] = {0, 1, 3, 15, 16, 17, 63, 64, 65, 127, 4095, 4096, 4097, 9000};
enum { N_SIZES = sizeof sizes / sizeof *sizes, MODES = 12 };

struct data {
    size_t n, n_chunks;
    float *mean, *momentum, *hess, *grad, *avg_grad, *avg_curv, *eps, *eps_next; /* in, some in/out */
    float *next;
    uint16_t *high, *low;
    struct cr_ivon_stats *stats;
};

static float *filled(struct cr_rng *rng, size_t n, float low, float high, enum cr_guard_side side)
{
    float *x = cr_guard_alloc(n * 4, 4, side);
    cr_fill_f32(rng, x, n, low, high);
    return x;
}

static struct data make(uint64_t seed, size_t n, enum cr_guard_side side)
{
    struct cr_rng rng = cr_rng_make(seed);
    struct data d = {.n = n, .n_chunks = (n + CR_IVON_CHUNK - 1) / CR_IVON_CHUNK};
    d.mean = filled(&rng, n, -1, 1, side);
    d.momentum = filled(&rng, n, -0.02f, 0.02f, side);
    d.hess = filled(&rng, n, -0.01f, 0.5f, side); /* wd keeps h + wd positive */
    d.grad = filled(&rng, n, -1, 1, side);
    d.avg_grad = filled(&rng, n, -1, 1, side);
    d.avg_curv = filled(&rng, n, -1, 1, side);
    d.eps = filled(&rng, n, -3, 3, side);
    d.eps_next = filled(&rng, n, -3, 3, side);
    d.next = cr_guard_alloc(n * 4, 4, side);
    d.high = cr_guard_alloc(n * 2, 2, side);
    d.low = cr_guard_alloc(n * 2, 2, side);
    d.stats = cr_guard_alloc(d.n_chunks * sizeof *d.stats, 8, side);
    cr_guard_protect(d.grad, true);
    cr_guard_protect(d.eps, true);
    cr_guard_protect(d.eps_next, true);
    return d;
}

/* Modes: estimate, source of the statistics (one sample, third sample, given), noise given or drawn, forms of next. */
static struct cr_ivon_args args_of(const struct data *d, int mode)
{
    int source = mode / 2 % 3;
    struct cr_ivon_args a = {.mean = d->mean,
                             .momentum = d->momentum,
                             .hess = d->hess,
                             .grad = d->grad,
                             .avg_grad = d->avg_grad,
                             .avg_curv = d->avg_curv,
                             .noise = {{1, 2}, 3, 4, 5},
                             .noise_next = {{1, 2}, 4, 4, 5},
                             .stats = d->stats,
                             .lr = 0.2,
                             .ess = 50,
                             .weight_decay = 0.02,
                             .beta1 = 0.9,
                             .beta2 = 0.99,
                             .hess_init = 0.3,
                             .clip_radius = 0.9,
                             .grad_scale = 0.25,
                             .clip = 0.8,
                             .t = 3,
                             .sample = source == 1 ? 3 : 1,
                             .gradsq = mode % 2,
                             .debias = source != 1,
                             .rescale_lr = mode >= 6};
    a.grad = source == 2 ? NULL : a.grad;
    a.eps = mode >= 6 ? d->eps : NULL;
    a.eps_next = mode >= 6 ? d->eps_next : NULL;
    a.next = mode % 4 == 3 ? NULL : d->next;
    a.next_high = mode >= 3 ? d->high : NULL;
    a.next_low = mode >= 3 ? d->low : NULL;
    return a;
}

static void expect_data(const struct data *got, const struct data *want)
{
    size_t n = got->n;
    cr_expect_bytes("mean", got->mean, want->mean, n * 4);
    cr_expect_bytes("momentum", got->momentum, want->momentum, n * 4);
    cr_expect_bytes("hess", got->hess, want->hess, n * 4);
    cr_expect_bytes("avg_grad", got->avg_grad, want->avg_grad, n * 4);
    cr_expect_bytes("avg_curv", got->avg_curv, want->avg_curv, n * 4);
    cr_expect_bytes("next", got->next, want->next, n * 4);
    cr_expect_bytes("high", got->high, want->high, n * 2);
    cr_expect_bytes("low", got->low, want->low, n * 2);
    cr_expect_bytes("stats", got->stats, want->stats, got->n_chunks * sizeof *got->stats);
}

static void call(const struct cr_ivon_ops *ops, int which, const struct cr_ivon_args *args, size_t cut, size_t n)
{
    cr_ivon_fn *fn = which == 0 ? ops->step : which == 1 ? ops->accumulate : ops->perturb;
    fn(args, cut, n);
    fn(args, 0, cut);
}

START_TEST(tiers_and_splits)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), n = sizes[_i % N_SIZES];
    int mode = _i / N_SIZES % MODES;
    uint64_t seed = 800 + (uint64_t)_i;
    for (int which = 0; which < 3; which++) {
        struct data want = make(seed, n, CR_AT_END);
        struct cr_ivon_args args = args_of(&want, mode);
        if (which == 1 && args.grad == NULL) {
            continue;
        }
        struct cr_ivon_ops ref = ops_of(CR_TIER_SCALAR);
        call(&ref, which, &args, 0, n);
        for (size_t t = 0; t < n_tiers; t++) {
            struct cr_ivon_ops ops = ops_of(tiers[t]);
            for (size_t cut = 0; cut <= n; cut += CR_IVON_CHUNK) {
                struct data got = make(seed, n, cut == 0 ? CR_AT_END : CR_AT_START);
                args = args_of(&got, mode);
                call(&ops, which, &args, cut, n);
                expect_data(&got, &want);
            }
        }
        cr_guard_free_all();
    }
}
END_TEST

/* ---- against double ---- */

struct wide {
    double m, h, mean, next, x, m_bound, h_bound, mean_bound, next_bound;
};

/* One step of one sample in double, from the formulas of the paper, and bounds in units u of rounding. Scalars carry
 * one u each, as does every operation. */
static struct wide wide_step(const struct cr_ivon_args *a, const struct data *d, size_t i, double eps, double eps_next)
{
    struct wide w;
    double u = 1.02 * CR_U32, wd = a->weight_decay, rest = 1 - a->beta2, h = (double)d->hess[i],
           mean = (double)d->mean[i];
    double g = a->grad_scale * (double)d->grad[i], old = a->beta1 * (double)d->momentum[i];
    double f = a->gradsq ? a->ess * g * g : sqrt(a->ess * (h + wd)) * eps * g;
    w.h = a->beta2 * h + rest * f + 0.5 * rest * rest * (h - f) * (h - f) / (h + wd);
    /* h + wd: constant and sum over a itself */
    double sum = h + wd, a_rel = (wd + sum) * u / sum, f_rel = 6 * u + a_rel / 2, delta = rest * (f - h);
    double d_bound = rest * fabs(f) * f_rel + 3 * u * fabs(delta);
    double factor = 1 + delta / sum / 2;
    w.h_bound = d_bound * (fabs(factor) + fabs(delta / sum) / 2) + fabs(delta * delta / sum) * (a_rel + 2 * u) +
                u * fabs(delta * factor);
    w.h_bound += u * fabs(w.h);
    w.m = old + (1 - a->beta1) * a->clip * g;
    w.m_bound = u * (2 * fabs(old) + 3 * fabs(w.m - old) + fabs(w.m));
    double correct = a->debias ? 1 / (1 - pow(a->beta1, (double)a->t)) : 1;
    double top = w.m * correct + wd * mean, below = w.h + wd;
    double below_rel = (w.h_bound + u * (wd + below)) / below + u;
    w.x = top / below;
    double x_bound = (w.m_bound * correct + u * (2 * fabs(w.m * correct) + fabs(wd * mean) + fabs(top))) / below;
    x_bound += fabs(w.x) * (below_rel * 1.02 + u);
    double rate = a->lr * (a->rescale_lr ? a->hess_init + wd : 1),
           cut = fmax(-a->clip_radius, fmin(a->clip_radius, w.x));
    w.mean = mean - rate * cut;
    w.mean_bound = rate * (x_bound + u * fabs(cut)) + u * (fabs(w.mean) + a->clip_radius * rate);
    double noise = eps_next / sqrt(a->ess * below);
    w.next = w.mean + noise;
    w.next_bound = w.mean_bound + fabs(noise) * (below_rel + 3 * u) + u * fabs(w.next);
    return w;
}

START_TEST(against_double)
{
    enum { N = 4096 };
    for (int gradsq = 0; gradsq < 2; gradsq++) {
        struct data before = make(850, N, CR_AT_END), after = make(850, N, CR_AT_END);
        struct cr_ivon_args args = args_of(&after, gradsq);
        ops_of(CR_TIER_SCALAR).step(&args, 0, N);
        double sum = 0, magnitude = 0, least = INFINITY;
        unsigned clipped = 0, unsure = 0;
        for (size_t i = 0; i < N; i++) {
            double eps = (double)cr_normal_at(&args.noise, i), eps_next = (double)cr_normal_at(&args.noise_next, i);
            struct wide w = wide_step(&args, &before, i, eps, eps_next);
            cr_expect_within("momentum", &after.momentum[i], &w.m, &w.m_bound, 1);
            cr_expect_within("hess", &after.hess[i], &w.h, &w.h_bound, 1);
            cr_expect_within("mean", &after.mean[i], &w.mean, &w.mean_bound, 1);
            cr_expect_within("next", &after.next[i], &w.next, &w.next_bound, 1);
            sum += (double)after.hess[i];
            magnitude += fabs((double)after.hess[i]);
            least = fmin(least, (double)after.hess[i]);
            clipped += fabs(w.x) > args.clip_radius * 1.0001;
            unsure += fabs(fabs(w.x) / args.clip_radius - 1) <= 1e-4;
        }
        ck_assert_double_le(fabs(after.stats->sum_hess - sum), 65 * CR_U32 * magnitude);
        ck_assert(least == (double)after.stats->min_hess);
        ck_assert_uint_ge(after.stats->n_clipped, clipped);
        ck_assert_uint_le(after.stats->n_clipped, clipped + unsure);
        ck_assert(clipped > N / 20 && clipped < N - N / 20);
        cr_guard_free_all();
    }
}
END_TEST

/* high is next rounded, low the rest: together within 2^-17 of next, half a bf16 unit of half a bf16 unit. */
START_TEST(split_form)
{
    enum { N = 200 };
    struct data d = make(860, N, CR_AT_END);
    struct cr_ivon_args args = args_of(&d, 4);
    ops_of(CR_TIER_SCALAR).perturb(&args, 0, N);
    for (size_t i = 0; i < N; i++) {
        ck_assert_uint_eq(d.high[i], cr_f32_to_bf16(d.next[i]));
        double both = (double)cr_bf16_to_f32(d.high[i]) + (double)cr_bf16_to_f32(d.low[i]);
        ck_assert_double_le(fabs(both - (double)d.next[i]), 0x1p-17 * fabs((double)d.next[i]));
    }
    cr_guard_free_all();
}
END_TEST

/* ---- what the method promises ---- */

/* h' + wd >= (h + wd) / 2 whatever the gradient: x + x^2 / 2 >= -1/2. Six roundings of relative size u. */
START_TEST(stays_positive)
{
    enum { N = 4096, STEPS = 250 };
    struct cr_rng rng = cr_rng_make(870);
    static float mean[N], momentum[N], hess[N], grad[N], eps[N];
    struct cr_ivon_args args = {.mean = mean,
                                .momentum = momentum,
                                .hess = hess,
                                .grad = grad,
                                .eps = eps,
                                .lr = 0,
                                .ess = 1e6,
                                .weight_decay = 0,
                                .beta1 = 0.9,
                                .beta2 = 0.9,
                                .hess_init = 1,
                                .clip_radius = 1,
                                .grad_scale = 1,
                                .clip = 1,
                                .sample = 1};
    for (size_t i = 0; i < N; i++) {
        hess[i] = 1;
    }
    enum cr_tier tiers[CR_TEST_TIERS];
    struct cr_ivon_ops ops = ops_of(tiers[cr_test_tiers(tiers) - 1]);
    for (args.t = 1; args.t <= STEPS; args.t++) {
        float before[N];
        memcpy(before, hess, sizeof hess);
        for (size_t i = 0; i < N; i++) { /* d near -a, the worst case, on most; wild numbers on the rest */
            float worst = -(hess[i] / 0.1f) / sqrtf(1e6f * hess[i]) * cr_rng_uniform(&rng, 0.5f, 1.5f);
            eps[i] = cr_rng_uniform(&rng, 1, 3);
            grad[i] = i % 4 ? worst / eps[i] : cr_rng_uniform(&rng, -10, 10);
            hess[i] = before[i] = fmaxf(hess[i], 1e-20f); /* keep away from denormals */
        }
        ops.step(&args, 0, N);
        for (size_t i = 0; i < N; i++) {
            ck_assert_msg(hess[i] >= before[i] * 0.499999f, "step %d element %zu: %g after %g", (int)args.t, i,
                          (double)hess[i], (double)before[i]);
        }
    }
}
END_TEST

/* At the optimum of 1/2 a theta^2 the price estimate is a z^2: h goes to a. Its spread: variance 2 a^2, averaged over
 * the last 1 / (1 - beta2) steps twice and over N elements. Noise regenerated, perturbed copies as emitted. */
START_TEST(learns_curvature)
{
    enum { N = 4096, STEPS = 600 };
    static float mean[N], momentum[N], hess[N], grad[N], next[N];
    struct cr_ivon_stats stats;
    const double curvature = 2.5;
    enum cr_tier tiers[CR_TEST_TIERS];
    struct cr_ivon_ops ops = ops_of(tiers[cr_test_tiers(tiers) - 1]);
    struct cr_ivon_args args = {.mean = mean,
                                .momentum = momentum,
                                .hess = hess,
                                .grad = grad,
                                .next = next,
                                .noise = {{7, 7}, 0, 0, 0},
                                .noise_next = {{7, 7}, 0, 0, 0},
                                .stats = &stats,
                                .lr = 0,
                                .ess = 100,
                                .weight_decay = 0.1,
                                .beta1 = 0.9,
                                .beta2 = 0.98,
                                .hess_init = 1,
                                .clip_radius = INFINITY,
                                .grad_scale = 1,
                                .clip = 1,
                                .sample = 1};
    for (size_t i = 0; i < N; i++) {
        hess[i] = 1;
    }
    ops.perturb(&args, 0, N);
    for (args.t = 1; args.t <= STEPS; args.t++) {
        for (size_t i = 0; i < N; i++) {
            grad[i] = (float)curvature * next[i];
        }
        args.noise.step = (uint32_t)args.t - 1;
        args.noise_next.step = (uint32_t)args.t;
        ops.step(&args, 0, N);
    }
    /* the second-order term adds about (1 - beta2) / 2 E(f - h)^2 / a = a (1 - beta2) */
    double spread = curvature * sqrt(2 * 0.02 / 2 / N), drift = curvature * 0.02 * 1.5;
    ck_assert_double_le(fabs(stats.sum_hess / N - curvature), 5 * spread + drift);
}
END_TEST

START_TEST(special)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    for (size_t t = 0; t < n_tiers; t++) {
        struct data d = make(890, 100, CR_AT_END);
        cr_guard_protect(d.grad, false);
        d.grad[3] = NAN;
        d.grad[99] = INFINITY;
        struct cr_ivon_args args = args_of(&d, 0);
        ops_of(tiers[t]).step(&args, 0, 100);
        for (size_t i = 0; i < 100; i++) {
            ck_assert(isnan(d.mean[i]) == (i == 3 || i == 99)); /* inf / inf */
            ck_assert(isfinite(d.hess[i]) == (i != 3 && i != 99));
        }
        cr_guard_free_all();
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ivon");
    TCase *tc = tcase_create("ivon");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, tiers_and_splits, 0, N_SIZES * MODES);
    tcase_add_test(tc, against_double);
    tcase_add_test(tc, split_form);
    tcase_add_test(tc, stays_positive);
    tcase_add_test(tc, learns_curvature);
    tcase_add_test(tc, special);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
