/* dplr: stored SWAG collections and draws, double references with derived bounds, the dense density, the covariance of
 * many draws, every tier, size, split and number of samples. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "credence/kernels/dplr.h"
#include "kernels/common/half.h"
#include "tests/support/tl16_test.h"

static struct cr_dplr_ops ops_of(enum cr_tier tier)
{
    struct cr_dplr_ops ops;
    ck_assert_int_eq(cr_dplr_ops_init(&ops, tier), CR_OK);
    return ops;
}

static struct cr_dplr_ops best_ops(void)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    return ops_of(tiers[cr_test_tiers(tiers) - 1]);
}

/* ---- stored SWAG numbers ---- */

enum { GOLDEN_N = 10, GOLDEN_ROWS = 8 };

static json_t *get(const json_t *object, const char *key)
{
    json_t *found = json_object_get(object, key);
    ck_assert_msg(found != NULL, "no %s", key);
    return found;
}

static double at(const json_t *array, size_t i)
{
    ck_assert_uint_lt(i, json_array_size(array));
    return json_number_value(json_array_get(array, i));
}

struct swag {
    float mean[GOLDEN_N], low[GOLDEN_N], m2[GOLDEN_N];
    uint16_t rows[GOLDEN_ROWS][GOLDEN_N];
    size_t n, n_rows;
};

/* One snapshot; the oldest row goes when there are more than K. Means and moments carry the rounding of the f32
 * snapshots (2^-24 of each) and of six operations; rows that of bf16, 2^-8, and as much absolute as the means. */
static void collect_one(const struct cr_dplr_ops *ops, struct swag *swag, const json_t *step, size_t most)
{
    float w[GOLDEN_N];
    double size = 0;
    for (size_t i = 0; i < GOLDEN_N; i++) {
        w[i] = (float)at(get(step, "snapshot"), i);
        size = fmax(size, fabs((double)w[i]));
    }
    if (swag->n_rows == most) {
        memmove(swag->rows[0], swag->rows[1], (most - 1) * sizeof swag->rows[0]);
        swag->n_rows--;
    }
    struct cr_dplr_collect_args args = {w, swag->mean, swag->low, swag->m2, swag->rows[swag->n_rows++], swag->n++};
    ops->collect(&args, 0, GOLDEN_N);
    json_t *rows = get(step, "dev_rows");
    ck_assert_uint_eq(json_array_size(rows), swag->n_rows);
    for (size_t i = 0; i < GOLDEN_N; i++) {
        double mean = (double)swag->mean[i] + (double)swag->low[i], u = 8 * CR_U32 * size;
        double square = (double)swag->m2[i] / (double)swag->n + mean * mean;
        ck_assert_double_le(fabs(mean - at(get(step, "mean"), i)), u);
        ck_assert_double_le(fabs(square - at(get(step, "sq_mean"), i)), 4 * u * size);
        for (size_t k = 0; k < swag->n_rows; k++) {
            double want = at(json_array_get(rows, k), i), got = (double)cr_bf16_to_f32(swag->rows[k][i]);
            ck_assert_double_le(fabs(got - want), 0x1.01p-8 * fabs(want) + 2 * u);
        }
    }
}

/* A stored draw: the whole vector with one z2, or each tensor with its own and `scale` where its root belongs. */
static void draw_one(const struct cr_dplr_ops *ops, const struct swag *swag, const json_t *draw, double clamp,
                     size_t most)
{
    bool block = json_is_true(get(draw, "block")), cov = json_is_true(get(draw, "cov"));
    double scale = json_number_value(get(draw, "scale")), root = block ? scale : sqrt(scale);
    static const size_t ends[3] = {0, 6, 10};
    float out[GOLDEN_N], eps[GOLDEN_N], coef[GOLDEN_ROWS];
    double slack[GOLDEN_N] = {0};
    for (size_t i = 0; i < GOLDEN_N; i++) {
        eps[i] = (float)at(get(draw, "z1"), i);
    }
    for (size_t part = 0; part < 2; part++) {
        size_t begin = ends[part], n = ends[part + 1] - begin;
        for (size_t k = 0; cov && k < swag->n_rows; k++) {
            json_t *z2 = get(draw, "z2");
            double z = at(json_is_array(json_array_get(z2, 0)) ? json_array_get(z2, part) : z2, k);
            coef[k] = (float)(root / sqrt((double)most - 1) * z);
            for (size_t i = begin; i < begin + n; i++) { /* bf16 rows, with what the means left in them */
                double row = fabs((double)cr_bf16_to_f32(swag->rows[k][i]));
                slack[i] += fabs((double)coef[k]) * (0x1.01p-8 * row + 16 * CR_U32 * 0.1);
            }
        }
        struct cr_dplr_args args = {.mean = swag->mean + begin,
                                    .var = swag->m2 + begin,
                                    .rows = swag->rows[0] + begin,
                                    .row_stride = GOLDEN_N,
                                    .n_rows = cov ? swag->n_rows : 0,
                                    .var_scale = root * root / (double)swag->n,
                                    .var_floor = clamp * (double)swag->n,
                                    .coef = coef,
                                    .eps = eps + begin,
                                    .out = out + begin,
                                    .n_samples = 1};
        ops->sample(&args, 0, n);
    }
    for (size_t i = 0; i < GOLDEN_N; i++) {
        double want = at(get(draw, "sample"), i), noise = fabs((double)eps[i]) * root * 0.1; /* deviations below 0.1 */
        ck_assert_double_le(fabs((double)out[i] - want), slack[i] + 8 * CR_U32 * (0.1 + noise));
        ck_assert(scale != 0 || cr_f32_bits(out[i]) == cr_f32_bits(swag->mean[i])); /* scale 0 is the mean */
    }
}

START_TEST(golden)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), index, cases = 0, draws = 0;
    json_error_t error;
    json_t *root = json_load_file(CR_TEST_DATA "/swag.json", 0, &error), *item, *part;
    ck_assert_msg(root != NULL, "swag.json: %s", error.text);
    const char *name;
    for (size_t tier = 0; tier < n_tiers; tier++) {
        struct cr_dplr_ops ops = ops_of(tiers[tier]);
        json_object_foreach(root, name, item)
        {
            if (!json_is_object(item)) {
                continue;
            }
            struct swag swag;
            memset(&swag, 0, sizeof swag);
            size_t most = (size_t)json_integer_value(get(item, "K"));
            json_array_foreach(get(item, "trace"), index, part)
            {
                collect_one(&ops, &swag, part, most);
            }
            json_array_foreach(get(item, "draws"), index, part)
            {
                draw_one(&ops, &swag, part, json_number_value(get(root, "var_clamp")), most);
                draws++;
            }
            cases++;
        }
    }
    ck_assert_uint_eq(cases, 3 * n_tiers);
    ck_assert_uint_eq(draws, 15 * n_tiers);
    json_decref(root);
}
END_TEST

/* ---- every size, tier, split ---- */

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

/* ---- the distribution ---- */

enum { DENSE = 12, DENSE_ROWS = 3 };

/* Covariance a diag(v) + b D^T D and its Cholesky factor in place. */
static void dense(const struct cr_dplr_args *a, double b, double c[DENSE][DENSE])
{
    for (size_t i = 0; i < DENSE; i++) {
        for (size_t j = 0; j < DENSE; j++) {
            c[i][j] = i == j ? a->var_scale * (double)a->var[i] : 0;
            for (size_t k = 0; k < DENSE_ROWS; k++) {
                c[i][j] +=
                    b * (double)cr_bf16_to_f32(a->rows[k * DENSE + i]) * (double)cr_bf16_to_f32(a->rows[k * DENSE + j]);
            }
        }
    }
}

static double dense_log_density(const struct cr_dplr_args *a, double b)
{
    double c[DENSE][DENSE], y[DENSE], log_p = -0.5 * DENSE * log(2 * 3.14159265358979323846);
    dense(a, b, c);
    for (size_t i = 0; i < DENSE; i++) {
        for (size_t j = 0; j <= i; j++) {
            for (size_t k = 0; k < j; k++) {
                c[i][j] -= c[i][k] * c[j][k];
            }
            c[i][j] = i == j ? sqrt(c[i][i]) : c[i][j] / c[j][j];
        }
        y[i] = (double)a->x[i] - (double)a->mean[i];
        for (size_t k = 0; k < i; k++) {
            y[i] -= c[i][k] * y[k];
        }
        y[i] /= c[i][i];
        log_p -= log(c[i][i]) + y[i] * y[i] / 2;
    }
    return log_p;
}

struct small {
    float mean[DENSE], var[DENSE], x[DENSE];
    uint16_t rows[DENSE_ROWS * DENSE];
    struct cr_dplr_args args;
};

static void make_small(struct small *s)
{
    struct cr_rng rng = cr_rng_make(990);
    cr_fill_f32(&rng, s->mean, DENSE, -1, 1);
    cr_fill_f32(&rng, s->var, DENSE, 0.1f, 0.5f);
    cr_fill_f32(&rng, s->x, DENSE, -1, 1);
    cr_fill_bf16(&rng, s->rows, DENSE_ROWS * DENSE, -1, 1);
    s->args = (struct cr_dplr_args){.mean = s->mean,
                                    .var = s->var,
                                    .rows = s->rows,
                                    .row_stride = DENSE,
                                    .n_rows = DENSE_ROWS,
                                    .var_scale = 0.8,
                                    .x = s->x,
                                    .noise = {{3, 3}, 0, 0, 0}};
}

START_TEST(log_density)
{
    struct small s;
    make_small(&s);
    _Alignas(64) char scratch[CR_DPLR_SCRATCH_BYTES];
    double sums[2 + DENSE_ROWS + DENSE_ROWS * (DENSE_ROWS + 1) / 2], work[DENSE_ROWS * (DENSE_ROWS + 1)];
    s.args.sums = sums;
    ck_assert_uint_eq(cr_dplr_n_sums(DENSE_ROWS), sizeof sums / sizeof *sums);
    best_ops().density(&s.args, 0, DENSE, scratch);
    double want = dense_log_density(&s.args, 0.6);
    double got = cr_dplr_log_density(sums, DENSE, DENSE_ROWS, s.args.var_scale, 0.6, work);
    ck_assert_double_le(fabs(got - want), 1e-5 * fabs(want)); /* f32 sums of a dozen terms, conditions below 50 */
    double flat = cr_dplr_log_density(sums, DENSE, DENSE_ROWS, s.args.var_scale, 0, work);
    ck_assert_double_le(fabs(flat - dense_log_density(&s.args, 0)), 1e-6 * fabs(flat));
    sums[0] = NAN;
    ck_assert(isnan(cr_dplr_log_density(sums, DENSE, DENSE_ROWS, s.args.var_scale, 0.6, work)));
}
END_TEST

/* Mean and covariance of many draws: five standard errors; that of a covariance is sqrt((c_ii c_jj + c_ij^2) / n). */
START_TEST(covariance)
{
    enum { S = 64, ROUNDS = 600 };
    struct small s;
    make_small(&s);
    static float out[S * DENSE], coef[DENSE_ROWS * S], z[DENSE_ROWS * S];
    static double first[DENSE], second[DENSE][DENSE], want[DENSE][DENSE];
    const double b = 0.6, n = (double)S * ROUNDS;
    struct cr_rng_ops rng;
    enum cr_tier tiers[CR_TEST_TIERS];
    cr_rng_ops_init(&rng, tiers[cr_test_tiers(tiers) - 1]);
    s.args.out = out;
    s.args.out_stride = DENSE;
    s.args.coef = coef;
    s.args.n_samples = S;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct cr_noise columns = {{4, 4}, round, 0, 0};
        rng.normals(&columns, z, 0, DENSE_ROWS * S);
        for (size_t i = 0; i < DENSE_ROWS * S; i++) {
            coef[i] = (float)sqrt(b) * z[i];
        }
        s.args.noise.step = round;
        best_ops().sample(&s.args, 0, DENSE);
        for (size_t d = 0; d < S; d++) {
            for (size_t i = 0; i < DENSE; i++) {
                double x = (double)out[d * DENSE + i] - (double)s.mean[i];
                first[i] += x;
                for (size_t j = 0; j <= i; j++) {
                    second[i][j] += x * ((double)out[d * DENSE + j] - (double)s.mean[j]);
                }
            }
        }
    }
    dense(&s.args, b, want);
    for (size_t i = 0; i < DENSE; i++) {
        ck_assert_double_le(fabs(first[i] / n), 5 * sqrt(want[i][i] / n));
        for (size_t j = 0; j <= i; j++) {
            double error = sqrt((want[i][i] * want[j][j] + want[i][j] * want[i][j]) / n);
            ck_assert_msg(fabs(second[i][j] / n - want[i][j]) <= 5 * error, "covariance %zu %zu: %g, expected %g", i, j,
                          second[i][j] / n, want[i][j]);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dplr");
    TCase *tc = tcase_create("dplr");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, golden);
    tcase_add_loop_test(tc, tiers_and_splits, 0, 2 * N_SHAPES);
    tcase_add_loop_test(tc, collect_everywhere, 0, N_SHAPES);
    tcase_add_test(tc, welford);
    tcase_add_test(tc, log_density);
    tcase_add_test(tc, covariance);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
