/* The report on a data file: marks on target tokens, counts, bad lines, status. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "credence/credence.h"
#include "runtime/core/alloc.h"
#include "tests/support/kernel_test.h"
#include "tests/support/tiny_vocab.h"

static char dir[] = "/tmp/credence-show-XXXXXX";
static char model[128], data[128];
static char out[1 << 16];
static size_t n_out, room;
static struct cr_error err;
static struct cr_data_options options;

static bool collect(void *ctx, const char *text, size_t n)
{
    (void)ctx;
    if (n_out + n > room) {
        return false;
    }
    memcpy(out + n_out, text, n);
    n_out += n;
    out[n_out] = '\0';
    return true;
}

static void setup(void)
{
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(model, sizeof model, "%s/m.gguf", dir);
    snprintf(data, sizeof data, "%s/d.jsonl", dir);
    ck_assert(cr_tiny_vocab_write(model, NULL));
    options = (struct cr_data_options){.size = sizeof options, .model = model, .data = data};
    room = sizeof out - 1;
}

static void teardown(void)
{
    unlink(model);
    unlink(data);
    rmdir(dir);
    ck_assert_int_eq(cr_alloc_live(), 0);
}

static cr_status show(const char *lines)
{
    FILE *f = fopen(data, "w");
    ck_assert_ptr_nonnull(f);
    fputs(lines, f);
    fclose(f);
    n_out = 0;
    out[0] = '\0';
    return cr_data_show(&options, collect, NULL, &err);
}

static void expect(const char *text)
{
    ck_assert_msg(strstr(out, text) != NULL, "not in the report: %s\n%s", text, out);
}

START_TEST(choices)
{
    ck_assert_int_eq(show("{\"task\":\"t\",\"question\":\"q\",\"choices\":[\"no\",\"yes\"],\"answer\":1}\n"
                          "{\"task\":\"t\",\"question\":\"q\",\"choices\":[\"no\",\"yes\"],\"answer\":1}\n"
                          "{\"question\":\"q2\",\"choices\":[\"no\",\"yes\"],\"answer\":0}\n"),
                     CR_OK);
    expect("d.jsonl: 3 examples, ");
    expect("kinds: choices 3\n");
    expect("answers: A 1 (token 256), B 2 (token 257)\n");
    expect("tasks: t 2, without 1\n");
    expect("duplicates: 1;");
    expect("line 1: choices, ");
    expect("question: q Choices: A. No. B. Yes. Answer:[ B]\n  task t\n");
    expect("question: q2 Choices: A. No. B. Yes. Answer:[ A]\n");
}
END_TEST

START_TEST(texts_by_loss)
{
    const char *lines =
        "{\"prompt\":\"a\\n\\\"\\\\\",\"completion\":\"\\u0001\xe6\x97\xa5\"}\n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"yo\"}]}\n";
    ck_assert_int_eq(show(lines), CR_OK);
    expect("kinds: prompt/completion 1, messages 1\n");
    expect("  a\\n\"\\\\[\\x01\xe6\x97\xa5<|endoftext|>]\n");
    expect("<|im_start|>assistant\\n[yo<|im_end|>]\\n\n");
    expect("lengths: min 9, "); /* 4 + 4 + eos */
    options.color = true;
    ck_assert_int_eq(show(lines), CR_OK);
    expect("\x1b[2ma\\n\"\\\\\x1b[0m\x1b[1;32m\\x01\xe6\x97\xa5<|endoftext|>\x1b[0m\n");
    options.limit = 1;
    ck_assert_int_eq(show(lines), CR_OK);
    ck_assert_ptr_null(strstr(out, "line 2:"));
}
END_TEST

START_TEST(long_runs_are_whole)
{
    char line[2000] = "{\"text\":\"";
    char text[1600] = "";
    for (int i = 0; i < 500; i++) {
        strcat(text, i % 3 == 0 ? "\xe6\x97\xa5" : i % 3 == 1 ? "\xc3\xa9" : "x");
    }
    strcat(strcat(line, text), "\"}");
    ck_assert_int_eq(show(line), CR_OK);
    expect(text + 3 + 2); /* behind the first character, of which the first token carries no loss */
    ck_assert_ptr_null(strstr(out, "..."));
}
END_TEST

START_TEST(cuts_are_counted)
{
    options.max_seq_length = 4;
    ck_assert_int_eq(show("{\"text\":\"abcdef\"}\n{\"text\":\"ab\"}\n{\"text\":\"\"}\n"), CR_OK);
    expect("line 1: text, 4 tokens, 3 targets, cut\n  a[bcd]\n");
    expect("cut: 1; skipped: 0 too long, 1 without a target;");
    expect("(limit 4)");
    options.on_long_skip = true;
    ck_assert_int_eq(show("{\"text\":\"abcdef\"}\n{\"text\":\"ab\"}\n"), CR_OK);
    expect("cut: 0; skipped: 1 too long, 0 without");
}
END_TEST

START_TEST(bad_lines_are_listed)
{
    ck_assert_int_eq(show("{\"text\":\"ab\"}\n{\n\n{\"text\":\"\x1b\"}\n{\"text\":7}\n{\"text\":\"cd\"}\n"),
                     CR_E_INPUT);
    expect("d.jsonl: 2 examples, ");
    expect("bad lines: 3\n");
    expect("/d.jsonl:2: ");
    expect("/d.jsonl:4: byte 9 (0x1b)");
    expect("/d.jsonl:5: field \"text\" is an integer");
    ck_assert_ptr_nonnull(strstr(err.message, "d.jsonl:2: "));
    ck_assert_ptr_nonnull(strstr(err.message, "(3 bad lines)"));
    char *many = malloc(3 * 3000 + 1);
    for (int i = 0; i < 3000; i++) {
        memcpy(many + 3 * i, "{}\n", 4);
    }
    ck_assert_int_eq(show(many), CR_E_INPUT);
    expect("  and 980 more before reading stopped\n");
    free(many);
}
END_TEST

START_TEST(refusals)
{
    ck_assert_int_eq(show(""), CR_E_INPUT);
    unlink(data);
    ck_assert_int_eq(cr_data_show(&options, collect, NULL, &err), CR_E_IO);
    options.max_seq_length = 1;
    ck_assert_int_eq(show("{\"text\":\"ab\"}"), CR_E_USAGE);
    options.max_seq_length = 0;
    room = 100;
    ck_assert_int_eq(show("{\"text\":\"ab\"}"), CR_E_IO);
    options.model = data;
    ck_assert_int_eq(show("{\"text\":\"ab\"}"), CR_E_INPUT);
    options.model = NULL;
    ck_assert_int_eq(show("{\"text\":\"ab\"}"), CR_E_USAGE);
    options.model = model;
    room = sizeof out - 1;
    ck_assert_int_eq(show("{\"text\":\"ab\"}"), CR_OK);
    static const size_t sizes[] = {0, sizeof options + 8};
    for (int i = 0; i < 2; i++) {
        options.size = sizes[i];
        ck_assert_int_eq(show("{\"text\":\"ab\"}"), CR_E_USAGE);
        ck_assert_ptr_nonnull(strstr(err.message, "options: size"));
    }
    ck_assert_int_eq(cr_data_show(NULL, collect, NULL, &err), CR_E_USAGE);
}
END_TEST

START_TEST(memory_can_fail)
{
    ck_assert_int_eq(show("{\"task\":\"t\",\"question\":\"q\",\"choices\":[\"no\",\"yes\"],\"answer\":1}\n{}\n"),
                     CR_E_INPUT);
    for (long at = 1;; at++) {
        n_out = 0;
        cr_alloc_fail_at(at, true);
        cr_status status = cr_data_show(&options, collect, NULL, &err);
        cr_alloc_fail_at(0, false);
        ck_assert_int_eq(cr_alloc_live(), 0);
        if (status == CR_E_INPUT) {
            ck_assert_int_gt(at, 10);
            break;
        }
        ck_assert_msg(status == CR_E_MEMORY, "allocation %ld: %s", at, err.message);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("data_show");
    TCase *tcase = tcase_create("data_show");
    suite_add_tcase(suite, tcase);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 20);
    tcase_add_test(tcase, choices);
    tcase_add_test(tcase, texts_by_loss);
    tcase_add_test(tcase, long_runs_are_whole);
    tcase_add_test(tcase, cuts_are_counted);
    tcase_add_test(tcase, bad_lines_are_listed);
    tcase_add_test(tcase, refusals);
    tcase_add_test(tcase, memory_can_fail);
    return cr_run_suite(suite);
}
