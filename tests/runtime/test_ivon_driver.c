/* The driver of ivon: the same bits for any thread count, known curvature, draws, pruning. (The arithmetic of every
 * mode and tier: tests/kernels/test_ivon.c.) */
#include <check.h>
#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/posterior/ivon.h"
#include "runtime/thread/parallel.h"
#include "tests/support/kernel_test.h"

static struct cr_parallel serial;

static void setup(void)
{
    cr_parallel_serial(&serial);
}

/* Parts of uneven sizes with gaps, the second group with other settings. */
enum { N = 30000, N_PARTS = 4 };
static const struct cr_ivon_part uneven[N_PARTS] = {
    {0, 9001, 10, 0}, {9008, 3, 11, 1}, {9024, 4096, 12, 0}, {13136, 16001, 13, 1}};

static struct cr_ivon_settings quick(uint32_t n_samples)
{
    struct cr_ivon_group a = {.lr_factor = 1,
                              .ess = 400,
                              .hess_init = 0.5,
                              .beta1 = 0.9,
                              .beta2 = 0.98,
                              .weight_decay = 0.1,
                              .clip_radius = 0.2};
    struct cr_ivon_settings s = {.debias = true, .n_samples = n_samples, .seed = 5, .groups = {a, a}};
    s.groups[1].ess = 900;
    s.groups[1].hess_init = 2;
    return s;
}

static double curvature(size_t i)
{
    return i % 3 == 0 ? 0.4 : i % 3 == 1 ? 1.5 : 4;
}

/* Steps on the quadratic sum of curvature / 2 (theta - 1/2)^2. `emit`: points come from the fused emission. */
static struct cr_ivon_counts descend(struct cr_ivon *ivon, float *next, float *grad, uint64_t n_steps, double lr,
                                     bool emit)
{
    struct cr_ivon_counts counts = {0};
    uint32_t n_samples = ivon->settings.n_samples;
    for (uint64_t step = 0; step < n_steps; step++) {
        for (uint32_t sample = 0; sample < n_samples; sample++) {
            if (!emit || (step == 0 && sample == 0)) {
                cr_ivon_perturb(ivon, step, sample, next);
            }
            for (size_t i = 0; i < N; i++) {
                grad[i] = (float)(curvature(i) * ((double)next[i] - 0.5));
            }
            if (sample + 1 < n_samples) {
                cr_ivon_accumulate(ivon, step, sample, grad, emit ? next : NULL);
            }
        }
        counts = cr_ivon_step(ivon, step, grad, lr, 1, emit ? next : NULL);
    }
    return counts;
}

static void make(struct cr_ivon *ivon, uint32_t n_samples, const struct cr_parallel *parallel)
{
    float *start = cr_zalloc(N, sizeof *start);
    struct cr_ivon_settings s = quick(n_samples);
    enum cr_tier tiers[CR_TEST_TIERS];
    enum cr_tier best = tiers[cr_test_tiers(tiers) - 1];
    ck_assert_int_eq(cr_ivon_init(ivon, start, N, uneven, N_PARTS, &s, false, best, parallel, NULL), CR_OK);
    cr_free(start);
}

START_TEST(any_thread_count)
{
    struct cr_parallel pool;
    struct cr_ivon ivon[2];
    static float next[2][N], grad[N];
    uint32_t n_samples = 1 + (uint32_t)_i % 2;
    struct cr_ivon_counts counts[2];
    cr_parallel_openmp(&pool, 2 + _i / 2);
    for (int i = 0; i < 2; i++) {
        memset(next[i], 0, sizeof next[i]);
        make(&ivon[i], n_samples, i == 0 ? &serial : &pool);
        counts[i] = descend(&ivon[i], next[i], grad, 4, 0.1, i == 0);
    }
    ck_assert_mem_eq(ivon[0].mean, ivon[1].mean, N * sizeof(float));
    ck_assert_mem_eq(ivon[0].hess, ivon[1].hess, N * sizeof(float));
    ck_assert_mem_eq(ivon[0].momentum, ivon[1].momentum, N * sizeof(float));
    ck_assert_mem_eq(&counts[0], &counts[1], sizeof counts[0]);
    cr_ivon_perturb(&ivon[1], 4, 0, next[1]); /* what the fused step emitted in the same pass */
    ck_assert_mem_eq(next[0], next[1], sizeof next[0]);
    size_t n = 0;
    double sum = 0;
    for (size_t p = 0; p < N_PARTS; p++) {
        for (size_t i = uneven[p].begin; i < uneven[p].begin + uneven[p].n; i++) {
            sum += (double)ivon[0].hess[i];
            n += ivon[0].hess[i] < (float)counts[0].min_hess;
        }
        size_t end = p + 1 < N_PARTS ? uneven[p + 1].begin : N;
        for (size_t i = uneven[p].begin + uneven[p].n; i < end; i++) { /* gaps stay as they were */
            ck_assert(next[0][i] == 0 && ivon[0].mean[i] == 0 && ivon[0].hess[i] == 0 && ivon[0].momentum[i] == 0);
        }
    }
    ck_assert_uint_eq(n, 0);
    ck_assert_double_eq_tol(counts[0].sum_hess, sum, 65 * 0x1p-24 * sum);
    cr_ivon_deinit(&ivon[0]);
    cr_ivon_deinit(&ivon[1]);
}
END_TEST

/* At a fixed mean the noise-times-gradient estimate has the curvature as its expectation whatever the spread, so h goes
 * to it. Its deviation at the mean m: f = c z^2 + c (m - 1/2) z sqrt(ess (h + wd)); with the mean at its optimum only
 * the first counts: variance 2 c^2. An exponential average with weight w = 1 - beta2 of S such estimates keeps w / (2
 * S) of it, and the elements of a kind average it. The second-order term adds about w / 2 E(f - h)^2 / (h + wd) = w c^2
 * / (c + wd), less than w c. */
START_TEST(learns_the_curvature)
{
    struct cr_ivon ivon;
    static float next[N], grad[N];
    uint32_t n_samples = 1 + (uint32_t)_i;
    make(&ivon, n_samples, &serial);
    for (size_t i = 0; i < N; i++) {
        ivon.mean[i] = 0.5f;
    }
    descend(&ivon, next, grad, 400, 0, true);
    for (size_t kind = 0; kind < 3; kind++) {
        for (uint32_t group = 0; group < 2; group++) {
            double sum = 0, c = curvature(kind);
            size_t n = 0;
            for (size_t p = 0; p < N_PARTS; p++) {
                for (size_t i = uneven[p].begin; i < uneven[p].begin + uneven[p].n; i++) {
                    if (uneven[p].group == group && i % 3 == kind) {
                        sum += (double)ivon.hess[i];
                        n++;
                    }
                }
            }
            double spread = c * sqrt(2 * 0.02 / 2 / n_samples / (double)n);
            ck_assert_msg(fabs(sum / (double)n - c) <= 5 * spread + 1.5 * 0.02 * c, "kind %zu: %g, expected %g", kind,
                          sum / (double)n, c);
        }
    }
    cr_ivon_deinit(&ivon);
}
END_TEST

/* Decay 0.1 pulls the optimum of curvature c to c / 2 / (c + 0.1), by 0.1, 0.03 and 0.012. With h at c a step closes lr
 * of the distance and adds lr c / (c + 0.1) sigma z, sigma^2 = 1 / (ess (c + 0.1)), so that an element keeps a variance
 * of at most lr sigma^2 / 2 and the mean of n an n-th of it. The noise of a step is in its h as well, by the weight 1 -
 * beta2 = 0.02, which moves the optimum by no more than that share of the pull. */
START_TEST(goes_to_the_optimum)
{
    struct cr_ivon ivon;
    static float next[N], grad[N];
    const double lr = 0.1;
    make(&ivon, 1, &serial);
    descend(&ivon, next, grad, 300, lr, true);
    for (size_t kind = 0; kind < 3; kind++) {
        double sum = 0, c = curvature(kind), want = c / 2 / (c + 0.1);
        size_t n = 0;
        for (size_t i = kind; i < uneven[0].n; i += 3, n++) {
            sum += (double)ivon.mean[i];
        }
        double spread = sqrt(lr / (400 * (c + 0.1)) / 2 / (double)n);
        ck_assert_double_eq_tol(sum / (double)n, want, 5 * spread + 0.02 * (0.5 - want));
    }
    cr_ivon_deinit(&ivon);
}
END_TEST

/* Mean, variance and neighbours of our own draws: D normals of each of two samples. */
START_TEST(moments_of_draws)
{
    struct cr_ivon ivon;
    static float out[2][N];
    make(&ivon, 1, &serial);
    struct cr_ivon_draw draw = {.mean = ivon.mean,
                                .hess = ivon.hess,
                                .parts = uneven,
                                .n_parts = N_PARTS,
                                .groups = ivon.settings.groups,
                                .temperature = 2.25,
                                .seed = 3};
    for (uint32_t s = 0; s < 2; s++) {
        draw.sample = s;
        cr_ivon_draw(&ivon.ops, &draw, out[s]);
    }
    for (size_t p = 0; p < N_PARTS; p++) {
        const struct cr_ivon_group *g = &ivon.settings.groups[uneven[p].group];
        double sigma = 1.5 / sqrt(g->ess * (g->hess_init + g->weight_decay));
        double sum = 0, square = 0, cross = 0, n = (double)uneven[p].n;
        for (size_t i = uneven[p].begin; i < uneven[p].begin + uneven[p].n; i++) {
            double z = (double)out[0][i] / sigma;
            sum += z;
            square += z * z;
            cross += z * (double)out[1][i] / sigma;
        }
        if (n > 100) { /* z-scores of 5 */
            ck_assert_double_le(fabs(sum / n), 5 / sqrt(n));
            ck_assert_double_le(fabs(square / n - 1), 5 * sqrt(2 / n));
            ck_assert_double_le(fabs(cross / n), 5 / sqrt(n));
        }
    }
    cr_ivon_deinit(&ivon);
}
END_TEST

START_TEST(pruning)
{
    static const struct cr_ivon_part parts[2] = {{0, 3, 0, 0}, {4, 5, 1, 1}};
    struct cr_ivon_group groups[2] = {{.ess = 100}, {.ess = 400}};
    /* |mean| sqrt(ess h): 10, 1, 30 and 20, 2, 0, 40, 2 */
    float mean[9] = {1, -0.1f, 3, 7, -1, 0.1f, 0, 2, 0.1f};
    float hess[9] = {1, 1, 1, 7, 1, 1, 1, 1, 1};
    size_t n = 0;
    ck_assert_int_eq(cr_ivon_prune(mean, hess, parts, 2, groups, 0.4, &n, NULL), CR_OK);
    ck_assert_uint_eq(n, 3); /* of eight: 0, 1, and the first of the two 2 */
    static const float want[9] = {1, 0, 3, 7, -1, 0, 0, 2, 0.1f};
    for (size_t i = 0; i < 9; i++) {
        ck_assert(mean[i] == want[i]);
        ck_assert(isinf(hess[i]) == (want[i] == 0));
    }
    struct cr_ivon_ops ops;
    float out[9];
    cr_ivon_ops_init(&ops, CR_TIER_SCALAR);
    struct cr_ivon_draw draw = {
        .mean = mean, .hess = hess, .parts = parts, .n_parts = 2, .groups = groups, .temperature = 1};
    memcpy(out, mean, sizeof out);
    cr_ivon_draw(&ops, &draw, out);
    for (size_t i = 0; i < 9; i++) {
        ck_assert(i == 3 || (out[i] == 0) == (want[i] == 0)); /* a pruned entry has no noise */
    }
}
END_TEST

START_TEST(refused_settings)
{
    static const struct cr_ivon_part part = {.n = 1};
    float start = 0;
    for (int i = 0; i < 8; i++) {
        struct cr_ivon_settings s = quick(1);
        struct cr_ivon ivon;
        struct cr_error err = {0};
        double *const fields[] = {&s.groups[0].ess,   &s.groups[1].hess_init,    &s.groups[0].clip_radius,
                                  &s.groups[0].beta1, &s.groups[1].weight_decay, &s.groups[0].ess};
        if (i < 6) {
            *fields[i] = i == 3 ? 1 : i == 5 ? (double)NAN : i == 4 ? -1 : 0;
        }
        s.n_samples = i == 6 ? 0 : 1;
        cr_status status = cr_ivon_init(&ivon, &start, 1, &part, 1, &s, false, CR_TIER_SCALAR, &serial, &err);
        ck_assert_msg(status == (i < 7 ? CR_E_USAGE : CR_OK), "%d: %d %s", i, status, err.message);
        if (status == CR_OK) {
            cr_ivon_deinit(&ivon);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ivon_driver");
    TCase *all = tcase_create("ivon_driver");
    tcase_add_checked_fixture(all, setup, NULL);
    tcase_set_timeout(all, 120);
    tcase_add_loop_test(all, any_thread_count, 0, 6);
    tcase_add_loop_test(all, learns_the_curvature, 0, 2);
    tcase_add_test(all, goes_to_the_optimum);
    tcase_add_test(all, moments_of_draws);
    tcase_add_test(all, pruning);
    tcase_add_test(all, refused_settings);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
