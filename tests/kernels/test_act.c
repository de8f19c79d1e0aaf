/* act: the gated unit against double with derived bounds, finite differences, every tier, type and split. */
#include <math.h>
#include <string.h>

#include "credence/kernels/act.h"
#include "tests/support/tl16_test.h"

enum { BLOCKS = 3 };

static const size_t features[] = {1, 2, 7, 10, 576, 1536};

struct data {
    size_t n, gu_bytes, h_bytes, stride; /* stride in floats */
    enum cr_xtype g_type, h_type;
    void *g, *u;
    float *dh;
    void *h;
    float *dg, *du;
};

static struct data make(struct cr_rng *rng, size_t n, enum cr_xtype g_type, enum cr_xtype h_type)
{
    struct data d = {.n = n, .g_type = g_type, .h_type = h_type, .stride = n * CR_LANES + CR_LANES};
    d.gu_bytes = cr_tl16_bytes(g_type, n) + 64;
    d.h_bytes = cr_tl16_bytes(h_type, n) + 64;
    d.g = cr_guard_alloc(BLOCKS * d.gu_bytes, 64, CR_AT_END);
    d.u = cr_guard_alloc(BLOCKS * d.gu_bytes, 64, CR_AT_END);
    d.dh = cr_guard_alloc(BLOCKS * d.stride * 4, 64, CR_AT_END);
    cr_fill_f32(rng, d.dh, BLOCKS * d.stride, -1, 1);
    for (size_t b = 0; b < BLOCKS; b++) {
        for (size_t i = 0; i < n * CR_LANES; i++) {
            float wide = i % 11 == 0 ? 130.0f : 6.0f; /* past both ends of exp too */
            cr_tl16_put(d.g, g_type, d.gu_bytes, b, i / CR_LANES, i % CR_LANES, cr_rng_uniform(rng, -wide, wide));
            cr_tl16_put(d.u, g_type, d.gu_bytes, b, i / CR_LANES, i % CR_LANES, cr_rng_uniform(rng, -4, 4));
        }
    }
    return d;
}

static void outputs(struct data *d, enum cr_guard_side side)
{
    d->h = cr_guard_alloc(BLOCKS * d->h_bytes, 64, side);
    d->dg = cr_guard_alloc(BLOCKS * d->stride * 4, 64, side);
    d->du = cr_guard_alloc(BLOCKS * d->stride * 4, 64, side);
}

static void run(const struct data *d, enum cr_tier tier, size_t cut)
{
    struct cr_act_ops ops;
    cr_act_ops_init(&ops, tier);
    struct cr_act_args args = {.g = d->g,
                               .u = d->u,
                               .gu_stride = d->gu_bytes,
                               .g_type = d->g_type,
                               .h = d->h,
                               .h_stride = d->h_bytes,
                               .h_type = d->h_type,
                               .dh = d->dh,
                               .dh_stride = d->stride,
                               .dg = d->dg,
                               .du = d->du,
                               .dgu_stride = d->stride,
                               .n_features = d->n};
    ops.swiglu_fwd(&args, cut, BLOCKS);
    ops.swiglu_fwd(&args, 0, cut);
    ops.swiglu_bwd(&args, 0, cut);
    ops.swiglu_bwd(&args, cut, BLOCKS);
}

/* In units of 2^-24: exp 4, the sum 1, the quotient 1, each product 1. Where exp(-g) overflows, s is 0 and what is
 * lost is below 2^-126 times the other factors (g included: 2^7). */
static void check(const struct data *d, size_t block, size_t k, size_t lane)
{
    double g = (double)cr_tl16_get(d->g, d->g_type, d->gu_bytes, block, k, lane);
    double u = (double)cr_tl16_get(d->u, d->g_type, d->gu_bytes, block, k, lane);
    size_t at = block * d->stride + k * CR_LANES + lane;
    double dh = (double)d->dh[at], s = 1 / (1 + exp(-g)), tiny = 0x1p-116;
    double want = g * s * u;
    double bound = fabs(want) * (7 * CR_U32 + cr_unit_of(d->h_type)) * 1.01 + tiny;
    float h = cr_tl16_get(d->h, d->h_type, d->h_bytes, block, k, lane);
    cr_expect_within("h", &h, &want, &bound, 1);
    want = dh * g * s;
    bound = fabs(want) * 8 * 1.01 * CR_U32 + tiny;
    cr_expect_within("du", d->du + at, &want, &bound, 1);
    double inner = 1 + g * (1 - s);
    want = dh * u * s * inner;
    /* s has 6; 1 - s inherits 6 s and rounds, times g; the sum rounds; then three products */
    bound = fabs(dh * u * s) * (fabs(inner) * 10 + fabs(g) * (7 * s + 2 * (1 - s))) * 1.01 * CR_U32 + tiny;
    cr_expect_within("dg", d->dg + at, &want, &bound, 1);
}

START_TEST(values)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), n = features[_i / 4], step = n > 100 ? 7 : 1;
    enum cr_xtype g_type = _i & 1 ? CR_X_BF16 : CR_X_F32, h_type = _i & 2 ? CR_X_BF16 : CR_X_F32;
    if (n % 2 != 0 && _i % 4 != 0) {
        return; /* odd counts are f32 only */
    }
    struct cr_rng rng = cr_rng_make(110 + (uint64_t)_i);
    struct data ref = make(&rng, n, g_type, h_type);
    cr_guard_protect(ref.g, true);
    cr_guard_protect(ref.u, true);
    cr_guard_protect(ref.dh, true);
    outputs(&ref, CR_AT_END);
    run(&ref, CR_TIER_SCALAR, 0);
    for (size_t block = 0; block < BLOCKS; block++) {
        for (size_t i = 0; i < n * CR_LANES; i += step) {
            check(&ref, block, i / CR_LANES, i % CR_LANES);
        }
        for (size_t i = 0; i < 64; i++) { /* between blocks: still poison */
            ck_assert(((unsigned char *)ref.h)[(block + 1) * ref.h_bytes - 1 - i] == 0xff);
            ck_assert(((unsigned char *)(ref.dg + (block + 1) * ref.stride))[-1 - (int)i] == 0xff);
            ck_assert(((unsigned char *)(ref.du + (block + 1) * ref.stride))[-1 - (int)i] == 0xff);
        }
    }
    for (size_t t = 0; t < n_tiers; t++) {
        for (size_t cut = 0; cut < BLOCKS; cut++) {
            struct data d = ref;
            outputs(&d, cut % 2 ? CR_AT_START : CR_AT_END);
            run(&d, tiers[t], cut);
            cr_expect_bytes("h", d.h, ref.h, BLOCKS * d.h_bytes);
            cr_expect_bytes("dg", d.dg, ref.dg, BLOCKS * d.stride * 4);
            cr_expect_bytes("du", d.du, ref.du, BLOCKS * d.stride * 4);
            cr_guard_free(d.h);
            cr_guard_free(d.dg);
            cr_guard_free(d.du);
        }
    }
    cr_guard_free_all();
}
END_TEST

static double gated(double g, double u)
{
    return g / (1 + exp(-g)) * u;
}

START_TEST(finite_differences)
{
    struct cr_rng rng = cr_rng_make(150);
    struct data d = make(&rng, 20, CR_X_F32, CR_X_F32);
    outputs(&d, CR_AT_END);
    run(&d, CR_TIER_SCALAR, 0);
    for (size_t i = 0; i < d.n * CR_LANES; i++) {
        double g = (double)((float *)d.g)[i], u = (double)((float *)d.u)[i], dh = (double)d.dh[i], h = 1e-4;
        double want[2] = {dh * (gated(g + h, u) - gated(g - h, u)) / (2 * h),
                          dh * (gated(g, u + h) - gated(g, u - h)) / (2 * h)};
        /* h^2 times third derivatives below 1 times |u| <= 4; f32 at |g| <= 130 */
        double bound[2] = {1e-6 + 130 * 16 * CR_U32, 1e-6 + 130 * 16 * CR_U32};
        float got[2] = {d.dg[i], d.du[i]};
        cr_expect_within("dg, du", got, want, bound, 2);
    }
    cr_guard_free_all();
}
END_TEST

START_TEST(special)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_rng rng = cr_rng_make(160);
    struct data d = make(&rng, 2, CR_X_F32, CR_X_F32);
    float *g = d.g, *u = d.u;
    for (size_t i = 0; i < CR_LANES; i++) {
        g[i] = u[i] = d.dh[i] = 1;
    }
    g[0] = NAN;
    u[1] = NAN;
    d.dh[2] = NAN;
    g[3] = INFINITY;
    g[4] = 0;
    g[5] = -1000;
    for (size_t t = 0; t < n_tiers; t++) {
        outputs(&d, CR_AT_END);
        run(&d, tiers[t], 0);
        const float *h = d.h;
        ck_assert(isnan(h[0]) && isnan(d.dg[0]) && isnan(d.du[0]));
        ck_assert(isnan(h[1]) && isnan(d.dg[1]) && !isnan(d.du[1]));
        ck_assert(!isnan(h[2]) && isnan(d.dg[2]) && isnan(d.du[2]));
        ck_assert(h[3] == INFINITY);
        ck_assert(h[4] == 0 && d.du[4] == 0 && d.dg[4] == 0.5f);
        ck_assert(h[5] == 0 && d.du[5] == 0 && d.dg[5] == 0);
        for (size_t i = 6; i < CR_LANES; i++) {
            ck_assert(fabsf(h[i] - 0.731058578f) < 1e-6f);
        }
    }
    cr_guard_free_all();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("act");
    TCase *tc = tcase_create("act");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, values, 0, 4 * (int)(sizeof features / sizeof *features));
    tcase_add_test(tc, finite_differences);
    tcase_add_test(tc, special);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
