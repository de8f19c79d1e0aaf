/* xent: statistics in chunks and merged, the gradient, labels and the end of a walk, against double; finite
 * differences; every tier and split. */
#include <math.h>
#include <string.h>

#include "credence/kernels/xent.h"
#include "tests/kernels/xent_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/tl16_test.h"

/* Adds rows [first, end) in chunks. */
static void walk(const struct data *d, struct stats *st, enum cr_tier tier, size_t first, size_t end, size_t chunk,
                 size_t cut)
{
    struct cr_xent_ops ops;
    cr_xent_ops_init(&ops, tier);
    for (size_t row = first; row < end; row += chunk) {
        size_t n = end - row < chunk ? end - row : chunk;
        struct cr_xent_args args = {.z = d->z + row * CR_LANES,
                                    .z_stride = d->stride,
                                    .first_row = row,
                                    .n_rows = n,
                                    .target = d->target,
                                    .m = st->m,
                                    .s = st->s,
                                    .label = st->label};
        ops.stats(&args, cut, BLOCKS);
        ops.stats(&args, 0, cut);
    }
}

/* s against double. Each term: the difference rounds (|z - m| u), exp 4 u; n/2 additions; each of `rescales` factors
 * costs another exp, product and sum, its exponent at most the spread of m (40). */
static void check_stats(const char *what, const struct data *d, const struct stats *st, double rescales)
{
    for (size_t t = 0; t < TOKENS; t++) {
        const float *z = d->z + t / CR_LANES * d->stride + t % CR_LANES;
        double m = -INFINITY, s = 0, bound = 0;
        for (size_t v = 0; v < d->n; v++) {
            m = fmax(m, (double)z[v * CR_LANES]);
        }
        for (size_t v = 0; v < d->n; v++) {
            double term = exp((double)z[v * CR_LANES] - m);
            s += term;
            bound += term * (m - (double)z[v * CR_LANES] + 4 + (double)d->n / 2 + rescales * (6 + 40));
        }
        ck_assert_msg((double)st->m[t] == m, "%s: m is %g, expected %g", what, (double)st->m[t], m);
        bound *= CR_U32 * 1.01;
        cr_expect_within(what, st->s + t, &s, &bound, 1);
        float label = d->target[t] < 0 ? 0 : z[(size_t)d->target[t] * CR_LANES];
        ck_assert(st->label[t] == label);
    }
}

START_TEST(stats)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    const struct shape *shape = &shapes[_i];
    struct cr_rng rng = cr_rng_make(170 + (uint64_t)_i);
    struct data d = make(&rng, shape->n_rows);
    cr_guard_protect(d.z, true);
    cr_guard_protect(d.target, true);
    struct stats ref = start();
    walk(&d, &ref, CR_TIER_SCALAR, 0, d.n, shape->chunk, 0);
    check_stats("stats", &d, &ref, (double)((d.n + shape->chunk - 1) / shape->chunk));
    for (size_t t = 0; t < n_tiers; t++) {
        for (size_t cut = 0; cut < BLOCKS; cut++) {
            struct stats st = start();
            walk(&d, &st, tiers[t], 0, d.n, shape->chunk, cut);
            cr_expect_bytes(cr_tier_name(tiers[t]), &st, &ref, sizeof st);
        }
    }
    cr_guard_free_all();
}
END_TEST

START_TEST(merge)
{
    const struct shape *shape = &shapes[_i];
    struct cr_rng rng = cr_rng_make(190 + (uint64_t)_i);
    struct data d = make(&rng, shape->n_rows);
    size_t middle = d.n / 2;
    struct stats a = start(), b = start();
    walk(&d, &a, CR_TIER_SCALAR, 0, middle, d.n, 0); /* middle 0: an empty part */
    walk(&d, &b, CR_TIER_SCALAR, middle, d.n, d.n, 0);
    struct stats c = b;
    cr_xent_merge(b.m, b.s, b.label, a.m, a.s, a.label, TOKENS);
    cr_xent_merge(a.m, a.s, a.label, c.m, c.s, c.label, TOKENS);
    check_stats("merged", &d, &a, 3);
    cr_expect_bytes("order of two", &a, &b, sizeof a);
    struct stats empty = start(), both = start();
    cr_xent_merge(both.m, both.s, both.label, empty.m, empty.s, empty.label, TOKENS);
    cr_expect_bytes("nothing and nothing", &both, &empty, sizeof both);
    cr_guard_free_all();
}
END_TEST

struct grad_case {
    float lse[TOKENS + 1];
    float weight[TOKENS + 3];
};

static void make_grad(const struct data *d, struct cr_rng *rng, struct grad_case *c)
{
    for (size_t t = 0; t < TOKENS; t++) {
        double sum = 0;
        for (size_t v = 0; v < d->n; v++) {
            sum += exp((double)d->z[t / CR_LANES * d->stride + v * CR_LANES + t % CR_LANES]);
        }
        c->lse[t] = (float)log(sum);
        c->weight[t] = t % 7 == 3 ? 0 : cr_rng_uniform(rng, 0.01f, 1);
    }
}

static void run_grad(const struct data *d, const struct grad_case *c, void *dz, size_t dz_bytes, enum cr_xtype type,
                     enum cr_tier tier, size_t cut)
{
    struct cr_xent_ops ops;
    cr_xent_ops_init(&ops, tier);
    struct cr_xent_args args = args_of(d, dz, dz_bytes, type);
    args.lse = c->lse;
    args.weight = c->weight;
    ops.grad(&args, 0, cut);
    ops.grad(&args, cut, BLOCKS);
}

START_TEST(grad)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), n = shapes[_i / 2].n_rows, step = n > 100 ? 3 : 1;
    enum cr_xtype type = _i % 2 ? CR_X_BF16 : CR_X_F32;
    if (n % 2 != 0 && type == CR_X_BF16) {
        return;
    }
    struct cr_rng rng = cr_rng_make(210 + (uint64_t)_i);
    struct data d = make(&rng, n);
    struct grad_case c;
    make_grad(&d, &rng, &c);
    for (size_t t = 0; t < TOKENS; t++) { /* this chunk starts at row 1000; some targets lie outside it */
        d.target[t] += d.target[t] < 0 ? 0 : t % 3 == 0 ? 500 : 1000;
    }
    size_t bytes = cr_tl16_bytes(type, n) + 64;
    void *ref = cr_guard_alloc(BLOCKS * bytes, 64, CR_AT_END);
    run_grad(&d, &c, ref, bytes, type, CR_TIER_SCALAR, 0);
    for (size_t t = 0; t < TOKENS; t++) {
        for (size_t v = 0; v < n; v += step) {
            double z = (double)d.z[t / CR_LANES * d.stride + v * CR_LANES + t % CR_LANES];
            double gap = z - (double)c.lse[t], p = exp(gap), hit = d.target[t] == (int32_t)(1000 + v);
            double w = (double)c.weight[t], want = (p - hit) * w;
            double bound = (w * p * (fabs(gap) + 4) + 2 * fabs(want)) * 1.01 * CR_U32;
            bound += fabs(want) * cr_unit_of(type) * 1.01 + 0x1p-133; /* half a step of the bf16 denormals */
            float got = cr_tl16_get(ref, type, bytes, t / CR_LANES, v, t % CR_LANES);
            cr_expect_within("dz", &got, &want, &bound, 1);
        }
    }
    for (size_t t = 0; t < n_tiers; t++) {
        for (size_t cut = 0; cut < BLOCKS; cut++) {
            void *dz = cr_guard_alloc(BLOCKS * bytes, 64, cut % 2 ? CR_AT_START : CR_AT_END);
            run_grad(&d, &c, dz, bytes, type, tiers[t], cut);
            cr_expect_bytes("dz", dz, ref, BLOCKS * bytes);
            cr_guard_free(dz);
        }
    }
    cr_guard_free_all();
}
END_TEST

static const size_t features[] = {1, 2, 7, 64, 576};
enum { N_FEATURES = sizeof features / sizeof *features };

/* The label's logit: n/2 + 1 additions on top of exact (bf16) or rounded products. */
START_TEST(label)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), n = features[_i / 2];
    enum cr_xtype type = _i % 2 ? CR_X_BF16 : CR_X_F32;
    if (n % 2 != 0 && type == CR_X_BF16) {
        return;
    }
    struct cr_rng rng = cr_rng_make(290 + (uint64_t)_i);
    size_t stride = (n + 1) * CR_LANES, bytes = cr_tl16_bytes(type, n);
    float *w = cr_tl16_random(&rng, BLOCKS, n + 1, -2, 2);
    char *h = cr_guard_alloc(BLOCKS * bytes, 64, CR_AT_END);
    for (size_t t = 0; t < TOKENS; t++) {
        for (size_t f = 0; f < n; f++) {
            cr_tl16_put(h, type, bytes, t / CR_LANES, f, t % CR_LANES, cr_rng_uniform(&rng, -3, 3));
        }
    }
    cr_guard_protect(h, true);
    float *copy = cr_guard_alloc(BLOCKS * stride * 4, 64, CR_AT_END), ref[TOKENS + 1], m[TOKENS + 1];
    for (size_t i = 0; i < n_tiers; i++) {
        for (size_t cut = 0; cut < BLOCKS; cut++) {
            struct cr_xent_ops ops;
            cr_xent_ops_init(&ops, tiers[i]);
            memcpy(copy, w, BLOCKS * stride * 4);
            struct cr_xent_row_args args = {
                .w = copy, .w_stride = stride, .h = h, .h_stride = bytes, .h_type = type, .m = m + 1, .n_features = n};
            ops.label(&args, cut, BLOCKS);
            ops.label(&args, 0, cut);
            if (i + cut == 0) {
                memcpy(ref, m, sizeof ref);
            }
            cr_expect_bytes("logit", m + 1, ref + 1, TOKENS * sizeof *m);
            for (size_t t = 0; t < TOKENS; t++) {
                double sum = 0, size = 0;
                for (size_t f = 0; f < n; f++) {
                    size_t at = t / CR_LANES * stride + f * CR_LANES + t % CR_LANES;
                    float kept = type == CR_X_BF16 ? cr_bf16_to_f32(cr_f32_to_bf16(w[at])) : w[at];
                    ck_assert(copy[at] == kept);
                    double term = (double)kept * (double)cr_tl16_get(h, type, bytes, t / CR_LANES, f, t % CR_LANES);
                    sum += term;
                    size += fabs(term);
                }
                double bound = ((double)n / 2 + 2) * CR_U32 * size * 1.01;
                cr_expect_within("logit", m + 1 + t, &sum, &bound, 1);
            }
        }
    }
    cr_guard_free_all();
}
END_TEST

START_TEST(finish)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), n = features[_i];
    struct cr_rng rng = cr_rng_make(310 + (uint64_t)_i);
    size_t stride = n * CR_LANES;
    float *w = cr_tl16_random(&rng, BLOCKS, n, -2, 2), *before = cr_tl16_random(&rng, BLOCKS, n, -9, 9);
    float mass[TOKENS + 1], scale[TOKENS + 1];
    cr_fill_f32(&rng, mass, TOKENS + 1, 0, 50);
    cr_fill_f32(&rng, scale, TOKENS + 1, 0, 1);
    cr_guard_protect(w, true);
    float *dh = cr_guard_alloc(BLOCKS * stride * 4, 64, CR_AT_END);
    float *ref = cr_guard_alloc(BLOCKS * stride * 4, 64, CR_AT_END);
    for (size_t i = 0; i < n_tiers; i++) {
        for (size_t cut = 0; cut < BLOCKS; cut++) {
            struct cr_xent_ops ops;
            cr_xent_ops_init(&ops, tiers[i]);
            memcpy(dh, before, BLOCKS * stride * 4);
            struct cr_xent_row_args args = {.w = w,
                                            .w_stride = stride,
                                            .dh = dh,
                                            .dh_stride = stride,
                                            .mass = mass + 1,
                                            .scale = scale + 1,
                                            .n_features = n};
            ops.finish(&args, cut, BLOCKS);
            ops.finish(&args, 0, cut);
            if (i + cut == 0) {
                memcpy(ref, dh, BLOCKS * stride * 4);
            }
            cr_expect_bytes("dh", dh, ref, BLOCKS * stride * 4);
        }
    }
    for (size_t at = 0; at < BLOCKS * stride; at++) {
        size_t t = at / stride * CR_LANES + at % CR_LANES;
        double a = (double)before[at], b = (double)mass[t + 1] * (double)w[at], c = (double)scale[t + 1];
        double want = (a - b) * c, bound = (2 * fabs(a - b) + fabs(b)) * c * 1.01 * CR_U32;
        cr_expect_within("dh", ref + at, &want, &bound, 1);
    }
    cr_guard_free_all();
}
END_TEST

/* weight (log sum exp z - z[target]) in double */
static double loss(const double *z, size_t n, size_t target, double weight)
{
    double sum = 0;
    for (size_t v = 0; v < n; v++) {
        sum += exp(z[v]);
    }
    return weight * (log(sum) - z[target]);
}

START_TEST(finite_differences)
{
    enum { N = 12 };
    struct cr_rng rng = cr_rng_make(230);
    struct data d = make(&rng, N);
    cr_fill_f32(&rng, d.z, BLOCKS * d.stride, -2, 2);
    struct grad_case c;
    make_grad(&d, &rng, &c);
    int32_t target[TOKENS];
    for (size_t t = 0; t < TOKENS; t++) {
        target[t] = (int32_t)cr_rng_below(&rng, N);
        d.target[t] = target[t] + 1000;
    }
    float *dz = cr_guard_alloc(BLOCKS * N * 64, 64, CR_AT_END);
    run_grad(&d, &c, dz, N * 64, CR_X_F32, CR_TIER_SCALAR, 0);
    for (size_t t = 0; t < TOKENS; t++) {
        double z[N], weight = (double)c.weight[t], h = 1e-4;
        for (size_t v = 0; v < N; v++) {
            z[v] = (double)d.z[t / CR_LANES * d.stride + v * CR_LANES + t % CR_LANES];
        }
        for (size_t v = 0; v < N; v++) {
            double at = z[v];
            z[v] = at + h;
            double up = loss(z, N, (size_t)target[t], weight);
            z[v] = at - h;
            double down = loss(z, N, (size_t)target[t], weight);
            z[v] = at;
            double want = (up - down) / (2 * h);
            double bound = 1e-7 + 20 * CR_U32; /* h^2 times a third derivative below 1/6; f32 of numbers below 1 */
            float got = cr_tl16_get(dz, CR_X_F32, N * 64, t / CR_LANES, v, t % CR_LANES);
            cr_expect_within("dz", &got, &want, &bound, 1);
        }
    }
    cr_guard_free_all();
}
END_TEST

START_TEST(special)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_rng rng = cr_rng_make(240);
    struct data d = make(&rng, 6);
    for (size_t v = 0; v < 6; v++) {
        d.z[v * CR_LANES + 0] = -INFINITY; /* nothing possible */
        d.z[v * CR_LANES + 1] = v == 4 ? 0 : -INFINITY;
        d.z[v * CR_LANES + 5] = 3e38f;
        d.z[v * CR_LANES + 6] = -3e38f;
    }
    d.z[1 * CR_LANES + 2] = NAN;
    d.z[0 * CR_LANES + 3] = NAN;
    d.z[2 * CR_LANES + 4] = INFINITY;
    for (size_t t = 0; t < n_tiers; t++) {
        struct stats st = start();
        walk(&d, &st, tiers[t], 0, 6, 2, 0);
        ck_assert(st.m[0] == -INFINITY && st.s[0] == 0);
        ck_assert(st.m[1] == 0 && st.s[1] == 1);
        ck_assert(isnan(st.s[2]) && isnan(st.s[3]) && isnan(st.s[4])); /* seen by the caller, never hidden */
        ck_assert(st.m[5] == 3e38f && st.s[5] == 6);
        ck_assert(st.m[6] == -3e38f && st.s[6] == 6);
        for (size_t lane = 7; lane < CR_LANES; lane++) {
            ck_assert(isfinite(st.s[lane]) && st.s[lane] >= 1);
        }
    }
    cr_guard_free_all();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("xent");
    TCase *tc = tcase_create("xent");
    int n_shapes = sizeof shapes / sizeof *shapes;
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, stats, 0, n_shapes);
    tcase_add_loop_test(tc, merge, 0, n_shapes);
    tcase_add_loop_test(tc, grad, 0, 2 * n_shapes);
    tcase_add_loop_test(tc, label, 0, 2 * N_FEATURES);
    tcase_add_loop_test(tc, finish, 0, N_FEATURES);
    tcase_add_test(tc, finite_differences);
    tcase_add_test(tc, special);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
