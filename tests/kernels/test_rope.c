/* rope: the table against long double, rotation against double, the inverse as the adjoint, every tier and split. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/rope.h"
#include "tests/support/tl16_test.h"

enum { BLOCKS = 3, MAX_POS = 200 };

struct shape {
    size_t n_heads, head_dim, n_rot;
    enum cr_rope_style style;
};
static const struct shape shapes[] = {
    {1, 2, 2, CR_ROPE_NORM},   {1, 2, 2, CR_ROPE_NEOX},     {3, 7, 4, CR_ROPE_NORM},   {3, 7, 4, CR_ROPE_NEOX},
    {9, 64, 64, CR_ROPE_NORM}, {9, 64, 64, CR_ROPE_NEOX},   {3, 64, 64, CR_ROPE_NEOX}, {2, 128, 128, CR_ROPE_NORM},
    {1, 80, 32, CR_ROPE_NEOX}, {1, 200, 134, CR_ROPE_NORM}, {2, 8, 0, CR_ROPE_NEOX},
};

static void pair_features(const struct shape *s, size_t head, size_t j, size_t *a, size_t *b)
{
    size_t base = head * s->head_dim;
    *a = base + (s->style == CR_ROPE_NORM ? 2 * j : j);
    *b = base + (s->style == CR_ROPE_NORM ? 2 * j + 1 : j + s->n_rot / 2);
}

static void run(float *x, size_t stride, const struct shape *s, const uint32_t *pos, const float *table,
                enum cr_tier tier, int inverse, size_t cut)
{
    struct cr_rope_ops ops;
    cr_rope_ops_init(&ops, tier);
    struct cr_rope_args args = {x, stride, s->n_heads, s->head_dim, s->n_rot, s->style, pos, table, inverse};
    ops.apply(&args, 0, cut);
    ops.apply(&args, cut, BLOCKS);
}

/* Every feature of `got` against the rotation of `x` in double: two products and a sum, each rounded. */
static void check(const float *got, const float *x, size_t stride, const struct shape *s, const uint32_t *pos,
                  const float *table, double sign)
{
    for (size_t block = 0; block < BLOCKS; block++) {
        for (size_t head = 0; head < s->n_heads; head++) {
            for (size_t j = 0; j < s->n_rot / 2; j++) {
                size_t a, b;
                pair_features(s, head, j, &a, &b);
                for (size_t t = 0; t < CR_LANES; t++) {
                    const float *cs = table + (pos[block * CR_LANES + t] * (s->n_rot / 2) + j) * 2;
                    double c = (double)cs[0], sn = sign * (double)cs[1];
                    double xa = (double)x[block * stride + a * CR_LANES + t];
                    double xb = (double)x[block * stride + b * CR_LANES + t];
                    double want[2] = {xa * c - xb * sn, xa * sn + xb * c};
                    double bound[2] = {2.01 * CR_U32 * (fabs(xa * c) + fabs(xb * sn)),
                                       2.01 * CR_U32 * (fabs(xa * sn) + fabs(xb * c))};
                    float pair[2] = {got[block * stride + a * CR_LANES + t], got[block * stride + b * CR_LANES + t]};
                    cr_expect_within("rotation", pair, want, bound, 2);
                }
            }
            for (size_t k = s->n_rot; k < s->head_dim; k++) {
                size_t at = block * stride + (head * s->head_dim + k) * CR_LANES;
                cr_expect_bytes("passed features", got + at, x + at, CR_LANES * 4);
            }
        }
        size_t end = block * stride + s->n_heads * s->head_dim * CR_LANES;
        cr_expect_bytes("between blocks", got + end, x + end, CR_LANES * 4);
    }
}

START_TEST(values)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    const struct shape *s = &shapes[_i];
    struct cr_rng rng = cr_rng_make(70 + (uint64_t)_i);
    size_t n = s->n_heads * s->head_dim, stride = n * CR_LANES + CR_LANES, bytes = BLOCKS * stride * 4;
    size_t table_bytes = MAX_POS * s->n_rot * 4;
    float *table = cr_guard_alloc(table_bytes, 4, CR_AT_END);
    cr_rope_table(table, MAX_POS, s->n_rot, 10000, 1, NULL);
    uint32_t *pos = cr_guard_alloc(BLOCKS * CR_LANES * 4, 4, CR_AT_END);
    for (size_t i = 0; i < BLOCKS * CR_LANES; i++) {
        pos[i] = cr_rng_below(&rng, MAX_POS);
    }
    pos[0] = MAX_POS - 1;
    float *x = cr_guard_alloc(bytes, 64, CR_AT_END);
    cr_fill_f32(&rng, x, bytes / 4, -5, 5);
    cr_guard_protect(table, true);
    cr_guard_protect(pos, true);
    for (int inverse = 0; inverse < 2; inverse++) {
        float *ref = cr_guard_alloc(bytes, 64, CR_AT_START), *got = cr_guard_alloc(bytes, 64, CR_AT_END);
        memcpy(ref, x, bytes);
        run(ref, stride, s, pos, table, CR_TIER_SCALAR, inverse, 0);
        check(ref, x, stride, s, pos, table, inverse ? -1 : 1);
        for (size_t t = 0; t < n_tiers; t++) {
            for (size_t cut = 0; cut < BLOCKS; cut++) {
                memcpy(got, x, bytes);
                run(got, stride, s, pos, table, tiers[t], inverse, cut);
                cr_expect_bytes(cr_tier_name(tiers[t]), got, ref, bytes);
            }
        }
    }
    cr_guard_free_all();
}
END_TEST

/* <R x, y> = <x, R^-1 y>: what the backward pass relies on. Also position 0 is the identity. */
START_TEST(adjoint)
{
    const struct shape *s = &shapes[_i];
    struct cr_rng rng = cr_rng_make(90 + (uint64_t)_i);
    size_t stride = s->n_heads * s->head_dim * CR_LANES, bytes = BLOCKS * stride * 4;
    float *table = cr_guard_alloc(MAX_POS * s->n_rot * 4, 4, CR_AT_END);
    cr_rope_table(table, MAX_POS, s->n_rot, 10000, 1, NULL);
    uint32_t *pos = cr_guard_alloc(BLOCKS * CR_LANES * 4, 4, CR_AT_END);
    float *x = cr_tl16_random(&rng, 1, BLOCKS * stride / CR_LANES, -1, 1);
    float *y = cr_tl16_random(&rng, 1, BLOCKS * stride / CR_LANES, -1, 1);
    float *rx = cr_guard_alloc(bytes, 64, CR_AT_END), *ry = cr_guard_alloc(bytes, 64, CR_AT_END);
    memset(pos, 0, BLOCKS * CR_LANES * 4);
    memcpy(rx, x, bytes);
    run(rx, stride, s, pos, table, CR_TIER_SCALAR, 0, 0);
    cr_expect_same("position 0", rx, x, BLOCKS * stride);
    for (size_t i = 0; i < BLOCKS * CR_LANES; i++) {
        pos[i] = cr_rng_below(&rng, MAX_POS);
    }
    memcpy(rx, x, bytes);
    memcpy(ry, y, bytes);
    run(rx, stride, s, pos, table, CR_TIER_SCALAR, 0, 0);
    run(ry, stride, s, pos, table, CR_TIER_SCALAR, 1, 0);
    double left = 0, right = 0, size = 0;
    for (size_t i = 0; i < BLOCKS * stride; i++) {
        left += (double)rx[i] * (double)y[i];
        right += (double)x[i] * (double)ry[i];
        size += 4; /* two factors of each of two features, all below 1 in size */
    }
    ck_assert_double_le(fabs(left - right), 2.01 * CR_U32 * size);
    cr_guard_free_all();
}
END_TEST

START_TEST(table_values)
{
    static const size_t rots[] = {2, 4, 64, 128};
    static const double bases[] = {10000, 500000, 1e6};
    size_t n_rot = rots[_i % 4], max_pos = (n_rot > 4 ? 20000 : 1000001) / cr_test_every(10);
    double base = bases[_i % 3], scale = _i % 2 ? 0.25 : 1;
    float *factors = malloc(n_rot / 2 * sizeof *factors);
    float *table = malloc(max_pos * n_rot * sizeof *table);
    ck_assert(factors != NULL && table != NULL);
    for (size_t j = 0; j < n_rot / 2; j++) {
        factors[j] = 1 + (float)j / 4;
    }
    cr_rope_table(table, max_pos, n_rot, base, scale, _i >= 4 ? factors : NULL);
    double worst = 0;
    for (size_t pos = 0; pos < max_pos; pos += pos < 40 ? 1 : 997) {
        for (size_t j = 0; j < n_rot / 2; j++) {
            long double angle = (long double)pos * (long double)scale *
                                powl((long double)base, -2.0L * (long double)j / (long double)n_rot) /
                                (_i >= 4 ? (long double)factors[j] : 1.0L);
            const float *cs = table + (pos * (n_rot / 2) + j) * 2;
            worst = fmax(worst, (double)fabsl((long double)cs[0] - cosl(angle)));
            worst = fmax(worst, (double)fabsl((long double)cs[1] - sinl(angle)));
        }
    }
    free(table);
    free(factors);
    /* half an f32 ulp below 1, and an angle of up to 1e6 with the relative error of five roundings in double */
    ck_assert_double_le(worst, 0x1p-25 + 1e6 * 5 * 0x1p-53);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rope");
    TCase *tc = tcase_create("rope");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, values, 0, sizeof shapes / sizeof *shapes);
    tcase_add_loop_test(tc, adjoint, 0, sizeof shapes / sizeof *shapes);
    tcase_add_loop_test(tc, table_values, 0, 8);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
