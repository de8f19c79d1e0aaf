/* The tokens of the letters that stand for choices. */
#include <check.h>
#include <string.h>

#include "runtime/data/read.h"
#include "tests/runtime/dataset_case.h"
#include "tests/support/kernel_test.h"

#define CHOICE(question) "{\"question\":\"" question "\",\"choices\":[\"no\",\"yes\"],\"answer\":1}\n"

START_TEST(labels_of_spm_vocabularies)
{
    cr_tiny_vocab_close(&vocab);
    ck_assert(cr_tiny_vocab_open(&vocab, &(struct cr_tiny_vocab_options){.spm = true, .n_labels = 3}));
    ck_assert_msg(open_text(CHOICE("q")) == CR_OK, "%s", err.message);
    ck_assert_int_eq(dataset.label_ids[0], cr_tokenizer_find(vocab.tokenizer,
                                                             "\xe2\x96\x81"
                                                             "A",
                                                             4));
    ck_assert_int_eq(dataset.label_ids[1], cr_tokenizer_find(vocab.tokenizer,
                                                             "\xe2\x96\x81"
                                                             "B",
                                                             4));
    ck_assert_int_eq(open_text("{\"question\":\"q\",\"choices\":[\"a\",\"b\",\"c\",\"d\"],\"answer\":0}"), CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, "label \" D\""));
}
END_TEST

START_TEST(a_label_must_be_one_token)
{
    cr_tiny_vocab_close(&vocab);
    ck_assert(cr_tiny_vocab_open(&vocab, &(struct cr_tiny_vocab_options){.n_labels = 2}));
    ck_assert_int_eq(open_text(CHOICE("q")), CR_OK);
    ck_assert_int_eq(open_text(CHOICE("q") "{\"question\":\"q\",\"choices\":[\"a\",\"b\",\"c\"],\"answer\":0}"),
                     CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, "d.jsonl:2: label \" C\" is not one token"));
}
END_TEST

static bool go_on(void *ctx, const char *message)
{
    (void)ctx;
    (void)message;
    return true;
}

/* Without a token for its letter a label is that of the space before it: refused, and again on every line. */
START_TEST(a_label_must_be_a_token_of_its_own)
{
    static const struct {
        const char *lacks, *says;
    } cases[] = {
        {"B", "d.jsonl:1: label \" B\": the model's vocabulary has no token"},
        {"AB", "d.jsonl:1: labels \" A\" and \" B\" are the same token, number 32"},
        {"BC", "d.jsonl:1: label \" B\": the model's vocabulary has no token"},
        {"CD", "d.jsonl:2: labels \" C\" and \" D\" are the same token, number 32"},
    };
    struct cr_read_counts counts = {0};
    cr_tiny_vocab_close(&vocab);
    ck_assert(cr_tiny_vocab_open(&vocab, &(struct cr_tiny_vocab_options){.lacks = cases[_i].lacks}));
    static const char lines[] = CHOICE("q") "{\"question\":\"r\",\"choices\":[\"a\",\"b\",\"c\",\"d\"],\"answer\":0}\n";
    ck_assert_int_eq(open_text(lines), CR_E_INPUT);
    ck_assert_msg(strstr(err.message, cases[_i].says) != NULL, "%s", err.message);
    cr_dataset_close(&dataset);
    ck_assert_int_eq(cr_dataset_read(path, vocab.tokenizer, &options, &host, go_on, NULL, &counts, &dataset, &err),
                     CR_OK);
    ck_assert_uint_eq(counts.n_bad, _i == 3 ? 1 : 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dataset labels");
    TCase *tcase = tcase_create("dataset labels");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, labels_of_spm_vocabularies);
    tcase_add_test(tcase, a_label_must_be_one_token);
    tcase_add_loop_test(tcase, a_label_must_be_a_token_of_its_own, 0, 4);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
