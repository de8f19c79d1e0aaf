/* The driver of ivon: reference trajectories and draws through parts and groups, two workers. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "runtime/posterior/ivon.h"
#include "runtime/thread/parallel.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_test.h"

static struct cr_parallel serial;
static json_t *golden;

/* Suggested with the numbers: f32 against f64 over at most five steps. */
static const double mean_tolerance = 2e-5, hess_tolerance = 1e-4;

static void setup(void)
{
    cr_parallel_serial(&serial);
    golden = cr_golden_load("ivon.json");
}

static void teardown(void)
{
    json_decref(golden);
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
    return (struct cr_ivon_group){.lr_factor = cr_golden_limit(g, "lr"), /* the rate of a step is its multiplier */
                                  .ess = cr_golden_limit(g, "ess"),
                                  .hess_init = cr_golden_limit(g, "hess_init"),
                                  .beta1 = cr_golden_limit(g, "beta1"),
                                  .beta2 = cr_golden_limit(g, "beta2"),
                                  .weight_decay = cr_golden_limit(g, "weight_decay"),
                                  .clip_radius = cr_golden_limit(g, "clip_radius")};
}

/* The trace of a case with given noise: gradients are those of the points that the driver makes. */
static void run_case(const char *name)
{
    const json_t *item = cr_golden_get(cr_golden_get(golden, "cases"), name), *groups = cr_golden_get(item, "groups"),
                 *flags = cr_golden_get(item, "flags");
    struct cr_ivon_settings s = {.debias = json_is_true(cr_golden_get(flags, "debias")),
                                 .rescale_lr = json_is_true(cr_golden_get(flags, "rescale_lr")),
                                 .gradsq = strcmp(json_string_value(cr_golden_get(item, "hess_approx")), "gradsq") == 0,
                                 .n_samples = (uint32_t)cr_golden_limit(flags, "mc_samples")};
    struct cr_ivon_part parts[2];
    size_t n_parts = json_array_size(groups);
    for (size_t p = 0; p < 2; p++) {
        const json_t *g = json_array_get(groups, p < n_parts ? p : 0);
        size_t begin = (size_t)cr_golden_limit(g, "start");
        parts[p] =
            (struct cr_ivon_part){.begin = begin, .n = (size_t)cr_golden_limit(g, "end") - begin, .group = (uint32_t)p};
        s.groups[p] = group_of(g);
    }
    float theta[3], a[3], c[3], eps[3], next[3], grad[3];
    struct cr_ivon ivon;
    fill(theta, cr_golden_get(golden, "theta0"));
    fill(a, cr_golden_get(golden, "a"));
    fill(c, cr_golden_get(golden, "c"));
    ck_assert_int_eq(cr_ivon_init(&ivon, theta, 3, parts, n_parts, &s, false, CR_TIER_SCALAR, &serial, NULL), CR_OK);
    ivon.eps = eps;
    size_t t;
    const json_t *step;
    json_array_foreach(cr_golden_get(item, "trace"), t, step)
    {
        for (uint32_t sample = 0; sample < s.n_samples; sample++) {
            fill(eps, cr_golden_get(json_array_get(cr_golden_get(step, "samples"), sample), "eps"));
            cr_ivon_perturb(&ivon, t, sample, next);
            near(next, cr_golden_get(json_array_get(cr_golden_get(step, "samples"), sample), "theta"), mean_tolerance);
            for (size_t i = 0; i < 3; i++) {
                grad[i] = a[i] * (next[i] - c[i]);
            }
            if (sample + 1 < s.n_samples) {
                cr_ivon_accumulate(&ivon, t, sample, grad, NULL);
            }
        }
        cr_ivon_step(&ivon, t, grad, cr_golden_limit(step, "lr_multiplier"), 1, NULL);
        near(ivon.mean, cr_golden_get(step, "mean"), mean_tolerance);
        near(ivon.hess, cr_golden_get(step, "hess"), hess_tolerance);
    }
    ck_assert_uint_eq(ivon.t, json_array_size(cr_golden_get(item, "trace")));
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
    const json_t *item = cr_golden_get(cr_golden_get(golden, "cases"), "sync_two_workers"), *step;
    struct cr_ivon_settings s = {.debias = true, .rescale_lr = true, .n_samples = 1};
    const struct cr_ivon_part part = {.n = 3};
    struct cr_ivon ivon[2], *const both[2] = {&ivon[0], &ivon[1]};
    float theta[3], eps[3], grad[3];
    size_t t;
    fill(theta, cr_golden_get(golden, "theta0"));
    s.groups[0] = s.groups[1] = group_of(cr_golden_get(item, "hyper"));
    for (uint32_t w = 0; w < 2; w++) {
        s.worker = w;
        ck_assert_int_eq(cr_ivon_init(&ivon[w], theta, 3, &part, 1, &s, true, CR_TIER_SCALAR, &serial, NULL), CR_OK);
        ivon[w].eps = eps;
    }
    json_array_foreach(cr_golden_get(item, "trace"), t, step)
    {
        for (size_t w = 0; w < 2; w++) {
            fill(eps, cr_golden_get(json_array_get(cr_golden_get(step, "workers"), w), "eps"));
            fill(grad, cr_golden_get(json_array_get(cr_golden_get(step, "workers"), w), "grad"));
            cr_ivon_accumulate(&ivon[w], t, 0, grad, NULL);
        }
        ck_assert_int_eq(cr_ivon_merge_drivers(both, 2, NULL), CR_OK);
        near(ivon[0].avg_grad, cr_golden_get(step, "avg_grad"), mean_tolerance);
        for (size_t w = 0; w < 2; w++) {
            cr_ivon_step(&ivon[w], t, NULL, 1, 1, NULL);
        }
        near(ivon[0].mean, cr_golden_get(step, "mean"), mean_tolerance);
        near(ivon[0].momentum, cr_golden_get(step, "momentum"), mean_tolerance);
        near(ivon[0].hess, cr_golden_get(step, "hess"), hess_tolerance);
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

START_TEST(stored_draws)
{
    const json_t *item = cr_golden_get(cr_golden_get(golden, "cases"), "test_sampling");
    const struct cr_ivon_part part = {.n = 3};
    struct cr_ivon_ops ops;
    ck_assert_int_eq(cr_ivon_ops_init(&ops, CR_TIER_SCALAR), CR_OK);
    for (size_t i = 0; i < 4; i++) {
        float mean[3], hess[3], eps[3], out[3];
        struct cr_ivon_group groups[CR_IVON_GROUPS] = {
            {.ess = cr_golden_limit(item, "ess"), .weight_decay = cr_golden_limit(item, "weight_decay")}};
        fill(mean, cr_golden_get(item, "mean"));
        fill(hess, cr_golden_get(item, "hess"));
        fill(eps, json_array_get(cr_golden_get(item, "eps"), i % 2));
        struct cr_ivon_draw draw = {.mean = mean,
                                    .hess = hess,
                                    .parts = &part,
                                    .n_parts = 1,
                                    .groups = groups,
                                    .temperature = i < 2 ? 1 : 0.1, /* the file's tau is 1 / temperature */
                                    .eps = eps};
        cr_ivon_draw(&ops, &draw, out);
        near(out, json_array_get(cr_golden_get(item, i < 2 ? "samples_tau1" : "samples_tau10"), i % 2), mean_tolerance);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ivon_driver stored");
    TCase *all = tcase_create("ivon_driver stored");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 120);
    tcase_add_loop_test(all, stored_trajectories, 0, 5);
    tcase_add_test(all, two_workers);
    tcase_add_test(all, stored_draws);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
