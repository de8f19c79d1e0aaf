/* Comparisons: refusals of what cannot be compared, files that are broken, stops, full disks, failing allocations. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/io/file.h"
#include "tests/runtime/compare_case.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

START_TEST(refusals)
{
    struct made m;
    make_six();
    struct cr_compare_options o = options_for(SEEDS);
    entries[1].n_files = 2;
    refuse(&o, CR_E_USAGE, "entry 2 has 2 evaluations|the first has 3");
    entries[1].n_files = SEEDS;
    o.n_entries = 1;
    refuse(&o, CR_E_USAGE, "at least two");
    o.n_entries = 2;
    files_of[1][2] = files_of[1][0];
    refuse(&o, CR_E_USAGE, "3.json stands twice");
    o = options_for(1);
    o.margin_accuracy = -1;
    refuse(&o, CR_E_USAGE, "--margin-accuracy -1");
    o = options_for(1);
    o.margin_nll = (double)NAN;
    refuse(&o, CR_E_USAGE, "--margin-nll nan");
    o = options_for(1);
    o.in_domain = "home,nowhere";
    refuse(&o, CR_E_USAGE, "no task \"nowhere\"");
    o.in_domain = "home,away,far|off,empty";
    refuse(&o, CR_E_USAGE, "nothing is left");
    o = options_for(1);
    o.json = files_of[1][0];
    refuse(&o, CR_E_USAGE, "--json is the same file|3.json");
    o = options_for(1);
    o.report = "/nowhere/at/all.html";
    refuse(&o, CR_E_IO, "/nowhere/at/all.html");
    o = options_for(1);
    o.size = 0;
    refuse(&o, CR_E_USAGE, "size 0");
    o = options_for(1);
    o.settings_json = "{";
    refuse(&o, CR_E_USAGE, "options: settings_json");
    o.settings_json = "[1]";
    refuse(&o, CR_E_USAGE, "settings_json|one JSON object expected");

    o = options_for(1);
    make(&m, "ivon", 1, 0.5);
    m.e.data_hash[0] = 'f';
    files_of[1][0] = put(7, &m, false);
    refuse(&o, CR_E_INPUT, "7.json|another test file|0.json|f123456789|0123456789");
    make(&m, "ivon", 1, 0.5);
    m.items[N - 1].line++;
    files_of[1][0] = put(7, &m, false);
    refuse(&o, CR_E_INPUT, "example 60 is line 65|line 66|--on-long");
    make(&m, "ivon", 1, 0.5);
    m.e.outcomes.n = N - 1;
    files_of[1][0] = put(7, &m, false);
    refuse(&o, CR_E_INPUT, "7.json holds 59 examples|60");
    files_of[1][0] = put(7, &m, true);
    refuse(&o, CR_E_INPUT, "7.json: no examples in it|--no-examples");
    files_of[1][0] = "/nowhere/at/all.json";
    refuse(&o, CR_E_IO, "/nowhere/at/all.json");
}
END_TEST

/* A part of the file that is replaced, and what is said of it. Numbers in the file are the first of their kind; a star
 * is the first of a list, whatever it is. */
static const struct {
    const char *from, *to, *parts;
} damages[] = {
    {"\"correct\": [", "\"correct\": [1,", "\"correct\" has 61 numbers, expected 60"},
    {"\"correct\": [*", "\"correct\": [2", "number 1 of \"correct\""},
    {"\"nll\": [*", "\"nll\": [null", "number 1 of \"nll\""},
    {"\"line\": [1,", "\"line\": [0,", "number 1 of \"line\" is not a whole number from 1"},
    {"\"line\": [1,", "\"line\": [1.5,", "number 1 of \"line\""},
    {"\"line\": [1,", "\"line\": [2,", "line 2 after line 2"},
    {"\"task\": [0,", "\"task\": [4,", "task 4 of line 1, but there are 4"},
    {"\"task\": [0,", "\"task\": [-2,", "number 1 of \"task\""},
    {"\"task\": [0,", "\"task\": [\"x\",", "number 1 of \"task\""},
    {"\"prediction\": [", "\"predicted\": [", "\"targets\" has 0 numbers"},
    {"\"confidence\": [", "\"confident\": [", "\"confidence\" has 0 numbers"},
    {"\"line\": [", "\"lines\": [", "\"line\" is no list"},
    {"\"examples\": {", "\"example\": {", "no examples in it"},
    {"\"xxh3\": \"", "\"xxh3\": \"0123456789", "data.xxh3 of 42"},
    {"\"method\": \"", "\"method\": \"a much too long name for it ", "method"},
    {"\"entropies_out\": [", "\"entropies_out\": [-1,", "entropy 1 of a list"},
    {"\"entropies_in\": [", "\"entropies_in\": [null,", "entropy 1 of a list"},
    {"\"confidence\": [*", "\"confidence\": [1.1", "number 1 of \"confidence\""},
    {"\"samples\": 1", "\"samples\": 0", "samples"},
    {"\"home\",", "17,", "data.tasks"},
    {"{", "[", "line 2|column 8"},
};

START_TEST(damaged)
{
    struct made m;
    struct cr_error err = {0};
    struct cr_result_file f = {0};
    uint8_t *text;
    size_t n;
    make(&m, "adamw", 1, 0.5);
    put(0, &m, false);
    ck_assert_int_eq(cr_file_read(paths[0], 1 << 24, &text, &n, &err), CR_OK);
    const char *place = strstr((const char *)text, "\"examples\"");
    char from[64];
    size_t n_from = strcspn(damages[_i].from, "*");
    snprintf(from, sizeof from, "%.*s", (int)n_from, damages[_i].from);
    const char *found = strstr(place, from);
    found = found != NULL ? found : strstr((const char *)text, from);
    if (from[0] == '{') {
        found = (const char *)text;
    }
    ck_assert_ptr_nonnull(found);
    const char *rest = found + n_from;
    rest += damages[_i].from[n_from] == '*' ? strcspn(rest, ",") : 0;
    struct cr_buf broken = {0};
    cr_buf_append(&broken, text, (size_t)(found - (const char *)text));
    cr_buf_puts(&broken, damages[_i].to);
    cr_buf_puts(&broken, rest);
    cr_test_put_file(paths[0], broken.data, broken.n);
    cr_expect_error(damages[_i].from, cr_result_load(paths[0], false, &f, &err), &err, CR_E_INPUT, damages[_i].parts);
    cr_result_close(&f);
    cr_buf_free(&broken);
    cr_free(text);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

static bool stop(void *ctx)
{
    return *(bool *)ctx;
}

static bool full(void *ctx, const char *text, size_t n)
{
    (void)ctx, (void)text, (void)n;
    return false;
}

START_TEST(stopped_and_full)
{
    bool yes = true;
    struct cr_host host = {.stop = stop, .ctx = &yes};
    struct cr_error err = {0};
    make_six();
    struct cr_compare_options o = options_for(1);
    cr_expect_error("stop", cr_compare(&o, &host, full, NULL, &err), &err, CR_E_STOPPED, "stopped");
    yes = false;
    cr_expect_error("full", cr_compare(&o, &host, full, NULL, &err), &err, CR_E_IO, "takes no more");
}
END_TEST

static cr_status compare_once(void *arg, struct cr_error *err)
{
    struct cr_buf tables = {0};
    cr_status status = cr_compare(arg, NULL, collect, &tables, err);
    if (status == CR_OK && tables.failed) {
        status = cr_fail(err, CR_E_MEMORY, "no memory to keep the tables");
    }
    cr_buf_free(&tables);
    return status;
}

START_TEST(memory)
{
    char path[1024];
    for (int method = 0; method < 2; method++) {
        struct made m;
        make(&m, "ivon", (unsigned)method, 0.5);
        m.e.outcomes.n = 8; /* each resample is made hundreds of times */
        files_of[method][0] = put(method, &m, false);
        entries[method] = (struct cr_compare_entry){.files = files_of[method]};
    }
    struct cr_compare_options o = options_for(1);
    snprintf(path, sizeof path, "%s", cr_test_path("page.html"));
    o.report = path;
    o.in_domain = "home";
    ck_assert_int_gt(cr_test_alloc_sweep("compare", compare_once, &o), 100);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("compare faults");
    TCase *tcase = tcase_create("compare faults");
    tcase_add_checked_fixture(tcase, NULL, cr_test_dir_remove);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, refusals);
    tcase_add_loop_test(tcase, damaged, 0, sizeof damages / sizeof damages[0]);
    tcase_add_test(tcase, stopped_and_full);
    tcase_add_test(tcase, memory);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
