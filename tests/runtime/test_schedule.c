/* Learning rates against stored numbers of PyTorch's LambdaLR, and the edges of the definition. */
#include <check.h>
#include <jansson.h>
#include <math.h>

#include "runtime/optim/schedule.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_test.h"

static const struct {
    const char *name;
    enum cr_lr_schedule kind;
} cases[] = {{"linear_no_warmup", CR_LR_LINEAR}, {"linear_warmup3", CR_LR_LINEAR}, {"cosine_warmup3", CR_LR_COSINE}};

START_TEST(stored_rates)
{
    json_t *file = cr_golden_load("schedules.json");
    json_t *one = json_object_get(file, cases[_i].name);
    struct cr_schedule schedule = {
        .kind = cases[_i].kind,
        .lr = json_number_value(json_object_get(one, "base_lr")),
        .n_steps = (uint64_t)json_integer_value(json_object_get(one, "total")),
        .n_warmup = (uint64_t)json_integer_value(json_object_get(one, "warmup")),
    };
    json_t *rates = json_object_get(one, "lr_used_per_step");
    ck_assert_uint_eq(json_array_size(rates), 10);
    for (size_t i = 0; i < 10; i++) {
        /* Rates are below 1 and made by a handful of double operations: a few times 2^-53. */
        double want = json_number_value(json_array_get(rates, i));
        ck_assert_double_eq_tol(cr_schedule_lr(&schedule, i), want, 1e-15);
    }
    json_decref(file);
}
END_TEST

START_TEST(warmup_counts)
{
    ck_assert_uint_eq(cr_schedule_warmup(0, 100), 0);
    ck_assert_uint_eq(cr_schedule_warmup(0.06, 100), 6);
    ck_assert_uint_eq(cr_schedule_warmup(0.06, 101), 7);
    ck_assert_uint_eq(cr_schedule_warmup(0.5, 1), 1);
    ck_assert_uint_eq(cr_schedule_warmup(1, 100), 1);
    ck_assert_uint_eq(cr_schedule_warmup(250, 100), 250);
}
END_TEST

START_TEST(edges)
{
    struct cr_schedule schedule = {.kind = CR_LR_CONSTANT, .lr = 3, .n_steps = 4, .n_warmup = 2};
    const double constant[] = {0, 1.5, 3, 3, 3};
    for (uint64_t i = 0; i < 5; i++) {
        ck_assert_double_eq(cr_schedule_lr(&schedule, i), constant[i]);
    }
    schedule.kind = CR_LR_LINEAR;
    ck_assert_double_eq(cr_schedule_lr(&schedule, 4), 0);
    ck_assert_double_eq(cr_schedule_lr(&schedule, 40), 0);
    /* A warm-up as long as the run or longer never divides by the empty rest. */
    for (uint64_t w = 4; w < 7; w++) {
        schedule.n_warmup = w;
        for (int kind = CR_LR_LINEAR; kind <= CR_LR_CONSTANT; kind++) {
            schedule.kind = (enum cr_lr_schedule)kind;
            for (uint64_t i = 0; i < 9; i++) {
                double rate = cr_schedule_lr(&schedule, i);
                ck_assert(isfinite(rate) && rate >= 0 && rate <= 3);
            }
        }
    }
    schedule = (struct cr_schedule){.kind = CR_LR_COSINE, .lr = 1, .n_steps = 1, .n_warmup = 0};
    ck_assert_double_eq(cr_schedule_lr(&schedule, 0), 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("schedule");
    TCase *all = tcase_create("all");
    tcase_add_loop_test(all, stored_rates, 0, sizeof cases / sizeof cases[0]);
    tcase_add_test(all, warmup_counts);
    tcase_add_test(all, edges);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
