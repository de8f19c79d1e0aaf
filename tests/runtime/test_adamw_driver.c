/* The optimiser driver: stored trajectories of torch.optim.AdamW, clipping, the same bits for any thread count. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/optim/adamw.h"
#include "runtime/optim/norm2.h"
#include "runtime/thread/parallel.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_test.h"

static void fill(float *out, const json_t *list, size_t n)
{
    ck_assert_uint_eq(json_array_size(list), n);
    for (size_t i = 0; i < n; i++) {
        out[i] = (float)json_number_value(json_array_get(list, i));
    }
}

static double norm2_of(const struct cr_adamw *adamw, const float *x)
{
    struct cr_norm2 norm2;
    ck_assert_int_eq(cr_norm2_init(&norm2, adamw->n, CR_TIER_SCALAR, adamw->parallel, NULL), CR_OK);
    double sum = cr_norm2_of(&norm2, x);
    cr_norm2_deinit(&norm2);
    return sum;
}

START_TEST(stored_trajectories)
{
    json_t *file = cr_golden_load("adamw.json");
    json_t *one = json_array_get(json_object_get(file, "adamw"), (size_t)_i);
    ck_assert_ptr_nonnull(one);
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_adamw adamw;
    ck_assert_int_eq(cr_adamw_init(&adamw, 3, CR_TIER_SCALAR, &parallel, NULL), CR_OK);
    adamw.beta1 = cr_golden_number(one, "beta1");
    adamw.beta2 = cr_golden_number(one, "beta2");
    adamw.eps = cr_golden_number(one, "eps");
    adamw.weight_decay = cr_golden_number(one, "weight_decay");
    float w[3];
    float g[3];
    fill(w, json_object_get(one, "theta0"), 3);
    json_t *grads = json_object_get(one, "grads");
    json_t *after = json_object_get(one, "theta_after_each_step");
    for (size_t step = 0; step < json_array_size(grads); step++) {
        fill(g, json_array_get(grads, step), 3);
        cr_adamw_step(&adamw, w, g, sqrt(norm2_of(&adamw, g)), cr_golden_number(one, "lr"));
        ck_assert_uint_eq(cr_adamw_t(&adamw), step + 1);
        for (size_t i = 0; i < 3; i++) {
            /* Each of the steps so far rounds a weight below 1.2 and an update below 0.011 to f32. */
            double want = json_number_value(json_array_get(json_array_get(after, step), i));
            ck_assert_double_eq_tol((double)w[i], want, (double)(step + 2) * 1.2 * 0x1p-24);
        }
    }
    cr_adamw_deinit(&adamw);
    json_decref(file);
}
END_TEST

/* A step with max_norm on equals one with the gradient scaled beforehand by the stored coefficient. */
START_TEST(clipping)
{
    json_t *file = cr_golden_load("adamw.json");
    json_t *clip = json_object_get(file, "clip_grad_norm");
    json_t *rows = json_object_get(clip, "g2");
    float g[7];
    fill(g, json_object_get(clip, "g1"), 3);
    fill(g + 3, json_array_get(rows, 0), 2);
    fill(g + 5, json_array_get(rows, 1), 2);
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_adamw clipped;
    struct cr_adamw scaled;
    ck_assert_int_eq(cr_adamw_init(&clipped, 7, CR_TIER_SCALAR, &parallel, NULL), CR_OK);
    ck_assert_int_eq(cr_adamw_init(&scaled, 7, CR_TIER_SCALAR, &parallel, NULL), CR_OK);
    clipped.max_norm = cr_golden_number(clip, "max_norm");
    double norm = sqrt(norm2_of(&clipped, g));
    ck_assert_double_eq_tol(norm, cr_golden_number(clip, "total_norm"), 1e-6); /* inputs were rounded to f32 */
    float w[2][7] = {{0}};
    float g2[7];
    double coef = cr_golden_number(clip, "coef");
    for (int i = 0; i < 7; i++) {
        g2[i] = (float)(coef * (double)g[i]);
    }
    cr_adamw_step(&clipped, w[0], g, norm, 1e-3);
    cr_adamw_step(&scaled, w[1], g2, norm * coef, 1e-3);
    const float *m0 = (const float *)clipped.state + 16;
    const float *m1 = (const float *)scaled.state + 16;
    for (int i = 0; i < 14; i++) {
        /* Two roundings of the coefficient and of the product, one more for the square. */
        ck_assert_double_eq_tol((double)m0[i], (double)m1[i], 8 * 0x1p-24 * fabs((double)m1[i]));
    }
    /* Below the limit nothing is scaled, and a zero gradient divides by nothing. */
    memset(g2, 0, sizeof g2);
    ck_assert_double_eq(norm2_of(&clipped, g2), 0);
    cr_adamw_step(&clipped, w[0], g2, 0, 1e-3);
    for (int i = 0; i < 7; i++) {
        ck_assert(isfinite(w[0][i]));
    }
    cr_adamw_deinit(&clipped);
    cr_adamw_deinit(&scaled);
    json_decref(file);
}
END_TEST

/* Two groups are two optimisers that share a norm and count the same steps; an empty one is none. */
START_TEST(rate_groups)
{
    enum { N_ALL = 2 * CR_ADAMW_CHUNK + 77, CUT = CR_ADAMW_CHUNK + 16 };
    struct cr_parallel parallel;
    struct cr_adamw whole, part[2];
    struct cr_rng rng = cr_rng_make(3);
    float *w = calloc(3, N_ALL * sizeof *w), *split = w + N_ALL, *g = split + N_ALL;
    size_t begin[2] = {0, CUT}, n[2] = {CUT, N_ALL - CUT};
    cr_parallel_serial(&parallel);
    ck_assert_int_eq(cr_adamw_init(&whole, N_ALL, CR_TIER_SCALAR, &parallel, NULL), CR_OK);
    whole.max_norm = 1;
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(cr_adamw_init(&part[i], n[i], CR_TIER_SCALAR, &parallel, NULL), CR_OK);
        part[i].max_norm = 1;
    }
    for (int step = 0; step < 3; step++) {
        const struct cr_adamw_group groups[] = {{CUT, 1e-2}, {CUT, 5}, {N_ALL, 1e-3}};
        cr_fill_f32(&rng, g, N_ALL, -1, 1);
        cr_adamw_step_groups(&whole, w, g, 7, groups, 3);
        for (int i = 0; i < 2; i++) {
            cr_adamw_step(&part[i], split + begin[i], g + begin[i], 7, i == 0 ? 1e-2 : 1e-3);
        }
    }
    ck_assert_uint_eq(cr_adamw_t(&whole), 3);
    cr_expect_same("weights", w, split, N_ALL);
    cr_adamw_deinit(&whole);
    cr_adamw_deinit(&part[0]);
    cr_adamw_deinit(&part[1]);
    free(w);
}
END_TEST

enum { N = 5 * CR_ADAMW_CHUNK + 123 };

static void run(int n_threads, float *w, float *state, double *norm2)
{
    struct cr_parallel parallel;
    cr_parallel_openmp(&parallel, n_threads);
    struct cr_adamw adamw;
    ck_assert_int_eq(cr_adamw_init(&adamw, N, CR_TIER_SCALAR, &parallel, NULL), CR_OK);
    adamw.weight_decay = 0.01;
    adamw.max_norm = 1;
    float *g = malloc(N * sizeof *g);
    ck_assert_ptr_nonnull(g);
    uint32_t seed = 1;
    for (size_t i = 0; i < N; i++) {
        w[i] = (float)i / N;
    }
    for (int step = 0; step < 3; step++) {
        for (size_t i = 0; i < N; i++) {
            seed = seed * 1664525u + 1013904223u;
            g[i] = (float)(int32_t)seed * 0x1p-31f;
        }
        norm2[step] = norm2_of(&adamw, g);
        cr_adamw_step(&adamw, w, g, sqrt(norm2[step]), 1e-2);
    }
    memcpy(state, adamw.state, cr_adamw_state_bytes(&adamw));
    free(g);
    cr_adamw_deinit(&adamw);
}

START_TEST(any_thread_count)
{
    static float w[2][N];
    static float state[2][16 + 2 * N];
    double norm2[2][3];
    static const int threads[] = {2, 3, 4, 7, 8, 16};
    run(1, w[0], state[0], norm2[0]);
    run(threads[_i], w[1], state[1], norm2[1]);
    ck_assert_mem_eq(w[0], w[1], sizeof w[0]);
    ck_assert_mem_eq(state[0], state[1], sizeof state[0]);
    ck_assert_mem_eq(norm2[0], norm2[1], sizeof norm2[0]);
    ck_assert_double_gt(norm2[0][0], N / 4.0); /* mean square of uniform +-1 is a third */
    ck_assert_double_lt(norm2[0][0], N / 2.0);
}
END_TEST

START_TEST(non_finite_elements_reach_the_norm)
{
    static float g[N];
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_adamw adamw;
    ck_assert_int_eq(cr_adamw_init(&adamw, N, CR_TIER_SCALAR, &parallel, NULL), CR_OK);
    static const size_t places[] = {0, 15, CR_ADAMW_CHUNK - 1, CR_ADAMW_CHUNK, N - 1};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        memset(g, 0, sizeof g);
        g[places[i]] = NAN;
        ck_assert(isnan(norm2_of(&adamw, g)));
        g[places[i]] = -INFINITY;
        ck_assert(isinf(norm2_of(&adamw, g)));
        g[places[i]] = 3e38f; /* its square only fits a double */
        ck_assert(isfinite(norm2_of(&adamw, g)));
    }
    cr_adamw_deinit(&adamw);
}
END_TEST

START_TEST(state_is_checked)
{
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_adamw adamw;
    struct cr_error err = {0};
    ck_assert_int_eq(cr_adamw_init(&adamw, 2, CR_TIER_SCALAR, &parallel, NULL), CR_OK);
    float state[20] = {0};
    uint64_t t = 7;
    memcpy(state, &t, sizeof t);
    state[16] = -1;
    state[18] = 2;
    ck_assert_int_eq(cr_adamw_restore(&adamw, state, sizeof state, &err), CR_OK);
    ck_assert_uint_eq(cr_adamw_t(&adamw), 7);
    ck_assert_int_eq(cr_adamw_restore(&adamw, state, sizeof state - 4, &err), CR_E_INPUT);
    state[17] = NAN;
    ck_assert_int_eq(cr_adamw_restore(&adamw, state, sizeof state, &err), CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, "m of parameter 1"));
    state[17] = 0;
    state[19] = -1e-9f;
    ck_assert_int_eq(cr_adamw_restore(&adamw, state, sizeof state, &err), CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, "v of parameter 1"));
    ck_assert_uint_eq(cr_adamw_t(&adamw), 7);
    cr_adamw_deinit(&adamw);
    ck_assert_int_eq(cr_adamw_init(&adamw, SIZE_MAX / 4, CR_TIER_SCALAR, &parallel, &err), CR_E_MEMORY);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("adamw_driver");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 30);
    tcase_add_loop_test(all, stored_trajectories, 0, 3);
    tcase_add_test(all, clipping);
    tcase_add_test(all, rate_groups);
    tcase_add_loop_test(all, any_thread_count, 0, 6);
    tcase_add_test(all, non_finite_elements_reach_the_norm);
    tcase_add_test(all, state_is_checked);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
