/* dplr: stored SWAG collections and draws, the dense density, the covariance of many draws. */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "credence/kernels/dplr.h"
#include "kernels/common/half.h"
#include "tests/kernels/dplr_case.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_test.h"
#include "tests/support/tl16_test.h"

/* ---- stored SWAG numbers ---- */

enum { GOLDEN_N = 10, GOLDEN_ROWS = 8 };

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
        w[i] = (float)at(cr_golden_get(step, "snapshot"), i);
        size = fmax(size, fabs((double)w[i]));
    }
    if (swag->n_rows == most) {
        memmove(swag->rows[0], swag->rows[1], (most - 1) * sizeof swag->rows[0]);
        swag->n_rows--;
    }
    struct cr_dplr_collect_args args = {w, swag->mean, swag->low, swag->m2, swag->rows[swag->n_rows++], swag->n++};
    ops->collect(&args, 0, GOLDEN_N);
    json_t *rows = cr_golden_get(step, "dev_rows");
    ck_assert_uint_eq(json_array_size(rows), swag->n_rows);
    for (size_t i = 0; i < GOLDEN_N; i++) {
        double mean = (double)swag->mean[i] + (double)swag->low[i], u = 8 * CR_U32 * size;
        double square = (double)swag->m2[i] / (double)swag->n + mean * mean;
        ck_assert_double_le(fabs(mean - at(cr_golden_get(step, "mean"), i)), u);
        ck_assert_double_le(fabs(square - at(cr_golden_get(step, "sq_mean"), i)), 4 * u * size);
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
    bool block = json_is_true(cr_golden_get(draw, "block")), cov = json_is_true(cr_golden_get(draw, "cov"));
    double scale = json_number_value(cr_golden_get(draw, "scale")), root = block ? scale : sqrt(scale);
    static const size_t ends[3] = {0, 6, 10};
    float out[GOLDEN_N], eps[GOLDEN_N], coef[GOLDEN_ROWS];
    double slack[GOLDEN_N] = {0};
    for (size_t i = 0; i < GOLDEN_N; i++) {
        eps[i] = (float)at(cr_golden_get(draw, "z1"), i);
    }
    for (size_t part = 0; part < 2; part++) {
        size_t begin = ends[part], n = ends[part + 1] - begin;
        for (size_t k = 0; cov && k < swag->n_rows; k++) {
            json_t *z2 = cr_golden_get(draw, "z2");
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
        double want = at(cr_golden_get(draw, "sample"), i),
               noise = fabs((double)eps[i]) * root * 0.1; /* deviations below 0.1 */
        ck_assert_double_le(fabs((double)out[i] - want), slack[i] + 8 * CR_U32 * (0.1 + noise));
        ck_assert(scale != 0 || cr_f32_bits(out[i]) == cr_f32_bits(swag->mean[i])); /* scale 0 is the mean */
    }
}

START_TEST(golden)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), index, cases = 0, draws = 0;
    json_t *root = cr_golden_load("swag.json"), *item, *part;
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
            size_t most = (size_t)json_integer_value(cr_golden_get(item, "K"));
            json_array_foreach(cr_golden_get(item, "trace"), index, part)
            {
                collect_one(&ops, &swag, part, most);
            }
            json_array_foreach(cr_golden_get(item, "draws"), index, part)
            {
                draw_one(&ops, &swag, part, json_number_value(cr_golden_get(root, "var_clamp")), most);
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
    Suite *suite = suite_create("dplr exact");
    TCase *tc = tcase_create("dplr exact");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, golden);
    tcase_add_test(tc, log_density);
    tcase_add_test(tc, covariance);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
