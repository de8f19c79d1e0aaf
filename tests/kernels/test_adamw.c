/* adamw: stored trajectories and clipping, a double reference with derived bounds, every tier, size and split. */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "credence/kernels/adamw.h"
#include "tests/support/golden.h"
#include "tests/support/tl16_test.h"

static const double golden_tolerance = 2e-5; /* of the stored numbers' own description, for f32 */

static json_t *section(json_t **root, const char *name)
{
    *root = cr_golden_load("lora_adamw.json");
    json_t *found = json_object_get(*root, name);
    ck_assert_ptr_nonnull(found);
    return found;
}

static size_t numbers(const json_t *array, float *out, size_t room)
{
    size_t n = json_array_size(array);
    ck_assert(n > 0 && n <= room);
    for (size_t i = 0; i < n; i++) {
        out[i] = (float)json_number_value(json_array_get(array, i));
    }
    return n;
}

START_TEST(golden_steps)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), index;
    json_t *root, *cases = section(&root, "adamw"), *item;
    ck_assert_uint_ge(json_array_size(cases), 3);
    for (size_t tier = 0; tier < n_tiers; tier++) {
        struct cr_adamw_ops ops;
        cr_adamw_ops_init(&ops, tiers[tier]);
        json_array_foreach(cases, index, item)
        {
            float w[32], m[32] = {0}, v[32] = {0}, grad[32], theta[32];
            size_t n = numbers(json_object_get(item, "theta0"), w, 32);
            json_t *grads = json_object_get(item, "grads"), *after = json_object_get(item, "theta_after_each_step");
            struct cr_adamw_args args = {.w = w,
                                         .m = m,
                                         .v = v,
                                         .grad = grad,
                                         .lr = cr_golden_number(item, "lr"),
                                         .beta1 = cr_golden_number(item, "beta1"),
                                         .beta2 = cr_golden_number(item, "beta2"),
                                         .eps = cr_golden_number(item, "eps"),
                                         .weight_decay = cr_golden_number(item, "weight_decay"),
                                         .clip = 1};
            ck_assert_uint_ge(json_array_size(grads), 5);
            for (size_t step = 0; step < json_array_size(grads); step++) {
                ck_assert_uint_eq(numbers(json_array_get(grads, step), grad, 32), n);
                ck_assert_uint_eq(numbers(json_array_get(after, step), theta, 32), n);
                args.t = step + 1;
                ops.step(&args, 0, n);
                for (size_t i = 0; i < n; i++) {
                    double error = fabs((double)w[i] - (double)theta[i]);
                    ck_assert_msg(error <= golden_tolerance * fabs((double)theta[i]),
                                  "case %zu step %zu: %g, expected %g", index, step, (double)w[i], (double)theta[i]);
                }
            }
        }
    }
    json_decref(root);
}
END_TEST

/* With beta1 = 0 the first moment is the clipped gradient itself. */
START_TEST(golden_clip)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    json_t *root, *clip = section(&root, "clip_grad_norm");
    float grad[32], want[32];
    size_t n = numbers(json_object_get(clip, "g1"), grad, 32);
    numbers(json_object_get(clip, "g1_clipped"), want, 32);
    for (size_t i = 0; i < json_array_size(json_object_get(clip, "g2")); i++) {
        size_t more = numbers(json_array_get(json_object_get(clip, "g2"), i), grad + n, 32 - n);
        numbers(json_array_get(json_object_get(clip, "g2_clipped"), i), want + n, 32 - n);
        n += more;
    }
    for (size_t tier = 0; tier < n_tiers; tier++) {
        struct cr_adamw_ops ops;
        cr_adamw_ops_init(&ops, tiers[tier]);
        float w[32] = {0}, m[32] = {0}, v[32] = {0};
        double partial = NAN;
        struct cr_adamw_args args = {.w = w,
                                     .m = m,
                                     .v = v,
                                     .grad = grad,
                                     .partial = &partial,
                                     .lr = 0.1,
                                     .beta1 = 0,
                                     .beta2 = 0.9,
                                     .eps = 1e-8,
                                     .t = 1};
        ops.norm2(&args, 0, n);
        double norm = sqrt(partial), stored = cr_golden_number(clip, "total_norm");
        ck_assert_double_le(fabs(norm - stored), 1e-7 * stored); /* the gradients are f32 here */
        args.clip = cr_golden_number(clip, "max_norm") / (norm + 1e-6);
        ck_assert_double_le(fabs(args.clip - cr_golden_number(clip, "coef")), 1e-7);
        ops.step(&args, 0, n);
        for (size_t i = 0; i < n; i++) {
            ck_assert_double_le(fabs((double)m[i] - (double)want[i]), golden_tolerance * fabs((double)want[i]));
        }
    }
    json_decref(root);
}
END_TEST

static const size_t sizes[] = {0, 1, 3, 4, 7, 15, 16, 17, 31, 33, 4095, 4096, 4097, 10000};

struct data {
    size_t n;
    float *grad, *w, *m, *v;
};

/* Arrays that start 4 bytes off any vector boundary when n is odd. */
static struct data make(uint64_t stream, size_t n, enum cr_guard_side side)
{
    struct cr_rng rng = cr_rng_make(stream);
    struct data d = {n, cr_guard_alloc(n * 4, 4, side), cr_guard_alloc(n * 4, 4, side), cr_guard_alloc(n * 4, 4, side),
                     cr_guard_alloc(n * 4, 4, side)};
    cr_fill_f32(&rng, d.grad, n, -2, 2);
    cr_fill_f32(&rng, d.w, n, -1, 1);
    cr_fill_f32(&rng, d.m, n, -1, 1);
    cr_fill_f32(&rng, d.v, n, 0, 1);
    for (size_t i = 0; i < n; i += 9) { /* fresh state, no gradient */
        d.grad[i] = d.m[i] = d.v[i] = 0;
    }
    return d;
}

static struct cr_adamw_args args_of(const struct data *d)
{
    return (struct cr_adamw_args){.w = d->w,
                                  .m = d->m,
                                  .v = d->v,
                                  .grad = d->grad,
                                  .lr = 3e-3,
                                  .beta1 = 0.9,
                                  .beta2 = 0.999,
                                  .eps = 1e-8,
                                  .weight_decay = 0.1,
                                  .clip = 0.37,
                                  .t = 7};
}

static void run(const struct data *d, enum cr_tier tier, size_t cut)
{
    struct cr_adamw_ops ops;
    cr_adamw_ops_init(&ops, tier);
    struct cr_adamw_args args = args_of(d);
    ops.step(&args, cut, d->n);
    ops.step(&args, 0, cut);
}

/* Every constant and every operation rounds once: m: g 2 u, each product 2 u more, the sum 1; v likewise, g twice;
 * the step: m, its factor, product and quotient, the root halves v's error, then constants, + eps, the last sum. */
static void check(const struct data *d, const struct data *before)
{
    struct cr_adamw_args a = args_of(before);
    for (size_t i = 0; i < d->n; i++) {
        double g = a.clip * (double)before->grad[i];
        double old = a.beta1 * (double)before->m[i], add = (1 - a.beta1) * g, m = old + add;
        double m_bound = 1.01 * CR_U32 * (2 * fabs(old) + 4 * fabs(add) + fabs(m));
        cr_expect_within("m", d->m + i, &m, &m_bound, 1);
        double v = a.beta2 * (double)before->v[i] + (1 - a.beta2) * g * g;
        double v_rel = 8 * 1.01 * CR_U32, v_bound = v_rel * v;
        cr_expect_within("v", d->v + i, &v, &v_bound, 1);
        double scale = sqrt(v / (1 - pow(a.beta2, (double)a.t))) + a.eps;
        double factor = a.lr / (1 - pow(a.beta1, (double)a.t)) / scale, keep = (1 - a.lr * a.weight_decay);
        double w = (double)before->w[i] * keep - factor * m;
        double w_bound = factor * m_bound + fabs(factor * m) * (v_rel / 2 + 7 * 1.01 * CR_U32);
        w_bound += 1.01 * CR_U32 * (2 * fabs((double)before->w[i]) + fabs(w));
        cr_expect_within("w", d->w + i, &w, &w_bound, 1);
    }
}

START_TEST(step)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), n = sizes[_i];
    uint64_t stream = 250 + (uint64_t)_i;
    struct data before = make(stream, n, CR_AT_END), ref = make(stream, n, CR_AT_END);
    run(&ref, CR_TIER_SCALAR, 0);
    check(&ref, &before);
    for (size_t t = 0; t < n_tiers; t++) {
        for (size_t cut = 0; cut <= n; cut += CR_ADAMW_CHUNK) {
            struct data d = make(stream, n, cut == 0 ? CR_AT_END : CR_AT_START);
            cr_guard_protect(d.grad, true);
            run(&d, tiers[t], cut);
            cr_expect_bytes("w", d.w, ref.w, n * 4);
            cr_expect_bytes("m", d.m, ref.m, n * 4);
            cr_expect_bytes("v", d.v, ref.v, n * 4);
        }
    }
    cr_guard_free_all();
}
END_TEST

START_TEST(norm2)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), n = sizes[_i], n_chunks = (n + CR_ADAMW_CHUNK - 1) / CR_ADAMW_CHUNK;
    struct data d = make(270 + (uint64_t)_i, n, CR_AT_END);
    cr_guard_protect(d.grad, true);
    double first[4] = {0};
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_adamw_ops ops;
        cr_adamw_ops_init(&ops, tiers[t]);
        for (size_t cut = 0; cut <= n; cut += CR_ADAMW_CHUNK) {
            double *partial = cr_guard_alloc(n_chunks * sizeof *partial, 8, CR_AT_END);
            struct cr_adamw_args args = args_of(&d);
            args.partial = partial;
            ops.norm2(&args, cut, n);
            ops.norm2(&args, 0, cut);
            for (size_t c = 0; c < n_chunks; c++) {
                size_t end = (c + 1) * CR_ADAMW_CHUNK < n ? (c + 1) * CR_ADAMW_CHUNK : n;
                double want = 0;
                for (size_t i = c * CR_ADAMW_CHUNK; i < end; i++) {
                    want += (double)d.grad[i] * (double)d.grad[i];
                }
                /* two sums of at most 4096 exact squares in double */
                ck_assert_double_le(fabs(partial[c] - want), 2 * 4096 * 0x1p-53 * want);
                if (t == 0 && cut == 0) {
                    first[c] = partial[c];
                }
                ck_assert(memcmp(&partial[c], &first[c], sizeof(double)) == 0);
            }
            cr_guard_free(partial);
        }
    }
    cr_guard_free_all();
}
END_TEST

START_TEST(special)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    for (size_t t = 0; t < n_tiers; t++) {
        struct data d = make(290, 40, CR_AT_END);
        d.grad[3] = NAN;
        d.grad[39] = INFINITY;
        d.w[9] = 0.5f;
        double partial = 0;
        struct cr_adamw_ops ops;
        cr_adamw_ops_init(&ops, tiers[t]);
        struct cr_adamw_args args = args_of(&d);
        args.partial = &partial;
        ops.norm2(&args, 0, 40);
        ck_assert(isnan(partial));
        ops.step(&args, 0, 40);
        for (size_t i = 0; i < 40; i++) {
            ck_assert(isnan(d.w[i]) == (i == 3 || i == 39)); /* inf / inf */
        }
        ck_assert(d.w[9] == 0.5f * (float)(1 - 3e-3 * 0.1)); /* no gradient, no state: decay only, no 0 / 0 */
    }
    cr_guard_free_all();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("adamw");
    TCase *tc = tcase_create("adamw");
    int n_sizes = sizeof sizes / sizeof *sizes;
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, golden_steps);
    tcase_add_test(tc, golden_clip);
    tcase_add_loop_test(tc, step, 0, n_sizes);
    tcase_add_loop_test(tc, norm2, 0, n_sizes);
    tcase_add_test(tc, special);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
