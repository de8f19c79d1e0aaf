/* Both tokenizers on tiny vocabularies: order of merges, whole words, special tokens, bytes, normal form C. */
#include <check.h>

#include "tests/support/kernel_test.h"
#include "tests/support/vocab_test.h"

static struct cr_test_vocab vocab;

START_TEST(bpe_joins_lowest_rank_first)
{
    cr_vocab_bpe(&vocab, "gpt-2");
    ck_assert_int_eq(cr_vocab_merge(&vocab, "b", "c"), 256);
    ck_assert_int_eq(cr_vocab_merge(&vocab, "a", "b"), 257);
    ck_assert_int_eq(cr_vocab_merge(&vocab, "a", "a"), 258);
    ck_assert_int_eq(cr_vocab_merge(&vocab, "aa", "aa"), 259);
    ck_assert_int_eq(cr_vocab_merge(&vocab, "\xC4\xA0", "a"), 260); /* U+0120 stands for the space */
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    ck_assert_str_eq(CR_IDS(t.tok, "", 0), "");
    ck_assert_str_eq(CR_IDS(t.tok, "abc", 0), "97 256");
    ck_assert_str_eq(CR_IDS(t.tok, "ab", 0), "257");
    ck_assert_str_eq(CR_IDS(t.tok, "aaa", 0), "258 97"); /* leftmost */
    ck_assert_str_eq(CR_IDS(t.tok, "aaaaaaa", 0), "259 258 97");
    ck_assert_str_eq(CR_IDS(t.tok, "a a", 0), "97 260");
    ck_assert_str_eq(CR_IDS(t.tok, "a a", CR_TOK_BOS | CR_TOK_EOS), "0 97 260 0");
    ck_assert_str_eq(CR_IDS(t.tok, "", CR_TOK_BOS | CR_TOK_EOS), "0 0");
    cr_test_close(&t);
}
END_TEST

/* Malformed UTF-8 goes byte by byte; well-formed text around it keeps its merges. */
START_TEST(bpe_takes_any_bytes)
{
    cr_vocab_bpe(&vocab, "gpt-2");
    cr_vocab_merge(&vocab, "a", "b");
    cr_vocab_merge(&vocab, "\xC3\x83", "\xC2\xA9"); /* bytes C3 A9 */
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    ck_assert_str_eq(CR_IDS(t.tok,
                            "ab\xFF"
                            "ab",
                            0),
                     "256 255 256");
    ck_assert_str_eq(CR_IDS(t.tok, "\xC3\xA9", 0), "257");
    ck_assert_str_eq(CR_IDS(t.tok, "\xC3", 0), "195");
    ck_assert_str_eq(CR_IDS(t.tok, "\xED\xA0\x80", 0), "237 160 128"); /* a surrogate */
    ck_assert_str_eq(CR_IDS(t.tok, "\xC0\x80", 0), "192 128");         /* overlong */
    ck_assert_str_eq(CR_IDS(t.tok, "\xF4\x90\x80\x80", 0), "244 144 128 128");
    ck_assert_str_eq(CR_IDS(t.tok, "a\0b", 0), "97 0 98");
    cr_test_close(&t);
}
END_TEST

START_TEST(bpe_counts_bytes_without_token)
{
    cr_vocab_bpe(&vocab, "gpt-2");
    vocab.tokens['x'] = "gone";
    vocab.tokens[0xFE] = "gone too";
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    ck_assert_uint_eq(cr_tokenizer_n_missing_bytes(t.tok), 2);
    ck_assert_str_eq(CR_IDS(t.tok, "axxb\xFE", 0), "97 98 dropped=3");
    ck_assert_str_eq(CR_IDS(t.tok, "x", 0), " dropped=1");
    cr_test_close(&t);
}
END_TEST

START_TEST(whole_words_before_merges)
{
    const char *const rules[] = {"gpt-2", "llama-bpe"};
    for (int i = 0; i < 2; i++) {
        cr_vocab_bpe(&vocab, rules[i]);
        cr_vocab_add(&vocab, "xyz", 1, 0);
        cr_vocab_add(&vocab, "end", 3, 0);
        struct cr_test_tokenizer t;
        cr_test_open(&t, &vocab);
        ck_assert_str_eq(CR_IDS(t.tok, "xyz", 0), i == 0 ? "120 121 122" : "256");
        ck_assert_str_eq(CR_IDS(t.tok, "end", 0), "101 110 100"); /* never a control token */
        ck_assert_int_eq(cr_tokenizer_add_bos(t.tok), i == 1);
        cr_test_close(&t);
    }
}
END_TEST

START_TEST(special_tokens)
{
    cr_vocab_bpe(&vocab, "gpt-2");
    cr_vocab_add(&vocab, "<x>", 3, 0);    /* 256 */
    cr_vocab_add(&vocab, "<x><y>", 3, 0); /* 257 */
    cr_vocab_add(&vocab, "{u}", 4, 0);    /* 258, user-defined */
    cr_vocab_add(&vocab, "?unk?", 2, 0);  /* 259 */
    cr_vocab_add(&vocab, "ABCD", 3, 0);   /* 260 */
    cr_vocab_add(&vocab, "CDE", 3, 0);    /* 261 */
    cr_vocab_add(&vocab, "BCD", 3, 0);    /* 262 */
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    ck_assert_str_eq(CR_IDS(t.tok, "<x>", 0), "60 120 62");
    ck_assert_str_eq(CR_IDS(t.tok, "<x>", CR_TOK_SPECIAL), "256");
    ck_assert_str_eq(CR_IDS(t.tok, "a<x><x><y>b", CR_TOK_SPECIAL), "97 256 257 98");
    ck_assert_str_eq(CR_IDS(t.tok, "a{u}b?unk?", 0), "97 258 98 63 117 110 107 63");
    ck_assert_str_eq(CR_IDS(t.tok, "{u}?unk?", CR_TOK_SPECIAL), "258 259");
    /* Longest first wherever it stands; equal length: lower id. */
    ck_assert_str_eq(CR_IDS(t.tok, "ABCDE", CR_TOK_SPECIAL), "260 69");
    ck_assert_str_eq(CR_IDS(t.tok, "BCDE", CR_TOK_SPECIAL), "66 261");
    ck_assert_str_eq(CR_IDS(t.tok, "<x><y", CR_TOK_SPECIAL), "256 60 121");
    cr_test_close(&t);
}
END_TEST

START_TEST(normal_form_c_on_request)
{
    cr_vocab_bpe(&vocab, "qwen2");
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    ck_assert_str_eq(CR_IDS(t.tok, "e\xCC\x81", 0), "101 204 129");
    ck_assert_str_eq(CR_IDS(t.tok, "e\xCC\x81", CR_TOK_NFC), "195 169");
    ck_assert_str_eq(CR_IDS(t.tok,
                            "\xFF"
                            "e\xCC\x81\xFF",
                            CR_TOK_NFC),
                     "255 195 169 255");
    ck_assert_str_eq(CR_IDS(t.tok, "", CR_TOK_NFC), "");
    cr_test_close(&t);
}
END_TEST

#define MARK "\xE2\x96\x81" /* U+2581 */

START_TEST(spm_joins_highest_score_first)
{
    cr_vocab_spm(&vocab);
    cr_vocab_add(&vocab, MARK, 1, -10);    /* 259 */
    cr_vocab_add(&vocab, "a", 1, -11);     /* 260 */
    cr_vocab_add(&vocab, "b", 1, -12);     /* 261 */
    cr_vocab_add(&vocab, "ab", 1, -3);     /* 262 */
    cr_vocab_add(&vocab, "ba", 1, -2);     /* 263 */
    cr_vocab_add(&vocab, MARK "a", 1, -4); /* 264 */
    cr_vocab_add(&vocab, "aa", 1, -5);     /* 265 */
    cr_vocab_add(&vocab, "/s", 1, -6);     /* 266 */
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    ck_assert_int_eq(cr_tokenizer_unk(t.tok), 0);
    ck_assert(cr_tokenizer_add_bos(t.tok));
    ck_assert_str_eq(CR_IDS(t.tok, "", 0), "");
    ck_assert_str_eq(CR_IDS(t.tok, "a", 0), "264");
    ck_assert_str_eq(CR_IDS(t.tok, "ab", 0), "259 262");  /* ab (-3) before MARK a (-4) */
    ck_assert_str_eq(CR_IDS(t.tok, "aba", 0), "264 263"); /* ba (-2) first */
    ck_assert_str_eq(CR_IDS(t.tok, "baaa", 0), "259 263 265");
    ck_assert_str_eq(CR_IDS(t.tok, " a", 0), "259 264");
    ck_assert_str_eq(CR_IDS(t.tok, "</s>", 0), "259 63 266 65"); /* never a control token */
    ck_assert_str_eq(CR_IDS(t.tok, "</s>", CR_TOK_SPECIAL | CR_TOK_BOS), "1 2");
    ck_assert_str_eq(CR_IDS(t.tok, "a</s>a", CR_TOK_SPECIAL), "264 2 264"); /* a prefix behind each special token */
    ck_assert_str_eq(CR_IDS(t.tok, "\xC3\xA9\xFF", 0), "259 198 172 258");  /* byte tokens */
    ck_assert_str_eq(CR_IDS(t.tok, "<0x41>", 0), "259 63 51 123 55 52 65"); /* not the byte token of A */
    cr_test_close(&t);
    vocab.add_space_prefix = 0;
    cr_test_open(&t, &vocab);
    ck_assert_str_eq(CR_IDS(t.tok, "a a", 0), "260 264");
    ck_assert_str_eq(CR_IDS(t.tok, "a</s>a", CR_TOK_SPECIAL), "260 2 260");
    char bytes[4];
    ck_assert_uint_eq(cr_tokenizer_decode(t.tok, 264, bytes, 4), 2);
    ck_assert_mem_eq(bytes, " a", 2);
    ck_assert_uint_eq(cr_tokenizer_decode(t.tok, 3 + 0xE9, bytes, 4), 1);
    ck_assert_int_eq((unsigned char)bytes[0], 0xE9);
    cr_test_close(&t);
}
END_TEST

/* Of 256 byte tokens one is missing: the unknown token stands for every character that needs it. */
START_TEST(spm_unknown_token_for_missing_bytes)
{
    cr_vocab_spm(&vocab);
    vocab.tokens[3 + 0xA9] = "other";
    vocab.types[3 + 0xA9] = 1;
    vocab.add_space_prefix = 0;
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    ck_assert_uint_eq(cr_tokenizer_n_missing_bytes(t.tok), 1);
    ck_assert_str_eq(CR_IDS(t.tok, "\xC3\xA9\xC3\xA8", 0), "0 198 171");
    cr_test_close(&t);
}
END_TEST

/* A vocabulary without types still knows bytes and end markers from their texts. */
START_TEST(types_may_be_absent)
{
    cr_vocab_spm(&vocab);
    cr_vocab_add(&vocab, "<end_of_turn>", 1, 0);
    vocab.has_types = false;
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    ck_assert_int_eq(cr_tokenizer_unk(t.tok), 0);
    ck_assert_str_eq(CR_IDS(t.tok, "<end_of_turn>", CR_TOK_SPECIAL), "259");
    cr_test_close(&t);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tokenizer");
    TCase *tests = tcase_create("tokenizer");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, bpe_joins_lowest_rank_first);
    tcase_add_test(tests, bpe_takes_any_bytes);
    tcase_add_test(tests, bpe_counts_bytes_without_token);
    tcase_add_test(tests, whole_words_before_merges);
    tcase_add_test(tests, special_tokens);
    tcase_add_test(tests, normal_form_c_on_request);
    tcase_add_test(tests, spm_joins_highest_score_first);
    tcase_add_test(tests, spm_unknown_token_for_missing_bytes);
    tcase_add_test(tests, types_may_be_absent);
    suite_add_tcase(suite, tests);
    return cr_run_suite(suite);
}
