/* Data files: every bad input (JL cases of the reliability list), limits, stops, failing allocations. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/data/dataset.h"
#include "tests/runtime/dataset_case.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

/* One bad line behind a good one: status, and what the message must hold. */
static const struct {
    const char *id, *line, *says;
} bad_lines[] = {
    {"JL-03", "{\"text\":\"a", "d.jsonl:2: "},
    {"JL-04", "{\"text\":\"a\",}", "d.jsonl:2: "},
    {"JL-04", "{'text':'a'}", "d.jsonl:2: "},
    {"JL-05", "[{\"text\":\"a\"},", "JSON Lines expected"},
    {"JL-06", "null", "null, an object expected"},
    {"JL-06", "1", "an integer, an object expected"},
    {"JL-06", "[]", "an array, an object expected"},
    {"JL-06", "\"x\"", "a string, an object expected"},
    {"JL-07", "{\"text\":null}", "field \"text\" is null"},
    {"JL-07", "{\"text\":3}", "field \"text\" is an integer"},
    {"JL-07", "{\"prompt\":\"a\"}", "field \"completion\" is missing"},
    {"JL-07", "{\"completion\":\"a\"}", "field \"prompt\" is missing"},
    {"JL-07", "{\"messages\":{}}", "field \"messages\" is an object"},
    {"JL-07", "{\"messages\":[{\"role\":\"user\"}]}", "entry 0: field \"content\" is missing"},
    {"JL-07", "{\"messages\":[1]}", "entry 0 is an integer"},
    {"JL-09", "{\"messages\":[{\"role\":\"\",\"content\":\"a\"}]}", "role"},
    {"JL-10", "{\"text\":\"a\",\"text\":\"b\"}", "d.jsonl:2: "},
    {"JL-11", "{\"text\":\"\xff\"}", "byte 9 (0xff): invalid UTF-8"},
    {"JL-11", "{\"text\":\"\xe6\x97\"}", "byte 9"},
    {"JL-11", "{\"text\":\"\xc0\xaf\"}", "byte 9"},
    {"JL-11", "{\"text\":\"\xed\xa0\x80\"}", "byte 9"},
    {"JL-12", "{\"text\":\"\\ud800\"}", "d.jsonl:2: "},
    {"JL-14", "{\"text\":\"a\x01\"}", "byte 10 (0x01)"},
    {"JL-15", "{\"text\":NaN}", "d.jsonl:2: "},
    {"JL-18", "{}", "no known fields"},
    {"mixed", "{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":0}", "either choices or texts"},
};

START_TEST(bad_lines_are_named)
{
    char text[512];
    const char *says = bad_lines[_i].says;
    snprintf(text, sizeof text, "{\"text\":\"good\"}\n%s", bad_lines[_i].line);
    ck_assert_msg(open_text(text) == CR_E_INPUT, "%s: accepted", bad_lines[_i].id);
    ck_assert_msg(strstr(err.message, says) != NULL && strstr(err.message, "d.jsonl:2: ") != NULL, "%s: %s",
                  bad_lines[_i].id, err.message);
    ck_assert_ptr_null(strchr(err.message, '\n'));
    ck_assert_ptr_null(dataset.storage);
}
END_TEST

static const struct {
    const char *fields, *says;
} bad_choices[] = {
    {"\"choices\":[\"a\",\"b\"],\"answer\":0", "\"question\" is missing"},
    {"\"question\":1,\"choices\":[\"a\",\"b\"],\"answer\":0", "\"question\" is an integer"},
    {"\"question\":\"\",\"choices\":[\"a\",\"b\"],\"answer\":0", "\"question\" is empty"},
    {"\"question\":\"q\",\"answer\":0", "\"choices\" is missing"},
    {"\"question\":\"q\",\"choices\":\"ab\",\"answer\":0", "\"choices\" is a string"},
    {"\"question\":\"q\",\"choices\":[\"a\"],\"answer\":0", "1 entries, 2...26"},
    {"\"question\":\"q\",\"choices\":[1,2],\"answer\":0", "entry 0 is an integer"},
    {"\"question\":\"q\",\"choices\":[\"a\",\"\"],\"answer\":0", "entry 1 is empty"},
    {"\"question\":\"q\",\"choices\":[\"a\",\"b\"]", "\"answer\" is missing"},
    {"\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":2", "\"answer\" is 2, 0...1 expected"},
    {"\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":-1", "\"answer\" is -1"},
    {"\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":\"C\"", "\"answer\" is \"C\", one letter A...B"},
    {"\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":\"a\"", "\"answer\" is \"a\""},
    {"\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":1.0", "\"answer\" is a real number"},
    {"\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":1e400", "d.jsonl:1: "},
    {"\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":true", "\"answer\" is true"},
    {"\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":null", "\"answer\" is missing"},
    {"\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":0,\"task\":\"\"", "\"task\" has 0 bytes"},
    {"\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":0,\"task\":\"a\\u0000\"", "\"task\" has 2 bytes"},
    {"\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":0,\"task\":7", "\"task\" is an integer"},
};

START_TEST(bad_choices_name_the_field) /* JL-07, JL-15 */
{
    char text[512];
    snprintf(text, sizeof text, "{%s}", bad_choices[_i].fields);
    ck_assert_int_eq(open_text(text), CR_E_INPUT);
    ck_assert_msg(strstr(err.message, bad_choices[_i].says) != NULL, "%s", err.message);
}
END_TEST

/* JL-02, JL-19 */
static const struct {
    const char *bytes;
    size_t n;
    const char *says;
} bad_files[] = {
    {"", 0, "no examples"},
    {"\n \n\r\n", 5, "no examples"},
    {"\xef\xbb\xbf", 3, "no examples"},
    {"\xff\xfe{\0\"\0", 6, "UTF-16"},
    {"{\0\"\0t\0", 6, "UTF-16"},
    {"\xfe\xff\0{\0\"", 6, "UTF-16"},
    {"\x1f\x8b\x08\0", 4, "gzip"},
    {"PAR1abcd", 8, "a Parquet file"},
    {"BZh91AY&SY", 10, "a bzip2 file"},
    {"\xfd"
     "7zXZ\0\0",
     7, "an xz file"},
    {"ARROW1\0\0", 8, "an Arrow file"},
    {"{\n\"text\":\"a\"\n}\n", 15, "JSON Lines expected"},
    {"{\"text\":\"\"}\n{\"messages\":[]}\n", 28, "no examples left"}, /* JL-08, JL-21: skipped and counted */
};

START_TEST(bad_files_are_named)
{
    ck_assert_int_eq(open_bytes(bad_files[_i].bytes, bad_files[_i].n), CR_E_INPUT);
    ck_assert_msg(strstr(err.message, bad_files[_i].says) != NULL, "%s", err.message);
}
END_TEST

START_TEST(places_that_are_no_files) /* JL-01, JL-26, JL-27 */
{
    char other[160];
    ck_assert_int_eq(cr_dataset_open(path, vocab.tokenizer, &options, &host, &dataset, &err), CR_E_IO);
    ck_assert_int_eq(cr_dataset_open(dir, vocab.tokenizer, &options, &host, &dataset, &err), CR_E_IO);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(cr_dataset_open(path, vocab.tokenizer, &options, &host, &dataset, &err), CR_E_IO);
    unlink(path);
    snprintf(other, sizeof other, "%s/a b\n\xff.jsonl", dir);
    FILE *f = fopen(other, "w");
    fputs("{\"text\":\"ab\"}", f);
    fclose(f);
    ck_assert_int_eq(cr_dataset_open(other, vocab.tokenizer, &options, &host, &dataset, &err), CR_OK);
    cr_dataset_close(&dataset);
    f = fopen(other, "w");
    fputs("{}", f);
    fclose(f);
    ck_assert_int_eq(cr_dataset_open(other, vocab.tokenizer, &options, &host, &dataset, &err), CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, "a b\\n\\xff.jsonl:1"));
    unlink(other);
}
END_TEST

START_TEST(large_inputs_are_refused_quickly) /* JL-16, JL-18 */
{
    size_t n = 3000000;
    char *text = malloc(n);
    memset(text, '[', 100000);
    memset(text + 100000, ']', 100000);
    ck_assert_int_eq(open_bytes(text, 200000), CR_E_INPUT);
    for (size_t i = 0; i < n; i += 3) {
        memcpy(text + i, "{}\n", 3);
    }
    ck_assert_int_eq(open_bytes(text, n), CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, "d.jsonl:1: "));
    free(text);
}
END_TEST

START_TEST(a_huge_question_is_cut) /* JL-17 in small */
{
    size_t n = 2000000;
    char *text = malloc(n + 200);
    strcpy(text, "{\"question\":\"");
    size_t at = strlen(text);
    memset(text + at, 'x', n);
    strcpy(text + at + n, "\",\"choices\":[\"no\",\"yes\"],\"answer\":0}");
    options.max_seq_length = 300;
    ck_assert_int_eq(open_text(text), CR_OK);
    ck_assert_uint_eq(dataset.examples[0].n_ids, 300);
    ck_assert_int_eq(dataset.examples[0].ids[299], ':');
    free(text);
}
END_TEST

START_TEST(limits_of_the_settings) /* JL-30 */
{
    const uint32_t bad[] = {0, 1, UINT32_C(1) << 31, UINT32_MAX};
    for (size_t i = 0; i < 4; i++) {
        options.max_seq_length = bad[i];
        ck_assert_int_eq(open_text("{\"text\":\"ab\"}"), CR_E_USAGE);
    }
    options.max_seq_length = 2;
    ck_assert_int_eq(open_text("{\"text\":\"ab\"}"), CR_OK);
    options.normalize = "nfkc";
    ck_assert_int_eq(open_text("{\"text\":\"ab\"}"), CR_E_USAGE);
}
END_TEST

static bool stop_now(void *ctx)
{
    return ++*(int *)ctx >= 2;
}

START_TEST(reading_can_be_stopped)
{
    int calls = 0;
    struct cr_host stopping = {.stop = stop_now, .ctx = &calls};
    char *text = malloc(14 * 1000 + 1);
    text[0] = '\0';
    for (int i = 0; i < 1000; i++) {
        memcpy(text + (size_t)i * 14, "{\"text\":\"ab\"}\n", 14);
    }
    cr_test_put_file(path, text, 14 * 1000);
    ck_assert_int_eq(cr_dataset_open(path, vocab.tokenizer, &options, &stopping, &dataset, &err), CR_E_STOPPED);
    ck_assert_int_eq(calls, 2);
    free(text);
}
END_TEST

START_TEST(memory_can_fail)
{
    static const char *const texts[] = {
        "{\"task\":\"t\",\"question\":\"0123456789\",\"choices\":[\"x\",\"y\"],\"answer\":0}",
        "{\"prompt\":\"a\",\"completion\":\"b\"}\n{\"text\":\"e\xcc\x81\"}\n{\"messages\":[{\"role\":\"user\","
        "\"content\":"
        "\"hi\"},{\"role\":\"assistant\",\"content\":\"yo\"}]}",
    };
    options.max_seq_length = _i == 0 ? 100 : 400;
    options.normalize = "nfc";
    cr_test_put_file(path, texts[_i], strlen(texts[_i]));
    long live = cr_alloc_live();
    for (long at = 1;; at++) {
        cr_alloc_fail_at(at, true);
        cr_status status = cr_dataset_open(path, vocab.tokenizer, &options, NULL, &dataset, &err);
        cr_alloc_fail_at(0, false);
        if (status == CR_OK) {
            ck_assert_int_gt(at, 5);
            break;
        }
        ck_assert_msg(status == CR_E_MEMORY, "allocation %ld: %s", at, err.message);
        ck_assert_ptr_null(dataset.storage);
        ck_assert_int_eq(cr_alloc_live(), live);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dataset_bad");
    TCase *tcase = tcase_create("dataset_bad");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 20);
    tcase_add_loop_test(tcase, bad_lines_are_named, 0, sizeof bad_lines / sizeof bad_lines[0]);
    tcase_add_loop_test(tcase, bad_choices_name_the_field, 0, sizeof bad_choices / sizeof bad_choices[0]);
    tcase_add_loop_test(tcase, bad_files_are_named, 0, sizeof bad_files / sizeof bad_files[0]);
    tcase_add_test(tcase, places_that_are_no_files);
    tcase_add_test(tcase, large_inputs_are_refused_quickly);
    tcase_add_test(tcase, a_huge_question_is_cut);
    tcase_add_test(tcase, limits_of_the_settings);
    tcase_add_test(tcase, reading_can_be_stopped);
    tcase_add_loop_test(tcase, memory_can_fail, 0, 2);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
