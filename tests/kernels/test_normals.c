/* normals: the definition on every tier, its accuracy against double, and the distribution: moments,
 * Kolmogorov-Smirnov, tails, correlations. Everything is a fixed function of fixed seeds: what holds once holds always.
 * CREDENCE_TEST_LONG=1 looks at the distribution of 2^32 numbers instead of 2^24.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/rng.h"
#include "kernels/rng/normal_lanes.h"
#include "tests/support/kernel_test.h"

static const struct cr_noise stream = {.key = {11, 22}, .step = 3, .sample = 4, .tensor = 5};

static struct cr_rng_ops ops_of(enum cr_tier tier)
{
    struct cr_rng_ops ops;
    ck_assert_int_eq(cr_rng_ops_init(&ops, tier), CR_OK);
    return ops;
}

static struct cr_rng_ops best_ops(void)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n = cr_test_tiers(tiers);
    return ops_of(tiers[n - 1]);
}

START_TEST(words_are_blocks)
{
    enum { N = 300 };
    uint32_t out[N];
    ops_of(CR_TIER_SCALAR).words(&stream, out, 0, N);
    for (size_t e = 0; e < N; e++) {
        uint32_t counter[4] = {(uint32_t)(e / 64 * 16 + e % 16), 3, 4, 5}, word[4];
        cr_philox4x32(counter, stream.key, word);
        ck_assert_uint_eq(out[e], word[e % 64 / 16]);
    }
}
END_TEST

/* First element and length of a run; the last ones lie far out, where counters wrap nothing yet. */
static const struct {
    size_t begin, n;
} runs[] = {{0, 0},
            {0, 1},
            {0, 63},
            {0, 64},
            {0, 65},
            {1, 62},
            {1, 63},
            {1, 300},
            {63, 1},
            {63, 2},
            {64, 128},
            {100, 1000},
            {((size_t)1 << 34) - 200, 200},
            {4095, 66}};

START_TEST(tiers_and_splits)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), begin = runs[_i].begin, n = runs[_i].n;
    float *want = cr_guard_alloc(n * 4, 4, CR_AT_END);
    uint32_t *words = cr_guard_alloc(n * 4, 4, CR_AT_END);
    for (size_t i = 0; i < n; i++) {
        want[i] = cr_normal_at(&stream, begin + i);
    }
    ops_of(CR_TIER_SCALAR).words(&stream, words - begin, begin, begin + n);
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_rng_ops ops = ops_of(tiers[t]);
        for (size_t cut = 0; cut <= n; cut += 1 + n / 7) {
            float *out = cr_guard_alloc(n * 4, 4, cut % 2 ? CR_AT_START : CR_AT_END);
            uint32_t *word = cr_guard_alloc(n * 4, 4, cut % 2 ? CR_AT_START : CR_AT_END);
            ops.normals(&stream, out - begin, begin + cut, begin + n);
            ops.normals(&stream, out - begin, begin, begin + cut);
            ops.words(&stream, word - begin, begin + cut, begin + n);
            ops.words(&stream, word - begin, begin, begin + cut);
            cr_expect_bytes("normals", out, want, n * 4);
            cr_expect_bytes("words", word, words, n * 4);
            cr_guard_free(out);
            cr_guard_free(word);
        }
    }
    cr_guard_free_all();
}
END_TEST

/* The two normals of words a, b by the template at the width of this file's flags. */
static void pair_of(uint32_t a, uint32_t b, float out[2])
{
    struct normal_pair pair;
    lanes x, y;
    normal_begin(&pair, lanes_splat_u(a), lanes_splat_u(b));
    for (int d = 7; d >= 0; d--) {
        normal_step(&pair, d);
    }
    normal_end(&pair, &x, &y);
    out[0] = x[0];
    out[1] = y[0];
}

/* The bound of the contract. Of it, in units of u = 2^-24 of r: half the error of the square (2^-25.6 of the
 * polynomial, its last steps 2 u, product, constant and sum 1.5 u) 2 u, the root 1/2, t twice 1/2, sine or cosine 1 +
 * 1/2, products 1. */
static void check_pair(uint32_t a, uint32_t b)
{
    double u = ((double)(a & 0x7fffffffu) + 0.5) * 0x1p-31, t = (double)(int32_t)b * 0x1p-31;
    double r = sqrt(-2 * log(u)) * (a >> 31 ? -1 : 1), half_pi = 1.57079632679489661923;
    double want[2] = {r * cos(half_pi * t), r * sin(half_pi * t)}, bound[2];
    /* The f32 u is within 2^-25 of u where u > 1/2: r^2 off by 2^-24, r by that over r or its root. */
    bound[0] = bound[1] = 0x1p-22 * fabs(r) + fmin(0x1p-12, 0x1p-24 / fabs(r));
    float got[2];
    pair_of(a, b, got);
    cr_expect_within("normal", got, want, bound, 2);
}

START_TEST(accuracy)
{
    struct cr_rng rng = cr_rng_make(700);
    for (unsigned bit = 0; bit < 32; bit++) {
        for (int d = -2; d <= 2; d++) { /* around every power of two, signs included */
            uint32_t edge = (1u << bit) + (uint32_t)d;
            check_pair(edge, (uint32_t)cr_rng_next(&rng));
            check_pair((uint32_t)cr_rng_next(&rng), edge);
            check_pair(edge, edge);
            check_pair(edge, 0u - edge);
            check_pair(0x7fffffffu - edge, edge); /* u near 1 */
        }
    }
    for (int i = 0; i < 300000; i++) {
        check_pair((uint32_t)cr_rng_next(&rng), (uint32_t)cr_rng_next(&rng));
    }
}
END_TEST

enum { CHUNK = 1 << 16, EDGES = 2048 };
static const double edge_step = 12.0 / EDGES;

/* Power sums, counts between edges -6 ... 6, counts beyond k / 2 sigmas: over n numbers of the best tier. */
struct tally {
    double power[7];
    double below[EDGES + 2];
    double beyond[13];
};

static void tally(struct tally *t, size_t n)
{
    static float z[CHUNK];
    struct cr_rng_ops ops = best_ops();
    memset(t, 0, sizeof *t);
    for (size_t at = 0; at < n; at += CHUNK) {
        ops.normals(&stream, z - at, at, at + CHUNK);
        for (size_t i = 0; i < CHUNK; i++) {
            double x = (double)z[i], p = 1, place = (x + 6) / edge_step;
            for (int k = 1; k <= 6; k++) {
                t->power[k] += p *= x;
            }
            t->below[place < 0 ? 0 : place >= EDGES ? EDGES + 1 : (size_t)place + 1]++;
            if (fabs(x) >= 3) {
                for (int k = 6; k < 13 && fabs(x) > k / 2.0; k++) {
                    t->beyond[k]++;
                }
            }
        }
    }
}

/* E z^2k = (2k-1)!!; the variance of z^k is E z^2k - (E z^k)^2. Five standard errors. */
START_TEST(distribution)
{
    const char *text = getenv("CREDENCE_TEST_LONG");
    const size_t n = (size_t)1 << (text != NULL && text[0] == '1' ? 32 : 24);
    static const double moment[13] = {1, 0, 1, 0, 3, 0, 15, 0, 105, 0, 945, 0, 10395};
    static struct tally t;
    tally(&t, n);
    for (int k = 1; k <= 6; k++) {
        double error = sqrt((moment[2 * k] - moment[k] * moment[k]) / (double)n);
        ck_assert_msg(fabs(t.power[k] / (double)n - moment[k]) <= 5 * error, "moment %d: %.9g, %g standard errors", k,
                      t.power[k] / (double)n, (t.power[k] / (double)n - moment[k]) / error);
    }
    double seen = 0, worst = 0;
    for (size_t i = 0; i <= EDGES; i++) { /* Kolmogorov-Smirnov at the edges: 1.95 / sqrt(n) is the 0.1 % point */
        seen += t.below[i];
        double x = -6 + (double)i * edge_step;
        worst = fmax(worst, fabs(seen / (double)n - 0.5 * erfc(-x / sqrt(2))));
    }
    ck_assert_msg(worst * sqrt((double)n) <= 1.95, "Kolmogorov-Smirnov %.3f", worst * sqrt((double)n));
    for (int k = 6; k < 12; k++) { /* beyond 3 ... 5.5 sigmas: Poisson, five deviations and two for the small counts */
        double want = (double)n * erfc(k / 2.0 / sqrt(2));
        ck_assert_msg(fabs(t.beyond[k] - want) <= 5 * sqrt(want) + 2, "beyond %.1f: %.0f, expected %.1f", k / 2.0,
                      t.beyond[k], want);
    }
}
END_TEST

/* Correlation of x with y, and of their squares (whose variance is 2): five standard errors. */
static void uncorrelated(const char *what, const float *x, const float *y, size_t n)
{
    double xy = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        double a = (double)x[i], b = (double)y[i];
        xy += a * b;
        squares += (a * a - 1) * (b * b - 1) / 2;
    }
    double bound = 5 / sqrt((double)n);
    ck_assert_msg(fabs(xy / (double)n) <= bound, "%s: correlation %g", what, xy / (double)n);
    ck_assert_msg(fabs(squares / (double)n) <= bound, "%s: correlation of squares %g", what, squares / (double)n);
}

START_TEST(neighbours)
{
    enum { N = 1 << 19 };
    static float x[N], y[N];
    struct cr_rng_ops ops = best_ops();
    ops.normals(&stream, x, 0, N);
    static const size_t lags[] = {1, 2, 4, 15, 16, 17, 32, 48, 64, 128, 4096};
    for (size_t i = 0; i < sizeof lags / sizeof *lags; i++) {
        uncorrelated("lag", x, x + lags[i], N - lags[i]);
    }
    for (int field = 0; field < 10; field++) { /* every word of the key and counter, its lowest and highest bit */
        struct cr_noise near = stream;
        uint32_t *words[5] = {&near.key[0], &near.key[1], &near.step, &near.sample, &near.tensor};
        *words[field / 2] ^= field % 2 ? 0x80000000u : 1u;
        ops.normals(&near, y, 0, N);
        uncorrelated("neighbouring stream", x, y, N);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("normals");
    TCase *tc = tcase_create("normals");
    tcase_set_timeout(tc, 600); /* for 2^32 numbers */
    tcase_add_test(tc, words_are_blocks);
    tcase_add_loop_test(tc, tiers_and_splits, 0, sizeof runs / sizeof *runs);
    tcase_add_test(tc, accuracy);
    tcase_add_test(tc, distribution);
    tcase_add_test(tc, neighbours);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
