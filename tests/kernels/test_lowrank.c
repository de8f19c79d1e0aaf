/* lowrank: every tier against double sums, split invariance, operand types. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/lowrank.h"
#include "tests/kernels/lowrank_case.h"
#include "tests/support/kernel_test.h"

static const double UNIT = 0x1p-24;

static const struct shape shapes[] = {
    {1, 10, 1, CR_X_F32, 65536, false},   {7, 32, 2, CR_X_F32, 65536, true},     {8, 33, 3, CR_X_F32, 65536, false},
    {9, 64, 4, CR_X_F32, 65536, true},    {16, 257, 5, CR_X_F32, 65536, false},  {16, 576, 17, CR_X_F32, 65536, true},
    {64, 96, 7, CR_X_F32, 65536, false},  {256, 40, 3, CR_X_F32, 65536, true},   {8, 576, 9, CR_X_F32, 65536, false},
    {1, 2, 1, CR_X_BF16, 65536, false},   {7, 34, 2, CR_X_BF16, 65536, true},    {8, 300, 10, CR_X_BF16, 65536, false},
    {16, 576, 9, CR_X_BF16, 65536, true}, {256, 66, 4, CR_X_BF16, 65536, false}, {8, 19, 2, CR_X_F32, 58982, false},
    {16, 300, 9, CR_X_F32, 58982, true},  {9, 46, 8, CR_X_BF16, 32768, false},   {64, 576, 3, CR_X_BF16, 62259, true},
    {8, 301, 5, CR_X_BF16, 65536, true},  {3, 65, 11, CR_X_F32, 1, false},       {5, 31, 4, CR_X_F32, 65535, true},
    {11, 35, 71, CR_X_F32, 65536, false}, {8, 512, 40, CR_X_F32, 65536, false},  {8, 1024, 70, CR_X_BF16, 65536, true},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static double p_value(const struct problem *p, size_t i, size_t k)
{
    return p->args.p[i * p->args.p_rs + k * p->args.p_ks];
}

struct expected {
    double *value, *bound;
};

static struct expected expected_alloc(size_t n)
{
    struct expected e = {calloc(n, sizeof(double)), calloc(n, sizeof(double))};
    ck_assert(e.value != NULL && e.bound != NULL);
    return e;
}

/* Whether element `at`, the n-th, is outside the sample of a light run: then any number will do there. */
static bool skipped(const struct expected *e, size_t at, size_t n, size_t every)
{
    if (n % every != 0) {
        e->value[at] = 0;
        e->bound[at] = INFINITY;
    }
    return n % every != 0;
}

static void expected_free(struct expected e)
{
    free(e.value);
    free(e.bound);
}

/* Bounds: a term is rounded at most twice (mask, product) and passes through at most as many additions as the sum has
 * terms; the scale, or the addition to what was there, rounds once more. */
static void check_down(const struct problem *p)
{
    size_t every = cr_test_every(5);
    struct expected e = expected_alloc(p->u_floats);
    for (size_t n = 0; n < p->u_floats; n++) {
        e.value[n] = NAN; /* gaps keep their poison */
    }
    for (size_t t = 0; t < p->shape.n_blocks * CR_LANES; t++) {
        for (size_t i = 0; i < p->shape.rank; i++) {
            size_t at = t / CR_LANES * p->args.u_stride + cr_tl16_f32(i, t % CR_LANES);
            double sum = 0, terms = 0;
            if (skipped(&e, at, t + i, every)) {
                continue;
            }
            for (size_t k = 0; k < p->shape.n_features; k++) {
                double term = p_value(p, i, k) * x_value(p, t, k) * mask_value(&p->args.dropout, t, k);
                sum += term;
                terms += fabs(term);
            }
            e.value[at] = sum * p->args.scale;
            e.bound[at] = ((double)p->shape.n_features + 2) * UNIT * terms * p->args.scale;
        }
    }
    cr_expect_within("down", p->u_out, e.value, e.bound, p->u_floats);
    expected_free(e);
}

static void check_up(const struct problem *p, const float *before)
{
    size_t every = cr_test_every(5);
    struct expected e = expected_alloc(p->y_floats);
    for (size_t n = 0; n < p->y_floats; n++) {
        e.value[n] = before[n];
    }
    for (size_t t = 0; t < p->shape.n_blocks * CR_LANES; t++) {
        const float *u = p->args.u + t / CR_LANES * p->args.u_stride + t % CR_LANES;
        for (size_t k = 0; k < p->shape.n_features; k++) {
            size_t at = t / CR_LANES * p->args.y_stride + cr_tl16_f32(k, t % CR_LANES);
            if (skipped(&e, at, t + k, every)) {
                continue;
            }
            double sum = 0, terms = fabs(e.value[at]), mask = mask_value(&p->args.dropout, t, k);
            for (size_t i = 0; i < p->shape.rank; i++) {
                sum += mask * p_value(p, i, k) * u[i * CR_LANES];
                terms += fabs(mask * p_value(p, i, k) * u[i * CR_LANES]);
            }
            e.value[at] += sum;
            e.bound[at] = ((double)p->shape.rank + 2) * UNIT * terms;
        }
    }
    cr_expect_within("up", p->y, e.value, e.bound, p->y_floats);
    expected_free(e);
}

static void check_grad(const struct problem *p, const float *before)
{
    size_t every = cr_test_every(5);
    struct expected e = expected_alloc(p->g_floats);
    for (size_t i = 0; i < p->shape.rank; i++) {
        for (size_t k = 0; k < p->shape.n_features; k++) {
            size_t at = i * p->args.g_rs + k * p->args.g_ks;
            if (skipped(&e, at, i + k, every)) {
                continue;
            }
            double sum = before[at], terms = fabs(sum);
            for (size_t t = 0; t < p->shape.n_blocks * CR_LANES; t++) {
                double u = p->args.u[t / CR_LANES * p->args.u_stride + cr_tl16_f32(i, t % CR_LANES)];
                double term = u * x_value(p, t, k) * mask_value(&p->args.dropout, t, k);
                sum += term;
                terms += fabs(term);
            }
            e.value[at] = sum;
            e.bound[at] = ((double)p->shape.n_blocks * CR_LANES + 2) * UNIT * terms;
        }
    }
    cr_expect_within("grad", p->g, e.value, e.bound, p->g_floats);
    expected_free(e);
}

static float *copy_of(const float *in, size_t n)
{
    float *out = malloc(n * sizeof(float));
    ck_assert(out != NULL);
    memcpy(out, in, n * sizeof(float));
    return out;
}

START_TEST(against_double)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    for (size_t i = 0; i < n_tiers; i++) {
        struct cr_lowrank_ops ops = ops_of(tiers[i]);
        for (int side = 0; side < 2; side++) {
            struct problem p = make(shapes[_i], (uint64_t)_i + 1, side ? CR_AT_START : CR_AT_END);
            run(ops.down, &p, p.shape.n_blocks, 1, false);
            check_down(&p);
            p.args.u = p.u_in;
            float *y = copy_of(p.y, p.y_floats), *g = copy_of(p.g, p.g_floats);
            run(ops.up, &p, p.shape.n_blocks, 1, false);
            check_up(&p, y);
            run(ops.grad, &p, p.shape.n_features, CR_LOWRANK_STEP, false);
            check_grad(&p, g);
            free(y);
            free(g);
            cr_guard_free_all();
        }
    }
}
END_TEST

START_TEST(splits_give_the_same_bits)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    for (size_t i = 0; i < n_tiers; i++) {
        struct cr_lowrank_ops ops = ops_of(tiers[i]);
        float *u[2], *y[2], *g[2];
        struct problem p;
        for (int pieces = 0; pieces < 2; pieces++) {
            p = make(shapes[_i], 100, CR_AT_END);
            run(ops.down, &p, p.shape.n_blocks, 1, pieces);
            p.args.u = p.u_in;
            run(ops.up, &p, p.shape.n_blocks, 1, pieces);
            run(ops.grad, &p, p.shape.n_features, CR_LOWRANK_STEP, pieces);
            u[pieces] = copy_of(p.u_out, p.u_floats);
            y[pieces] = copy_of(p.y, p.y_floats);
            g[pieces] = copy_of(p.g, p.g_floats);
            cr_guard_free_all();
        }
        cr_expect_bytes("down", u[1], u[0], p.u_floats * 4);
        cr_expect_bytes("up", y[1], y[0], p.y_floats * 4);
        cr_expect_bytes("grad", g[1], g[0], p.g_floats * 4);
        for (int pieces = 0; pieces < 2; pieces++) {
            free(u[pieces]);
            free(y[pieces]);
            free(g[pieces]);
        }
    }
}
END_TEST

/* bf16 values given as f32 take the other way into the registers and must not change a bit. */
START_TEST(operand_types_agree)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    for (size_t i = 0; i < n_tiers; i++) {
        struct cr_lowrank_ops ops = ops_of(tiers[i]);
        struct problem p = make((struct shape){8, 300, 19, CR_X_BF16, 65536, false}, 7, CR_AT_END);
        p.args.dropout.position = p.args.dropout.example = NULL; /* not read when off */
        size_t stride = 300 * CR_LANES;
        float *x = cr_guard_alloc(19 * stride * 4, 64, CR_AT_END);
        for (size_t t = 0; t < 19 * CR_LANES; t++) {
            for (size_t k = 0; k < 300; k++) {
                x[t / CR_LANES * stride + cr_tl16_f32(k, t % CR_LANES)] = (float)x_value(&p, t, k);
            }
        }
        run(ops.down, &p, p.shape.n_blocks, 1, false);
        run(ops.grad, &p, p.shape.n_features, CR_LOWRANK_STEP, false);
        float *u = copy_of(p.u_out, p.u_floats), *g = copy_of(p.g, p.g_floats);
        struct problem q = make(p.shape, 7, CR_AT_END); /* the same start value of G */
        q.args.x = x;
        q.args.x_type = CR_X_F32;
        q.args.x_stride = stride * 4;
        run(ops.down, &q, q.shape.n_blocks, 1, false);
        run(ops.grad, &q, q.shape.n_features, CR_LOWRANK_STEP, false);
        cr_expect_bytes("down", q.u_out, u, p.u_floats * 4);
        cr_expect_bytes("grad", q.g, g, p.g_floats * 4);
        free(u);
        free(g);
        cr_guard_free_all();
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lowrank");
    TCase *tcase = tcase_create("lowrank");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, against_double, 0, N_SHAPES);
    tcase_add_loop_test(tcase, splits_give_the_same_bits, 0, N_SHAPES);
    tcase_add_test(tcase, operand_types_agree);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
