/* The held-out part of a data set built by hand. */
#include <check.h>
#include <string.h>

#include "runtime/data/dataset.h"
#include "tests/support/kernel_test.h"

enum { MAX_EXAMPLES = 4000 };

static struct cr_example examples[MAX_EXAMPLES];

/* n choices: answers i % 2, tasks i % 3 - 1 */
static struct cr_dataset choices(size_t n)
{
    for (size_t i = 0; i < n; i++) {
        examples[i] = (struct cr_example){
            .kind = CR_EXAMPLE_CHOICE, .n_choices = 4, .answer = (uint32_t)(i % 2), .task = (int32_t)(i % 3) - 1};
    }
    return (struct cr_dataset){.examples = examples, .n = n, .classification = true};
}

static void check_partition(const uint32_t *kept, size_t n_kept, const uint32_t *out, size_t n_out, size_t n)
{
    size_t i = 0, j = 0;
    ck_assert_uint_eq(n_kept + n_out, n);
    for (uint32_t number = 0; number < n; number++) {
        if (i < n_kept && kept[i] == number) {
            i++;
        } else {
            ck_assert(j < n_out && out[j] == number);
            j++;
        }
    }
}

START_TEST(the_split_is_stratified)
{
    static uint32_t kept[MAX_EXAMPLES], out[MAX_EXAMPLES], other[MAX_EXAMPLES], rest[MAX_EXAMPLES];
    struct cr_dataset dataset = choices(3000);
    size_t n_kept, n_out, n_other, n_rest;
    cr_dataset_split(&dataset, 5, 0.1, kept, &n_kept, out, &n_out);
    ck_assert_uint_eq(n_out, 300);
    check_partition(kept, n_kept, out, n_out, 3000);
    int counts[6] = {0};
    for (size_t i = 0; i < n_out; i++) {
        counts[(out[i] % 2) * 3 + out[i] % 3]++;
    }
    for (int g = 0; g < 6; g++) { /* 500 in each stratum: 50, to within one */
        ck_assert_int_ge(counts[g], 49);
        ck_assert_int_le(counts[g], 51);
    }
    cr_dataset_split(&dataset, 5, 0.1, rest, &n_rest, other, &n_other);
    ck_assert_mem_eq(out, other, n_out * sizeof *out);
    cr_dataset_split(&dataset, 6, 0.1, rest, &n_rest, other, &n_other);
    ck_assert(memcmp(out, other, n_out * sizeof *out) != 0);
}
END_TEST

START_TEST(small_splits)
{
    uint32_t kept[8], out[8];
    size_t n_kept, n_out;
    for (size_t n = 0; n <= 8; n++) {
        struct cr_dataset dataset = choices(n);
        cr_dataset_split(&dataset, 1, 0.1, kept, &n_kept, out, &n_out);
        check_partition(kept, n_kept, out, n_out, n);
        ck_assert_uint_eq(n_out, n >= 3 ? 1 : 0); /* of two each is the only one of its answer */
        cr_dataset_split(&dataset, 1, 0, kept, &n_kept, out, &n_out);
        ck_assert_uint_eq(n_out, 0);
    }
}
END_TEST

/* Eleven strata of eleven to one examples, the last the first to go: whatever is asked for, one of each is left to
 * train on, and with a half of all of it a stratum gives half of its own, to within one. */
START_TEST(every_stratum_stays)
{
    enum { N_STRATA = 11, N_ALL = N_STRATA * (N_STRATA + 1) / 2 };
    static const double fractions[] = {0.02, 0.1, 0.5, 1};
    struct cr_dataset dataset = choices(N_ALL);
    uint32_t kept[N_ALL], out[N_ALL];
    size_t n_kept, n_out;
    for (uint32_t s = 0, i = 0; s < N_STRATA; s++) {
        for (uint32_t k = s; k < N_STRATA; k++, i++) {
            examples[(i * 7) % N_ALL].answer = s % 4;
            examples[(i * 7) % N_ALL].task = (int32_t)(s / 4);
        }
    }
    for (size_t f = 0; f < 4; f++) {
        for (uint64_t seed = 0; seed < 50; seed++) {
            size_t left[N_STRATA] = {0};
            cr_dataset_split(&dataset, seed, fractions[f], kept, &n_kept, out, &n_out);
            check_partition(kept, n_kept, out, n_out, N_ALL);
            for (size_t i = 0; i < n_kept; i++) {
                left[4 * (uint32_t)examples[kept[i]].task + examples[kept[i]].answer]++;
            }
            for (size_t s = 0; s < N_STRATA; s++) {
                ck_assert_uint_ge(left[s], f < 2 || s + 1 == N_STRATA ? 1 : (N_STRATA - s) / 2);
            }
            ck_assert_uint_eq(n_out, f == 0 ? 1 : f == 1 ? 7 : (N_ALL - 1) / 2); /* one is alone */
        }
    }
}
END_TEST

/* Tasks of one example each say nothing: then answers alone are held out in proportion. */
START_TEST(tasks_of_one_example)
{
    struct cr_dataset dataset = choices(40);
    uint32_t kept[40], out[40];
    size_t n_kept, n_out, n_first = 0;
    for (uint32_t i = 0; i < 40; i++) {
        examples[i].task = (int32_t)i;
    }
    cr_dataset_split(&dataset, 1, 0.1, kept, &n_kept, out, &n_out);
    check_partition(kept, n_kept, out, n_out, 40);
    ck_assert_uint_eq(n_out, 4);
    for (size_t i = 0; i < n_out; i++) {
        n_first += examples[out[i]].answer == 0;
    }
    ck_assert_uint_eq(n_first, 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("split");
    TCase *tcase = tcase_create("split");
    tcase_add_test(tcase, the_split_is_stratified);
    tcase_add_test(tcase, small_splits);
    tcase_add_test(tcase, every_stratum_stays);
    tcase_add_test(tcase, tasks_of_one_example);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
