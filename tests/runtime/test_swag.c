/* SWAG above its kernels: stored learning rates, which steps are snapshots, stored collections and draws through the
 * ring of rows, moments of our own draws, threads. (Every tier, split and the kernels' own bounds: test_dplr.) */
#include <math.h>
#include <string.h>

#include "kernels/common/half.h"
#include "runtime/posterior/swag.h"
#include "runtime/thread/parallel.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_test.h"

#define U32 0x1p-24

enum { MOST_PARAMS = 20000, MOST_ROWS = 10 };

static struct {
    float mean[MOST_PARAMS], mean_low[MOST_PARAMS], m2[MOST_PARAMS];
    uint16_t rows[MOST_ROWS * MOST_PARAMS];
} memory;

static struct cr_dplr_ops best_ops(void)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    struct cr_dplr_ops ops;
    ck_assert_int_eq(cr_dplr_ops_init(&ops, tiers[cr_test_tiers(tiers) - 1]), CR_OK);
    return ops;
}

static struct cr_swag fresh(size_t n_params, uint32_t n_rows)
{
    ck_assert(n_params <= MOST_PARAMS && n_rows <= MOST_ROWS);
    memset(&memory, 0, sizeof memory);
    return (struct cr_swag){.n_params = n_params,
                            .row_stride = n_params,
                            .n_rows = n_rows,
                            .mean = memory.mean,
                            .mean_low = memory.mean_low,
                            .m2 = memory.m2,
                            .rows = memory.rows};
}

START_TEST(stored_rates)
{
    static const char *const names[] = {"swag_linear", "swag_cos"};
    json_t *file = cr_golden_load("schedules.json");
    const json_t *one = cr_golden_get(file, names[_i]);
    uint64_t batches = (uint64_t)cr_golden_number(one, "num_batches");
    uint64_t n_steps = batches * (uint64_t)cr_golden_number(one, "num_epochs");
    struct cr_swag_plan plan = {.n_steps = n_steps,
                                .start = batches * (uint64_t)cr_golden_number(one, "swag_start_epoch"),
                                .every = batches,
                                .n_anneal = batches * (uint64_t)cr_golden_number(one, "swag_anneal_epochs"),
                                .lr = cr_golden_number(one, "swag_lr"),
                                .cosine = _i == 1};
    double rates[24], stored[24];
    ck_assert_uint_eq(n_steps, 24);
    cr_golden_fill(one, "lr_used_per_step", stored, 24);
    for (uint64_t step = 0; step < n_steps; step++) { /* before the start the rate is not SWAG's */
        rates[step] = step < plan.start ? stored[step] : cr_swag_lr(&plan, step, stored[plan.start]);
    }
    cr_golden_expect(one, "lr_used_per_step", rates, 24, 1e-14);
    json_decref(file);
}
END_TEST

START_TEST(plans)
{
    struct cr_swag_plan plan = {0};
    struct cr_error err = {0};
    ck_assert_int_eq(cr_swag_plan_init(&plan, 1001, 0.6, 25, 1e-4, 50, &err), CR_OK);
    ck_assert_uint_eq(plan.start, 601); /* 600.6 rounded up */
    ck_assert_uint_eq(cr_swag_snapshots(&plan), 16);
    uint64_t due = 0, last = 0;
    for (uint64_t step = 0; step < 1100; step++) {
        if (cr_swag_due(&plan, step, due)) {
            ck_assert_uint_eq(step, 601 + 25 * ++due - 1);
            last = step;
        }
    }
    ck_assert_uint_eq(due, 16);
    ck_assert(cr_swag_due(&plan, 700, 2)); /* the step of the third, 675, was skipped */
    ck_assert(cr_swag_due(&plan, 676, 2) && !cr_swag_due(&plan, 676, 3));
    ck_assert_uint_eq(last, 1000);
    ck_assert_double_eq(cr_swag_lr(&plan, 601, 3e-4), 3e-4);
    ck_assert_double_eq_tol(cr_swag_lr(&plan, 626, 3e-4), 2e-4, 1e-18);
    ck_assert_double_eq(cr_swag_lr(&plan, 651, 3e-4), 1e-4);
    ck_assert_double_eq(cr_swag_lr(&plan, 1000, 3e-4), 1e-4);
    plan.n_anneal = 0;
    ck_assert_double_eq(cr_swag_lr(&plan, 601, 3e-4), 1e-4);
    const struct {
        uint64_t n_steps, every;
        double fraction, lr;
    } bad[] = {{100, 10, 1, 1},   {100, 10, -0.1, 1}, {100, 10, (double)NAN, 1},        {100, 0, 0.5, 1},
               {100, 51, 0.5, 1}, {100, 10, 0.5, 0},  {100, 10, 0.5, (double)INFINITY}, {100, 10, 0.5, (double)NAN},
               {0, 1, 0, 1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct cr_swag_plan kept = plan;
        memset(&err, 0, sizeof err);
        ck_assert_int_eq(cr_swag_plan_init(&kept, bad[i].n_steps, bad[i].fraction, bad[i].every, bad[i].lr, 50, &err),
                         CR_E_USAGE);
        ck_assert(err.message[0] != '\0' && memcmp(&kept, &plan, sizeof plan) == 0);
    }
    ck_assert_int_eq(cr_swag_plan_init(&plan, 100, 0.5, 50, 1, 0, &err), CR_OK);
}
END_TEST

/* The search's run: 150 steps, of which 60 are left, ten deviations. */
START_TEST(intervals)
{
    ck_assert_uint_eq(cr_swag_interval(60, 10), 5);
    ck_assert_uint_eq(cr_swag_interval(400, 10), 25);
    ck_assert_uint_eq(cr_swag_interval(1100, 10), 25);
    ck_assert_uint_eq(cr_swag_interval(1101, 10), 26);
    ck_assert_uint_eq(cr_swag_interval(5, 10), 1); /* fewer than wanted, which is said */
    for (uint32_t rank = 2; rank <= 256; rank += 1 + rank / 3) {
        for (uint64_t left = rank + 1; left < 100000; left += 1 + left / 7) {
            uint64_t n = left / cr_swag_interval(left, rank);
            ck_assert_uint_ge(n, rank + 1);
            ck_assert_uint_le(n, 4 * (rank + 1));
        }
    }
}
END_TEST

enum { N = 10, N_FIRST = 6 };

/* f32 snapshots below 0.1: moments within eight roundings of them, rows within bf16 of that (see test_dplr). */
static void collect_stored(struct cr_swag *swag, const struct cr_dplr_ops *ops, const json_t *trace)
{
    for (size_t step = 0; step < json_array_size(trace); step++) {
        const json_t *one = json_array_get(trace, step);
        double snapshot[N], mean[N], square[N], row[MOST_ROWS * N];
        float w[N];
        cr_golden_fill(one, "snapshot", snapshot, N);
        cr_golden_fill(one, "mean", mean, N);
        cr_golden_fill(one, "sq_mean", square, N);
        for (size_t i = 0; i < N; i++) {
            w[i] = (float)snapshot[i];
        }
        cr_swag_collect(swag, ops, NULL, w);
        ck_assert_uint_eq(swag->n, (uint64_t)cr_golden_number(one, "n_models"));
        uint32_t held = cr_swag_held(swag);
        cr_golden_fill(one, "dev_rows", row, held * N);
        ck_assert_uint_eq(cr_swag_rank(swag), swag->n > swag->n_rows ? swag->n_rows : swag->n - 1);
        for (size_t i = 0; i < N; i++) {
            double got = (double)swag->mean[i] + (double)swag->mean_low[i];
            ck_assert_double_eq_tol(got, mean[i], 8 * U32 * 0.1);
            ck_assert_double_eq_tol((double)swag->m2[i] / (double)swag->n + got * got, square[i], 32 * U32 * 0.01);
            for (uint32_t age = 0; age < held; age++) {
                double want = row[age * N + i];
                ck_assert_double_eq_tol((double)cr_bf16_to_f32(cr_swag_row(swag, age)[i]), want,
                                        0x1.01p-8 * fabs(want) + 16 * U32 * 0.1);
            }
        }
    }
}

/* A part of the numbers as a collection of its own. */
static struct cr_swag part_of(const struct cr_swag *swag, size_t begin, size_t n)
{
    struct cr_swag part = *swag;
    part.n_params = n;
    part.mean += begin, part.mean_low += begin, part.m2 += begin, part.rows += begin;
    return part;
}

static void draw_stored(const struct cr_swag *swag, const struct cr_dplr_ops *ops, const json_t *one, double clamp)
{
    bool block = json_is_true(cr_golden_get(one, "block"));
    double z1[N], z2[2 * MOST_ROWS], want[N], slack[N];
    float z1f[N], coef[MOST_ROWS], out[N];
    uint32_t held = cr_swag_held(swag);
    struct cr_swag_draws draws = {.scale = cr_golden_number(one, "scale"),
                                  .clamp = clamp,
                                  .diagonal = !json_is_true(cr_golden_get(one, "cov")),
                                  .plain_factor = block,
                                  .n_samples = 1};
    cr_golden_fill(one, "z1", z1, N);
    cr_golden_fill(one, "z2", z2, (block ? 2 : 1) * held);
    cr_golden_fill(one, "sample", want, N);
    for (size_t i = 0; i < N; i++) {
        z1f[i] = (float)z1[i];
        double noise = fabs(z1[i]) * 0.1, rows = 0; /* deviations below 0.1 */
        for (uint32_t age = 0; age < held; age++) {
            double z = fabs(z2[block && i >= N_FIRST ? held + age : age]);
            rows += z * (0x1.01p-8 * fabs((double)cr_bf16_to_f32(cr_swag_row(swag, age)[i])) + 16 * U32 * 0.1);
        }
        slack[i] = rows + 8 * U32 * (0.1 + noise);
    }
    for (size_t begin = 0; begin < N; begin += block && begin == 0 ? N_FIRST : N) {
        struct cr_swag part = part_of(swag, begin, !block ? N : begin == 0 ? N_FIRST : N - N_FIRST);
        draws.z1 = z1f + begin;
        draws.z2 = z2 + (begin > 0 ? held : 0);
        cr_swag_sample(&part, ops, NULL, &draws, coef, out + begin, N);
    }
    for (size_t i = 0; i < N; i++) {
        ck_assert_double_eq_tol((double)out[i], want[i], slack[i]);
    }
    ck_assert(draws.scale != 0 || memcmp(out, swag->mean, sizeof out) == 0);
}

START_TEST(stored_draws)
{
    json_t *file = cr_golden_load("swag.json"), *one;
    struct cr_dplr_ops ops = best_ops();
    const char *name;
    size_t n_draws = 0;
    json_object_foreach(file, name, one)
    {
        if (!json_is_object(one)) {
            continue;
        }
        struct cr_swag swag = fresh(N, (uint32_t)cr_golden_number(one, "K"));
        collect_stored(&swag, &ops, cr_golden_get(one, "trace"));
        const json_t *draws = cr_golden_get(one, "draws");
        for (size_t d = 0; d < json_array_size(draws); d++, n_draws++) {
            draw_stored(&swag, &ops, json_array_get(draws, d), cr_golden_number(file, "var_clamp"));
        }
    }
    ck_assert_uint_eq(n_draws, 15);
    json_decref(file);
}
END_TEST

/* Collections of random snapshots, for the tests below. */
static struct cr_swag walk(size_t n_params, uint32_t n_rows, size_t n, const struct cr_parallel *parallel)
{
    static float w[MOST_PARAMS];
    struct cr_rng rng = cr_rng_make(70);
    struct cr_dplr_ops ops = best_ops();
    struct cr_swag swag = fresh(n_params, n_rows);
    for (size_t i = 0; i < n; i++) {
        cr_fill_f32(&rng, w, n_params, -1, 1);
        w[n_params - 1] = 0.25f; /* never moves */
        cr_swag_collect(&swag, &ops, parallel, w);
    }
    return swag;
}

/* Covariance of our own draws against scale (diag(var) + D^T D / (K - 1)), within five standard errors of a product of
 * Gaussians; more snapshots than rows, and fewer. */
START_TEST(moments)
{
    enum { P = 6, SAMPLES = 40000, PER_CALL = 100 };
    static float out[PER_CALL * P], coef[MOST_ROWS * PER_CALL];
    struct cr_dplr_ops ops = best_ops();
    struct cr_swag swag = walk(P, 4, _i == 0 ? 9 : 3, NULL);
    double sum[P] = {0}, product[P][P] = {{0}}, cov[P][P], scale = 0.5;
    for (size_t i = 0; i < P; i++) {
        for (size_t j = 0; j < P; j++) {
            cov[i][j] = i == j ? (double)swag.m2[i] / (double)swag.n : 0;
            for (uint32_t age = 0; age < cr_swag_held(&swag); age++) {
                const uint16_t *row = cr_swag_row(&swag, age);
                cov[i][j] += (double)cr_bf16_to_f32(row[i]) * (double)cr_bf16_to_f32(row[j]) / 3;
            }
            cov[i][j] *= scale;
        }
    }
    for (uint32_t first = 0; first < SAMPLES; first += PER_CALL) {
        struct cr_swag_draws draws = {.scale = scale, .seed = 12, .first_sample = first, .n_samples = PER_CALL};
        cr_swag_sample(&swag, &ops, NULL, &draws, coef, out, P);
        for (size_t s = 0; s < PER_CALL; s++) {
            for (size_t i = 0; i < P; i++) {
                double x = (double)out[s * P + i] - (double)swag.mean[i];
                sum[i] += x / SAMPLES;
                for (size_t j = 0; j < P; j++) {
                    product[i][j] += x * ((double)out[s * P + j] - (double)swag.mean[j]) / SAMPLES;
                }
            }
        }
    }
    for (size_t i = 0; i < P; i++) {
        ck_assert_double_le(fabs(sum[i]), 5 * sqrt(cov[i][i] / SAMPLES));
        for (size_t j = 0; j < P; j++) {
            double deviation = sqrt((cov[i][i] * cov[j][j] + cov[i][j] * cov[i][j]) / SAMPLES);
            ck_assert_double_le(fabs(product[i][j] - cov[i][j]), 5 * deviation);
        }
    }
    ck_assert(cov[P - 1][P - 1] == 0 && out[P - 1] == 0.25f); /* without a clamp it stays */
    const float z1[P] = {0, 0, 0, 0, 0, 2};
    struct cr_swag_draws clamped = {.scale = scale, .clamp = 0.02, .diagonal = true, .n_samples = 1, .z1 = z1};
    cr_swag_sample(&swag, &ops, NULL, &clamped, coef, out, P);
    ck_assert_double_eq_tol((double)out[P - 1], 0.25 + 2 * 0.1, 4 * U32);
}
END_TEST

/* A sample is the same alone, among others, on threads; other seeds, samples and blocks are others. */
START_TEST(same_draws)
{
    enum { P = 9001, S = 5 };
    static float all[S * P], one[P], coef[MOST_ROWS * S];
    struct cr_dplr_ops ops = best_ops();
    struct cr_parallel parallel;
    cr_parallel_openmp(&parallel, 3);
    struct cr_swag swag = walk(P, 10, 13, NULL);
    static float mean[P], m2[P];
    memcpy(mean, swag.mean, sizeof mean);
    memcpy(m2, swag.m2, sizeof m2);
    swag = walk(P, 10, 13, &parallel);
    ck_assert(memcmp(mean, swag.mean, sizeof mean) == 0 && memcmp(m2, swag.m2, sizeof m2) == 0);
    struct cr_swag_draws draws = {.scale = 1, .seed = 5, .first_sample = 2, .n_samples = S};
    cr_swag_sample(&swag, &ops, &parallel, &draws, coef, all, P);
    draws.n_samples = 1;
    for (uint32_t s = 0; s < S; s++) {
        draws.first_sample = 2 + s;
        cr_swag_sample(&swag, &ops, NULL, &draws, coef, one, P);
        ck_assert_mem_eq(one, all + s * P, sizeof one);
    }
    draws.first_sample = 2, draws.seed = 6;
    cr_swag_sample(&swag, &ops, NULL, &draws, coef, one, P);
    ck_assert(memcmp(one, all, sizeof one) != 0);
    draws.seed = 5, draws.block = 1;
    cr_swag_sample(&swag, &ops, NULL, &draws, coef, one, P);
    ck_assert(memcmp(one, all, sizeof one) != 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swag");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_loop_test(all, stored_rates, 0, 2);
    tcase_add_test(all, plans);
    tcase_add_test(all, intervals);
    tcase_add_test(all, stored_draws);
    tcase_add_loop_test(all, moments, 0, 2);
    tcase_add_test(all, same_draws);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
