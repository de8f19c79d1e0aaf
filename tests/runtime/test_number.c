/* Numbers as text, in any locale. */
#include <check.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "runtime/core/number.h"
#include "tests/support/kernel_test.h"

static void check_numbers(void)
{
    static const struct {
        double value;
        int decimals;
        const char *fixed, *brief;
    } cases[] = {{0, 0, "0", "0"},
                 {0, 2, "0.00", "0"},
                 {-1.5, 3, "-1.500", "-1.5"},
                 {0.0625, 3, "0.063", "0.0625"},
                 {-0.0625, 3, "-0.063", "-0.0625"},
                 {0.02, 9, "0.020000000", "0.02"},
                 {9.9996, 3, "10.000", "9.9996"},
                 {62.25, 1, "62.3", "62.25"},
                 {999999999.25, 2, "999999999.25", "1e+09"},
                 {1234567890.5, 3, "1234567891", "1.23457e+09"},
                 {2e15, 1, "1000000000000000", "2e+15"},
                 {1.5e-7, 3, "0.000", "1.5e-07"},
                 {1e-40, 41, "0.000000000", "1e-40"},
                 {999999999.25, 70, "999999999.250000000", "1e+09"},
                 {(double)INFINITY, 3, "-", "inf"},
                 {(double)NAN, 3, "-", "nan"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[CR_NUMBER_BYTES];
        ck_assert_str_eq(cr_number_fixed(text, cases[i].value, cases[i].decimals), cases[i].fixed);
        ck_assert_str_eq(cr_number_short(text, cases[i].value), cases[i].brief);
    }
}

START_TEST(numbers)
{
    check_numbers();
}
END_TEST

/* A host may have set a locale with a decimal comma; one is made where there is none. */
START_TEST(decimal_comma)
{
    char dir[] = "/tmp/cr-locale-XXXXXX", command[256], text[16];
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8 >%s/log 2>&1", dir, dir);
    bool made = system(command) == 0 && setenv("LOCPATH", dir, 1) == 0;
    bool set = setlocale(LC_NUMERIC, "de_DE.UTF-8") != NULL;
    ck_assert(set || !made);
    if (set) {
        snprintf(text, sizeof text, "%.1f", 1.5);
        ck_assert_str_eq(text, "1,5");
        check_numbers();
    }
    setlocale(LC_NUMERIC, "C");
    snprintf(command, sizeof command, "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("number");
    TCase *tc = tcase_create("number");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, numbers);
    tcase_add_test(tc, decimal_comma);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
