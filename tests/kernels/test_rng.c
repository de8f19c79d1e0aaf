/* rng: published answers, the vector form, uniform numbers and permutations. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/philox_case.h"
#include "tests/kernels/philox_suite.h"

/* Known answers of the generator's authors (their kat_vectors for philox4x32, ten rounds). */
START_TEST(known_answers)
{
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof kat / sizeof *kat; i++) {
        uint32_t out[4];
        cr_philox4x32(kat[i].counter, kat[i].key, out);
        for (size_t w = 0; w < 4; w++) {
            ck_assert_uint_eq(out[w], kat[i].want[w]);
        }
    }
}
END_TEST

/* The C++ standard's answer for philox4x32 ([rand.predef]): its engine goes through the counters (i, 0, 0, 0) with the
 * key (seed, 0), word by word, and number 10000 of the default seed is this. The same generator, so the same word. */
START_TEST(standard_answer)
{
    enum { SEED = 20111115, NUMBER = 10000 };
    static const uint32_t counter[4] = {(NUMBER - 1) / 4, 0, 0, 0}, key[2] = {SEED, 0};
    uint32_t out[4];
    cr_philox4x32(counter, key, out);
    ck_assert_uint_eq(out[(NUMBER - 1) % 4], 1955073260);
}
END_TEST

START_TEST(uniform)
{
    enum { N = 40001 };
    static const uint32_t key[2] = {42, 7};
    float *x = cr_guard_alloc(N * sizeof *x, 4, CR_AT_END), *part = cr_guard_alloc(9 * sizeof *x, 4, CR_AT_END);
    cr_uniform_f32(key, -0.25f, 0.75f, x, N);
    double sum = 0, square = 0;
    for (size_t i = 0; i < N; i++) {
        uint32_t counter[4] = {(uint32_t)(i / 4), 0, 0, 0}, out[4];
        cr_philox4x32(counter, key, out);
        ck_assert(x[i] == (float)(-0.25 + ((double)(out[i % 4] >> 8) + 0.5) / 16777216.0));
        sum += (double)x[i];
        square += ((double)x[i] - 0.25) * ((double)x[i] - 0.25);
    }
    /* five standard errors: variance 1/12, fourth central moment 1/80 */
    ck_assert_double_le(fabs(sum / N - 0.25), 5 * sqrt(1.0 / 12 / N));
    ck_assert_double_le(fabs(square / N - 1.0 / 12), 5 * sqrt((1.0 / 80 - 1.0 / 144) / N));
    cr_uniform_f32(key, -0.25f, 0.75f, part, 9); /* a shorter run is the same numbers */
    cr_expect_same("prefix", part, x, 9);
    cr_uniform_f32(key, 1, 2, NULL, 0);
    cr_guard_free_all();
}
END_TEST

START_TEST(permutation)
{
    static const size_t sizes[] = {0, 1, 2, 3, 100, 5000};
    static const uint32_t key[2] = {1, 2};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t n = sizes[s], moved = 0, differ = 0;
        uint32_t *p = cr_guard_alloc(n * 4, 4, CR_AT_END), *q = cr_guard_alloc(n * 4, 4, CR_AT_END);
        unsigned char *seen = calloc(n + 1, 1);
        ck_assert_ptr_nonnull(seen);
        cr_permutation(key, 0, p, n);
        cr_permutation(key, 1, q, n);
        for (size_t i = 0; i < n; i++) {
            ck_assert_uint_lt(p[i], n);
            ck_assert(!seen[p[i]]);
            seen[p[i]] = 1;
            moved += p[i] != i;
            differ += p[i] != q[i];
        }
        ck_assert(n < 100 || (moved > n / 2 && differ > n / 2));
        cr_permutation(key, 0, q, n);
        cr_expect_bytes("again", q, p, n * 4);
        free(seen);
        cr_guard_free_all();
    }
}
END_TEST

/* All 24 orders of four equally often: chi-square with 23 degrees of freedom, mean 23, deviation sqrt(46). */
START_TEST(permutation_is_fair)
{
    enum { DRAWS = 48000 };
    unsigned count[256] = {0};
    for (uint32_t i = 0; i < DRAWS; i++) {
        uint32_t key[2] = {i / 8, 99}, p[4];
        cr_permutation(key, i % 8, p, 4);
        count[p[0] * 64 + p[1] * 16 + p[2] * 4 + p[3]]++;
    }
    double chi = 0, orders = 0;
    for (size_t i = 0; i < 256; i++) {
        double gap = (double)count[i] - DRAWS / 24.0;
        chi += count[i] > 0 ? gap * gap / (DRAWS / 24.0) : 0;
        orders += count[i] > 0;
    }
    ck_assert_double_eq(orders, 24);
    ck_assert_double_le(fabs(chi - 23), 5 * sqrt(46));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rng");
    TCase *tc = tcase_create("rng");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, known_answers);
    tcase_add_test(tc, standard_answer);
    tcase_add_test(tc, lanes_are_blocks);
    tcase_add_test(tc, uniform);
    tcase_add_test(tc, permutation);
    tcase_add_test(tc, permutation_is_fair);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
