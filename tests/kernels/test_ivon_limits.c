/* ivon at its limits: workers that agree are one worker, and a posterior without spread is momentum descent. */
#include <math.h>
#include <string.h>

#include "tests/kernels/ivon_case.h"
#include "tests/support/tl16_test.h"

enum { N = 5000, SAMPLES_MAX = 3, WORKERS_MAX = 5 };

struct worker {
    float mean[N], momentum[N], hess[N], avg_grad[N], avg_curv[N], next[N];
};
static struct worker workers[WORKERS_MAX], one;
static float grads[SAMPLES_MAX][N];

static struct cr_ivon_args args_of(struct worker *w)
{
    return (struct cr_ivon_args){.mean = w->mean,
                                 .momentum = w->momentum,
                                 .hess = w->hess,
                                 .avg_grad = w->avg_grad,
                                 .avg_curv = w->avg_curv,
                                 .noise = {{1, 2}, 3, 0, 5},
                                 .noise_next = {{1, 2}, 4, 0, 5},
                                 .lr = 0.1,
                                 .ess = 1e4,
                                 .weight_decay = 0.01,
                                 .beta1 = 0.9,
                                 .beta2 = 0.999,
                                 .hess_init = 0.2,
                                 .clip_radius = INFINITY,
                                 .grad_scale = 1,
                                 .clip = 1,
                                 .t = 2,
                                 .sample = 1,
                                 .debias = true};
}

static void start(struct worker *w, uint64_t seed)
{
    struct cr_rng rng = cr_rng_make(seed);
    cr_fill_f32(&rng, w->mean, N, -1, 1);
    cr_fill_f32(&rng, w->momentum, N, -0.1f, 0.1f);
    cr_fill_f32(&rng, w->hess, N, 0.05f, 0.5f);
}

static void accumulate_all(const struct cr_ivon_ops *ops, struct worker *w, uint32_t n_samples, bool gradsq)
{
    for (uint32_t s = 0; s < n_samples; s++) {
        struct cr_ivon_args args = args_of(w);
        args.grad = grads[s];
        args.noise.sample = s;
        args.sample = s + 1;
        args.gradsq = gradsq;
        ops->accumulate(&args, 0, N);
    }
}

/* W workers with the same shard and the same noise equal one worker, bit for bit, wherever the merge is cut. _i: number
 * of samples and estimate. */
START_TEST(equal_workers)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    uint32_t n_samples = (uint32_t)_i / 2 + 1;
    struct cr_rng rng = cr_rng_make(900);
    cr_fill_f32(&rng, grads[0], SAMPLES_MAX * N, -1, 1);
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_ivon_ops ops = ops_of(tiers[t]);
        start(&one, 901);
        accumulate_all(&ops, &one, n_samples - 1, _i % 2);
        struct cr_ivon_args args = args_of(&one); /* as alone: the last sample joins in the step */
        args.grad = grads[n_samples - 1];
        args.noise.sample = n_samples - 1;
        args.sample = n_samples;
        args.gradsq = _i % 2;
        args.next = one.next;
        ops.step(&args, 0, N);
        for (size_t n_workers = 1; n_workers <= WORKERS_MAX; n_workers++) {
            float *avg_grad[WORKERS_MAX], *avg_curv[WORKERS_MAX];
            for (size_t w = 0; w < n_workers; w++) {
                start(&workers[w], 901);
                accumulate_all(&ops, &workers[w], n_samples, _i % 2);
                avg_grad[w] = workers[w].avg_grad;
                avg_curv[w] = workers[w].avg_curv;
            }
            cr_ivon_merge(avg_grad, avg_curv, n_workers, 1237, N);
            cr_ivon_merge(avg_grad, avg_curv, n_workers, 0, 1237);
            for (size_t w = 0; w < n_workers; w++) {
                args = args_of(&workers[w]);
                args.gradsq = _i % 2;
                args.next = workers[w].next;
                ops.step(&args, 0, N);
                cr_expect_bytes("mean", workers[w].mean, one.mean, sizeof one.mean);
                cr_expect_bytes("momentum", workers[w].momentum, one.momentum, sizeof one.momentum);
                cr_expect_bytes("hess", workers[w].hess, one.hess, sizeof one.hess);
                cr_expect_bytes("next", workers[w].next, one.next, sizeof one.next);
            }
        }
    }
}
END_TEST

/* Workers that differ: each gets the mean, rounded once; sums of at most five terms in double before. Nothing outside
 * the range. */
START_TEST(mean_of_workers)
{
    enum { BEGIN = 3, END = N - 5 };
    static double want[2][N], bound[2][N];
    struct cr_rng rng = cr_rng_make(910);
    float *avg_grad[WORKERS_MAX], *avg_curv[WORKERS_MAX];
    memset(want, 0, sizeof want);
    memset(bound, 0, sizeof bound);
    for (size_t w = 0; w < WORKERS_MAX; w++) {
        avg_grad[w] = workers[w].avg_grad;
        avg_curv[w] = workers[w].avg_curv;
        cr_fill_f32(&rng, avg_grad[w], N, -1, 1);
        cr_fill_f32(&rng, avg_curv[w], N, 0, 1e-6f);
        for (size_t i = 0; i < N; i++) {
            want[0][i] += (double)avg_grad[w][i] / WORKERS_MAX;
            want[1][i] += (double)avg_curv[w][i] / WORKERS_MAX;
            bound[0][i] += fabs((double)avg_grad[w][i]) * 0x1p-50;
            bound[1][i] += fabs((double)avg_curv[w][i]) * 0x1p-50;
        }
    }
    float outside[2] = {avg_grad[4][BEGIN - 1], avg_curv[2][END]};
    cr_ivon_merge(avg_grad, avg_curv, WORKERS_MAX, BEGIN, END);
    for (size_t i = BEGIN; i < END; i++) {
        bound[0][i] += fabs(want[0][i]) * CR_U32;
        bound[1][i] += fabs(want[1][i]) * CR_U32;
    }
    for (size_t w = 0; w < WORKERS_MAX; w++) {
        cr_expect_within("gradient", avg_grad[w] + BEGIN, want[0] + BEGIN, bound[0] + BEGIN, END - BEGIN);
        cr_expect_within("curvature", avg_curv[w] + BEGIN, want[1] + BEGIN, bound[1] + BEGIN, END - BEGIN);
    }
    ck_assert(outside[0] == avg_grad[4][BEGIN - 1] && outside[1] == avg_curv[2][END]);
}
END_TEST

/* Momentum descent in double, m <- b1 m + (1 - b1) g, w <- w - lr (m / (1 - b1^t) + wd w) / (h + wd), and what f32 may
 * have added to both so far: each step's own roundings as in test_ivon.c, and those of the steps before carried on. */
static struct descent {
    double m[N], w[N], m_bound[N], w_bound[N];
} descent;

static void descend(struct descent *d, size_t i, const struct cr_ivon_args *a, double g)
{
    double u = 1.02 * CR_U32, wd = a->weight_decay, below = (double)a->hess[i] + wd, old = a->beta1 * d->m[i];
    double m = old + (1 - a->beta1) * g, correct = 1 / (1 - pow(a->beta1, (double)a->t));
    double top = m * correct + wd * d->w[i], x = top / below;
    d->m_bound[i] = a->beta1 * d->m_bound[i] + u * (2 * fabs(old) + 3 * fabs(m - old) + fabs(m));
    double x_bound = (d->m_bound[i] * correct + wd * d->w_bound[i]) / below;
    x_bound += u * (2 * fabs(m * correct) + fabs(wd * d->w[i]) + fabs(top)) / below + 4 * u * fabs(x);
    d->m[i] = m;
    d->w[i] -= a->lr * x;
    d->w_bound[i] += a->lr * (x_bound + u * fabs(x)) + u * fabs(d->w[i]);
}

/* The state after a step; next is the mean but for noise that has all but vanished. */
static void expect_descent(const struct cr_ivon_args *a)
{
    static double want[N], bound[N];
    cr_expect_within("momentum", a->momentum, descent.m, descent.m_bound, N);
    cr_expect_within("mean", a->mean, descent.w, descent.w_bound, N);
    for (size_t i = 0; i < N; i++) {
        want[i] = (double)a->mean[i];
        bound[i] = 6.68 / sqrt(a->ess * ((double)a->hess[i] + a->weight_decay)) + CR_U32 * fabs(want[i]);
    }
    cr_expect_within("next", a->next, want, bound, N);
}

/* ess 1e30 and beta2 = 1: the noise vanishes, h is what it was, bit for bit, and 100 steps are momentum descent with h
 * as the preconditioner. Gradients are those of a bowl at the point that the step before gave. _i: estimate. */
START_TEST(no_spread_is_momentum)
{
    enum { STEPS = 100 };
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    static float hess[N], grad[N];
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_ivon_ops ops = ops_of(tiers[t]);
        start(&one, 920);
        memcpy(hess, one.hess, sizeof hess);
        memset(one.momentum, 0, sizeof one.momentum);
        memset(&descent, 0, sizeof descent);
        for (size_t i = 0; i < N; i++) {
            descent.w[i] = (double)one.mean[i];
        }
        struct cr_ivon_args args = args_of(&one);
        args.grad = grad;
        args.next = one.next;
        args.ess = 1e30;
        args.beta2 = 1;
        args.gradsq = _i;
        args.t = 0;
        ops.perturb(&args, 0, N);
        for (args.t = 1; args.t <= STEPS; args.t++) {
            args.noise.step = (uint32_t)args.t;
            args.noise_next.step = (uint32_t)args.t + 1;
            for (size_t i = 0; i < N; i++) {
                grad[i] = 0.7f * (one.next[i] - 0.25f);
                descend(&descent, i, &args, (double)grad[i]);
            }
            ops.step(&args, 0, N);
            cr_expect_bytes("hess", one.hess, hess, sizeof hess);
            expect_descent(&args);
        }
        double worst = 0, from = 0;
        for (size_t i = 0; i < N; i++) {
            worst = fmax(worst, descent.w_bound[i]);
            from = fmax(from, fabs(descent.w[i] - 0.25));
        }
        ck_assert_double_le(worst, 1e-4); /* the bounds say something, and the bowl was found */
        ck_assert_double_le(from, 0.1);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ivon limits");
    TCase *tc = tcase_create("ivon limits");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, equal_workers, 0, 2 * SAMPLES_MAX);
    tcase_add_test(tc, mean_of_workers);
    tcase_add_loop_test(tc, no_spread_is_momentum, 0, 2);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
