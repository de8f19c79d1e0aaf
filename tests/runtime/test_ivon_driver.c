/* The driver of ivon: reference trajectories through parts and groups, two workers, the same bits for any thread count,
 * known curvature, draws, pruning. (The arithmetic of every mode and tier: tests/kernels/test_ivon.c.) */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/posterior/ivon.h"
#include "runtime/thread/parallel.h"
#include "tests/support/kernel_test.h"

static struct cr_parallel serial;
static json_t *golden;

/* Suggested with the numbers: f32 against f64 over at most five steps. */
static const double mean_tolerance = 2e-5, hess_tolerance = 1e-4;

static void setup(void)
{
    json_error_t why;
    cr_parallel_serial(&serial);
    golden = json_load_file(CR_TEST_DATA "/ivon.json", 0, &why);
    ck_assert_msg(golden != NULL, "%s", why.text);
}

static void teardown(void)
{
    json_decref(golden);
}

static const json_t *get(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    ck_assert_msg(value != NULL, "%s", key);
    return value;
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = get(object, key);
    return json_is_string(value) ? (double)INFINITY : json_number_value(value);
}

static void fill(float out[3], const json_t *list)
{
    ck_assert_uint_eq(json_array_size(list), 3);
    for (size_t i = 0; i < 3; i++) {
        out[i] = (float)json_number_value(json_array_get(list, i));
    }
}

static void near(const float *got, const json_t *want, double tolerance)
{
    for (size_t i = 0; i < 3; i++) {
        double x = json_number_value(json_array_get(want, i));
        ck_assert_msg(fabs((double)got[i] - x) <= tolerance * fabs(x), "%zu: %.9g, expected %.9g", i, (double)got[i],
                      x);
    }
}

static struct cr_ivon_group group_of(const json_t *g)
{
    return (struct cr_ivon_group){.lr_factor = number(g, "lr"), /* the rate of a step is its multiplier */
                                  .ess = number(g, "ess"),
                                  .hess_init = number(g, "hess_init"),
                                  .beta1 = number(g, "beta1"),
                                  .beta2 = number(g, "beta2"),
                                  .weight_decay = number(g, "weight_decay"),
                                  .clip_radius = number(g, "clip_radius")};
}

/* The trace of a case with given noise: gradients are those of the points that the driver makes. */
static void run_case(const char *name)
{
    const json_t *item = get(get(golden, "cases"), name), *groups = get(item, "groups"), *flags = get(item, "flags");
    struct cr_ivon_settings s = {.debias = json_is_true(get(flags, "debias")),
                                 .rescale_lr = json_is_true(get(flags, "rescale_lr")),
                                 .gradsq = strcmp(json_string_value(get(item, "hess_approx")), "gradsq") == 0,
                                 .n_samples = (uint32_t)number(flags, "mc_samples")};
    struct cr_ivon_part parts[2];
    size_t n_parts = json_array_size(groups);
    for (size_t p = 0; p < 2; p++) {
        const json_t *g = json_array_get(groups, p < n_parts ? p : 0);
        size_t begin = (size_t)number(g, "start");
        parts[p] = (struct cr_ivon_part){.begin = begin, .n = (size_t)number(g, "end") - begin, .group = (uint32_t)p};
        s.groups[p] = group_of(g);
    }
    float theta[3], a[3], c[3], eps[3], next[3], grad[3];
    struct cr_ivon ivon;
    fill(theta, get(golden, "theta0"));
    fill(a, get(golden, "a"));
    fill(c, get(golden, "c"));
    ck_assert_int_eq(cr_ivon_init(&ivon, theta, 3, parts, n_parts, &s, false, CR_TIER_SCALAR, &serial, NULL), CR_OK);
    ivon.eps = eps;
    size_t t;
    const json_t *step;
    json_array_foreach(get(item, "trace"), t, step)
    {
        for (uint32_t sample = 0; sample < s.n_samples; sample++) {
            fill(eps, get(json_array_get(get(step, "samples"), sample), "eps"));
            cr_ivon_perturb(&ivon, t, sample, next);
            near(next, get(json_array_get(get(step, "samples"), sample), "theta"), mean_tolerance);
            for (size_t i = 0; i < 3; i++) {
                grad[i] = a[i] * (next[i] - c[i]);
            }
            if (sample + 1 < s.n_samples) {
                cr_ivon_accumulate(&ivon, t, sample, grad, NULL);
            }
        }
        cr_ivon_step(&ivon, t, grad, number(step, "lr_multiplier"), 1, NULL);
        near(ivon.mean, get(step, "mean"), mean_tolerance);
        near(ivon.hess, get(step, "hess"), hess_tolerance);
    }
    ck_assert_uint_eq(ivon.t, json_array_size(get(item, "trace")));
    cr_ivon_deinit(&ivon);
}

START_TEST(stored_trajectories)
{
    static const char *const names[] = {"ivon_lora", "fast_hess_mc2", "gradsq", "nodebias_linear_lr", "two_groups"};
    run_case(names[_i]);
}
END_TEST

/* The averages go through the library's merge; both workers end with the same state. */
START_TEST(two_workers)
{
    const json_t *item = get(get(golden, "cases"), "sync_two_workers"), *step;
    struct cr_ivon_settings s = {.debias = true, .rescale_lr = true, .n_samples = 1};
    const struct cr_ivon_part part = {.n = 3};
    struct cr_ivon ivon[2], *const both[2] = {&ivon[0], &ivon[1]};
    float theta[3], eps[3], grad[3];
    size_t t;
    fill(theta, get(golden, "theta0"));
    s.groups[0] = s.groups[1] = group_of(get(item, "hyper"));
    for (uint32_t w = 0; w < 2; w++) {
        s.worker = w;
        ck_assert_int_eq(cr_ivon_init(&ivon[w], theta, 3, &part, 1, &s, true, CR_TIER_SCALAR, &serial, NULL), CR_OK);
        ivon[w].eps = eps;
    }
    json_array_foreach(get(item, "trace"), t, step)
    {
        for (size_t w = 0; w < 2; w++) {
            fill(eps, get(json_array_get(get(step, "workers"), w), "eps"));
            fill(grad, get(json_array_get(get(step, "workers"), w), "grad"));
            cr_ivon_accumulate(&ivon[w], t, 0, grad, NULL);
        }
        cr_ivon_merge(both, 2);
        near(ivon[0].avg_grad, get(step, "avg_grad"), mean_tolerance);
        for (size_t w = 0; w < 2; w++) {
            cr_ivon_step(&ivon[w], t, NULL, 1, 1, NULL);
        }
        near(ivon[0].mean, get(step, "mean"), mean_tolerance);
        near(ivon[0].momentum, get(step, "momentum"), mean_tolerance);
        near(ivon[0].hess, get(step, "hess"), hess_tolerance);
        ck_assert_mem_eq(ivon[0].mean, ivon[1].mean, sizeof theta);
        ck_assert_mem_eq(ivon[0].hess, ivon[1].hess, sizeof theta);
    }
    /* Their own noise differs. */
    float next[2][3];
    for (size_t w = 0; w < 2; w++) {
        ivon[w].eps = NULL;
        cr_ivon_perturb(&ivon[w], 7, 0, next[w]);
        cr_ivon_deinit(&ivon[w]);
    }
    ck_assert(memcmp(next[0], next[1], sizeof next[0]) != 0);
}
END_TEST

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

START_TEST(goes_to_the_optimum)
{
    struct cr_ivon ivon;
    static float next[N], grad[N];
    make(&ivon, 1, &serial);
    descend(&ivon, next, grad, 300, 0.1, true);
    double sum = 0;
    for (size_t i = 0; i < uneven[0].n; i++) {
        sum += (double)ivon.mean[i];
    }
    /* decay 0.1 pulls the optimum of curvature c to c / 2 / (c + 0.1) */
    double want = 0;
    for (size_t kind = 0; kind < 3; kind++) {
        want += curvature(kind) / 2 / (curvature(kind) + 0.1) / 3;
    }
    ck_assert_double_eq_tol(sum / (double)uneven[0].n, want, 0.02);
    cr_ivon_deinit(&ivon);
}
END_TEST

START_TEST(stored_draws)
{
    const json_t *item = get(get(golden, "cases"), "test_sampling");
    const struct cr_ivon_part part = {.n = 3};
    struct cr_ivon_ops ops;
    ck_assert_int_eq(cr_ivon_ops_init(&ops, CR_TIER_SCALAR), CR_OK);
    for (size_t i = 0; i < 4; i++) {
        float mean[3], hess[3], eps[3], out[3];
        struct cr_ivon_group groups[CR_IVON_GROUPS] = {
            {.ess = number(item, "ess"), .weight_decay = number(item, "weight_decay")}};
        fill(mean, get(item, "mean"));
        fill(hess, get(item, "hess"));
        fill(eps, json_array_get(get(item, "eps"), i % 2));
        struct cr_ivon_draw draw = {.mean = mean,
                                    .hess = hess,
                                    .parts = &part,
                                    .n_parts = 1,
                                    .groups = groups,
                                    .temperature = i < 2 ? 1 : 0.1, /* the file's tau is 1 / temperature */
                                    .eps = eps};
        cr_ivon_draw(&ops, &draw, out);
        near(out, json_array_get(get(item, i < 2 ? "samples_tau1" : "samples_tau10"), i % 2), mean_tolerance);
    }
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
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 120);
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_loop_test(all, stored_trajectories, 0, 5);
    tcase_add_test(all, two_workers);
    tcase_add_loop_test(all, any_thread_count, 0, 6);
    tcase_add_loop_test(all, learns_the_curvature, 0, 2);
    tcase_add_test(all, goes_to_the_optimum);
    tcase_add_test(all, stored_draws);
    tcase_add_test(all, moments_of_draws);
    tcase_add_test(all, pruning);
    tcase_add_test(all, refused_settings);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
