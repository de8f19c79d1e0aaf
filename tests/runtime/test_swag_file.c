/* What posterior.safetensors of swag says of its deviations, and what it takes to read it. */
#define _GNU_SOURCE /* memmem */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "runtime/core/alloc.h"
#include "runtime/posterior/method.h"
#include "runtime/posterior/posterior.h"
#include "tests/runtime/swag_case.h"
#include "tests/support/kernel_test.h"

/* K where 2 of them are held: with 131,072 weights a GiB of rows. */
enum { MANY = 4096 };
#define ROOM ((rlim_t)256 << 20)

/* The header of the file with another text in place of one it has. */
static void say(const char *name, const char *old, const char *new)
{
    size_t n;
    char *bytes = (char *)cr_train_bytes(name, &n);
    uint64_t header;
    memcpy(&header, bytes, sizeof header);
    const char *at = memmem(bytes, 8 + header, old, strlen(old));
    ck_assert_ptr_nonnull(at);
    size_t before = (size_t)(at - bytes), behind = before + strlen(old);
    uint64_t made = header - strlen(old) + strlen(new), padded = (made + 7) / 8 * 8;
    char *out = cr_zalloc(1, n + 64);
    memcpy(out, &padded, sizeof padded);
    memcpy(out + 8, bytes + 8, before - 8);
    memcpy(out + before, new, strlen(new));
    memcpy(out + before + strlen(new), bytes + behind, 8 + header - behind);
    memset(out + 8 + made, ' ', padded - made);
    memcpy(out + 8 + padded, bytes + 8 + header, n - 8 - header);
    cr_train_write(name, out, n - header + padded);
    cr_free(out);
    cr_free(bytes);
}

static void limit_memory(void)
{
    unsigned long pages;
    FILE *f = fopen("/proc/self/statm", "r");
    ck_assert(f != NULL && fscanf(f, "%lu", &pages) == 1);
    fclose(f);
    struct rlimit limit = {pages * 4096 + ROOM, RLIM_INFINITY};
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
}

/* A large K costs what is held, and a file that says it holds more than it does costs nothing. */
START_TEST(rows_that_are_held)
{
    struct cr_train_run run;
    struct cr_posterior *p = NULL;
    struct cr_error err = {0};
    full_init(&run, "out");
    run.options.targets = "all";
    run.options.rank = 64;
    run.options.swag_start = 0.6; /* two snapshots */
    cr_train_must(&run);
    const char *path = cr_train_kept("out");
    limit_memory();
    say("out/" CR_POSTERIOR_FILE, "\\\"k\\\":2", "\\\"k\\\":4096");
    ck_assert_msg(cr_posterior_open(path, NULL, false, NULL, CR_TIER_SCALAR, &p, &err) == CR_OK, "%s", err.message);
    ck_assert_uint_eq(p->swag.n_rows, MANY);
    ck_assert_uint_ge((uint64_t)p->swag.n_params * MANY * sizeof(uint16_t), 2 * (uint64_t)ROOM);
    cr_posterior_close(p);
    say("out/" CR_POSTERIOR_FILE, "\\\"n\\\":2", "\\\"n\\\":4096");
    ck_assert_int_eq(cr_posterior_open(path, NULL, false, NULL, CR_TIER_SCALAR, &p, &err), CR_E_INPUT);
    ck_assert_msg(strstr(err.message, "has shape 2 x 64 x") != NULL, "%s", err.message);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swag_file");
    TCase *tc = tcase_create("swag_file");
    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, cr_train_dir_make, cr_train_dir_drop);
    tcase_add_test(tc, rows_that_are_held);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
