/* norm: RMSNorm against double with bounds of f32 summation, the double formula against finite differences, the same
 * bits on every tier and for every split, NaN kept to its own token. */
#include <math.h>
#include <string.h>

#include "credence/kernels/norm.h"
#include "tests/support/tl16_test.h"

enum { BLOCKS = 3, GAP = 16 }; /* GAP: floats between token blocks that nobody may touch */

static const size_t features[] = {1, 2, 3, 5, 7, 64, 576, 1536};
static const float eps = 1e-5f;

/* Everything of one case: inputs, and one output set. */
struct data {
    size_t n, stride, y_bytes;
    enum cr_xtype y_type;
    float *x, *w, *dy, *dx_before;
    float *rstd, *dx;
    void *y;
};

static struct data make(struct cr_rng *rng, size_t n, enum cr_xtype y_type)
{
    struct data d = {.n = n, .stride = n * CR_LANES + GAP, .y_type = y_type};
    d.y_bytes = cr_tl16_bytes(y_type, n) + 64;
    d.x = cr_guard_alloc(BLOCKS * d.stride * 4, 64, CR_AT_END);
    d.dy = cr_guard_alloc(BLOCKS * d.stride * 4, 64, CR_AT_END);
    d.dx_before = cr_guard_alloc(BLOCKS * d.stride * 4, 64, CR_AT_END);
    d.w = cr_guard_alloc(n * 4, 4, CR_AT_END);
    cr_fill_f32(rng, d.x, BLOCKS * d.stride, -3, 3);
    cr_fill_f32(rng, d.dy, BLOCKS * d.stride, -1, 1);
    cr_fill_f32(rng, d.dx_before, BLOCKS * d.stride, -1, 1);
    cr_fill_f32(rng, d.w, n, 0.2f, 2);
    for (size_t i = 0; i < BLOCKS * d.stride; i += 37) {
        d.x[i] *= 100; /* outliers as in real activations */
    }
    return d;
}

static void outputs(struct data *d, enum cr_guard_side side)
{
    d->rstd = cr_guard_alloc(BLOCKS * CR_LANES * 4, 64, side);
    d->y = cr_guard_alloc(BLOCKS * d->y_bytes, 64, side);
    d->dx = cr_guard_alloc(BLOCKS * d->stride * 4, 64, side);
    memcpy(d->dx, d->dx_before, BLOCKS * d->stride * 4);
}

static void run(struct data *d, enum cr_tier tier, size_t cut)
{
    struct cr_norm_ops ops;
    cr_norm_ops_init(&ops, tier);
    struct cr_norm_args args = {.x = d->x,
                                .x_stride = d->stride * sizeof(float),
                                .w = d->w,
                                .eps = eps,
                                .n_features = d->n,
                                .y = d->y,
                                .y_stride = d->y_bytes,
                                .y_type = d->y_type,
                                .rstd = d->rstd,
                                .dy = d->dy,
                                .dy_stride = d->stride,
                                .dx = d->dx,
                                .dx_stride = d->stride};
    ops.rms_fwd(&args, 0, cut);
    ops.rms_fwd(&args, cut, BLOCKS);
    ops.rms_bwd(&args, cut, BLOCKS);
    ops.rms_bwd(&args, 0, cut);
}

/* One token's numbers as doubles: stride 16 inside the block. */
static double mean_square(const float *x, size_t n)
{
    double sum = 0;
    for (size_t k = 0; k < n; k++) {
        sum += (double)x[k * CR_LANES] * (double)x[k * CR_LANES];
    }
    return sum / (double)n;
}

/* Sum of n f32 squares in four chains: relative (n/4 + 4) u; its root halves that; quotient, root, inverse, 2 products.
 */
static double forward_bound(size_t n)
{
    return (((double)n / 4 + 5) / 2 + 5) * CR_U32;
}

static void check_forward(const struct data *d, size_t block, size_t lane)
{
    const float *x = d->x + block * d->stride + lane;
    double r = 1 / sqrt(mean_square(x, d->n) + (double)eps);
    double rel = forward_bound(d->n), bound = rel * r;
    cr_expect_within("rstd", d->rstd + block * CR_LANES + lane, &r, &bound, 1);
    for (size_t k = 0; k < d->n; k++) {
        double want = (double)x[k * CR_LANES] * r * (double)d->w[k];
        double limit = fabs(want) * (rel + cr_unit_of(d->y_type)) * 1.001;
        float got = cr_tl16_get(d->y, d->y_type, d->y_bytes, block, k, lane);
        cr_expect_within("y", &got, &want, &limit, 1);
    }
}

/* dx - dx_before in double; magnitude gets |own| + the sum of |terms| behind the shared part. */
static double backward_term(const struct data *d, size_t block, size_t lane, size_t k, double r, double dot,
                            double abs_dot, double *magnitude)
{
    double x = (double)d->x[block * d->stride + k * CR_LANES + lane];
    double own = r * (double)d->w[k] * (double)d->dy[block * d->stride + k * CR_LANES + lane];
    double factor = r * r * r / (double)d->n;
    *magnitude = 4 * fabs(own) + fabs(x) * factor * abs_dot * ((double)d->n / 4 + 14);
    return own - x * factor * dot;
}

static void check_backward(const struct data *d, size_t block, size_t lane)
{
    double r = (double)d->rstd[block * CR_LANES + lane], dot = 0, abs_dot = 0;
    for (size_t k = 0; k < d->n; k++) {
        size_t at = block * d->stride + k * CR_LANES + lane;
        double term = (double)d->w[k] * (double)d->dy[at] * (double)d->x[at];
        dot += term;
        abs_dot += fabs(term);
    }
    for (size_t k = 0; k < d->n; k++) {
        size_t at = block * d->stride + k * CR_LANES + lane;
        double magnitude, change = backward_term(d, block, lane, k, r, dot, abs_dot, &magnitude);
        double want = (double)d->dx_before[at] + change;
        double bound = CR_U32 * 1.01 * (magnitude + fabs(change) + fabs(want));
        cr_expect_within("dx", d->dx + at, &want, &bound, 1);
    }
}

START_TEST(values)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), n = features[_i / 2], step = n > 100 ? 5 : 1;
    enum cr_xtype type = _i % 2 ? CR_X_BF16 : CR_X_F32;
    if (type == CR_X_BF16 && n % 2 != 0) {
        return;
    }
    struct cr_rng rng = cr_rng_make(20 + (uint64_t)_i);
    struct data ref = make(&rng, n, type);
    outputs(&ref, CR_AT_END);
    run(&ref, CR_TIER_SCALAR, 0);
    for (size_t block = 0; block < BLOCKS; block++) {
        for (size_t lane = 0; lane < CR_LANES; lane += step) {
            check_forward(&ref, block, lane);
            check_backward(&ref, block, lane);
        }
        for (size_t i = 0; i < GAP; i++) { /* between blocks: dx as it was, y still poison */
            size_t at = block * ref.stride + n * CR_LANES + i;
            ck_assert(cr_f32_bits(ref.dx[at]) == cr_f32_bits(ref.dx_before[at]));
            ck_assert(((unsigned char *)ref.y)[(block + 1) * ref.y_bytes - 1 - i] == 0xff);
        }
    }
    for (size_t t = 0; t < n_tiers; t++) {
        for (size_t cut = 0; cut < BLOCKS; cut++) {
            struct data d = ref;
            outputs(&d, cut % 2 ? CR_AT_START : CR_AT_END);
            run(&d, tiers[t], cut);
            cr_expect_bytes("rstd", d.rstd, ref.rstd, BLOCKS * CR_LANES * 4);
            cr_expect_bytes("y", d.y, ref.y, BLOCKS * d.y_bytes);
            cr_expect_bytes("dx", d.dx, ref.dx, BLOCKS * d.stride * 4);
            cr_guard_free(d.rstd);
            cr_guard_free(d.y);
            cr_guard_free(d.dx);
        }
    }
    cr_guard_free_all();
}
END_TEST

/* sum_k dy y(x), the loss whose gradient the backward formula is. */
static double loss(const double *x, const struct data *d)
{
    double sum = 0, out = 0;
    for (size_t k = 0; k < d->n; k++) {
        sum += x[k] * x[k];
    }
    double r = 1 / sqrt(sum / (double)d->n + (double)eps);
    for (size_t k = 0; k < d->n; k++) {
        out += (double)d->dy[k * CR_LANES] * x[k] * r * (double)d->w[k];
    }
    return out;
}

/* Kernel and formula share a source; the forward pass judges both. */
START_TEST(finite_differences)
{
    struct cr_rng rng = cr_rng_make(50);
    struct data d = make(&rng, 12, CR_X_F32);
    for (size_t i = 0; i < BLOCKS * d.stride; i++) {
        d.x[i] = cr_rng_uniform(&rng, -3, 3);
    }
    outputs(&d, CR_AT_END);
    memset(d.dx, 0, BLOCKS * d.stride * 4);
    run(&d, CR_TIER_SCALAR, 0);
    double x[12];
    for (size_t k = 0; k < d.n; k++) {
        x[k] = (double)d.x[k * CR_LANES];
    }
    for (size_t k = 0; k < d.n; k++) {
        double h = 1e-4, at = x[k];
        x[k] = at + h;
        double up = loss(x, &d);
        x[k] = at - h;
        double down = loss(x, &d);
        x[k] = at;
        double want = (up - down) / (2 * h), bound = 2e-6; /* h^2 times third derivatives of order 1, f32 of order 1 */
        cr_expect_within("dx", d.dx + k * CR_LANES, &want, &bound, 1);
    }
    cr_guard_free_all();
}
END_TEST

/* A kept bf16 copy of x whose rounding is exact gives the bits that x itself gives, and applying is the forward pass. */
START_TEST(kept_operand)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), n = features[_i];
    if (n % 2 != 0) {
        return;
    }
    struct cr_rng rng = cr_rng_make(70 + (uint64_t)_i);
    struct data d = make(&rng, n, CR_X_BF16);
    size_t kept_bytes = cr_tl16_bytes(CR_X_BF16, n);
    char *kept = cr_guard_alloc(BLOCKS * kept_bytes, 64, CR_AT_END);
    for (size_t block = 0; block < BLOCKS; block++) {
        for (size_t i = 0; i < n * CR_LANES; i++) {
            float *x = d.x + block * d.stride + i;
            *x = cr_bf16_to_f32(cr_f32_to_bf16(*x));
            cr_tl16_put(kept, CR_X_BF16, kept_bytes, block, i / CR_LANES, i % CR_LANES, *x);
        }
    }
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_norm_ops ops;
        ck_assert_int_eq(cr_norm_ops_init(&ops, tiers[t]), CR_OK);
        struct data want = d, got = d;
        outputs(&want, CR_AT_END);
        outputs(&got, CR_AT_END);
        run(&want, tiers[t], 1);
        struct cr_norm_args args = {.x = kept,
                                    .x_stride = kept_bytes,
                                    .x_type = CR_X_BF16,
                                    .w = d.w,
                                    .n_features = n,
                                    .y = got.y,
                                    .y_stride = d.y_bytes,
                                    .y_type = d.y_type,
                                    .rstd = want.rstd,
                                    .dy = d.dy,
                                    .dy_stride = d.stride,
                                    .dx = got.dx,
                                    .dx_stride = d.stride};
        ops.rms_apply(&args, 0, BLOCKS);
        ops.rms_bwd(&args, 0, BLOCKS);
        cr_expect_bytes("y", got.y, want.y, BLOCKS * d.y_bytes);
        cr_expect_bytes("dx", got.dx, want.dx, BLOCKS * d.stride * 4);
        args.x = d.x;
        args.x_stride = d.stride * sizeof(float);
        args.x_type = CR_X_F32;
        memset(got.y, 0xff, BLOCKS * d.y_bytes);
        ops.rms_apply(&args, 1, BLOCKS);
        ops.rms_apply(&args, 0, 1);
        cr_expect_bytes("y of f32", got.y, want.y, BLOCKS * d.y_bytes);
    }
    cr_guard_free_all();
}
END_TEST

START_TEST(nan_stays_in_its_token)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_rng rng = cr_rng_make(60);
    struct data d = make(&rng, 10, CR_X_BF16);
    d.x[3 * CR_LANES + 5] = NAN;
    memset(d.x + d.stride, 0, d.n * CR_LANES * 4); /* a padding block */
    for (size_t t = 0; t < n_tiers; t++) {
        outputs(&d, CR_AT_END);
        run(&d, tiers[t], 1);
        for (size_t block = 0; block < BLOCKS; block++) {
            for (size_t i = 0; i < d.n * CR_LANES; i++) {
                bool bad = block == 0 && i % CR_LANES == 5;
                float y = cr_tl16_get(d.y, CR_X_BF16, d.y_bytes, block, i / CR_LANES, i % CR_LANES);
                ck_assert(isnan(y) == bad);
                ck_assert(isnan(d.dx[block * d.stride + i]) == bad);
                ck_assert(block != 1 || y == 0);
            }
        }
    }
    cr_guard_free_all();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("norm");
    TCase *tc = tcase_create("norm");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, values, 0, 2 * (int)(sizeof features / sizeof *features));
    tcase_add_loop_test(tc, kept_operand, 0, (int)(sizeof features / sizeof *features));
    tcase_add_test(tc, finite_differences);
    tcase_add_test(tc, nan_stays_in_its_token);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
