/* The text of `credence cpu` for processors that this machine is not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/model/calibration.h"
#include "runtime/model/cpu_report.h"
#include "tests/support/fake_cpu.h"
#include "tests/support/kernel_test.h"

struct text {
    char data[8192];
    size_t n;
};

static bool keep(void *ctx, const char *data, size_t n)
{
    struct text *text = ctx;
    ck_assert_uint_lt(text->n + n, sizeof text->data);
    for (size_t i = 0; i < n; i++) { /* runs of blanks as one */
        if (data[i] != ' ' || text->n == 0 || text->data[text->n - 1] != ' ') {
            text->data[text->n++] = data[i];
        }
    }
    text->data[text->n] = '\0';
    return true;
}

#if defined(__x86_64__)

static void report(struct cr_fake_cpu fake, const char *cap, struct text *text)
{
    struct cr_cpu cpu;
    struct cr_host host = {.cpu_cap = cap};
    struct cr_error err;
    cr_fake_cpu_describe(&cpu, &fake);
    *text = (struct text){.n = 0};
    ck_assert_int_eq(cr_cpu_report_of(&cpu, NULL, &host, keep, text, &err), CR_OK);
}

/* What follows `name` at the start of an indented line. */
static void expect_line(const struct text *text, const char *name, const char *want)
{
    char start[64];
    snprintf(start, sizeof start, "\n %s ", name);
    const char *line = strstr(text->data, start);
    ck_assert_msg(line != NULL, "no line of %s in:\n%s", name, text->data);
    const char *at = line + strlen(start);
    ck_assert_msg(strncmp(at, want, strlen(want)) == 0 && (at[strlen(want)] == '\n' || at[strlen(want)] == ' '),
                  "%s: %.60s, expected %s", name, at, want);
}

static bool knows_tiles(void)
{
    struct cr_cpu cpu;
    struct cr_fake_cpu fake = cr_fake_sapphire_rapids();
    cr_fake_cpu_describe(&cpu, &fake);
    return cpu.tier == CR_TIER_AMX;
}

START_TEST(sapphire_rapids)
{
    struct text text;
    if (!knows_tiles()) {
        return;
    }
    report(cr_fake_sapphire_rapids(), NULL, &text);
    ck_assert(strstr(text.data, "Platinum 8480+ (GenuineIntel, family 6, model 143)") != NULL);
    ck_assert(strstr(text.data, "\nin use: amx\n") != NULL);
    expect_line(&text, "amx", "yes");
    expect_line(&text, "qgemm", "amx");
    expect_line(&text, "attention", "amx");
    expect_line(&text, "lowrank", "amx");
    expect_line(&text, "xent", "avx512 avx512_bf16, amx: no variant of its own");
}
END_TEST

START_TEST(refused)
{
    struct text text;
    struct cr_fake_cpu fake = cr_fake_sapphire_rapids();
    fake.permission = false;
    report(fake, NULL, &text);
    ck_assert(strstr(text.data, "\nin use: avx512\n") != NULL);
    expect_line(&text, "avx512_bf16", "yes, not used");
    expect_line(&text, "amx", "refused");
    expect_line(&text, "qgemm",
                "avx512 avx512_bf16: slower than the tier below on this processor; "
                "amx: refused by the operating system");
    report(fake, "avx2", &text);
    expect_line(&text, "qgemm",
                "avx2 avx512: capped; avx512_bf16: slower than the tier below on this "
                "processor; amx: refused by the operating system");
}
END_TEST

START_TEST(zen4)
{
    struct text text;
    report(cr_fake_zen4(), NULL, &text);
    ck_assert(strstr(text.data, "\nin use: avx512_bf16\n") != NULL);
    expect_line(&text, "qgemm", "avx512_bf16 amx: not on this processor");
    expect_line(&text, "attention", "avx512_bf16 amx: not on this processor");
}
END_TEST

#endif

START_TEST(bad_cap)
{
    struct cr_cpu cpu;
    struct cr_fake_cpu fake = cr_fake_zen4();
    struct cr_host host = {.cpu_cap = "amx"};
    struct cr_error err;
    struct text text = {.n = 0};
    cr_fake_cpu_describe(&cpu, &fake);
    ck_assert_int_eq(cr_cpu_report_of(&cpu, NULL, &host, keep, &text, &err), CR_E_USAGE);
    ck_assert_uint_eq(text.n, 0);
}
END_TEST

/* A machine that is not there for a while: in all bursts, or in the first of each five. */
struct busy {
    int n_bursts;
    bool always;
};

enum { PAUSE_US = 60000 }; /* longer than a measurement lasts on an idle machine */

static void run_late(void *ctx, cr_task_fn *fn, void *arg, size_t n_items, size_t grain)
{
    struct busy *busy = ctx;
    if (busy->n_bursts++ % 5 == 0 || busy->always) {
        usleep(PAUSE_US);
    }
    for (size_t i = 0; i < n_items; i += grain) {
        fn(arg, i, n_items - i < grain ? n_items : i + grain, 0);
    }
}

START_TEST(one_late_burst_is_not_believed)
{
    struct cr_cpu cpu;
    cr_cpu_detect(&cpu);
    cpu.l3_bytes = 1 << 20; /* small arrays */
    struct busy always = {.always = true}, first = {0};
    struct cr_calibration late, good;
    cr_calibration_measure(&cpu, CR_TIER_SCALAR, &(struct cr_parallel){run_late, &always, 1}, &late);
    ck_assert_int_eq(always.n_bursts, 2 * 5); /* f32 and memory */
    cr_calibration_measure(&cpu, CR_TIER_SCALAR, &(struct cr_parallel){run_late, &first, 1}, &good);
    /* Bursts of .4 ms after a pause of 60. */
    ck_assert_double_gt(good.f32, 4 * late.f32);
    ck_assert_double_gt(good.memory, 4 * late.memory);
}
END_TEST

START_TEST(digits_of_rates)
{
    static const struct {
        double rate;
        const char *text;
    } cases[] = {
        {4.37e7, " 0.044 "}, {1.234e9, " 1.23 "}, {45.67e9, " 45.7 "}, {456.7e9, " 457 "}, {1.2345e13, " 12345 "}};
    struct cr_cpu cpu;
    struct cr_error err;
    struct text text;
    cr_cpu_detect(&cpu);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cr_calibration measured = {.f32 = cases[i].rate, .tile = cases[i].rate, .memory = cases[i].rate};
        char line[64];
        text.n = 0;
        ck_assert_int_eq(cr_cpu_report_of(&cpu, &measured, NULL, keep, &text, &err), CR_OK);
        snprintf(line, sizeof line, "\n f32 multiply-add%sGFLOP/s\n", cases[i].text);
        ck_assert_msg(strstr(text.data, line) != NULL, "no%s in:\n%s", line, text.data);
        snprintf(line, sizeof line, "\n bf16 tile product%sGFLOP/s\n", cases[i].text);
        ck_assert_msg(strstr(text.data, line) != NULL, "no%s in:\n%s", line, text.data);
        snprintf(line, sizeof line, "\n memory%sGB/s\n", cases[i].text);
        ck_assert_msg(strstr(text.data, line) != NULL, "no%s in:\n%s", line, text.data);
        ck_assert_ptr_null(strstr(text.data, "bf16 dot product"));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu report");
    TCase *tc = tcase_create("report");
#if defined(__x86_64__)
    tcase_add_test(tc, sapphire_rapids);
    tcase_add_test(tc, refused);
    tcase_add_test(tc, zen4);
#endif
    tcase_add_test(tc, bad_cap);
    tcase_add_test(tc, one_late_burst_is_not_believed);
    tcase_add_test(tc, digits_of_rates);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
