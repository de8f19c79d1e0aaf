/* lowrank: every tier against double sums, split invariance, strides, operand types. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/lowrank.h"
#include "tests/kernels/lowrank_case.h"
#include "tests/support/kernel_test.h"

static const double LEAST = 0x1p-126; /* that is normal */

static const struct shape shapes[] = {
    {1, 10, 1, CR_X_F32, 65536, false},   {7, 32, 2, CR_X_F32, 65536, true},     {8, 33, 3, CR_X_F32, 65536, false},
    {9, 64, 4, CR_X_F32, 65536, true},    {16, 257, 5, CR_X_F32, 65536, false},  {16, 576, 17, CR_X_F32, 65536, true},
    {64, 96, 7, CR_X_F32, 65536, false},  {256, 40, 3, CR_X_F32, 65536, true},   {8, 576, 9, CR_X_F32, 65536, false},
    {1, 2, 1, CR_X_BF16, 65536, false},   {7, 34, 2, CR_X_BF16, 65536, true},    {8, 300, 10, CR_X_BF16, 65536, false},
    {16, 576, 9, CR_X_BF16, 65536, true}, {256, 66, 4, CR_X_BF16, 65536, false}, {8, 19, 2, CR_X_F32, 58982, false},
    {16, 300, 9, CR_X_F32, 58982, true},  {9, 46, 8, CR_X_BF16, 32768, false},   {64, 576, 3, CR_X_BF16, 62259, true},
    {8, 301, 5, CR_X_BF16, 65536, true},  {3, 65, 11, CR_X_F32, 1, false},       {5, 31, 4, CR_X_F32, 65535, true},
    {11, 35, 71, CR_X_F32, 65536, false}, {8, 512, 40, CR_X_F32, 65536, false},  {8, 1024, 70, CR_X_BF16, 65536, true},
    {16, 65, 33, CR_X_BF16, 45000, true}, {5, 1063, 3, CR_X_BF16, 65536, true},  {21, 1, 66, CR_X_BF16, 60000, false},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

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

/* What tiles lose by taking subnormals for zero, each time less than LEAST: three parts of a factor of f32, times |x|;
 * x, times the factor; the results of 3 n fused products and of 2 additions a step of 32 for each of 3 parts. xs and
 * factors are sums of magnitudes. */
static double flushed(bool tiles, double n, double xs, double factors)
{
    return tiles ? LEAST * (3 * xs + factors + 4 * n + 6) : 0;
}

static double mask_factor(const struct problem *p)
{
    return p->shape.keep16 < 65536 ? 65536.0 / p->shape.keep16 : 1;
}

static void check_down(const struct problem *p, bool tiles)
{
    size_t every = cr_test_every(5);
    tiles = tiles && p->shape.x_type == CR_X_BF16;
    struct expected e = expected_alloc(p->u_floats);
    for (size_t n = 0; n < p->u_floats; n++) {
        e.value[n] = NAN; /* gaps keep their poison */
    }
    for (size_t t = 0; t < p->shape.n_blocks * CR_LANES; t++) {
        for (size_t i = 0; i < p->shape.rank; i++) {
            size_t at = t / CR_LANES * p->args.u_stride + cr_tl16_f32(i, t % CR_LANES);
            double sum = 0, terms = 0, xs = 0, factors = 0, n_terms = (double)p->shape.n_features;
            if (skipped(&e, at, t + i, every)) {
                continue;
            }
            for (size_t k = 0; k < p->shape.n_features; k++) {
                double term = p_value(p, i, k) * x_value(p, t, k) * mask_value(&p->args.dropout, t, k);
                sum += term;
                terms += fabs(term);
                xs += fabs(x_value(p, t, k));
                factors += fabs(p_value(p, i, k));
            }
            e.value[at] = sum * p->args.scale;
            e.bound[at] = roundings(tiles, n_terms) * UNIT * terms * p->args.scale;
            e.bound[at] += flushed(tiles, n_terms, xs, factors) * p->args.scale * mask_factor(p);
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
            e.bound[at] = roundings(false, (double)p->shape.rank) * UNIT * terms;
        }
    }
    cr_expect_within("up", p->y, e.value, e.bound, p->y_floats);
    expected_free(e);
}

static void check_grad(const struct problem *p, const float *before, bool tiles)
{
    size_t every = cr_test_every(5);
    tiles = tiles && p->shape.x_type == CR_X_BF16;
    struct expected e = expected_alloc(p->g_floats);
    for (size_t i = 0; i < p->shape.rank; i++) {
        for (size_t k = 0; k < p->shape.n_features; k++) {
            size_t at = i * p->args.g_rs + k * p->args.g_ks;
            if (skipped(&e, at, i + k, every)) {
                continue;
            }
            double sum = before[at], terms = fabs(sum), xs = 0, factors = 0;
            double n_terms = (double)p->shape.n_blocks * CR_LANES;
            for (size_t t = 0; t < p->shape.n_blocks * CR_LANES; t++) {
                double u = p->args.u[t / CR_LANES * p->args.u_stride + cr_tl16_f32(i, t % CR_LANES)];
                double term = u * x_value(p, t, k) * mask_value(&p->args.dropout, t, k);
                sum += term;
                terms += fabs(term);
                xs += fabs(x_value(p, t, k));
                factors += fabs(u);
            }
            e.value[at] = sum;
            e.bound[at] = roundings(tiles, n_terms) * UNIT * terms;
            e.bound[at] += flushed(tiles, n_terms, xs, factors) * mask_factor(p);
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

/* All three functions of a table on one problem. */
static void check_all(unsigned table, struct problem *p)
{
    struct cr_lowrank_ops ops = ops_of(table);
    run(ops.down, p, p->shape.n_blocks, 1, false);
    check_down(p, on_tiles(table));
    p->args.u = p->u_in;
    float *y = copy_of(p->y, p->y_floats), *g = copy_of(p->g, p->g_floats);
    run(ops.up, p, p->shape.n_blocks, 1, false);
    check_up(p, y);
    run(ops.grad, p, p->shape.n_features, CR_LOWRANK_STEP, false);
    check_grad(p, g, on_tiles(table));
    free(y);
    free(g);
}

START_TEST(against_double)
{
    unsigned table[N_TABLES];
    size_t n_tables = tables(table);
    for (size_t i = 0; i < n_tables; i++) {
        for (int side = 0; side < 2; side++) {
            struct problem p = make(shapes[_i], (uint64_t)_i + 1, side ? CR_AT_START : CR_AT_END);
            check_all(table[i], &p);
            cr_guard_free_all();
        }
    }
}
END_TEST

/* Ranks around every number of tiles, with every short group of lines, odd and even numbers of token blocks. */
START_TEST(ranks_against_double)
{
    static const size_t ranks[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 31, 32, 33, 48, 64, 255};
    unsigned table[N_TABLES];
    size_t n_tables = tables(table);
    for (size_t r = 0; r < sizeof ranks / sizeof *ranks; r++) {
        struct shape shape = {.rank = ranks[r],
                              .n_features = 17 + 7 * r % 65,
                              .n_blocks = 1 + r % 5,
                              .x_type = CR_X_BF16,
                              .keep16 = r % 3 == 2 ? 50000 : 65536,
                              .by_feature = _i == 1};
        for (size_t i = 0; i < n_tables; i++) {
            struct problem p = make(shape, 200 + r, CR_AT_END);
            check_all(table[i], &p);
            cr_guard_free_all();
        }
    }
}
END_TEST

/* Factors so small that their parts, or products, are subnormal: f32 keeps them, tiles lose what the contract says. */
START_TEST(small_factors)
{
    unsigned table[N_TABLES];
    size_t n_tables = tables(table);
    for (size_t i = 0; i < n_tables; i++) {
        struct problem p = make((struct shape){7, 75, 5, CR_X_BF16, 50000, false}, 300, CR_AT_END);
        cr_guard_protect(p.p, false);
        cr_guard_protect(p.u_in, false);
        for (size_t n = 0; n < p.g_floats; n++) {
            p.p[n] *= 0x1p-116f;
            p.g[n] = 0;
        }
        for (size_t n = 0; n < p.u_floats; n++) {
            p.u_in[n] *= 0x1p-116f;
        }
        check_all(table[i], &p);
        cr_guard_free_all();
    }
}
END_TEST

/* The same matrices with gaps between all numbers. */
START_TEST(strides_do_not_matter)
{
    unsigned table[N_TABLES];
    size_t n_tables = tables(table);
    for (size_t i = 0; i < n_tables; i++) {
        struct cr_lowrank_ops ops = ops_of(table[i]);
        struct shape shape = {19, 45, 3, CR_X_BF16, 65536, false};
        struct problem p = make(shape, 400, CR_AT_END), q = make(shape, 400, CR_AT_END);
        q.args.p_rs = q.args.g_rs = 3 * shape.n_features;
        q.args.p_ks = q.args.g_ks = 3;
        float *spread[2];
        for (int of_g = 0; of_g < 2; of_g++) {
            spread[of_g] = cr_guard_alloc((3 * q.g_floats - 2) * 4, 4, CR_AT_END);
            for (size_t n = 0; n < q.g_floats; n++) {
                spread[of_g][3 * n] = of_g ? q.g[n] : q.p[n];
            }
        }
        q.args.p = spread[0];
        q.args.g = spread[1];
        struct problem *both[] = {&p, &q};
        for (int k = 0; k < 2; k++) {
            run(ops.down, both[k], shape.n_blocks, 1, false);
            both[k]->args.u = both[k]->u_in;
            run(ops.up, both[k], shape.n_blocks, 1, false);
            run(ops.grad, both[k], shape.n_features, CR_LOWRANK_STEP, false);
        }
        cr_expect_bytes("down", q.u_out, p.u_out, p.u_floats * 4);
        cr_expect_bytes("up", q.y, p.y, p.y_floats * 4);
        for (size_t n = 0; n < p.g_floats; n++) {
            cr_expect_bytes("grad", spread[1] + 3 * n, p.g + n, 4);
            ck_assert(n == 0 || isnan(spread[1][3 * n - 1])); /* gaps keep their poison */
        }
        cr_guard_free_all();
    }
}
END_TEST

START_TEST(splits_give_the_same_bits)
{
    unsigned table[N_TABLES];
    size_t n_tables = tables(table);
    for (size_t i = 0; i < n_tables; i++) {
        struct cr_lowrank_ops ops = ops_of(table[i]);
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

/* bf16 values given as f32 take the other way into the registers and must not change a bit, tiles excepted. */
START_TEST(operand_types_agree)
{
    unsigned table[N_TABLES];
    size_t n_tables = tables(table);
    for (size_t i = 0; i < n_tables; i++) {
        struct cr_lowrank_ops ops = ops_of(table[i]);
        if (on_tiles(table[i])) {
            continue;
        }
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
    tcase_add_loop_test(tcase, ranks_against_double, 0, 2);
    tcase_add_test(tcase, small_factors);
    tcase_add_test(tcase, strides_do_not_matter);
    tcase_add_loop_test(tcase, splits_give_the_same_bits, 0, N_SHAPES);
    tcase_add_test(tcase, operand_types_agree);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
