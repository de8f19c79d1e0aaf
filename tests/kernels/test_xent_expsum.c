/* xent: the sums of exponentials of the single walk, against double; every tier and split. */
#include <math.h>
#include <string.h>

#include "credence/kernels/xent.h"
#include "tests/kernels/xent_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/tl16_test.h"

struct exp_case {
    float m[TOKENS + 1], s[TOKENS + 3], mass[TOKENS + 1];
};

static void run_expsum(const struct data *d, struct exp_case *c, void *p, size_t p_bytes, enum cr_xtype type,
                       enum cr_tier tier, size_t cut)
{
    struct cr_xent_ops ops;
    cr_xent_ops_init(&ops, tier);
    struct cr_xent_args args = args_of(d, p, p_bytes, type);
    args.m = c->m;
    args.s = c->s;
    args.mass = c->mass;
    ops.expsum(&args, cut, BLOCKS);
    ops.expsum(&args, 0, cut);
}

/* One token: p, then its sums, which add to what was there. A difference rounds (|z - m| u), exp 4 u; n/2 + 2
 * additions. */
static void check_expsum(const struct data *d, const struct exp_case *c, const float *before, const void *p,
                         size_t p_bytes, enum cr_xtype type, size_t t)
{
    double s = 0, mass = 0, bound = 0, add = (double)d->n / 2 + 2;
    for (size_t v = 0; v < d->n; v++) {
        double gap = (double)d->z[t / CR_LANES * d->stride + v * CR_LANES + t % CR_LANES] - (double)c->m[t];
        double want = d->target[t] < 0 || d->target[t] == (int32_t)(1000 + v) ? 0 : exp(gap);
        double error = want * (fabs(gap) + 4) * CR_U32 * 1.01;
        double rounding = want * cr_unit_of(type) * 1.01 + 0x1p-133;
        float got = cr_tl16_get(p, type, p_bytes, t / CR_LANES, v, t % CR_LANES);
        double near = error + rounding;
        cr_expect_within("p", &got, &want, &near, 1);
        s += want;
        mass += (double)got;
        bound += error;
    }
    double want_s = s + (double)before[t], want_mass = mass + (double)before[t];
    bound += (s + (double)before[t]) * add * CR_U32 * 1.01;
    double bound_mass = want_mass * add * CR_U32 * 1.01;
    cr_expect_within("s", &c->s[t], &want_s, &bound, 1);
    cr_expect_within("mass", &c->mass[t], &want_mass, &bound_mass, 1);
}

START_TEST(expsum)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), n = shapes[_i / 2].n_rows;
    enum cr_xtype type = _i % 2 ? CR_X_BF16 : CR_X_F32;
    struct cr_rng rng = cr_rng_make(250 + (uint64_t)_i);
    struct data d = make(&rng, n);
    struct exp_case start = {0}, ref;
    cr_fill_f32(&rng, start.m, TOKENS, -10, 10);
    cr_fill_f32(&rng, start.s, TOKENS, 0, 4);
    memcpy(start.mass, start.s, sizeof start.mass);
    for (size_t t = 0; t < TOKENS; t++) { /* labels here, before, behind; the last block has them all elsewhere */
        bool here = t < 2 * CR_LANES && d.target[t] >= 0 && t % 3 != 0;
        d.target[t] = here ? d.target[t] + 1000 : t % 2 || t >= 2 * CR_LANES ? 999 : t % 4 ? -1 : (int32_t)(1000 + n);
    }
    size_t bytes = cr_tl16_bytes(type, n + (type == CR_X_BF16 ? n % 2 : 0)) + 64;
    void *p = cr_guard_alloc(BLOCKS * bytes, 64, CR_AT_END);
    cr_guard_protect(d.z, true);
    cr_guard_protect(d.target, true);
    ref = start;
    run_expsum(&d, &ref, p, bytes, type, CR_TIER_SCALAR, 0);
    for (size_t t = 0; t < TOKENS; t++) {
        check_expsum(&d, &ref, start.s, p, bytes, type, t);
        if (type == CR_X_BF16 && n % 2 != 0) {
            ck_assert(cr_tl16_get(p, type, bytes, t / CR_LANES, n, t % CR_LANES) == 0);
        }
    }
    for (size_t t = 0; t < n_tiers; t++) {
        for (size_t cut = 0; cut < BLOCKS; cut++) {
            void *other = cr_guard_alloc(BLOCKS * bytes, 64, cut % 2 ? CR_AT_START : CR_AT_END);
            struct exp_case c = start;
            run_expsum(&d, &c, other, bytes, type, tiers[t], cut);
            cr_expect_bytes("p", other, p, BLOCKS * bytes);
            cr_expect_bytes("sums", &c, &ref, sizeof c);
            cr_guard_free(other);
        }
    }
    cr_guard_free_all();
}
END_TEST

/* Sums that leave the range are seen by the caller; a token without label stays 0 whatever its logits are. */
START_TEST(expsum_range)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_rng rng = cr_rng_make(280);
    struct data d = make(&rng, 4);
    float p[BLOCKS * 4 * CR_LANES] __attribute__((aligned(64)));
    d.z[1 * CR_LANES + 0] = 150;
    d.z[1 * CR_LANES + 1] = NAN;
    d.z[1 * CR_LANES + 2] = INFINITY;
    d.z[1 * CR_LANES + 3] = -INFINITY;
    for (size_t t = 0; t < TOKENS; t++) {
        d.target[t] = t < 4 ? 0 : -1;
    }
    for (size_t i = 0; i < n_tiers; i++) {
        struct exp_case c = {0};
        run_expsum(&d, &c, p, 4 * CR_LANES * 4, CR_X_F32, tiers[i], 1);
        ck_assert(isinf(c.s[0]) && isnan(c.s[1]) && isinf(c.s[2]) && isfinite(c.s[3]));
        d.target[0] = d.target[1] = d.target[2] = -1;
        c = (struct exp_case){0};
        run_expsum(&d, &c, p, 4 * CR_LANES * 4, CR_X_F32, tiers[i], 1);
        ck_assert(c.s[0] == 0 && c.s[1] == 0 && c.s[2] == 0 && p[CR_LANES + 1] == 0);
        d.target[0] = d.target[1] = d.target[2] = 0;
    }
    cr_guard_free_all();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("xent expsum");
    TCase *tc = tcase_create("xent expsum");
    int n_shapes = sizeof shapes / sizeof *shapes;
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, expsum, 0, 2 * n_shapes);
    tcase_add_test(tc, expsum_range);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
