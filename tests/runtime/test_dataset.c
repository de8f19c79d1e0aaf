/* Data files: kinds, texts, cutting, counts. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/data/dataset.h"
#include "runtime/io/hash.h"
#include "tests/runtime/dataset_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/tiny_vocab.h"

/* The text that tokens [from, to) stand for; specials by their pieces. */
static const char *decoded(const struct cr_example *e, uint32_t from, uint32_t to)
{
    static char text[8192];
    size_t n = 0;
    for (uint32_t i = from; i < to; i++) {
        size_t n_piece = 0;
        const char *piece = cr_tokenizer_text(vocab.tokenizer, e->ids[i], &n_piece);
        if (e->ids[i] >= CR_TINY_EOS) {
            memcpy(text + n, piece, n_piece);
            n += n_piece;
        } else {
            n += cr_tokenizer_decode(vocab.tokenizer, e->ids[i], text + n, sizeof text - n);
        }
    }
    text[n] = '\0';
    return text;
}

/* The target tokens as one text. */
static const char *targets(const struct cr_example *e)
{
    static char text[8192];
    text[0] = '\0';
    for (uint32_t i = 0; i < e->n_ids; i++) {
        if (e->mask[i]) {
            strcat(text, decoded(e, i, i + 1));
        }
    }
    return text;
}

#define CHOICE(question) "{\"question\":\"" question "\",\"choices\":[\"no\",\"yes\"],\"answer\":1}\n"
#define LEAD "Select one of the choices that answers the following question: "

START_TEST(choices_follow_the_template)
{
    json_t *golden = json_load_file(CR_TEST_DATA "/prompts.json", 0, NULL);
    ck_assert_ptr_nonnull(golden);
    const json_t *input = json_object_get(golden, "choices");
    json_t *line = json_pack("{s:O,s:O,s:O}", "question", json_object_get(input, "question"), "choices",
                             json_object_get(input, "choices"), "answer", json_object_get(input, "answer"));
    char *text = json_dumps(line, JSON_COMPACT);
    ck_assert_msg(open_text(text) == CR_OK, "%s", err.message);
    ck_assert_uint_eq(dataset.n, 1);
    ck_assert(dataset.classification);
    const struct cr_example *e = &dataset.examples[0];
    ck_assert_str_eq(decoded(e, 0, e->n_ids), json_string_value(json_object_get(golden, "t1")));
    ck_assert_uint_eq(e->answer, 1); /* "B" */
    ck_assert_uint_eq(e->n_choices, 4);
    ck_assert_uint_eq(e->n_targets, 1);
    ck_assert_ptr_null(e->mask);
    ck_assert_int_eq(e->task, -1);
    ck_assert_uint_eq(dataset.n_labels, 4);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(dataset.label_ids[i], CR_TINY_LABEL_A + i);
    }
    free(text);
    json_decref(line);
    json_decref(golden);
}
END_TEST

/* What the template says before the question is the lead of every prompt, bos with it; texts have none. */
START_TEST(prompts_share_their_lead)
{
    uint32_t n_lead = (uint32_t)strlen(LEAD) - 1; /* byte tokens; the blank belongs to the question */
    ck_assert_int_eq(open_text(CHOICE("q") CHOICE(" ?")), CR_OK);
    ck_assert_uint_eq(dataset.n_lead, n_lead);
    ck_assert_uint_eq(dataset.examples[0].n_lead, n_lead);
    ck_assert_uint_eq(dataset.examples[1].n_lead, n_lead);
    ck_assert(!dataset.whole);
    struct cr_dataset whole = cr_dataset_whole(&dataset);
    ck_assert(whole.whole && whole.n_lead == 0 && whole.examples == dataset.examples);
    ck_assert_int_eq(open_text("{\"text\":\"" LEAD "\"}"), CR_OK);
    ck_assert_uint_eq(dataset.n_lead, 0);
    cr_tiny_vocab_close(&vocab);
    ck_assert(cr_tiny_vocab_open(&vocab, &(struct cr_tiny_vocab_options){.add_bos = true}));
    ck_assert_int_eq(open_text(CHOICE("q")), CR_OK);
    ck_assert_uint_eq(dataset.n_lead, n_lead + 1);
}
END_TEST

START_TEST(first_letters_beyond_ascii_are_raised)
{
    ck_assert_int_eq(open_text("{\"question\":\"q\",\"choices\":[\"\xc3\xa9t\xc3\xa9\",\"\xd0\xbc\xd0\xb8\xd1\x80.\","
                               "\"3 b\",\"\xe6\x97\xa5\"],\"answer\":0}"),
                     CR_OK);
    const struct cr_example *e = &dataset.examples[0];
    ck_assert_str_eq(decoded(e, 0, e->n_ids), LEAD "q Choices: A. \xc3\x89t\xc3\xa9. B. \xd0\x9c\xd0\xb8\xd1\x80. "
                                                   "C. 3 b. D. \xe6\x97\xa5. Answer:");
}
END_TEST

START_TEST(bos_stands_where_the_file_asks_for_it)
{
    cr_tiny_vocab_close(&vocab);
    ck_assert(cr_tiny_vocab_open(&vocab, &(struct cr_tiny_vocab_options){.add_bos = true}));
    ck_assert_int_eq(open_text(CHOICE("q")), CR_OK);
    ck_assert_int_eq(dataset.examples[0].ids[0], CR_TINY_IM_START);
    ck_assert_int_eq(dataset.examples[0].ids[1], 'S');
    ck_assert_int_eq(open_text("{\"text\":\"ab\"}"), CR_OK);
    ck_assert_str_eq(decoded(&dataset.examples[0], 0, 4), "<|im_start|>ab<|endoftext|>");
    ck_assert_str_eq(targets(&dataset.examples[0]), "ab<|endoftext|>");
    ck_assert_int_eq(open_text("{\"prompt\":\"a\",\"completion\":\"b\"}"), CR_OK);
    ck_assert_str_eq(decoded(&dataset.examples[0], 0, 4), "<|im_start|>ab<|endoftext|>");
    options.max_seq_length = 3; /* the prompt goes, bos stays */
    ck_assert_int_eq(open_text("{\"prompt\":\"a\",\"completion\":\"b\"}"), CR_OK);
    ck_assert_str_eq(decoded(&dataset.examples[0], 0, 3), "<|im_start|>b<|endoftext|>");
}
END_TEST

START_TEST(prompt_and_completion)
{
    const char *line = "{\"prompt\":\"2 A\",\"completion\":\" B.\"}";
    ck_assert_int_eq(open_text(line), CR_OK);
    const struct cr_example *e = &dataset.examples[0];
    ck_assert(!dataset.classification);
    ck_assert_uint_eq(e->n_ids, 5); /* "2" " A" " B" "." eos */
    ck_assert_str_eq(targets(e), " B.<|endoftext|>");
    ck_assert_uint_eq(e->n_targets, 3);
    ck_assert_uint_eq(dataset.n_targets, 3);
    ck_assert_uint_eq(dataset.n_tokens, 5);
    options.train_on_prompt = true;
    ck_assert_int_eq(open_text(line), CR_OK);
    ck_assert_str_eq(targets(&dataset.examples[0]), " A B.<|endoftext|>");
    ck_assert_uint_eq(dataset.examples[0].n_targets, 4);
}
END_TEST

START_TEST(parts_are_tokenised_alone)
{
    /* together "x" + " A" would hold the token " A"; the space belongs to the prompt here */
    ck_assert_int_eq(open_text("{\"prompt\":\"x \",\"completion\":\"A\"}"), CR_OK);
    ck_assert_uint_eq(dataset.examples[0].n_ids, 4);
    ck_assert_int_eq(dataset.examples[0].ids[1], ' ');
    ck_assert_int_eq(dataset.examples[0].ids[2], 'A');
}
END_TEST

START_TEST(conversations)
{
    const char *line =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"yo\"},"
        "{\"role\":\"assistant\",\"content\":\"k\"}]}";
    ck_assert_msg(open_text(line) == CR_OK, "%s", err.message);
    const struct cr_example *e = &dataset.examples[0];
    ck_assert_str_eq(decoded(e, 0, e->n_ids), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n"
                                              "<|im_start|>assistant\nk<|im_end|>\n");
    ck_assert_str_eq(targets(e), "yo<|im_end|>k<|im_end|>");
    options.system = "S";
    ck_assert_int_eq(open_text(line), CR_OK);
    ck_assert_int_eq(strncmp(decoded(&dataset.examples[0], 0, 20), "<|im_start|>system\nS<|im_end|>", 28), 0);
    options.normalize = "nfc";
    ck_assert_int_eq(open_text("{\"messages\":[{\"role\":\"user\",\"content\":\"e\xcc\x81\"},"
                               "{\"role\":\"assistant\",\"content\":\"o\xcc\x88x\"}]}"),
                     CR_OK);
    ck_assert_str_eq(targets(&dataset.examples[0]), "\xc3\xb6x<|im_end|>");
}
END_TEST

START_TEST(conversations_need_a_template)
{
    cr_tiny_vocab_close(&vocab);
    ck_assert(cr_tiny_vocab_open(&vocab, &(struct cr_tiny_vocab_options){.no_template = true}));
    const char *line =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}";
    ck_assert_int_eq(open_text(line), CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, "chatml"));
    options.chat_template = "chatml";
    ck_assert_int_eq(open_text(line), CR_OK);
}
END_TEST

START_TEST(normal_form_on_request)
{
    const char *line = "{\"text\":\"e\xcc\x81\"}";
    ck_assert_int_eq(open_text(line), CR_OK);
    ck_assert_str_eq(decoded(&dataset.examples[0], 0, 3), "e\xcc\x81");
    options.normalize = "nfc";
    ck_assert_int_eq(open_text(line), CR_OK);
    ck_assert_str_eq(decoded(&dataset.examples[0], 0, 2), "\xc3\xa9");
}
END_TEST

START_TEST(questions_lose_their_end) /* JL-20 */
{
    const char *tail = " Choices: A. No. B. Yes. Answer:";
    ck_assert_int_eq(open_text(CHOICE("")), CR_E_INPUT);
    ck_assert_int_eq(open_text(CHOICE("0123456789")), CR_OK);
    uint32_t whole = dataset.examples[0].n_ids;
    options.max_seq_length = whole;
    ck_assert_int_eq(open_text(CHOICE("0123456789")), CR_OK);
    ck_assert_uint_eq(dataset.n_truncated, 0);
    for (uint32_t cut = 1; cut <= 10; cut++) {
        char expected[256];
        options.max_seq_length = whole - cut;
        ck_assert_int_eq(open_text(CHOICE("0123456789")), CR_OK);
        const struct cr_example *e = &dataset.examples[0];
        snprintf(expected, sizeof expected, LEAD "%.*s%s", (int)(10 - cut), "0123456789", tail);
        ck_assert_str_eq(decoded(e, 0, e->n_ids), expected);
        ck_assert_uint_eq(e->n_ids, whole - cut);
        ck_assert(e->truncated);
        ck_assert_uint_eq(dataset.n_truncated, 1);
    }
    ck_assert_ptr_nonnull(strstr(logged, "1 of 1 examples cut to"));
    options.max_seq_length = whole - 11; /* not even the empty question */
    ck_assert_int_eq(open_text(CHOICE("0123456789")), CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, "no examples left"));
    options.max_seq_length = whole - 1;
    options.on_long_skip = true;
    ck_assert_int_eq(open_text(CHOICE("0123456789") CHOICE("012")), CR_OK);
    ck_assert_uint_eq(dataset.n, 1);
    ck_assert_uint_eq(dataset.n_skipped, 1);
    ck_assert_uint_eq(dataset.examples[0].line, 2);
}
END_TEST

START_TEST(cuts_respect_characters_and_blanks)
{
    ck_assert_int_eq(open_text(CHOICE("ab \xc3\xa9\xe6\x97\xa5x")), CR_OK);
    uint32_t whole = dataset.examples[0].n_ids;
    const char *kept[] = {
        "ab \xc3\xa9\xe6\x97\xa5", "ab \xc3\xa9", "ab \xc3\xa9", "ab \xc3\xa9", "ab", "ab", "ab", "a"};
    for (uint32_t cut = 1; cut <= 8; cut++) {
        char expected[256];
        options.max_seq_length = whole - cut;
        ck_assert_int_eq(open_text(CHOICE("ab \xc3\xa9\xe6\x97\xa5x")), CR_OK);
        const struct cr_example *e = &dataset.examples[0];
        snprintf(expected, sizeof expected, LEAD "%s Choices: A. No. B. Yes. Answer:", kept[cut - 1]);
        ck_assert_str_eq(decoded(e, 0, e->n_ids), expected);
    }
}
END_TEST

START_TEST(other_cuts)
{
    options.max_seq_length = 6;
    ck_assert_int_eq(open_text("{\"prompt\":\"0123456789\",\"completion\":\"abc\"}"), CR_OK);
    ck_assert_str_eq(decoded(&dataset.examples[0], 0, 6), "89abc<|endoftext|>");
    ck_assert_uint_eq(dataset.examples[0].n_targets, 4);
    ck_assert_int_eq(open_text("{\"prompt\":\"01\",\"completion\":\"abcdefgh\"}"), CR_OK);
    ck_assert_str_eq(decoded(&dataset.examples[0], 0, dataset.examples[0].n_ids), "abcdef");
    ck_assert_uint_eq(dataset.examples[0].n_targets, 5); /* nothing stands in front of the first */
    ck_assert_int_eq(open_text("{\"text\":\"0123456789\"}"), CR_OK);
    ck_assert_str_eq(decoded(&dataset.examples[0], 0, 6), "012345");
    ck_assert_uint_eq(dataset.examples[0].n_ids, 6);
    /* JL-22: no target token left */
    const char *chat =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"yo\"}]}\n";
    ck_assert_int_eq(open_text(chat), CR_E_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, "no examples left"));
    char two[512];
    snprintf(two, sizeof two, "%s{\"text\":\"ab\"}\n", chat);
    ck_assert_int_eq(open_text(two), CR_OK);
    ck_assert_uint_eq(dataset.n, 1);
    ck_assert_uint_eq(dataset.n_skipped, 1);
    ck_assert_ptr_nonnull(strstr(logged, "1 examples without a target token within 6 tokens skipped"));
}
END_TEST

START_TEST(tasks_and_duplicates)
{
    ck_assert_int_eq(
        open_text("{\"task\":\"b\",\"question\":\"q\",\"choices\":[\"x\",\"y\"],\"answer\":0}\n"
                  "{\"task\":\"a\",\"question\":\"q\",\"choices\":[\"x\",\"y\"],\"answer\":0}\n"
                  "{\"question\":\"q\",\"choices\":[\"x\",\"y\"],\"answer\":0}\n"
                  "{\"task\":\"b\",\"question\":\"q\",\"choices\":[\"x\",\"y\"],\"answer\":0,\"extra\":[1]}\n"
                  "{\"task\":\"b\",\"question\":\"q\",\"choices\":[\"x\",\"y\"],\"answer\":1}"),
        CR_OK);
    ck_assert_uint_eq(dataset.n, 5);
    ck_assert_uint_eq(dataset.n_tasks, 2);
    ck_assert_str_eq(dataset.task_names[0], "b");
    ck_assert_str_eq(dataset.task_names[1], "a");
    const int32_t tasks[5] = {0, 1, -1, 0, 0};
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(dataset.examples[i].task, tasks[i]);
    }
    ck_assert_uint_eq(dataset.n_duplicates, 1); /* same text, answer and task: lines 1 and 4 */
    ck_assert_ptr_nonnull(strstr(logged, "1 of 5 examples repeat an earlier one"));
}
END_TEST

START_TEST(many_tasks)
{
    size_t n = 0;
    char *text = malloc(2000 * 100);
    for (int i = 0; i < 2000; i++) {
        n += (size_t)sprintf(text + n, "{\"task\":\"t%d\",\"question\":\"q\",\"choices\":[\"x\",\"y\"],\"answer\":0}\n",
                             i % 1000);
    }
    ck_assert_int_eq(open_bytes(text, n), CR_OK);
    ck_assert_uint_eq(dataset.n_tasks, 1000);
    for (int i = 0; i < 2000; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", i % 1000);
        ck_assert_str_eq(dataset.task_names[dataset.examples[i].task], name);
    }
    ck_assert_uint_eq(dataset.n_duplicates, 1000);
    free(text);
}
END_TEST

START_TEST(what_a_file_may_look_like) /* OK-05, OK-06, JL-13 */
{
    const char *text = "\xef\xbb\xbf\r\n{\"text\":\"a\\u0000b\"}\r\n\n \t\n{\"text\":\"\\ud83d\\ude42\\n\\t\\\"\"}";
    ck_assert_int_eq(open_text(text), CR_OK);
    ck_assert_uint_eq(dataset.n, 2);
    ck_assert_uint_eq(dataset.examples[0].line, 2);
    ck_assert_uint_eq(dataset.examples[0].n_ids, 4);
    ck_assert_int_eq(dataset.examples[0].ids[1], 0);
    ck_assert_uint_eq(dataset.examples[1].line, 5);
    ck_assert_str_eq(decoded(&dataset.examples[1], 0, 7), "\xf0\x9f\x99\x82\n\t\"");
    struct cr_hash128 digest = cr_xxh3_128(text, strlen(text));
    ck_assert_uint_eq(dataset.digest[0], digest.high);
    ck_assert_uint_eq(dataset.digest[1], digest.low);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dataset");
    TCase *tcase = tcase_create("dataset");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 20);
    tcase_add_test(tcase, choices_follow_the_template);
    tcase_add_test(tcase, prompts_share_their_lead);
    tcase_add_test(tcase, first_letters_beyond_ascii_are_raised);
    tcase_add_test(tcase, bos_stands_where_the_file_asks_for_it);
    tcase_add_test(tcase, prompt_and_completion);
    tcase_add_test(tcase, parts_are_tokenised_alone);
    tcase_add_test(tcase, conversations);
    tcase_add_test(tcase, conversations_need_a_template);
    tcase_add_test(tcase, normal_form_on_request);
    tcase_add_test(tcase, questions_lose_their_end);
    tcase_add_test(tcase, cuts_respect_characters_and_blanks);
    tcase_add_test(tcase, other_cuts);
    tcase_add_test(tcase, tasks_and_duplicates);
    tcase_add_test(tcase, many_tasks);
    tcase_add_test(tcase, what_a_file_may_look_like);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
