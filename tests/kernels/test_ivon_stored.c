/* ivon: stored traces with their noise, of one worker and of two, and stored draws. */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "credence/kernels/ivon.h"
#include "tests/kernels/ivon_case.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_test.h"

enum { GOLDEN_N = 3 };
/* f32 state: 2e-5 for means and momenta; 1e-4 for h, whose increments are 1e-5 of it (stated with the numbers). */
static const double golden_mean = 2e-5, golden_hess = 1e-4;

static void numbers(const json_t *object, const char *key, float out[GOLDEN_N])
{
    json_t *array = cr_golden_get(object, key);
    ck_assert_uint_eq(json_array_size(array), GOLDEN_N);
    for (size_t i = 0; i < GOLDEN_N; i++) {
        out[i] = (float)json_number_value(json_array_get(array, i));
    }
}

static void expect(const char *what, const json_t *object, const char *key, const float *got, double tolerance)
{
    double want[GOLDEN_N], bound[GOLDEN_N];
    for (size_t i = 0; i < GOLDEN_N; i++) {
        want[i] = json_number_value(json_array_get(cr_golden_get(object, key), i));
        bound[i] = tolerance * fabs(want[i]);
    }
    char text[80];
    snprintf(text, sizeof text, "%s: %s", what, key);
    cr_expect_within(text, got, want, bound, GOLDEN_N);
}

struct golden {
    float mean[GOLDEN_N], momentum[GOLDEN_N], hess[GOLDEN_N], grad[GOLDEN_N], avg_grad[GOLDEN_N], avg_curv[GOLDEN_N];
    float eps[GOLDEN_N], eps_next[GOLDEN_N], next[GOLDEN_N];
};

static struct cr_ivon_args golden_args(struct golden *g, const json_t *group, const json_t *flags)
{
    return (struct cr_ivon_args){.mean = g->mean,
                                 .momentum = g->momentum,
                                 .hess = g->hess,
                                 .grad = g->grad,
                                 .avg_grad = g->avg_grad,
                                 .avg_curv = g->avg_curv,
                                 .eps = g->eps,
                                 .eps_next = g->eps_next,
                                 .next = g->next,
                                 .lr = cr_golden_limit(group, "lr"),
                                 .ess = cr_golden_limit(group, "ess"),
                                 .weight_decay = cr_golden_limit(group, "weight_decay"),
                                 .beta1 = cr_golden_limit(group, "beta1"),
                                 .beta2 = cr_golden_limit(group, "beta2"),
                                 .hess_init = cr_golden_limit(group, "hess_init"),
                                 .clip_radius = cr_golden_limit(group, "clip_radius"),
                                 .grad_scale = 1,
                                 .clip = 1,
                                 .sample = 1,
                                 .debias = json_is_true(cr_golden_get(flags, "debias")),
                                 .rescale_lr = json_is_true(cr_golden_get(flags, "rescale_lr"))};
}

/* The arguments of one group: its slice of the arrays. */
static struct cr_ivon_args slice(struct cr_ivon_args a, size_t start)
{
    a.mean += start, a.momentum += start, a.hess += start, a.next += start;
    a.grad = a.grad != NULL ? a.grad + start : NULL;
    a.avg_grad += start, a.avg_curv += start, a.eps += start, a.eps_next += start;
    return a;
}

static void all_groups(cr_ivon_fn *fn, const json_t *item, struct golden *g, double lr, uint64_t t, uint32_t sample)
{
    size_t index;
    json_t *group;
    json_array_foreach(cr_golden_get(item, "groups"), index, group)
    {
        size_t start = (size_t)cr_golden_limit(group, "start"), end = (size_t)cr_golden_limit(group, "end");
        struct cr_ivon_args args = slice(golden_args(g, group, cr_golden_get(item, "flags")), start);
        args.lr *= lr;
        args.t = t;
        args.sample = sample;
        args.gradsq = strcmp(json_string_value(cr_golden_get(item, "hess_approx")), "gradsq") == 0;
        fn(&args, 0, end - start);
    }
}

static void run_trace(const char *name, const json_t *item, const struct cr_ivon_ops *ops, const json_t *root)
{
    struct golden g;
    memset(&g, 0, sizeof g);
    size_t index, t;
    json_t *group, *step;
    numbers(root, "theta0", g.mean);
    json_array_foreach(cr_golden_get(item, "groups"), index, group)
    {
        for (size_t i = (size_t)cr_golden_limit(group, "start"); i < (size_t)cr_golden_limit(group, "end"); i++) {
            g.hess[i] = (float)cr_golden_limit(group, "hess_init");
        }
    }
    numbers(json_array_get(cr_golden_get(json_array_get(cr_golden_get(item, "trace"), 0), "samples"), 0), "eps",
            g.eps_next);
    all_groups(ops->perturb, item, &g, 1, 1, 1);
    json_array_foreach(cr_golden_get(item, "trace"), t, step)
    {
        json_t *samples = cr_golden_get(step, "samples"), *last = json_array_get(cr_golden_get(item, "trace"), t + 1);
        size_t n = json_array_size(samples);
        for (size_t s = 0; s < n; s++) {
            json_t *sample = json_array_get(samples, s);
            json_t *after = s + 1 < n ? json_array_get(samples, s + 1)
                                      : (last != NULL ? json_array_get(cr_golden_get(last, "samples"), 0) : sample);
            expect(name, sample, "theta", g.next, golden_mean);
            numbers(sample, "grad", g.grad);
            numbers(sample, "eps", g.eps);
            numbers(after, "eps", g.eps_next);
            all_groups(s + 1 < n ? ops->accumulate : ops->step, item, &g, cr_golden_limit(step, "lr_multiplier"), t + 1,
                       (uint32_t)s + 1);
        }
        expect(name, step, "mean", g.mean, golden_mean);
        expect(name, step, "momentum", g.momentum, golden_mean);
        expect(name, step, "hess", g.hess, golden_hess);
    }
}

START_TEST(golden_traces)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), seen = 0;
    json_t *root = cr_golden_load("ivon.json"), *item;
    const char *name;
    for (size_t tier = 0; tier < n_tiers; tier++) {
        struct cr_ivon_ops ops = ops_of(tiers[tier]);
        json_object_foreach(cr_golden_get(root, "cases"), name, item)
        {
            if (json_object_get(item, "groups") != NULL) {
                run_trace(name, item, &ops, root);
                seen++;
            }
        }
    }
    ck_assert_uint_eq(seen, 6 * n_tiers);
    json_decref(root);
}
END_TEST

/* Each worker accumulates its own noise and gradient; cr_ivon_merge averages them; one step from that. */
START_TEST(golden_workers)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), t;
    json_t *root = cr_golden_load("ivon.json"), *item = cr_golden_get(cr_golden_get(root, "cases"), "sync_two_workers"),
           *step;
    for (size_t tier = 0; tier < n_tiers; tier++) {
        struct cr_ivon_ops ops = ops_of(tiers[tier]);
        struct golden g;
        memset(&g, 0, sizeof g);
        numbers(root, "theta0", g.mean);
        for (size_t i = 0; i < GOLDEN_N; i++) {
            g.hess[i] = (float)cr_golden_limit(cr_golden_get(item, "hyper"), "hess_init");
        }
        json_array_foreach(cr_golden_get(item, "trace"), t, step)
        {
            struct cr_ivon_args args = golden_args(&g, cr_golden_get(item, "hyper"), cr_golden_get(item, "flags"));
            float averages[4][GOLDEN_N];
            args.next = NULL;
            args.t = t + 1;
            for (size_t worker = 0; worker < 2; worker++) {
                numbers(json_array_get(cr_golden_get(step, "workers"), worker), "eps", g.eps);
                numbers(json_array_get(cr_golden_get(step, "workers"), worker), "grad", g.grad);
                args.avg_grad = averages[worker];
                args.avg_curv = averages[2 + worker];
                ops.accumulate(&args, 0, GOLDEN_N);
            }
            cr_ivon_merge((float *const[]){averages[0], averages[1]}, (float *const[]){averages[2], averages[3]}, 2, 0,
                          GOLDEN_N);
            args.grad = NULL; /* and the averages of the second, which the first has too */
            cr_expect_bytes("average", averages[0], averages[1], sizeof averages[0]);
            ops.step(&args, 0, GOLDEN_N);
            expect("workers", step, "mean", g.mean, golden_mean);
            expect("workers", step, "momentum", g.momentum, golden_mean);
            expect("workers", step, "hess", g.hess, golden_hess);
        }
    }
    json_decref(root);
}
END_TEST

/* Posterior draws, the temperature in ess. */
START_TEST(golden_draws)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    json_t *root = cr_golden_load("ivon.json"), *item = cr_golden_get(cr_golden_get(root, "cases"), "test_sampling");
    for (size_t tier = 0; tier < n_tiers; tier++) {
        for (size_t draw = 0; draw < 4; draw++) {
            struct golden g;
            memset(&g, 0, sizeof g);
            numbers(item, "mean", g.mean);
            numbers(item, "hess", g.hess);
            struct cr_ivon_args args = {.mean = g.mean,
                                        .hess = g.hess,
                                        .eps_next = g.eps,
                                        .next = g.next,
                                        .ess = cr_golden_limit(item, "ess") * (draw / 2 ? 10 : 1),
                                        .weight_decay = cr_golden_limit(item, "weight_decay")};
            json_t *eps = json_array_get(cr_golden_get(item, "eps"), draw % 2);
            json_t *want = json_array_get(cr_golden_get(item, draw / 2 ? "samples_tau10" : "samples_tau1"), draw % 2);
            for (size_t i = 0; i < GOLDEN_N; i++) {
                g.eps[i] = (float)json_number_value(json_array_get(eps, i));
            }
            ops_of(tiers[tier]).perturb(&args, 0, GOLDEN_N);
            for (size_t i = 0; i < GOLDEN_N; i++) {
                double x = json_number_value(json_array_get(want, i));
                ck_assert_double_le(fabs((double)g.next[i] - x), golden_mean * fabs(x));
            }
        }
    }
    json_decref(root);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ivon stored");
    TCase *tc = tcase_create("ivon stored");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, golden_traces);
    tcase_add_test(tc, golden_workers);
    tcase_add_test(tc, golden_draws);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
