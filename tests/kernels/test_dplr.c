/* dplr: double references with derived bounds, every tier, size, split and number of samples. */
#include <math.h>
#include <string.h>

#include "credence/kernels/dplr.h"
#include "kernels/common/half.h"
#include "tests/kernels/dplr_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/tl16_test.h"

static const struct {
    size_t n, n_rows, n_samples;
} shapes[] = {{0, 3, 1},    {1, 1, 1},     {31, 2, 2},   {32, 5, 3},   {63, 0, 2},    {64, 20, 1},
              {65, 4, 4},   {200, 7, 5},   {127, 3, 8},  {300, 9, 9},  {100, 2, 16},  {70, 1, 70},
              {4096, 6, 1}, {4097, 20, 3}, {4127, 3, 2}, {9000, 5, 7}, {8300, 20, 16}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

struct data {
    size_t n, n_rows, n_samples, n_chunks;
    struct cr_dplr_args args;
    float *out;
    double *sums;
    void *scratch;
};

static float *filled(struct cr_rng *rng, size_t n, float low, float high)
{
    float *x = cr_guard_alloc(n * 4, 4, CR_AT_END);
    cr_fill_f32(rng, x, n, low, high);
    cr_guard_protect(x, true);
    return x;
}

/* Rows and samples lie `stride` apart, a little more than they need. */
static struct data make(int i, bool given)
{
    struct cr_rng rng = cr_rng_make(900 + (uint64_t)i);
    struct data d = {.n = shapes[i].n, .n_rows = shapes[i].n_rows, .n_samples = shapes[i].n_samples};
    size_t n = d.n, stride = n + 3, row_values = d.n_rows > 0 ? (d.n_rows - 1) * stride + n : 0;
    uint16_t *rows = cr_guard_alloc(row_values * 2, 2, CR_AT_END);
    d.n_chunks = (n + CR_DPLR_CHUNK - 1) / CR_DPLR_CHUNK;
    cr_fill_bf16(&rng, rows, row_values, -0.3f, 0.3f);
    cr_guard_protect(rows, true);
    d.args = (struct cr_dplr_args){.mean = filled(&rng, n, -1, 1),
                                   .var = filled(&rng, n, -0.001f, 0.02f), /* some below the floor */
                                   .rows = rows,
                                   .row_stride = stride,
                                   .n_rows = d.n_rows,
                                   .var_scale = 0.7,
                                   .var_floor = 1e-4,
                                   .coef = filled(&rng, d.n_rows * d.n_samples, -2, 2),
                                   .noise = {{5, 6}, 7, 8, 9},
                                   .out_stride = stride,
                                   .n_samples = d.n_samples,
                                   .x = filled(&rng, n, -1, 1)};
    if (given) {
        d.args.eps = filled(&rng, (d.n_samples - 1) * stride + n, -3, 3);
        d.args.eps_stride = stride;
    }
    return d;
}

static void outputs(struct data *d, enum cr_guard_side side)
{
    size_t values = (d->n_samples - 1) * (d->n + 3) + d->n;
    d->args.out = d->out = cr_guard_alloc(values * 4, 4, side);
    d->args.sums = d->sums = cr_guard_alloc(d->n_chunks * cr_dplr_n_sums(d->n_rows) * 8, 8, side);
    d->scratch = cr_guard_alloc(CR_DPLR_SCRATCH_BYTES, 64, side);
}

static void run(struct data *d, enum cr_tier tier, size_t cut)
{
    struct cr_dplr_ops ops = ops_of(tier);
    ops.sample(&d->args, cut, d->n);
    ops.sample(&d->args, 0, cut);
    ops.density(&d->args, cut, d->n, d->scratch);
    ops.density(&d->args, 0, cut, d->scratch);
}

static float row_at(const struct data *d, size_t k, size_t e)
{
    return cr_bf16_to_f32(d->args.rows[k * d->args.row_stride + e]);
}

/* The bound of the contract, its terms from the double values. */
static void check_sample(const struct data *d, size_t s, size_t e)
{
    const struct cr_dplr_args *a = &d->args;
    struct cr_noise noise = a->noise;
    noise.sample += (uint32_t)s;
    double var = a->var_scale * fmax((double)a->var[e], a->var_floor);
    double eps = (double)(a->eps != NULL ? a->eps[s * a->eps_stride + e] : cr_normal_at(&noise, e));
    double low_rank = 0, magnitude = 0;
    for (size_t k = 0; k < d->n_rows; k++) {
        double term = (double)a->coef[k * d->n_samples + s] * (double)row_at(d, k, e);
        low_rank += term;
        magnitude += fabs(term);
    }
    double diagonal = sqrt(var) * eps, want = (double)a->mean[e] + diagonal + low_rank;
    double bound = CR_U32 * (((double)d->n_rows + 4) * magnitude + 5 * fabs(diagonal) + 2 * fabs(want));
    cr_expect_within("sample", &d->out[s * a->out_stride + e], &want, &bound, 1);
}

/* Sums of a chunk in double beside the sums of magnitudes. */
static void check_sums(const struct data *d, size_t chunk)
{
    const struct cr_dplr_args *a = &d->args;
    const double *got = d->sums + chunk * cr_dplr_n_sums(d->n_rows);
    size_t begin = chunk * CR_DPLR_CHUNK, end = d->n - begin < CR_DPLR_CHUNK ? d->n : begin + CR_DPLR_CHUNK;
    double square = 0, logs = 0, log_size = 0, rel = (256 + 20) * CR_U32;
    for (size_t e = begin; e < end; e++) {
        double v = (double)fmaxf(a->var[e], (float)a->var_floor), diff = (double)a->x[e] - (double)a->mean[e];
        square += diff * diff / v;
        logs += log(v);
        log_size += fabs(log(v));
    }
    ck_assert_double_le(fabs(got[0] - square), rel * square);
    ck_assert_double_le(fabs(got[1] - logs), 1e-13 * log_size);
    for (size_t k = 0; k < d->n_rows; k++) {
        for (size_t j = 0; j <= k + 1; j++) { /* j = k + 1: u[k] */
            double sum = 0, size = 0;
            for (size_t e = begin; e < end; e++) {
                double v = (double)fmaxf(a->var[e], (float)a->var_floor);
                double other = j <= k ? (double)row_at(d, j, e) : (double)a->x[e] - (double)a->mean[e];
                double term = (double)row_at(d, k, e) * other / v;
                sum += term;
                size += fabs(term);
            }
            double found = got[j <= k ? 2 + d->n_rows + k * (k + 1) / 2 + j : 2 + k];
            ck_assert_msg(fabs(found - sum) <= rel * size, "sum %zu %zu: %g, expected %g", k, j, found, sum);
        }
    }
}

START_TEST(tiers_and_splits)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct data ref = make(_i / 2, _i % 2);
    outputs(&ref, CR_AT_END);
    run(&ref, CR_TIER_SCALAR, 0);
    for (size_t e = 0; e<ref.n; e += ref.n> 1000 ? 97 : 1) {
        for (size_t s = 0; s < ref.n_samples; s++) {
            check_sample(&ref, s, e);
        }
    }
    for (size_t chunk = 0; chunk < ref.n_chunks && _i % 2 == 0; chunk++) {
        check_sums(&ref, chunk);
    }
    size_t values = (ref.n_samples - 1) * (ref.n + 3) + ref.n;
    for (size_t t = 0; t < n_tiers; t++) {
        for (size_t cut = 0; cut <= ref.n; cut += CR_DPLR_CHUNK) {
            struct data d = ref;
            outputs(&d, cut == 0 ? CR_AT_END : CR_AT_START);
            run(&d, tiers[t], cut);
            cr_expect_bytes("out", d.out, ref.out, values * 4);
            cr_expect_bytes("sums", d.sums, ref.sums, ref.n_chunks * cr_dplr_n_sums(ref.n_rows) * 8);
            cr_guard_free(d.out);
            cr_guard_free(d.sums);
            cr_guard_free(d.scratch);
        }
    }
    cr_guard_free_all();
}
END_TEST

START_TEST(collect_everywhere)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), n = shapes[_i].n;
    struct cr_rng rng = cr_rng_make(950 + (uint64_t)_i);
    const float *w = filled(&rng, n, -1, 1), *mean = filled(&rng, n, -1, 1), *low = filled(&rng, n, -3e-8f, 3e-8f);
    const float *m2 = filled(&rng, n, 0, 1);
    float *kept[3] = {NULL, NULL, NULL};
    uint16_t *kept_row = NULL;
    for (size_t t = 0; t < n_tiers; t++) {
        for (size_t cut = 0; cut <= n; cut += CR_DPLR_CHUNK) {
            float *out[3];
            uint16_t *row = cr_guard_alloc(n * 2, 2, cut == 0 ? CR_AT_END : CR_AT_START);
            for (size_t i = 0; i < 3; i++) {
                out[i] = cr_guard_alloc(n * 4, 4, cut == 0 ? CR_AT_END : CR_AT_START);
                memcpy(out[i], i == 0 ? mean : i == 1 ? low : m2, n * 4);
            }
            struct cr_dplr_collect_args args = {w, out[0], out[1], out[2], row, 4};
            ops_of(tiers[t]).collect(&args, cut, n);
            ops_of(tiers[t]).collect(&args, 0, cut);
            for (size_t i = 0; i < 3; i++) {
                kept[i] = kept[i] == NULL ? out[i] : kept[i];
                cr_expect_bytes("moments", out[i], kept[i], n * 4);
            }
            kept_row = kept_row == NULL ? row : kept_row;
            cr_expect_bytes("row", row, kept_row, n * 2);
        }
    }
    cr_guard_free_all();
}
END_TEST

/* A thousand snapshots near 0.5 with a spread of 1e-5, where the difference of moments in f32 has no digits left: mean
 * within f32 pairs, variance within 2^-24 each for w itself, delta and 1000 sums. */
START_TEST(welford)
{
    enum { N = 64, SNAPSHOTS = 1000 };
    struct cr_rng rng = cr_rng_make(980);
    static float w[N], mean[N], low[N], m2[N];
    static uint16_t row[N];
    static double sum[N], square[N];
    struct cr_dplr_ops ops = best_ops();
    for (uint64_t n = 0; n < SNAPSHOTS; n++) {
        for (size_t i = 0; i < N; i++) {
            w[i] = 0.5f + cr_rng_uniform(&rng, -1e-5f, 1e-5f);
            sum[i] += (double)w[i] - 0.5;
            square[i] += ((double)w[i] - 0.5) * ((double)w[i] - 0.5);
        }
        struct cr_dplr_collect_args args = {w, mean, low, m2, row, n};
        ops.collect(&args, 0, N);
        ck_assert(n > 0 || row[0] == 0); /* the first deviation is zero */
    }
    for (size_t i = 0; i < N; i++) {
        double want = sum[i] / SNAPSHOTS, var = square[i] / SNAPSHOTS - want * want;
        ck_assert_double_le(fabs((double)mean[i] - 0.5 + (double)low[i] - want), SNAPSHOTS * 0x1p-24 * 1e-5 * 4);
        ck_assert_double_le(fabs((double)m2[i] / SNAPSHOTS - var), SNAPSHOTS * 0x1p-24 * 4 * var);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dplr");
    TCase *tc = tcase_create("dplr");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, tiers_and_splits, 0, 2 * N_SHAPES);
    tcase_add_loop_test(tc, collect_everywhere, 0, N_SHAPES);
    tcase_add_test(tc, welford);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
